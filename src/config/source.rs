//! The text of one configuration file, and where in it a byte lies.
//!
//! It outlives parsing, so that later rooms (binding, joining, connecting) can point at the line that
//! asked for what failed. It never reads a file: `config/mod.rs` does. What is said about it is in
//! `problem.rs`.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::diagnostics::one_line;

/// A file's name and text; cheap to clone.
#[derive(Debug, Clone)]
pub struct SourceFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    name: String,
    text: String,
    line_starts: Vec<usize>,
}

/// Something that the file says, and where.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Placed<T> {
    /// What it means.
    pub value: T,
    /// The bytes of the file that say it.
    pub at: Range<usize>,
}

/// A place as people count: both from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl SourceFile {
    /// The text that was read from `path`.
    pub fn new(path: &Path, text: &str) -> SourceFile {
        let feeds = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        // A byte order mark belongs to no line: columns count from behind it.
        let first = if text.starts_with('\u{feff}') { 3 } else { 0 };
        let line_starts = std::iter::once(first)
            .chain(feeds.map(|(index, _)| index + 1))
            .collect();
        SourceFile(Arc::new(Inner {
            path: path.to_owned(),
            name: one_line(&path.to_string_lossy()),
            text: text.to_owned(),
            line_starts,
        }))
    }

    /// Its path as it was given.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Its path, fit for a terminal.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// All of it.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// The directory that relative paths in the file start from.
    pub fn base_dir(&self) -> &Path {
        match self.0.path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        }
    }

    /// Line and column of a byte. Anything behind the end counts as the end; a byte of a line's end counts as the end of that
    /// line, which is where a problem there is drawn.
    pub fn position(&self, offset: usize) -> Position {
        let offset = self.floor(offset);
        let offset = offset.min(self.line(offset).end);
        let index = self.line_index(offset);
        let start = self.0.line_starts[index].min(offset);
        Position {
            line: index + 1,
            column: self.0.text[start..offset].chars().count() + 1,
        }
    }

    /// The bytes of the line that holds `offset`, without its line end.
    pub(super) fn line(&self, offset: usize) -> Range<usize> {
        let index = self.line_index(self.floor(offset));
        let start = self.0.line_starts[index];
        let end = match self.0.line_starts.get(index + 1) {
            Some(next) => next - 1,
            None => self.0.text.len(),
        };
        let text = self.0.text[start..end].trim_end_matches('\r');
        start..start + text.len()
    }

    /// A range that lies inside the text, on boundaries of characters, and does not run backwards.
    /// The TOML parser may point into the middle of a character.
    pub(super) fn clamp(&self, at: Range<usize>) -> Range<usize> {
        let start = self.floor(at.start);
        let mut end = at.end.clamp(start, self.0.text.len());
        while !self.0.text.is_char_boundary(end) {
            end += 1;
        }
        start..end
    }

    fn line_index(&self, offset: usize) -> usize {
        self.0
            .line_starts
            .partition_point(|start| *start <= offset)
            .saturating_sub(1)
    }

    fn floor(&self, offset: usize) -> usize {
        let text = &self.0.text;
        let mut offset = offset.min(text.len());
        while !text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, offset: usize) -> (usize, usize) {
        let position = SourceFile::new(Path::new("f"), text).position(offset);
        (position.line, position.column)
    }

    /// Columns count characters, lines end at LF, and a byte order mark takes no column.
    #[test]
    fn positions_are_as_people_count() {
        assert_eq!(at("", 0), (1, 1));
        assert_eq!(at("ab\r\ncd", 4), (2, 1));
        assert_eq!(at("äb", 2), (1, 2));
        assert_eq!(
            at("äb", 1),
            (1, 1),
            "inside a character counts as before it"
        );
        assert_eq!(at("\u{feff}ab", 4), (1, 2));
        assert_eq!(at("\u{feff}ab", 0), (1, 1));
        assert_eq!(at("a\n", 99), (2, 1));
        assert_eq!(
            at("a\r\r\nb", 2),
            (1, 2),
            "in a line end counts as before it"
        );
    }

    /// A line is what stands between two line ends, whichever system wrote the file.
    #[test]
    fn lines_have_no_line_end() {
        let source = SourceFile::new(Path::new("f"), "one\r\ntwo\n\n");
        let lines: Vec<_> = [0, 4, 5, 8, 9, 10]
            .map(|offset| &source.text()[source.line(offset)])
            .into();
        assert_eq!(lines, ["one", "one", "two", "two", "", ""]);
    }

    /// A file in the working directory has the working directory as its base.
    #[test]
    fn base_of_a_bare_name_is_the_working_directory() {
        let base = |path: &str| SourceFile::new(Path::new(path), "").base_dir().to_owned();
        assert_eq!(base("u.toml"), Path::new("."));
        assert_eq!(base("/etc/u.toml"), Path::new("/etc"));
    }
}
