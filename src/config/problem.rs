//! Problems of a file, which are reported together: each with its place, the line, a caret and a hint.
//!
//! This module depends neither on TOML nor on routes. `render.rs` draws the problems; the code that finds a problem
//! writes its message.

use std::ops::Range;

use super::diagnostics::{Mistake, counted};
use super::limits::{PROBLEMS_KEPT_MAX, PROBLEMS_SHOWN_MAX};
use super::source::{Position, SourceFile};

/// Whether the file can be used in spite of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, but probably does not do what its author intended.
    Warning,
}

/// One problem of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whether the problem is an error or a warning.
    pub severity: Severity,
    /// A sentence without a full stop that describes the problem.
    pub message: String,
    /// The byte range of the file that is wrong.
    pub at: Range<usize>,
    /// A few words under the caret; may be empty.
    pub label: String,
    /// A suggestion of what to do.
    pub hint: Option<String>,
    /// A second place of the file, which the first one contradicts, and a few words under it.
    pub other: Option<(Range<usize>, String)>,
}

impl Problem {
    /// Returns a problem that makes the file unusable.
    pub fn error(at: Range<usize>, message: impl Into<String>) -> Problem {
        Problem {
            severity: Severity::Error,
            message: message.into(),
            at,
            label: String::new(),
            hint: None,
            other: None,
        }
    }

    /// Returns a problem that does not make the file unusable.
    pub fn warning(at: Range<usize>, message: impl Into<String>) -> Problem {
        Problem {
            severity: Severity::Warning,
            ..Problem::error(at, message)
        }
    }

    /// Returns the problem of a value of `key`.
    pub(super) fn with_value(key: &str, at: Range<usize>, mistake: Mistake) -> Problem {
        Problem {
            hint: mistake.hint,
            ..Problem::error(at, format!("`{key}`: {}", mistake.message))
        }
    }

    /// Sets a few words to show under the caret.
    pub fn label(mut self, label: impl Into<String>) -> Problem {
        self.label = label.into();
        self
    }

    /// Sets the hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Problem {
        self.hint = Some(hint.into());
        self
    }

    /// Sets the hint if there is one.
    pub fn maybe_hint(mut self, hint: Option<String>) -> Problem {
        self.hint = hint.or(self.hint);
        self
    }

    /// Sets the second place, which the first one contradicts.
    pub fn and_at(mut self, at: Range<usize>, label: impl Into<String>) -> Problem {
        self.other = Some((at, label.into()));
        self
    }
}

/// The problems of one file. The `Display` output is the whole text for the user, without colours.
#[derive(Debug, Clone)]
pub struct Problems {
    source: SourceFile,
    kept: Vec<Problem>,
    errors: usize,
    warnings: usize,
}

impl Problems {
    /// Returns an empty list of problems.
    pub fn new(source: SourceFile) -> Problems {
        Problems {
            source,
            kept: Vec::new(),
            errors: 0,
            warnings: 0,
        }
    }

    /// Adds a problem. Beyond [`PROBLEMS_KEPT_MAX`] of them, problems are only counted.
    pub fn push(&mut self, problem: Problem) {
        match problem.severity {
            Severity::Error => self.errors += 1,
            Severity::Warning => self.warnings += 1,
        }
        if self.kept.len() < PROBLEMS_KEPT_MAX {
            self.kept.push(problem);
        }
    }

    /// Returns the file that the problems are about.
    pub fn source(&self) -> &SourceFile {
        &self.source
    }

    /// Returns the number of errors, including those that were not kept.
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// Returns the number of warnings, including those that were not kept.
    pub fn warnings(&self) -> usize {
        self.warnings
    }

    /// Returns whether there is neither an error nor a warning.
    pub fn is_empty(&self) -> bool {
        self.errors + self.warnings == 0
    }

    /// Returns the problems that were kept, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        let mut sorted: Vec<&Problem> = self.kept.iter().collect();
        // At the same place, an error precedes a warning.
        sorted.sort_by_key(|problem| (problem.at.start, problem.severity == Severity::Warning));
        sorted.into_iter()
    }

    /// Returns whether a problem with exactly this byte range was kept.
    pub(super) fn has_problem_at(&self, at: &Range<usize>) -> bool {
        self.kept.iter().any(|problem| problem.at == *at)
    }

    /// Returns the line and column where a problem begins.
    pub fn position(&self, problem: &Problem) -> Position {
        self.source.position(problem.at.start)
    }

    /// Returns whether another problem would still be printed. Only then is it worthwhile to search for a hint.
    pub(super) fn has_room(&self) -> bool {
        self.kept.len() < PROBLEMS_SHOWN_MAX
    }

    /// Returns one line with the name of the file and the numbers of errors and warnings.
    pub fn summary(&self) -> String {
        let errors = (self.errors > 0).then(|| counted(self.errors, "error"));
        let warnings = (self.warnings > 0).then(|| counted(self.warnings, "warning"));
        let counts: Vec<String> = errors.into_iter().chain(warnings).collect();
        format!("{}: {}", self.source.name(), counts.join(", "))
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn problems(text: &str, list: impl IntoIterator<Item = Problem>) -> Problems {
        let mut problems = Problems::new(SourceFile::new(Path::new("u.toml"), text));
        list.into_iter().for_each(|problem| problems.push(problem));
        problems
    }

    /// All problems are reported together in the order of the file, whatever the order in which they were found.
    #[test]
    fn reports_all_in_the_order_of_the_file() {
        let found = problems(
            "one\ntwo\n",
            [
                Problem::warning(4..7, "second"),
                Problem::error(0..3, "first").hint("do this"),
            ],
        );
        let text = found.to_string();
        assert!(
            text.find("error: first") < text.find("warning: second"),
            "{text}"
        );
        assert!(text.contains("u.toml:2:1"), "{text}");
        assert!(text.contains("do this"), "{text}");
        assert!(text.ends_with("u.toml: 1 error, 1 warning"), "{text}");
    }

    /// A file with a million errors neither exhausts memory nor floods a terminal.
    #[test]
    fn a_flood_is_counted() {
        let found = problems("x", (0..5_000).map(|_| Problem::error(0..1, "bad")));
        assert_eq!(found.iter().count(), PROBLEMS_KEPT_MAX);
        let text = found.to_string();
        assert_eq!(text.matches("error: bad").count(), PROBLEMS_SHOWN_MAX);
        assert!(text.contains("... and 4950 more"), "{text}");
        assert!(text.ends_with("5000 errors"), "{text}");
    }
}
