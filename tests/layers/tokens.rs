//! Rust source as tokens, without comments and the contents of literals.

/// A word (identifier, keyword or number), `::`, or any other single character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its text.
    pub text: String,
    /// Its line, from 1.
    pub line: usize,
}

/// Splits `source` into tokens. String and character literals become a single `"`.
pub fn tokens(source: &str) -> Vec<Token> {
    let mut scanner = Scanner { rest: source, line: 1, tokens: Vec::new() };
    while !scanner.rest.is_empty() {
        scanner.step();
    }
    scanner.tokens
}

struct Scanner<'a> {
    rest: &'a str,
    line: usize,
    tokens: Vec<Token>,
}

const fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii()
}

impl Scanner<'_> {
    fn step(&mut self) {
        let word = self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len());
        if self.rest.starts_with("//") {
            self.skip(self.rest.find('\n').unwrap_or(self.rest.len()));
        } else if self.rest.starts_with("/*") {
            self.skip(comment_len(self.rest));
        } else if let Some(len) = raw_text_len(self.rest).or_else(|| text_len(self.rest)) {
            self.token(len, Some("\""));
        } else if word > 0 {
            self.token(word, None);
        } else if self.rest.starts_with("::") {
            self.token(2, None);
        } else {
            let len = self.rest.chars().next().map_or(1, char::len_utf8);
            if self.rest.starts_with(char::is_whitespace) { self.skip(len) } else { self.token(len, None) }
        }
    }

    fn skip(&mut self, len: usize) {
        let (skipped, rest) = self.rest.split_at(len);
        self.line += skipped.matches('\n').count();
        self.rest = rest;
    }

    fn token(&mut self, len: usize, text: Option<&str>) {
        let text = text.unwrap_or(&self.rest[..len]).to_owned();
        self.tokens.push(Token { text, line: self.line });
        self.skip(len);
    }
}

/// Length of a (nested) block comment at the start.
fn comment_len(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        let tail = &rest.as_bytes()[at..];
        if tail.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if tail.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// Length of `r"…"`, `br#"…"#` and the like at the start.
fn raw_text_len(rest: &str) -> Option<usize> {
    let prefix = ["r", "br", "cr"]
        .into_iter()
        .find(|prefix| rest.strip_prefix(prefix).is_some_and(|rest| rest.trim_start_matches('#').starts_with('"')))?;
    let open = rest.find('"')?;
    let close = format!("\"{}", "#".repeat(open - prefix.len()));
    let len = rest[open + 1..].find(&close).map_or(rest.len(), |at| open + 1 + at + close.len());
    Some(len)
}

/// Length of a string or character literal at the start. Lifetimes do not count.
fn text_len(rest: &str) -> Option<usize> {
    let prefix = ["b", "c", ""]
        .into_iter()
        .find(|prefix| rest.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(['"', '\''])))?;
    let body = &rest[prefix.len() + 1..];
    let quote = rest.as_bytes()[prefix.len()];
    if quote == b'\'' {
        let mut chars = body.chars();
        if chars.next()? != '\\' && chars.next() != Some('\'') {
            return None;
        }
    }
    let mut escaped = false;
    let end = body.bytes().position(|byte| {
        let closes = byte == quote && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    });
    Some(end.map_or(rest.len(), |end| prefix.len() + 1 + end + 1))
}

#[cfg(test)]
mod tests {
    use super::tokens;

    fn texts(source: &str) -> String {
        tokens(source).into_iter().map(|token| token.text).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_and_literals_hide_words() {
        assert_eq!(texts("a /* b /* c */ d */ e // f\ng"), "a e g");
        assert_eq!(texts(r#"x("unsafe \" crate::y", b"z", c"z")"#), "x ( \" , \" , \" )");
        assert_eq!(texts(r###"r#"a " b"# br"c\" d r"e""###), "\" \" d \"");
        assert_eq!(texts("/// crate::quic\nfn f() {}"), "fn f ( ) { }");
    }

    #[test]
    fn characters_are_told_from_lifetimes() {
        assert_eq!(texts(r"'a' '\'' b'\\' '{' 'é' <'a, 'static>"), "\" \" \" \" \" < ' a , ' static >");
    }

    #[test]
    fn words_stay_whole_and_have_lines() {
        assert_eq!(texts("crate::a::{b, r#type} bar\"x\""), "crate :: a :: { b , r # type } bar \"");
        let lines: Vec<_> = tokens("a\n/*\n*/ b \"\n\" c").into_iter().map(|token| token.line).collect();
        assert_eq!(lines, [1, 3, 3, 4]);
    }
}
