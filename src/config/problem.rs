//! What is wrong with a file: all of it at once, each with its place, the line, a caret and a hint.
//!
//! Nothing here knows TOML or routes. The drawing is in `render.rs`; the words are chosen where a
//! problem is found.

use std::ops::Range;

use super::diagnostics::{Mistake, counted};
use super::limits::{PROBLEMS_KEPT_MAX, PROBLEMS_SHOWN_MAX};
use super::source::{Position, SourceFile};

/// Whether the file can be used in spite of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, but probably does not do what was meant.
    Warning,
}

/// One thing to tell the author of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in a sentence without a full stop.
    pub message: String,
    /// The bytes of the file that are wrong.
    pub at: Range<usize>,
    /// A few words under the caret; may be empty.
    pub label: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// A second place that the first one contradicts, and a few words under it.
    pub other: Option<(Range<usize>, String)>,
}

impl Problem {
    /// Something that makes the file unusable.
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

    /// Something that is probably not meant.
    pub fn warning(at: Range<usize>, message: impl Into<String>) -> Problem {
        Problem {
            severity: Severity::Warning,
            ..Problem::error(at, message)
        }
    }

    /// What is wrong with the value of `key`.
    pub(super) fn with_value(key: &str, at: Range<usize>, mistake: Mistake) -> Problem {
        Problem {
            hint: mistake.hint,
            ..Problem::error(at, format!("`{key}`: {}", mistake.message))
        }
    }

    /// The same, with a few words under the caret.
    pub fn label(mut self, label: impl Into<String>) -> Problem {
        self.label = label.into();
        self
    }

    /// The same, with what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Problem {
        self.hint = Some(hint.into());
        self
    }

    /// The same, with what to do about it if that is known.
    pub fn maybe_hint(mut self, hint: Option<String>) -> Problem {
        self.hint = hint.or(self.hint);
        self
    }

    /// The same, with the second place that it contradicts.
    pub fn and_at(mut self, at: Range<usize>, label: impl Into<String>) -> Problem {
        self.other = Some((at, label.into()));
        self
    }
}

/// The problems of one file. Displayed, it is the whole text for the user, without colours.
#[derive(Debug, Clone)]
pub struct Problems {
    source: SourceFile,
    kept: Vec<Problem>,
    errors: usize,
    warnings: usize,
}

impl Problems {
    /// None yet.
    pub fn new(source: SourceFile) -> Problems {
        Problems {
            source,
            kept: Vec::new(),
            errors: 0,
            warnings: 0,
        }
    }

    /// Adds one. Beyond a thousand they are counted only.
    pub fn push(&mut self, problem: Problem) {
        match problem.severity {
            Severity::Error => self.errors += 1,
            Severity::Warning => self.warnings += 1,
        }
        if self.kept.len() < PROBLEMS_KEPT_MAX {
            self.kept.push(problem);
        }
    }

    /// The file that they are about.
    pub fn source(&self) -> &SourceFile {
        &self.source
    }

    /// How many errors there are.
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// How many warnings there are.
    pub fn warnings(&self) -> usize {
        self.warnings
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.errors + self.warnings == 0
    }

    /// Those that were kept, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        let mut sorted: Vec<&Problem> = self.kept.iter().collect();
        // An error goes first where a file has more of both than is kept or shown.
        sorted.sort_by_key(|problem| (problem.at.start, problem.severity == Severity::Warning));
        sorted.into_iter()
    }

    /// Whether something is wrong with exactly this.
    pub(super) fn tell_of(&self, at: &Range<usize>) -> bool {
        self.kept.iter().any(|problem| problem.at == *at)
    }

    /// Line and column of a problem.
    pub fn position(&self, problem: &Problem) -> Position {
        self.source.position(problem.at.start)
    }

    /// Whether another problem would still be shown; searching for hints is worth while only then.
    pub(super) fn has_room(&self) -> bool {
        self.kept.len() < PROBLEMS_SHOWN_MAX
    }

    /// One line: the file, and how many of each there are.
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

    /// Everything is told at once, in the order of the file, whatever the order of finding.
    #[test]
    fn tells_all_in_the_order_of_the_file() {
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

    /// A file with a million errors costs neither memory nor a flooded terminal.
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
