//! Circular imports among the modules of a folder, which cannot be read, tested or moved separately.
//!
//! Within each folder, the imports between its files and subfolders are checked. A path is followed through `pub use`
//! to the declaration of the item; items declared in a folder's own `mod.rs` belong to none of its modules. Modules may
//! thus depend on their surroundings, but not on each other in a circle. Tests may import anything.

use std::collections::{BTreeMap, BTreeSet};

use super::tokens::{Token, tokens};

/// A module by its path from the root of its crate.
type Path = Vec<String>;

/// The modules of one crate.
#[derive(Default)]
pub struct Modules {
    /// Each file without its tests.
    files: BTreeMap<Path, (String, Vec<Token>)>,
    /// Files, and the folders above them.
    known: BTreeSet<Path>,
    /// What each module re-exports under a name of its own.
    given_on: BTreeMap<Path, BTreeMap<String, Path>>,
}

/// Files that belong to tests.
fn is_test(module: &[String]) -> bool {
    module.iter().any(|name| name == "tests" || name == "model" || name.ends_with("_tests"))
}

impl Modules {
    /// The modules of the crate whose root is in `root`, from files with their paths and texts.
    pub fn new(root: &str, sources: &[(String, String)]) -> Self {
        let mut this = Self::default();
        for (path, text) in sources {
            let Some(rest) = path.strip_prefix(root).and_then(|path| path.strip_suffix(".rs")) else { continue };
            let names = rest.split('/').filter(|name| !["", "mod", "lib", "main"].contains(name));
            let module: Path = names.map(str::to_owned).collect();
            if is_test(&module) {
                continue;
            }
            this.known.extend((0..=module.len()).map(|len| module[..len].to_vec()));
            this.files.insert(module, (path.clone(), without_tests(tokens(text))));
        }
        for (module, (_, tokens)) in &this.files {
            let starts = (0..tokens.len()).filter(|at| is_public_use(tokens, *at));
            let uses: Vec<_> = starts.flat_map(|at| leaves(&tokens[at + 1..])).collect();
            let given_on = this.given_on.entry(module.clone()).or_default();
            for (path, name) in uses {
                given_on.insert(name, absolute(module, &path).unwrap_or_else(|| [&module[..], &path].concat()));
            }
        }
        this
    }

    /// The module that declares the item of `path`.
    fn declaring(&self, path: &[String], steps: u32) -> Path {
        let mut at = Path::new();
        for (i, name) in path.iter().enumerate() {
            let next = [&at[..], std::slice::from_ref(name)].concat();
            if self.known.contains(&next) {
                at = next;
                continue;
            }
            let target =
                self.given_on.get(&at).and_then(|names| names.get(name)).filter(|target| target[..] != path[..]);
            return match target {
                Some(target) if steps < 8 && self.known.contains(&target[..1]) => {
                    self.declaring(&[&target[..], &path[i + 1..]].concat(), steps + 1)
                }
                _ => at,
            };
        }
        at
    }

    /// In each folder, which module imports which, with a file and line of one import.
    fn imports(&self) -> BTreeMap<Path, BTreeMap<(String, String), String>> {
        let mut folders: BTreeMap<Path, BTreeMap<(String, String), String>> = BTreeMap::new();
        for (module, (file, tokens)) in &self.files {
            for at in 0..tokens.len() {
                let starts = ["crate", "super", "self"].contains(&&*tokens[at].text);
                if !starts || at > 0 && tokens[at - 1].text == "::" {
                    continue;
                }
                for (path, _) in leaves(&tokens[at..]) {
                    let Some(path) = absolute(module, &path) else { continue };
                    let target = self.declaring(&path, 0);
                    let shared = module.iter().zip(&target).take_while(|(a, b)| a == b).count();
                    if let (Some(from), Some(to)) = (module.get(shared), target.get(shared)) {
                        let shown = format!("{file}:{}: {from} imports {}", tokens[at].line, target.join("::"));
                        let folder = folders.entry(module[..shared].to_vec()).or_default();
                        folder.entry((from.clone(), to.clone())).or_insert(shown);
                    }
                }
            }
        }
        folders
    }

    /// Number of imports between modules of one folder.
    pub fn import_count(&self) -> usize {
        self.imports().values().map(BTreeMap::len).sum()
    }

    /// Every import that is part of a circle.
    pub fn circles(&self) -> Vec<String> {
        let mut found = Vec::new();
        for imports in self.imports().values() {
            let reach = |from: &str| {
                let (mut seen, mut todo) = (BTreeSet::new(), vec![from.to_owned()]);
                while let Some(at) = todo.pop() {
                    let next = imports.keys().filter(|(a, _)| *a == at).map(|(_, b)| b.clone());
                    todo.extend(next.filter(|b| seen.insert(b.clone())));
                }
                seen
            };
            found.extend(imports.iter().filter(|((a, b), _)| reach(b).contains(a)).map(|(_, shown)| shown.clone()));
        }
        found
    }
}

