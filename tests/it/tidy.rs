//! Checks what ARCHITECTURE.md promises of the source text: which room may use which, where unsafe code is, that there
//! is one list of kinds, and that files are small and begin with a description.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use udispatch::config::Config;
use udispatch::handlers::KINDS;

use self::modules::Crate;

mod modules;

mod prose;

mod types;

/// The rooms from the top to the bottom. A room uses only those after it.
const ROOMS: [&str; 19] = [
    "fuzz",
    "main",
    "prelude",
    "cli",
    "admin",
    "supervisor",
    "takeover",
    "observe",
    "handover",
    "monitor",
    "build",
    "plan",
    "handlers",
    "config",
    "worker",
    "dispatch",
    "net",
    "datagram",
    "number",
];

/// What a room must not use, though it is below: (room, what, why).
const NEVER: &[(&str, &str, &str)] = &[
    ("dispatch", "crate::net", "it is pure"),
    ("dispatch", "std::net::UdpSocket", "it is pure"),
    ("dispatch", "std::net::TcpStream", "it is pure"),
    ("dispatch", "std::net::ToSocketAddrs", "it is pure"),
    ("dispatch", "std::os", "it is pure"),
    ("dispatch", "std::fs", "it is pure"),
    ("dispatch", "std::io", "it is pure"),
    ("dispatch", "std::env", "it is pure"),
    ("dispatch", "std::thread", "it is pure"),
    ("dispatch", "Instant", "it is pure"),
    ("dispatch", "SystemTime", "it is pure"),
    ("dispatch", "RandomState", "it is pure"),
    ("dispatch", "mio::", "it is pure"),
    ("dispatch", "socket2::", "it is pure"),
    ("dispatch", "libc::", "it is pure"),
    ("dispatch", "log::", "it is pure"),
    ("dispatch", "println!", "it is pure"),
    ("datagram", "crate::", "everything is built on it"),
    ("net", "crate::dispatch", "it knows no routes"),
    ("net", "crate::datagram", "it knows no routes"),
    ("net", "log::", "what the kernel says is returned"),
    ("config", "crate::worker", "a file is only text"),
    ("config", "crate::net", "a file is only text"),
    ("handlers", "crate::net", "a handler sees no socket"),
    ("handlers", "crate::worker", "a handler sees no socket"),
    (
        "handlers",
        "std::net::UdpSocket",
        "a handler sees no socket",
    ),
    ("handlers", "std::thread", "a handler sees no thread"),
    ("handlers", "std::time::Instant", "a handler sees no clock"),
    ("worker", "log::", "the data plane never blocks"),
    ("worker", "println!", "the data plane never blocks"),
    ("worker", "std::thread", "a worker is one thread"),
    ("worker", "std::fs", "the data plane never blocks"),
];

/// Largest number of lines of a file of src/: a few screens.
const LINES_MAX: usize = 500;

/// A file of src/.
struct Source {
    /// The path in the repository.
    path: String,
    /// The room of the file; empty for lib.rs.
    room: String,
    text: String,
}

impl Source {
    /// Whether the file is only compiled for tests: `tests.rs`, or in a folder `tests/`.
    fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    /// The numbered lines of code, without comments and without the contents of quotation marks on one line.
    fn code(&self) -> impl Iterator<Item = (usize, String)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, code(line)))
    }
}

/// The code of a text, line by line.
fn code_of(text: &str) -> String {
    text.lines().map(code).collect::<Vec<_>>().join("\n")
}

