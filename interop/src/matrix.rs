//! The matrix peer × case × role, as JSON and as a page.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::cases::Case;
use crate::error::{About, Result};
use crate::peer::Peer;

/// Gannet's role in a cell, or that it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Gannet downloads from the peer.
    Client,
    /// The peer downloads from Gannet.
    Server,
    /// The peer downloads from itself.
    Itself,
}

impl Role {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Itself => "itself",
        }
    }

    /// The client and the server.
    pub const fn ends(self, peer: Peer) -> (Peer, Peer) {
        match self {
            Self::Client => (Peer::Gannet, peer),
            Self::Server => (peer, Peer::Gannet),
            Self::Itself => (peer, peer),
        }
    }
}

/// What became of a cell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It passed.
    Passed,
    /// It failed.
    Failed,
    /// It failed, and the peer fails with itself as well.
    PeerFails,
    /// The peer cannot do it.
    PeerCannot,
    /// Gannet cannot do it.
    GannetCannot,
}

/// A cell of the matrix.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// The peer.
    pub peer: Peer,
    /// The name of the case.
    pub case: &'static str,
    /// Gannet's role.
    pub role: Role,
    /// What became of it.
    pub verdict: Verdict,
    /// Why it has not passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// How the peer fared with itself, where that was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub with_itself: Option<String>,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// All cells of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Matrix {
    /// The seed.
    pub seed: u64,
    /// The cells, in the order in which they were played.
    pub cells: Vec<Cell>,
}

impl Matrix {
    /// Cells with this verdict.
    pub fn count(&self, verdict: &Verdict) -> usize {
        self.cells.iter().filter(|cell| cell.verdict == *verdict).count()
    }

    /// A line with all counts.
    pub fn summary(&self) -> String {
        format!(
            "{} cells: {} passed, {} failed, {} fail with the peer alone as well, {} the peer cannot do, {} Gannet cannot do",
            self.cells.len(),
            self.count(&Verdict::Passed),
            self.count(&Verdict::Failed),
            self.count(&Verdict::PeerFails),
            self.count(&Verdict::PeerCannot),
            self.count(&Verdict::GannetCannot),
        )
    }

    /// Writes `DIR.json` and `DIR.html`.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(&self, base: &Path, cases: &[Case]) -> Result<()> {
        let json = base.with_extension("json");
        fs::write(&json, serde_json::to_string_pretty(self)? + "\n").about(|| json.display().to_string())?;
        let html = base.with_extension("html");
        fs::write(&html, self.page(cases)).about(|| html.display().to_string())
    }

    fn page(&self, cases: &[Case]) -> String {
        let columns: BTreeSet<_> = self.cells.iter().map(|cell| (cell.peer, cell.role)).collect();
        let mut out = String::from(HEAD);
        let _ = write!(out, "<p>{}. Seed {}.</p>\n<table>\n<tr><th>case</th>", escape(&self.summary()), self.seed);
        for (peer, role) in &columns {
            let what = match role {
                Role::Client => "serves",
                Role::Server => "gets",
                Role::Itself => "alone",
            };
            let _ = write!(out, "<th>{}<br>{what}</th>", peer.name());
        }
        out.push_str("</tr>\n");
        for case in cases {
            if !self.cells.iter().any(|cell| cell.case == case.name) {
                continue;
            }
            let _ = write!(out, "<tr><th title=\"{}\">{}</th>", escape(case.about), case.name);
            for (peer, role) in &columns {
                let cell = self.cells.iter().find(|c| c.case == case.name && c.peer == *peer && c.role == *role);
                out.push_str(&cell.map_or_else(|| "<td></td>".into(), Cell::html));
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</table>\n");
        for cell in self.cells.iter().filter(|cell| cell.verdict != Verdict::Passed && cell.why.is_some()) {
            let alone = cell.with_itself.as_ref().map(|how| format!(" With itself: {how}.")).unwrap_or_default();
            let text = format!("{}/{}/{}: ", cell.peer.name(), cell.case, cell.role.name());
            let why = cell.why.as_deref().unwrap_or_default();
            let _ = writeln!(out, "<p><b>{text}</b>{}.{}</p>", escape(why), escape(&alone));
        }
        out.push_str("</body></html>\n");
        out
    }
}

impl Cell {
    fn html(&self) -> String {
        let (class, text) = match self.verdict {
            Verdict::Passed => ("good", "✓"),
            Verdict::Failed => ("bad", "✗"),
            Verdict::PeerFails => ("peer", "✗ peer"),
            Verdict::PeerCannot => ("none", "–"),
            Verdict::GannetCannot => ("open", "?"),
        };
        let title = self.why.as_ref().map(|why| escape(why)).unwrap_or_default();
        format!("<td class=\"{class}\" title=\"{title}\">{text}</td>")
    }
}

const HEAD: &str = r#"<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Gannet with other implementations</title><style>
body { font: 14px sans-serif; margin: 2em; }
table { border-collapse: collapse; }
th, td { border: 1px solid #ccc; padding: 2px 8px; text-align: center; }
tr > th:first-child { text-align: left; }
.good { background: #cfc; } .bad { background: #f99; } .peer { background: #fd9; } .none { color: #999; }
.open { background: #ddf; }
</style></head><body>
<h1>Gannet with other implementations</h1>
<p>"serves": Gannet downloads from the peer. "gets": the peer downloads from Gannet. – : the peer cannot do it.
? : Gannet cannot do it. ✗ peer: the peer fails with itself as well.</p>
"#;

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_all_cells_and_reasons() {
        let cell = |case, role, verdict, why: Option<&str>| Cell {
            peer: Peer::Quinn,
            case,
            role,
            verdict,
            why: why.map(str::to_owned),
            with_itself: None,
            seconds: 1.0,
        };
        let cells = vec![
            cell("handshake", Role::Client, Verdict::Passed, None),
            cell("transfer", Role::Server, Verdict::Failed, Some("a < b & c")),
        ];
        let matrix = Matrix { seed: 7, cells };
        let page = matrix.page(&crate::cases::all());
        assert_eq!((page.matches("✓</td>").count(), page.matches("✗</td>").count()), (1, 1));
        assert_eq!(page.matches("<tr>").count(), 3);
        assert!(page.contains("quinn/transfer/server: </b>a &lt; b &amp; c."));
        assert!(matrix.summary().starts_with("2 cells: 1 passed, 1 failed"));
        let json = serde_json::to_string(&matrix).unwrap();
        assert!(json.contains(r#""peer":"quinn","case":"transfer","role":"server","verdict":"failed""#), "{json}");
    }
}
