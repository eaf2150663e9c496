//! The rules of prose that a test can check: doc comments that say something, `# Errors` sections, and lines of
//! Markdown that fit.

use std::path::Path;

use super::modules::without_tests;
use super::{assert_none, read, root, rust_files, sources};

/// Largest number of columns of a line of Markdown.
const COLUMNS_MAX: usize = 120;
/// Largest number of characters between `Its ` and the full stop in a doc comment that only repeats the item's name.
const ITS_CHARS_MAX: usize = 20;

/// The doc comments of a file: each with the number of its first line, as lines without `///`.
fn doc_comments(text: &str) -> Vec<(usize, Vec<&str>)> {
    let mut comments: Vec<(usize, Vec<&str>)> = Vec::new();
    let mut is_inside = false;
    for (index, line) in text.lines().enumerate() {
        let Some(doc) = line.trim_start().strip_prefix("///") else {
            is_inside = false;
            continue;
        };
        match comments.last_mut().filter(|_| is_inside) {
            Some((_, lines)) => lines.push(doc.trim()),
            None => comments.push((index + 1, vec![doc.trim()])),
        }
        is_inside = true;
    }
    comments
}

/// Returns why a doc comment says too little, if it does.
fn emptiness(lines: &[&str]) -> Option<&'static str> {
    if lines.iter().any(|line| line.starts_with("The same")) {
        return Some("says `The same`");
    }
    let is_short = |line: &&str| {
        let rest = line
            .strip_prefix("Its ")
            .and_then(|rest| rest.strip_suffix('.'));
        rest.is_some_and(|rest| rest.chars().count() <= ITS_CHARS_MAX)
    };
    if lines.iter().any(is_short) {
        return Some("says only `Its …`");
    }
    let words = lines
        .iter()
        .flat_map(|line| line.split_whitespace())
        .count();
    (words == 1).then_some("is one word")
}

/// Every doc comment says something that the item's name does not.
#[test]
fn doc_comments_say_something() {
    let mut problems = Vec::new();
    for folder in ["src", "tests", "benches", "examples"] {
        for path in rust_files(&root().join(folder)) {
            let text = read(&path);
            let path = path.strip_prefix(root()).expect("a file of ours");
            for (line, lines) in doc_comments(&text) {
                if let Some(why) = emptiness(&lines) {
                    problems.push(format!("{}:{line}: {why}", path.display()));
                }
            }
        }
    }
    assert_none(&problems, "doc comments say what the name does not:");
}

/// The check of doc comments finds what it should.
#[test]
fn empty_doc_comments_are_seen() {
    let text = "/// One.\n/// Two three.\nstruct A;\n    /// Its number.\n    a: u8,\n/// Word.\n\n/// The same for b.\n";
    let comments = doc_comments(text);
    let lines: Vec<usize> = comments.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [1, 4, 6, 8]);
    let why: Vec<_> = comments.iter().map(|(_, lines)| emptiness(lines)).collect();
    assert_eq!(
        why,
        [
            None,
            Some("says only `Its …`"),
            Some("is one word"),
            Some("says `The same`")
        ]
    );
    assert_eq!(
        emptiness(&["Its place in the batch, which the drops count by."]),
        None
    );
}

/// The public functions of a file that return `Result` and do not say which errors: the line and the name of each.
fn without_errors(code: &str, text: &str) -> Vec<(usize, String)> {
    let docs: Vec<&str> = text.lines().map(str::trim).collect();
    let mut found = Vec::new();
    for (start, _) in code.match_indices("pub ") {
        let head = &code[start + "pub ".len()..];
        let words = ["async ", "const ", "unsafe "];
        let head = words
            .iter()
            .fold(head, |head, word| head.strip_prefix(word).unwrap_or(head));
        let Some(head) = head.strip_prefix("fn ") else {
            continue;
        };
        if !returns_result(head) {
            continue;
        }
        let line = code[..start].matches('\n').count();
        let above = docs[..line].iter().rev();
        let mut doc = above.take_while(|line| line.starts_with("///") || line.starts_with("#["));
        if !doc.any(|line| line.starts_with("/// # Errors")) {
            let name = head.split(['(', '<']).next().unwrap_or_default();
            found.push((line + 1, name.to_owned()));
        }
    }
    found
}

