//! The checks that some files do not pass yet, in `not_yet.txt`: one line for each check and file. A file that is not
//! listed must pass, and a file that is listed must fail, so the list only becomes shorter.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::{read, root};

/// Set, this removes the lines that are no longer needed, instead of failing because of them.
const SHRINK: &str = "UDISPATCH_TIDY_SHRINK";

/// The problems that a check has found, each with the path of its file.
pub struct Found {
    check: &'static str,
    problems: Vec<(String, String)>,
}

impl Found {
    /// Begins a check, whose name stands in the list.
    pub fn new(check: &'static str) -> Found {
        Found {
            check,
            problems: Vec::new(),
        }
    }

    /// Adds a problem.
    pub fn add(&mut self, path: &str, problem: impl Into<String>) {
        self.problems.push((path.to_owned(), problem.into()));
    }

    /// Fails if a file has problems that is not listed, or is listed and has none.
    pub fn judge(self, promise: &str) {
        let listed = listed(self.check);
        let failing: BTreeSet<&String> = self.problems.iter().map(|(path, _)| path).collect();
        let mut wrong: Vec<String> = self
            .problems
            .iter()
            .filter(|(path, _)| !listed.contains(path))
            .map(|(path, problem)| format!("{path}{problem}"))
            .collect();
        let needless = listed.iter().filter(|path| !failing.contains(path));
        if std::env::var_os(SHRINK).is_some() {
            remove(self.check, &needless.collect());
        } else {
            wrong.extend(needless.map(|path| {
                format!("{path}: passes; remove it from not_yet.txt, or run this test once with {SHRINK}=1")
            }));
        }
        super::assert_none(&wrong, promise);
    }
}

fn list() -> PathBuf {
    root().join(file!()).with_file_name("not_yet.txt")
}

/// The files that are listed for a check.
fn listed(check: &str) -> BTreeSet<String> {
    let text = read(&list());
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines
        .filter(|(name, _)| *name == check)
        .map(|(_, path)| path.to_owned())
        .collect()
}

/// Removes files from the list of a check. Tests run side by side, so one at a time.
fn remove(check: &str, paths: &BTreeSet<&String>) {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = ALONE.lock();
    let text = read(&list());
    let is_kept = |line: &&str| {
        line.split_once(' ')
            .is_none_or(|(name, path)| name != check || !paths.contains(&path.to_owned()))
    };
    let kept: String = text
        .lines()
        .filter(is_kept)
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(list(), kept).expect("the list can be written");
}
