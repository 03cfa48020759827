//! The rows of the ledger.

use std::collections::BTreeMap;

/// The kinds of rows.
const KINDS: [&str; 3] = ["test", "design", "not-applicable"];

/// How each requirement is met, by its ID.
#[derive(Debug, Default)]
pub(super) struct Ledger(BTreeMap<String, Row>);

#[derive(Debug)]
struct Row {
    kind: String,
    evidence: String,
}

impl Ledger {
    /// Reads `ID<TAB>KIND<TAB>EVIDENCE` lines; empty lines and those that begin with `#` are skipped.
    ///
    /// # Errors
    /// If a line has another form, or an ID occurs twice.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut rows = BTreeMap::new();
        for (n, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
        {
            let fields: Vec<_> = line.split('\t').collect();
            let [id, kind, evidence] = fields[..] else {
                return Err(format!("line {}: not ID, kind and evidence with a tab between them", n + 1));
            };
            if !KINDS.contains(&kind) || evidence.trim().is_empty() {
                return Err(format!("line {}: the kind is none of {KINDS:?}, or there is no evidence", n + 1));
            }
            let row = Row { kind: kind.to_owned(), evidence: evidence.to_owned() };
            if rows.insert(id.to_owned(), row).is_some() {
                return Err(format!("line {}: {id} has a row already", n + 1));
            }
        }
        Ok(Self(rows))
    }

    /// The tests that are named, each with the requirement that it shows.
    pub(super) fn tests(&self) -> impl Iterator<Item = (&str, &str)> {
        let tests = self.0.iter().filter(|(_, row)| row.kind == "test");
        tests.flat_map(|(id, row)| row.evidence.split(',').map(|name| (id.as_str(), name.trim())))
    }

    /// Whether the row `id` names the test `name`.
    pub(super) fn names(&self, id: &str, name: &str) -> bool {
        self.tests().any(|test| test == (id, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read() {
        let text = "# a comment\n\nrfc1#2/1\ttest\ta::b, c\nrfc1#2/2\tdesign\tsrc/x.rs: so, and so\n";
        let ledger = Ledger::parse(text).unwrap();
        assert_eq!(ledger.tests().collect::<Vec<_>>(), [("rfc1#2/1", "a::b"), ("rfc1#2/1", "c")]);
        assert!(ledger.names("rfc1#2/1", "c") && !ledger.names("rfc1#2/1", "b") && !ledger.names("rfc1#2/2", "so"));
    }

    #[test]
    fn bad_rows_are_named() {
        for (text, why) in [
            ("a\ttest", "line 1: not ID"),
            ("a b c", "line 1: not ID"),
            ("a\ttest\tb\nc\tproof\td", "line 2: the kind"),
            ("a\tdesign\t ", "line 1: the kind"),
            ("a\ttest\tb\n#\na\ttest\tc", "line 3: a has a row already"),
        ] {
            let error = Ledger::parse(text).unwrap_err();
            assert!(error.starts_with(why), "{error}");
        }
    }
}
