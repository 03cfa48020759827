//! Parses the text of a profile: the subset of [TOML 1.0](https://toml.io/en/v1.0.0) that profiles use, which is
//! comments, keys, tables, and strings, integers and booleans as values. Whatever it accepts has the same meaning in
//! TOML.

use std::collections::BTreeMap;

/// A problem with a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// The syntax is invalid or not supported.
    Syntax {
        /// The line, from 1.
        line: usize,
        /// The reason.
        why: String,
    },
    /// A value of a type that no setting has.
    Value {
        /// The full key.
        key: String,
        /// The value as written.
        value: String,
    },
}

/// All keys of `text`, with those of a table as `table.key`, and their values as text.
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
                return Err(syntax(format!("the table {table} occurs twice")));
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
                return Err(syntax(format!("the key {key} occurs twice")));
            }
            values.insert(key, value);
        }
    }
    Ok(values)
}

/// Returns whether `key` is `of` or in the table of that name.
fn is_within(key: &str, of: &str) -> bool {
    key.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The rest of a line.
struct Line<'a> {
    rest: &'a str,
}

impl<'a> Line<'a> {
    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }

    /// Returns whether only a comment follows.
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

    /// Checks that only a comment follows.
    fn end(&mut self) -> Result<(), String> {
        self.skip_blanks();
        if !self.is_over() {
            return Err(format!("{:?} is unexpected", self.rest));
        }
        match self.rest.chars().find(|c| is_control(*c)) {
            Some(c) => Err(format!("invalid character {c:?} in a comment")),
            None => Ok(()),
        }
    }

    /// The rest of a table's header.
    fn table(&mut self) -> Result<String, String> {
        if self.rest.starts_with('[') {
            return Err("arrays of tables are not supported in profiles".to_owned());
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

    /// Takes the text before the first character that `ends` it.
    fn until(&mut self, ends: impl Fn(char) -> bool) -> &'a str {
        let (part, rest) = self.rest.split_at(self.rest.find(ends).unwrap_or(self.rest.len()));
        self.rest = rest;
        part
    }

    /// Parses a value as text. A value of a type that no setting has is the inner error.
    fn value(&mut self) -> Result<Result<String, String>, String> {
        self.skip_blanks();
        if self.is_over() {
            return Err("a value is missing".to_owned());
        }
        if self.rest.starts_with("\"\"\"") || self.rest.starts_with("'''") {
            return Err("multi-line strings are not supported in profiles".to_owned());
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

    /// The rest of a string in single quotes.
    fn literal(&mut self) -> Result<&'a str, String> {
        let text = self.until(|c| c == '\'' || is_control(c));
        if self.take('\'') { Ok(text) } else { Err("a string does not end".to_owned()) }
    }

    /// The rest of a string in double quotes.
    fn basic(&mut self) -> Result<String, String> {
        let mut text = String::new();
        loop {
            text.push_str(self.until(|c| c == '"' || c == '\\' || is_control(c)));
            if self.take('"') {
                return Ok(text);
            }
            if !self.take('\\') {
                return Err("a string does not end".to_owned());
            }
            text.push(self.escaped()?);
        }
    }

    /// The character of an escape sequence, after the backslash.
    fn escaped(&mut self) -> Result<char, String> {
        let kind = self.rest.chars().next().ok_or("a string does not end")?;
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

/// Control characters are not allowed, except tabs and the end of a line.
fn is_control(c: char) -> bool {
    c != '\t' && (c < ' ' || c == '\u{7f}')
}

/// An integer: decimal, or with the prefix `0x`, `0o` or `0b`; digits may be separated by `_`.
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
