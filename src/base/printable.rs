//! Sanitised display of text that comes from peers.

use std::fmt::{self, Display, Write};

/// Maximum number of characters shown.
const MAX: usize = 200;

/// Displays text from a peer with control characters escaped, as they could fake log lines or control a terminal, and
/// limited to 200 characters.
///
/// ```
/// use gannet::base::printable::Printable;
///
/// assert_eq!(Printable("/a\nb\u{1b}[2J").to_string(), "/a\\nb\\u{1b}[2J");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Printable<T>(pub T);

impl<T: Display> Display for Printable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut filter = Filter { to: f, left: MAX };
        let shown = write!(filter, "{}", self.0);
        // At its limit, the filter stops the formatter by an error.
        if filter.left == 0 { filter.to.write_str("…") } else { shown }
    }
}

/// Whether a character affects more than itself: control characters, and marks that change the direction of text.
pub fn is_steering(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

struct Filter<'a, 'f> {
    to: &'a mut fmt::Formatter<'f>,
    left: usize,
}

impl Write for Filter<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.left == 0 {
                return Err(fmt::Error);
            }
            self.left -= 1;
            if is_steering(c) {
                write!(self.to, "{}", c.escape_default())?;
            } else {
                self.to.write_char(c)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_a_terminal_or_begins_a_line() {
        let shown = Printable("a\r\nERROR forged \u{1b}]0;x\u{7} \u{202e}é \u{85}").to_string();
        assert!(!shown.contains(is_steering), "{shown}");
        assert_eq!(shown, "a\\r\\nERROR forged \\u{1b}]0;x\\u{7} \\u{202e}é \\u{85}");
    }

    #[test]
    fn long_text_is_cut() {
        let exact = "é".repeat(MAX - 1);
        assert_eq!(Printable(&exact).to_string(), exact);
        let shown = Printable("x".repeat(100_000)).to_string();
        assert_eq!(shown, "x".repeat(MAX) + "…");
    }
}
