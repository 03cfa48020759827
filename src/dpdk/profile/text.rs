//! The text of a profile: as much of [TOML 1.0](https://toml.io/en/v1.0.0) as profiles use, which is comments, keys,
//! tables, and texts, integers and booleans as values. What this accepts means the same in TOML.

use std::collections::BTreeMap;

/// What is wrong with a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// It cannot be read.
    Syntax {
        /// From 1.
        line: usize,
        /// In words.
        why: String,
    },
    /// A value that no setting has.
    Value {
        /// The whole key.
        key: String,
        /// As it stands there.
        value: String,
    },
}

/// All keys of `text`, those of a table as `table.key`, with their values as text.
pub(super) fn parse(text: &str) -> Result<BTreeMap<String, String>, Problem> {
    let mut values = BTreeMap::new();
    let mut tables: Vec<String> = Vec::new();
    for (at, text) in text.lines().enumerate() {
        let syntax = |why: String| Problem::Syntax { line: at + 1, why };
        let mut line = Line { rest: text };
        line.skip_blanks();
        if line.is_over() {
            line.end().map_err(syntax)?;
        } else if line.take('[') {
            let table = line.table().map_err(syntax)?;
            let clashes = |key: &String| is_within(key, &table) || is_within(&table, key);
            if tables.contains(&table) || values.keys().any(clashes) {
                return Err(syntax(format!("the table {table} is there twice")));
            }
            tables.push(table);
        } else {
            let mut key = line.key().map_err(syntax)?;
            let table = tables.last();
            if let Some(table) = table {
                key = format!("{table}.{key}");
            }
            line.expect('=').map_err(syntax)?;
            let value = match line.value().map_err(syntax)? {
                Ok(value) => value,
                Err(value) => return Err(Problem::Value { key, value }),
            };
            line.end().map_err(syntax)?;
            let clashes = |other: &String| is_within(&key, other) || is_within(other, &key);
            let opened = |other: &&String| !table.is_some_and(|table| is_within(table, other));
            if values.keys().any(clashes) || tables.iter().filter(opened).any(clashes) {
                return Err(syntax(format!("the key {key} is there twice")));
            }
            values.insert(key, value);
        }
    }
    Ok(values)
}

/// Whether `key` is `of`, or in the table of that name.
fn is_within(key: &str, of: &str) -> bool {
    key.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// What is left of a line.
struct Line<'a> {
    rest: &'a str,
}