/// A line up to its comment, with empty literals. This is precise enough for code that rustfmt has formatted.
fn code(line: &str) -> String {
    let mut code = String::new();
    let mut in_text = false;
    let mut escaped = false;
    for (index, character) in line.char_indices() {
        if in_text {
            in_text = escaped || character != '"';
            escaped = !escaped && character == '\\';
            continue;
        }
        if line[index..].starts_with("//") {
            break;
        }
        in_text = character == '"' && !line[..index].ends_with('\'');
        code.push(character);
    }
    code
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn sources() -> Vec<Source> {
    let source = |path: &PathBuf| {
        let inside = path
            .strip_prefix(root().join("src"))
            .expect("a file of src/");
        let first = inside.iter().next().expect("a name").to_string_lossy();
        let room = first.trim_end_matches(".rs").trim_start_matches("lib");
        Source {
            path: format!("src/{}", inside.display()),
            room: room.to_owned(),
            text: read(path),
        }
    };
    let sources: Vec<Source> = rust_files(&root().join("src")).iter().map(source).collect();
    assert!(sources.len() > 40, "src/ was found");
    sources
}

/// The rooms that code names, in `crate::room`, `udispatch::room` and `crate::{room, room::{...}}`, each with its line.
fn rooms_named(code: &str) -> Vec<(usize, String)> {
    let mut rooms = Vec::new();
    for (start, path) in code
        .match_indices("crate::")
        .chain(code.match_indices("udispatch::"))
    {
        let rest = &code[start + path.len()..];
        let line = 1 + code[..start].matches('\n').count();
        let end = if rest.starts_with('{') {
            list_end(rest)
        } else {
            rest.len()
        };
        let mut depth = 0;
        let mut is_first = true;
        for (at, character) in rest[..end].char_indices() {
            let is_name = character.is_alphanumeric() || character == '_';
            if is_name && is_first && depth <= 1 {
                let name = rest[at..].split(|other: char| !other.is_alphanumeric() && other != '_');
                rooms.push((line, name.take(1).collect()));
            }
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            is_first = match character {
                '{' | ',' => depth == 1,
                _ => is_first && character.is_whitespace(),
            };
            if depth == 0 && !is_first {
                break;
            }
        }
    }
    rooms
}

/// The end of the list with which the text begins.
fn list_end(text: &str) -> usize {
    let mut depth = 0;
    let end = text.char_indices().find(|(_, character)| {
        depth += i32::from(*character == '{') - i32::from(*character == '}');
        depth == 0
    });
    end.map_or(text.len(), |(at, _)| at + 1)
}

fn assert_none(problems: &[String], promise: &str) {
    assert!(
        problems.is_empty(),
        "{promise}\n  {}",
        problems.join("\n  ")
    );
}

/// The parser of these tests distinguishes code from comments and literals, and finds every way of naming a room.
#[test]
fn the_reader_can_read() {
    assert_eq!(
        code(r#"let a = "unsafe // \" b"; // unsafe"#).trim_end(),
        r#"let a = "; "#.trim_end()
    );
    assert_eq!(code("/// crate::net"), "");
    assert_eq!(
        code(r#"match c { '"' => unsafe {} }"#),
        r#"match c { '"' => unsafe {} }"#
    );
    let rooms = |code| {
        rooms_named(code)
            .into_iter()
            .map(|(_, room)| room)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        rooms("use crate::net::send;\nudispatch::cli::main(x)"),
        ["net", "cli"]
    );
    assert_eq!(
        rooms(
            "use crate::{\n    cli,\n    control::{plan, build::{self}},\n    net::limits,\n};\nnext::thing"
        ),
        ["cli", "control", "net"]
    );
    assert_eq!(rooms_named("\n\ncrate::net::send"), [(3, "net".to_owned())]);
}

/// A room uses only rooms below it.
#[test]
fn rooms_use_only_what_lies_below() {
    let mut problems = Vec::new();
    let floor = |room: &str| ROOMS.iter().position(|one| *one == room);
    for source in sources().iter().filter(|source| !source.room.is_empty()) {
        let Some(own) = floor(&source.room) else {
            problems.push(format!(
                "{}: a room that the house does not have",
                source.path
            ));
            continue;
        };
        let code: Vec<String> = source.code().map(|(_, code)| code).collect();
        for (line, named) in rooms_named(&code.join("\n")) {
            match floor(&named) {
                Some(floor) if floor >= own => {}
                _ => problems.push(format!("{}:{line}: names `{named}`", source.path)),
            }
        }
    }
    assert_none(
        &problems,
        &format!("a room uses only those behind it in {ROOMS:?}:"),
    );
}

/// Files of a crate use each other in one direction: no file is used by what it uses.
#[test]
fn files_use_each_other_in_one_direction() {
    let mut problems = Vec::new();
    for (folder, entry) in [("src", "lib.rs"), ("benches/forward", "main.rs")] {
        let folder = root().join(folder);
        assert!(
            folder.join(entry).exists(),
            "{} was found",
            folder.display()
        );
        let texts: Vec<(String, String)> = rust_files(&folder)
            .iter()
            .map(|path| {
                let inside = path.strip_prefix(&folder).expect("a file of the folder");
                (inside.display().to_string(), read(path))
            })
            .collect();
        let files = texts
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()));
        for circle in Crate::read(files).circles() {
            problems.push(circle.files.join(", "));
            problems.extend(circle.uses.iter().map(|step| format!("  {step}")));
        }
    }
    assert_none(
        &problems,
        "files use each other in one direction; these are circles:",
    );
}

/// The supervisor is implemented in one file, which calls parts with what they need.
#[test]
fn the_supervisor_is_one_file() {
    let mut places = Vec::new();
    for source in sources() {
        let heads = source.code().filter(|(_, code)| {
            let mut words =
                code.split(|character: char| !character.is_alphanumeric() && character != '_');
            code.starts_with("impl") && words.any(|word| word == "Supervisor")
        });
        places.extend(heads.map(|_| source.path.clone()));
    }
    assert_eq!(places, ["src/supervisor/mod.rs"], "one `impl Supervisor`");
}

/// A room does not use what its first lines exclude.
#[test]
fn rooms_do_without_what_they_say() {
    let mut problems = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        // What the tests of a room use does not count.
        let body = source.text.split("#[cfg(test)]").next().unwrap_or_default();
        for (line, code) in body.lines().map(code).enumerate() {
            for (_, what, why) in NEVER.iter().filter(|(room, ..)| *room == source.room) {
                let is_use = code.match_indices(what).any(|(at, _)| {
                    let before = code[..at].chars().next_back();
                    !before.is_some_and(|before| before.is_alphanumeric() || before == '_')
                });
                if is_use {
                    problems.push(format!("{}:{}: `{what}`: {why}", source.path, line + 1));
                }
            }
        }
    }
    assert_none(&problems, "a room does without some things:");
}

