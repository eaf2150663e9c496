//! Finds import circles: files of one crate that use each other, directly or by way of others.
//!
//! A file uses another if its code names an item of it by a path from `crate`, `super`, `self` or one of its own
//! submodules. A path is followed through `use` lines, so that a re-export leads to the file that defines the item. A
//! `mod` line and a re-export are no use of their own: a `mod.rs` that only lists its submodules is never part of a
//! circle. Every other reference between a `mod.rs` and its submodules counts in both directions. Code below
//! `#[cfg(test)]` does not count.

use std::collections::{BTreeMap, BTreeSet};

/// A module path from the crate's root, such as `["plan", "host"]`.
type Module = Vec<String>;

/// The files of one crate, by module path.
pub struct Crate {
    files: BTreeMap<Module, File>,
}

/// One file of a crate.
struct File {
    path: String,
    /// The target of each name that a `use` line brings in; `*` for each glob import.
    imports: Vec<(String, Module)>,
    /// Every path that counts as a use, with its line.
    uses: Vec<(usize, Module)>,
}

/// Files that use each other, and the uses.
#[derive(Debug, PartialEq, Eq)]
pub struct Circle {
    /// The paths of the files, in order.
    pub files: Vec<String>,
    /// One `file:line uses file` for each direct use inside the circle.
    pub uses: Vec<String>,
}

impl Crate {
    /// Parses files, given as the path below the crate's folder and the text.
    pub fn read<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Crate {
        let files = files.into_iter().map(|(path, text)| {
            let module = module_of(path);
            let file = File::read(path, text, &module);
            (module, file)
        });
        Crate {
            files: files.collect(),
        }
    }

    /// Returns every circle of files.
    pub fn circles(&self) -> Vec<Circle> {
        let edges = self.edges();
        let reached: BTreeMap<&Module, BTreeSet<&Module>> = self
            .files
            .keys()
            .map(|module| (module, reachable(module, &edges)))
            .collect();
        let mut done: BTreeSet<&Module> = BTreeSet::new();
        let mut circles = Vec::new();
        for module in self.files.keys() {
            if done.contains(module) || !reached[module].contains(module) {
                continue;
            }
            let members: BTreeSet<&Module> = reached[module]
                .iter()
                .copied()
                .filter(|other| reached[other].contains(module))
                .collect();
            circles.push(self.circle(&members, &edges));
            done.extend(members);
        }
        circles
    }

    fn circle(&self, members: &BTreeSet<&Module>, edges: &Edges<'_>) -> Circle {
        let mut uses = Vec::new();
        for from in members {
            for (to, line) in &edges[from] {
                if members.contains(to) {
                    let from = &self.files[*from].path;
                    let to = &self.files[*to].path;
                    uses.push(format!("{from}:{line} uses {to}"));
                }
            }
        }
        Circle {
            files: members
                .iter()
                .map(|member| self.files[*member].path.clone())
                .collect(),
            uses,
        }
    }

    fn edges(&self) -> Edges<'_> {
        let edges_of = |(module, file): (&'_ Module, &File)| {
            let mut edges = BTreeMap::new();
            for (line, path) in &file.uses {
                if let Some(used) = self.resolve(path, 0)
                    && used != module
                {
                    edges.entry(used).or_insert(*line);
                }
            }
            edges
        };
        self.files
            .iter()
            .map(|(module, file)| (module, edges_of((module, file))))
            .collect()
    }

    /// The module of the file that defines what a path names. `depth` counts the re-exports that were followed.
    fn resolve(&self, path: &[String], depth: usize) -> Option<&Module> {
        let known = (0..=path.len()).rev();
        let (module, file) = known
            .filter_map(|len| self.files.get_key_value(&path[..len]))
            .next()?;
        let Some(name) = path.get(module.len()).filter(|_| depth < 8) else {
            return Some(module);
        };
        let rest = &path[module.len() + 1..];
        let imported = file.imports.iter().filter(|(import, _)| import == name);
        for (_, target) in imported {
            let target: Module = target.iter().chain(rest).cloned().collect();
            if let Some(found) = self.resolve(&target, depth + 1) {
                return Some(found);
            }
        }
        Some(module)
    }
}

/// For each module, those that it uses directly, with the first line that does.
type Edges<'a> = BTreeMap<&'a Module, BTreeMap<&'a Module, usize>>;

fn reachable<'a>(from: &Module, edges: &Edges<'a>) -> BTreeSet<&'a Module> {
    let mut found = BTreeSet::new();
    let mut next: Vec<&'a Module> = edges[from].keys().copied().collect();
    while let Some(module) = next.pop() {
        if found.insert(module) {
            next.extend(edges[module].keys());
        }
    }
    found
}

/// `plan/host.rs` is `plan::host`; `mod.rs` stands for its folder, `lib.rs` and `main.rs` for the crate's root.
fn module_of(path: &str) -> Module {
    let mut module: Module = path
        .trim_end_matches(".rs")
        .split('/')
        .map(str::to_owned)
        .collect();
    let stands_for_folder = matches!(module.last().map(String::as_str), Some("mod"));
    let is_root = matches!(path, "lib.rs" | "main.rs");
    if stands_for_folder || is_root {
        module.pop();
    }
    module
}