impl<'a> Line<'a> {
    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }

    /// Whether nothing follows but a comment.
    fn is_over(&self) -> bool {
        self.rest.is_empty() || self.rest.starts_with('#')
    }

    fn take(&mut self, sign: char) -> bool {
        let rest = self.rest.strip_prefix(sign);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn expect(&mut self, sign: char) -> Result<(), String> {
        self.skip_blanks();
        if self.take(sign) { Ok(()) } else { Err(format!("\"{sign}\" is missing before {:?}", self.rest)) }
    }

    /// Nothing more but a comment.
    fn end(&mut self) -> Result<(), String> {
        self.skip_blanks();
        if !self.is_over() {
            return Err(format!("{:?} is too much", self.rest));
        }
        match self.rest.chars().find(|c| is_control(*c)) {
            Some(c) => Err(format!("the character {c:?} in a comment")),
            None => Ok(()),
        }
    }

    /// The rest of a table's header.
    fn table(&mut self) -> Result<String, String> {
        if self.rest.starts_with('[') {
            return Err("a list of tables; profiles have none".to_owned());
        }
        let name = self.key()?;
        self.expect(']')?;
        self.end()?;
        Ok(name)
    }

    /// A key, or several joined by dots.
    fn key(&mut self) -> Result<String, String> {
        let mut key = String::new();
        loop {
            self.skip_blanks();
            if self.take('"') {
                key.push_str(&self.basic()?);
            } else if self.take('\'') {
                key.push_str(self.literal()?);
            } else {
                let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                let part = self.until(|c| !is_bare(c));
                if part.is_empty() {
                    return Err(format!("a key is missing before {:?}", self.rest));
                }
                key.push_str(part);
            }
            self.skip_blanks();
            if !self.take('.') {
                return Ok(key);
            }
            key.push('.');
        }
    }

    /// What stands before the first character that `ends` it.
    fn until(&mut self, ends: impl Fn(char) -> bool) -> &'a str {
        let (part, rest) = self.rest.split_at(self.rest.find(ends).unwrap_or(self.rest.len()));
        self.rest = rest;
        part
    }

    /// A value as text; as an inner error, one that no setting has.
    fn value(&mut self) -> Result<Result<String, String>, String> {
        self.skip_blanks();
        if self.is_over() {
            return Err("a value is missing".to_owned());
        }
        if self.rest.starts_with("\"\"\"") || self.rest.starts_with("'''") {
            return Err("a text of several lines; profiles have none".to_owned());
        }
        if self.take('"') {
            return self.basic().map(Ok);
        }
        if self.take('\'') {
            return self.literal().map(|text| Ok(text.to_owned()));
        }
        let all = self.rest.trim_end();
        let word = self.until(|c| c == '#' || c.is_whitespace());
        if word == "true" || word == "false" {
            return Ok(Ok(word.to_owned()));
        }
        Ok(integer(word).map(|number| number.to_string()).ok_or_else(|| all.to_owned()))
    }

    /// The rest of a text in single quotes.
    fn literal(&mut self) -> Result<&'a str, String> {
        let text = self.until(|c| c == '\'' || is_control(c));
        if self.take('\'') { Ok(text) } else { Err("a text does not end".to_owned()) }
    }

    /// The rest of a text in double quotes.
    fn basic(&mut self) -> Result<String, String> {
        let mut text = String::new();
        loop {
            text.push_str(self.until(|c| c == '"' || c == '\\' || is_control(c)));
            if self.take('"') {
                return Ok(text);
            }
            if !self.take('\\') {
                return Err("a text does not end".to_owned());
            }
            text.push(self.escaped()?);
        }
    }

    /// What follows a backslash.
    fn escaped(&mut self) -> Result<char, String> {
        let kind = self.rest.chars().next().ok_or("a text does not end")?;
        self.rest = &self.rest[kind.len_utf8()..];
        let digits = match kind {
            'b' => return Ok('\u{8}'),
            't' => return Ok('\t'),
            'n' => return Ok('\n'),
            'f' => return Ok('\u{c}'),
            'r' => return Ok('\r'),
            '"' | '\\' => return Ok(kind),
            'u' => 4,
            'U' => 8,
            _ => return Err(format!("\"\\{kind}\" is no escape")),
        };
        let code = self.rest.get(..digits).filter(|code| code.bytes().all(|b| b.is_ascii_hexdigit()));
        let found = code.and_then(|code| char::from_u32(u32::from_str_radix(code, 16).ok()?));
        let found =
            found.ok_or_else(|| format!("\"\\{kind}\" takes the {digits} hexadecimal digits of a character"))?;
        self.rest = &self.rest[digits..];
        Ok(found)
    }
}

/// Characters that may stand nowhere but at the end of a line. A tab may.
fn is_control(c: char) -> bool {
    c != '\t' && (c < ' ' || c == '\u{7f}')
}

/// An integer: decimal, or after `0x`, `0o` or `0b`; `_` may stand between digits.
fn integer(word: &str) -> Option<i64> {
    let (radix, digits) = match word.get(..2) {
        Some("0x") => (16, &word[2..]),
        Some("0o") => (8, &word[2..]),
        Some("0b") => (2, &word[2..]),
        _ => (10, word),
    };
    let unsigned = if radix == 10 { digits.strip_prefix(['+', '-']).unwrap_or(digits) } else { digits };
    let good = unsigned.split('_').all(|part| !part.is_empty() && part.chars().all(|c| c.is_digit(radix)));
    let leading_zero = radix == 10 && unsigned.len() > 1 && unsigned.starts_with('0');
    if !good || leading_zero { None } else { i64::from_str_radix(&digits.replace('_', ""), radix).ok() }
}

#[cfg(test)]
mod tests;