/// Whether a function returns a `Result`. The code begins with its head.
fn returns_result(head: &str) -> bool {
    let mut depth = 0;
    let end = head.char_indices().find(|(_, character)| {
        depth +=
            i32::from(matches!(character, '(' | '[')) - i32::from(matches!(character, ')' | ']'));
        depth == 0 && matches!(character, '{' | ';')
    });
    let head = &head[..end.map_or(head.len(), |(at, _)| at)];
    let head = head.split("where").next().unwrap_or_default();
    let mut depth = 0;
    let mut arrow = None;
    for (at, character) in head.char_indices() {
        depth += i32::from(character == '(') - i32::from(character == ')');
        if depth == 0 && head[at..].starts_with("->") {
            arrow = arrow.or(Some(at));
        }
    }
    let Some(arrow) = arrow else { return false };
    let output = head[arrow + "->".len()..].trim();
    let path = output.split('<').next().unwrap_or_default().trim();
    path == "Result" || path.ends_with("::Result")
}

/// Every public function that can fail documents its errors.
#[test]
fn errors_are_documented() {
    let mut problems = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        let code = without_tests(&super::code_of(&source.text));
        for (line, name) in without_errors(&code, &source.text) {
            problems.push(format!(
                "{}:{line}: `{name}` has no `# Errors`",
                source.path
            ));
        }
    }
    assert_none(
        &problems,
        "public functions that return `Result` say which errors:",
    );
}

/// The check of `# Errors` finds every form of a function, and nothing else.
#[test]
fn missing_errors_are_seen() {
    let seen = |text: &str| without_errors(&super::code_of(text), text);
    assert_eq!(
        seen("\npub fn f(a: A) -> Result<B, C> {"),
        [(2, "f".to_owned())]
    );
    let several =
        "pub async fn f<T>(\n    a: impl Fn() -> u8,\n) -> io::Result<B>\nwhere\n    T: A,\n{";
    assert_eq!(seen(several), [(1, "f".to_owned())]);
    for fine in [
        "/// # Errors\n///\n/// None.\n#[inline]\npub fn f() -> Result<B, C> {",
        "pub(crate) fn f() -> Result<B, C> {",
        "pub fn f(a: impl Fn() -> Result<B, C>) -> u8 {",
        "pub fn f() -> Option<Result<B, C>> {",
    ] {
        assert_eq!(seen(fine), [], "{fine}");
    }
}

/// Lines of Markdown fit a screen. Tables that the program prints, between `<!-- name -->` and `<!-- /name -->`, are
/// exempt, because a row of a table cannot be wrapped.
#[test]
fn lines_of_markdown_fit() {
    let mut problems = Vec::new();
    for path in markdown_files(root()) {
        let text = read(&path);
        let path = path.strip_prefix(root()).expect("a file of ours");
        let mut is_generated = false;
        for (index, line) in text.lines().enumerate() {
            if let Some(name) = line
                .strip_prefix("<!-- ")
                .and_then(|rest| rest.strip_suffix(" -->"))
            {
                is_generated = !name.starts_with('/');
            }
            let columns = line.chars().count();
            if columns > COLUMNS_MAX && !is_generated {
                problems.push(format!(
                    "{}:{}: {columns} columns",
                    path.display(),
                    index + 1
                ));
            }
        }
    }
    assert_none(&problems, "lines of Markdown have at most 120 columns:");
}

/// Every Markdown file below a folder, except in hidden folders and in what is built.
fn markdown_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" && name != "node_modules" {
                files.extend(markdown_files(&path));
            }
        } else if name.ends_with(".md") {
            files.push(path);
        }
    }
    files.sort();
    files
}