impl File {
    fn read(path: &str, text: &str, module: &Module) -> File {
        let code = without_tests(&super::code_of(text));
        let submodules = declared(&code);
        let mut imports = Vec::new();
        let mut uses = Vec::new();
        let mut rest = 0;
        while let Some(found) = next_path(&code, rest, &submodules) {
            let tree = Tree::read(&code[found.start..]);
            rest = found.start + tree.len;
            let line = 1 + code[..found.start].matches('\n').count();
            for (names, alias) in tree.paths {
                let Some(full) = from_root(module, &names) else {
                    continue;
                };
                if found.is_use_line {
                    imports.push((alias, full.clone()));
                }
                if !found.is_reexport {
                    uses.push((line, full));
                }
            }
        }
        File {
            path: path.to_owned(),
            imports,
            uses,
        }
    }
}

/// A path in code that begins in this crate.
struct Found {
    start: usize,
    is_use_line: bool,
    is_reexport: bool,
}

/// The next path from `crate`, `super`, `self` or a submodule, at or after `from`.
fn next_path(code: &str, from: usize, submodules: &BTreeSet<String>) -> Option<Found> {
    let mut at = from;
    while let Some(offset) = code[at..].find("::") {
        let end = at + offset;
        at = end + 2;
        let start = code[..end]
            .rfind(|character: char| !is_name(character))
            .map_or(0, |before| before + 1);
        let name = &code[start..end];
        let is_start = start >= from && !code[..start].ends_with("::");
        let begins_here = matches!(name, "crate" | "super" | "self") || submodules.contains(name);
        // `pub(in crate::room)` limits the visibility of an item, and is not a use.
        if !is_start || !begins_here || code[..start].ends_with("pub(in ") {
            continue;
        }
        let statement = code[..start]
            .rfind([';', '{', '}'])
            .map_or(0, |end| end + 1);
        let before = code[statement..start].trim();
        let before = before.rsplit(']').next().unwrap_or_default().trim();
        let is_use_line =
            before == "use" || (before.starts_with("pub") && before.ends_with(" use"));
        return Some(Found {
            start,
            is_use_line,
            is_reexport: is_use_line && before != "use",
        });
    }
    None
}

/// Returns the path from the root of the crate, or `None` for a path that leaves it.
fn from_root(module: &Module, names: &[String]) -> Option<Module> {
    let mut full = module.clone();
    let mut names = names.iter();
    let mut rest = Vec::new();
    if let Some(first) = names.next() {
        match first.as_str() {
            "crate" => full.clear(),
            "self" => {}
            "super" => full.truncate(full.len().checked_sub(1)?),
            _ => rest.push(first.clone()),
        }
    }
    for name in names {
        match name.as_str() {
            "super" if rest.is_empty() => full.truncate(full.len().checked_sub(1)?),
            "self" => {}
            _ => rest.push(name.clone()),
        }
    }
    full.extend(rest);
    Some(full)
}

/// The paths of a use tree, such as `crate::{a, b::{self, C as D}}`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tree {
    /// Each path with the name by which the file knows it.
    paths: Vec<(Vec<String>, String)>,
    /// Bytes of code that the tree takes.
    len: usize,
}

impl Tree {
    fn read(code: &str) -> Tree {
        let mut tree = Tree::default();
        tree.len = tree.branch(code, 0, &[]);
        tree
    }

    /// Parses one branch that begins at `at`. Returns its end.
    fn branch(&mut self, code: &str, mut at: usize, before: &[String]) -> usize {
        let mut names = before.to_vec();
        loop {
            at += blank(&code[at..]);
            if code[at..].starts_with('{') {
                return self.list(code, at + 1, &names);
            }
            if code[at..].starts_with('*') {
                names.push("*".to_owned());
                at += 1;
                break;
            }
            let name: String = code[at..]
                .chars()
                .take_while(|other| is_name(*other))
                .collect();
            if name.is_empty() {
                break;
            }
            at += name.len();
            names.push(name);
            let gap = blank(&code[at..]);
            if !code[at + gap..].starts_with("::") {
                break;
            }
            at += gap + 2;
        }
        let last = names.iter().rev().find(|name| *name != "self");
        let mut alias = last.cloned().unwrap_or_default();
        let gap = blank(&code[at..]);
        if let Some(renamed) = code[at + gap..].strip_prefix("as ") {
            alias = renamed
                .chars()
                .take_while(|other| is_name(*other))
                .collect();
            at += gap + "as ".len() + alias.len();
        }
        self.paths.push((names, alias));
        at
    }

    /// Parses a list up to its end, which it returns.
    fn list(&mut self, code: &str, mut at: usize, before: &[String]) -> usize {
        loop {
            at += blank(&code[at..]);
            match code[at..].chars().next() {
                None => return at,
                Some('}') => return at + 1,
                Some(',') => at += 1,
                Some(_) => {
                    let end = self.branch(code, at, before);
                    // No use tree has this character, so this is not one.
                    at = end.max(at + 1);
                }
            }
        }
    }
}

