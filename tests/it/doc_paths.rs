//! The documents name files of the repository: each file that they name exists.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Endings of files that the repository has. Files of users (`udispatch.toml`) have some of them, too, so only a path
/// with a folder counts, or the name of a source file.
const ENDINGS: [&str; 8] = ["rs", "toml", "md", "sh", "json", "service", "txt", "js"];
/// Folders in which a path in a document may begin, beside the folder of the document: `net/errno.rs` is in src/.
const BEGINNINGS: [&str; 5] = ["", "src", "tests", "benches", "examples"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder, and the folder's own files.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if path.is_dir() && name != "target" && name != ".git" {
            files(&path, found);
        } else if path.is_file() {
            found.push(path);
        }
    }
}

/// The texts in backticks and the targets of links, each with its line.
fn names(text: &str) -> Vec<(usize, &str)> {
    let mut names = Vec::new();
    for (index, line) in text.lines().enumerate() {
        names.extend(
            line.split('`')
                .skip(1)
                .step_by(2)
                .map(|name| (index + 1, name)),
        );
        let links = line
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        let links = links.filter(|link| !link.contains("://") && !link.starts_with('#'));
        names.extend(links.map(|link| (index + 1, link.split('#').next().unwrap_or(link))));
    }
    names
}

/// Whether a name stands for a file or a folder of the repository.
fn is_path(name: &str, folders: &HashSet<String>) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte);
    // The results of a build are not in the repository.
    if name.starts_with('/') || name.starts_with("target/") || !name.bytes().all(is_plain) {
        return false;
    }
    // `fuzz/regressions/TARGET/` stands for several.
    let is_placeholder =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_uppercase());
    if name.split('/').any(is_placeholder) {
        return false;
    }
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    match name.trim_end_matches('/').split_once('/') {
        Some((first, _)) => ENDINGS.contains(&ending) || folders.contains(first),
        None => ending == "rs" || (name.ends_with('/') && !name.starts_with('.')),
    }
}

/// Every file and every folder that a document names exists, from the document's folder, the root, src/ or the like.
#[test]
fn paths_in_documents_exist() {
    let mut all = Vec::new();
    files(root(), &mut all);
    let sources: HashSet<_> = all.iter().filter_map(|file| file.file_name()).collect();
    let folders: HashSet<String> = BEGINNINGS
        .iter()
        .flat_map(|beginning| fs::read_dir(root().join(beginning)).expect("a folder"))
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let documents: Vec<&PathBuf> = all
        .iter()
        .filter(|file| file.extension().is_some_and(|ending| ending == "md"))
        .collect();
    assert!(documents.len() >= 10, "the documents are found");
    let mut checked = 0;
    let mut missing = Vec::new();
    for document in documents {
        let folder = document.parent().expect("a folder");
        let text = fs::read_to_string(document).expect("a document");
        for (line, name) in names(&text)
            .into_iter()
            .filter(|(_, name)| is_path(name, &folders))
        {
            checked += 1;
            let is_source = !name.contains('/') && sources.contains(Path::new(name).as_os_str());
            let begins = BEGINNINGS.map(|beginning| root().join(beginning));
            let is_there = begins.iter().any(|begin| begin.join(name).exists());
            if !is_source && !is_there && !folder.join(name).exists() {
                let document = document.strip_prefix(root()).expect("in the repository");
                missing.push(format!("{}:{line}: {name}", document.display()));
            }
        }
    }
    assert!(checked >= 50, "only {checked} paths are found");
    assert!(
        missing.is_empty(),
        "these do not exist:\n{}",
        missing.join("\n")
    );
}