/// `pub use` or `pub(…) use`, whose `use` is at `at`.
fn is_public_use(tokens: &[Token], at: usize) -> bool {
    let text = |at: usize| tokens.get(at).map_or("", |token| &token.text);
    if text(at) != "use" || at == 0 {
        return false;
    }
    text(at - 1) == "pub" || text(at - 1) == ")" && tokens[..at].iter().rev().take(8).any(|token| token.text == "pub")
}

/// The paths that begin with these tokens, one for each item of a group, each with its local name.
fn leaves(tokens: &[Token]) -> Vec<(Path, String)> {
    let mut found = Vec::new();
    group(tokens, 0, &[], &mut found);
    found
}

/// Reads one path from `at` on; returns its end.
fn group(tokens: &[Token], mut at: usize, before: &[String], found: &mut Vec<(Path, String)>) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let mut path = before.to_vec();
    loop {
        if text(at) == "{" {
            at += 1;
            while !["}", ""].contains(&text(at)) {
                at = group(tokens, at, &path, found);
                at += usize::from(text(at) == ",");
            }
            return at + 1;
        }
        let word = text(at);
        if !word.starts_with(|c: char| c.is_alphabetic() || c == '_' || c == '*') {
            return at + 1;
        }
        // `a::{self}` is `a`.
        if word != "self" || path.is_empty() {
            path.push(word.to_owned());
        }
        at += 1;
        if text(at) == "::" && (text(at + 1) == "{" || !["<", "("].contains(&text(at + 1))) {
            at += 1;
            continue;
        }
        let renamed = (text(at) == "as").then(|| text(at + 1).to_owned());
        at += 2 * usize::from(renamed.is_some());
        let name = renamed.unwrap_or_else(|| path.last().cloned().unwrap_or_default());
        found.push((path, name));
        return at;
    }
}

/// Resolves `path` in `module` from the crate's root; `None` if it is not a path within the crate.
fn absolute(module: &[String], path: &[String]) -> Option<Path> {
    let supers = path.iter().take_while(|name| *name == "super").count();
    match path.first()?.as_str() {
        "crate" => Some(path[1..].to_vec()),
        "self" => Some([module, &path[1..]].concat()),
        "super" => Some([module.get(..module.len().checked_sub(supers)?)?, &path[supers..]].concat()),
        _ => None,
    }
    .filter(|path| !path.is_empty())
}

/// The tokens outside of modules for tests.
fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        let is_cfg = (0..5).map(|i| text(at + i)).eq(["#", "[", "cfg", "(", "test"])
            || (0..7).map(|i| text(at + i)).eq(["#", "[", "cfg", "(", "all", "(", "test"]);
        let Some(end) = is_cfg.then(|| (at..tokens.len()).find(|i| text(*i) == "]")).flatten() else {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        };
        // Skip the item: up to the end of its braces, or its semicolon or comma.
        let mut depth = 0;
        at = end + 1;
        while at < tokens.len() {
            match text(at) {
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" => depth -= 1,
                _ => {}
            }
            at += 1;
            if depth <= 0 && (["}", ";"].contains(&text(at - 1)) || depth < 0 || text(at - 1) == ",") {
                break;
            }
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<_> = files.iter().map(|(path, text)| (format!("src/{path}"), (*text).to_owned())).collect();
        Modules::new("src/", &sources).circles()
    }

    #[test]
    fn a_circle_is_found_through_what_is_given_on() {
        let files = [
            ("lib.rs", "pub mod a;"),
            ("a/mod.rs", "mod x; mod y; pub(crate) use x::{One as First, Two}; pub struct Own;"),
            ("a/x.rs", "use super::{Own, y::Three};\npub struct One;"),
            ("a/y.rs", "use crate::{\n    a::{First, Own},\n};"),
        ];
        assert_eq!(circles(&files), ["src/a/x.rs:1: x imports a::y", "src/a/y.rs:1: y imports a::x"]);
        let files = [files[0], files[1], files[2], ("a/y.rs", "use crate::a::Own;")];
        assert_eq!(circles(&files), [""; 0]);
    }

    #[test]
    fn folders_count_as_one_and_paths_in_code_count() {
        let files = [
            ("a.rs", "fn f() -> crate::b::deep::X { self::g() }"),
            ("b/mod.rs", "mod deep;"),
            ("b/deep.rs", "use crate::c;"),
            ("c.rs", "impl T { fn f() { crate::a::f() } }"),
        ];
        assert_eq!(circles(&files).len(), 3);
    }

    #[test]
    fn tests_may_import_what_they_like() {
        let files = [
            ("a.rs", "use crate::b::X;\n#[cfg(test)]\nuse crate::b::Y;\nfn f() {}"),
            ("b.rs", "struct X;\n#[cfg(test)]\nmod tests { use crate::a::f; }\n#[cfg(test)] fn g() { crate::a::f() }"),
            ("b/tests.rs", "use crate::a::f;"),
        ];
        assert_eq!(circles(&files), [""; 0]);
        let files = [files[0], ("b.rs", "#[cfg(test)] mod tests;\nuse crate::a::f;")];
        assert_eq!(circles(&files).len(), 2);
    }
}