/// Unsafe code is in one room only.
#[test]
fn unsafe_code_is_in_net_alone() {
    let mut problems = Vec::new();
    let mut inside = 0;
    for source in sources() {
        let has = |code: &str| {
            let mut words =
                code.split(|character: char| !character.is_alphanumeric() && character != '_');
            words.any(|word| word == "unsafe" || word == "unsafe_code")
        };
        let lines = source.code().filter(|(_, code)| has(code));
        for (line, _) in lines {
            if source.room == "net" {
                inside += 1;
            } else {
                problems.push(format!("{}:{line}", source.path));
            }
        }
    }
    assert!(inside > 0, "unsafe code is recognized");
    assert_none(&problems, "unsafe code, or leave for it, outside src/net:");
}

/// Each file begins with a description, and has at most a few screens.
#[test]
fn files_are_small_and_say_what_they_are() {
    let mut problems = Vec::new();
    for source in sources() {
        if !source.text.starts_with("//! ") {
            problems.push(format!("{}: begins without a `//!` comment", source.path));
        }
        let lines = source.text.lines().count();
        if lines > LINES_MAX {
            problems.push(format!(
                "{}: {lines} lines, more than {LINES_MAX}",
                source.path
            ));
        }
    }
    assert_none(&problems, "files are small and say what they are:");
}

/// No code that is built is unfinished.
#[test]
fn nothing_is_unfinished() {
    let mut problems = Vec::new();
    for source in sources() {
        for (line, code) in source.code() {
            for word in ["todo!", "unimplemented!", "dbg!"] {
                if code.contains(word) {
                    problems.push(format!("{}:{line}: {word}", source.path));
                }
            }
        }
    }
    assert_none(&problems, "unfinished:");
}

/// Every file of src/handlers that defines a kind is in the one list, once, with the name of the file or folder.
#[test]
fn every_kind_is_in_the_one_list() {
    let files = sources()
        .into_iter()
        .filter(|source| source.room == "handlers");
    let defined: BTreeSet<String> = files
        .filter(|source| source.text.contains("pub const KIND: Kind"))
        .map(|source| {
            source.path["src/handlers/".len()..]
                .trim_end_matches(".rs")
                .trim_end_matches("/mod")
                .to_owned()
        })
        .collect();
    let listed: Vec<String> = KINDS.iter().map(|kind| kind.name.to_owned()).collect();
    assert_eq!(
        defined,
        listed.iter().cloned().collect(),
        "files with a KIND, and names in KINDS"
    );
    assert_eq!(defined.len(), listed.len(), "no kind is listed twice");
}

/// The example of each kind is a complete configuration that the parser accepts without a warning, and uses that kind.
#[test]
fn examples_of_kinds_parse() {
    for kind in KINDS {
        let config = Config::parse(Path::new(kind.name), kind.example, KINDS)
            .unwrap_or_else(|problems| panic!("{}", problems.render(false)));
        assert!(
            config
                .handlers
                .iter()
                .any(|handler| handler.kind.name == kind.name),
            "`{}` shows another",
            kind.name
        );
        assert!(
            config.warnings.is_empty(),
            "{}",
            config.warnings.render(false)
        );
    }
}

/// The table of handlers in the README is what the program prints, so that it stays up to date.
#[test]
fn the_readme_has_the_table_of_handlers() {
    let output = Command::new(env!("CARGO_BIN_EXE_udispatch"))
        .args(["handlers", "--markdown"])
        .output()
        .expect("the program runs");
    let table = String::from_utf8(output.stdout).expect("text");
    assert!(table.starts_with("| handler |"), "{table}");
    let readme = read(&root().join("README.md"));
    let (_, rest) = readme
        .split_once("<!-- handlers -->")
        .expect("README.md has the line <!-- handlers -->");
    let (found, _) = rest
        .split_once("<!-- /handlers -->")
        .expect("README.md has the line <!-- /handlers -->");
    assert_eq!(
        found.trim(),
        table.trim(),
        "the table in README.md is old; `udispatch handlers --markdown` prints the new one"
    );
}

/// The commented example is a configuration that the daemon accepts.
#[test]
fn the_example_configuration_parses() {
    let path = root().join("config.example.toml");
    if let Err(problems) = Config::load(&path, KINDS) {
        panic!("{}", problems.render(false));
    }
}