fn is_name(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Number of bytes of white space at the beginning of the text.
fn blank(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

/// The names of `mod name;` lines.
fn declared(code: &str) -> BTreeSet<String> {
    let lines = code.lines().map(str::trim);
    let names = lines.filter_map(|line| {
        let name = line.strip_suffix(';')?.rsplit_once("mod ")?.1;
        name.chars().all(is_name).then(|| name.to_owned())
    });
    names.collect()
}

/// The code with every item below `#[cfg(test)]` blanked. Lines keep their numbers.
pub fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut rest = code;
    while let Some((before, after)) = rest.split_once("#[cfg(test)]") {
        kept.push_str(before);
        let end = item_end(after);
        kept.extend(after[..end].chars().filter(|character| *character == '\n'));
        rest = &after[end..];
    }
    kept + rest
}

/// The end of the item with which the code begins.
fn item_end(code: &str) -> usize {
    let mut depth = 0;
    for (at, character) in code.char_indices() {
        match character {
            ';' if depth == 0 => return at + 1,
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => continue,
        }
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let circles = Crate::read(files.iter().copied()).circles();
        circles.into_iter().map(|circle| circle.files).collect()
    }

    /// Two files that name each other are a circle, in any form of path. A third file that only uses them is not part
    /// of it.
    #[test]
    fn a_circle_of_two() {
        let lib = ("lib.rs", "pub mod room;");
        let folder = ("room/mod.rs", "pub mod a;\npub mod b;\npub mod c;");
        for (a, b) in [
            ("use crate::room::b::B;", "use crate::room::a::A;"),
            ("use super::b::B;", "use crate::{room::{a::{self, A}}};"),
            (
                "fn f() -> super::b::B {}",
                "fn g() {\n    crate::room::a::f();\n}",
            ),
        ] {
            let c = ("room/c.rs", "use super::{a, b};\nfn f() { a::f(); }");
            let files = [lib, folder, ("room/a.rs", a), ("room/b.rs", b), c];
            assert_eq!(circles(&files), [["room/a.rs", "room/b.rs"]], "{a} {b}");
        }
    }

    /// A circle of three is found as one, and each of its steps is named with its line.
    #[test]
    fn a_circle_of_three() {
        let files = [
            ("main.rs", "mod a;\nmod b;\nmod c;\nfn main() { a::run(); }"),
            ("a.rs", "// crate::c::C\nuse crate::b::B;"),
            ("b.rs", "use crate::c::C;"),
            ("c.rs", "\n\nuse crate::a::A;"),
        ];
        let circles = Crate::read(files).circles();
        assert_eq!(circles.len(), 1);
        assert_eq!(circles[0].files, ["a.rs", "b.rs", "c.rs"]);
        assert_eq!(
            circles[0].uses,
            ["a.rs:2 uses b.rs", "b.rs:1 uses c.rs", "c.rs:3 uses a.rs"]
        );
    }

    /// A `mod.rs` and its submodule are a circle if each uses the other. A list of submodules and re-exports from them
    /// are not uses.
    #[test]
    fn a_folder_and_its_files() {
        let child = ("room/a.rs", "use super::Shared;");
        let uses = "mod a;\nuse self::a::A;\npub struct Shared;";
        let calls = "mod a;\npub struct Shared;\nfn f() { a::f(); }";
        for parent in [uses, calls] {
            assert_eq!(
                circles(&[("room/mod.rs", parent), child]),
                [["room/mod.rs", "room/a.rs"]]
            );
        }
        let lists = "mod a;\npub use self::a::A;\npub struct Shared;";
        assert!(circles(&[("room/mod.rs", lists), child]).is_empty());
    }

    /// A re-export leads to the file that defines the item. It neither makes a circle with `mod.rs` nor hides one.
    #[test]
    fn reexports_are_followed() {
        let parent = (
            "room/mod.rs",
            "mod a;\nmod b;\npub use self::b::B;\npub(crate) use self::a::{A as First};",
        );
        let a = ("room/a.rs", "use super::B;");
        assert!(circles(&[parent, a, ("room/b.rs", "struct B;")]).is_empty());
        let b = ("room/b.rs", "use crate::room::First;");
        assert_eq!(circles(&[parent, a, b]), [["room/a.rs", "room/b.rs"]]);
    }

    /// Uses in tests, visibilities, and paths that leave the crate do not count.
    #[test]
    fn what_is_no_use() {
        let parent = ("room/mod.rs", "mod a;\nmod b;");
        let tests = "struct A;\n#[cfg(test)]\nmod tests {\n    use crate::room::b::B;\n}\nuse super::super::super::x;";
        let b = (
            "room/b.rs",
            "pub(in crate::room) fn f() {}\nuse super::a::A;",
        );
        assert!(circles(&[parent, ("room/a.rs", tests), b]).is_empty());
        let both = "#[cfg(test)]\nmod tests;\nuse super::b::B;";
        assert_eq!(
            circles(&[parent, ("room/a.rs", both), b]),
            [["room/a.rs", "room/b.rs"]]
        );
    }
}
