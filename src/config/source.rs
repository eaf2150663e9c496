//! The text of one configuration file, and the line and column of each byte.
//!
//! The text outlives parsing, so that later steps (bind, join, connect) can point at the line that caused a
//! failure. This module never reads a file: `load.rs` does. Problems are in `problem.rs`.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::diagnostics::one_line;

/// The name and the text of a file. It is cheap to clone.
#[derive(Debug, Clone)]
pub struct SourceFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    name: String,
    text: String,
    line_starts: Vec<usize>,
}

/// A value, and its place in the file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Placed<T> {
    /// The value.
    pub value: T,
    /// The byte range of the file that holds the value.
    pub at: Range<usize>,
}

/// A line and a column, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line, counted from 1.
    pub line: usize,
    /// The column in characters, counted from 1.
    pub column: usize,
}

impl SourceFile {
    /// Wraps the text that was read from `path`.
    pub fn new(path: &Path, text: &str) -> SourceFile {
        let feeds = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        // A byte order mark belongs to no line, so columns are counted from the byte after it.
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

    /// Returns the path of the file as it was given.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Returns the path of the file, escaped for a terminal.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns the whole text of the file.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// Returns the directory that relative paths in the file are joined to.
    pub fn base_dir(&self) -> &Path {
        match self.0.path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        }
    }

    /// Returns the line and column of a byte. An offset beyond the end counts as the end. A byte of a line end counts
    /// as the end of its line, which is where a problem there is drawn.
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

    /// Returns the byte range of the line that holds `offset`, without the line end.
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

    /// Returns a byte range that lies inside the text, on boundaries of characters, with its start not after its
    /// end. The TOML parser may report an offset in the middle of a character.
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

    /// Columns count characters, lines end at LF, and a byte order mark occupies no column.
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

    /// A line excludes its line end, in the notation of every operating system.
    #[test]
    fn lines_have_no_line_end() {
        let source = SourceFile::new(Path::new("f"), "one\r\ntwo\n\n");
        let lines: Vec<_> = [0, 4, 5, 8, 9, 10]
            .map(|offset| &source.text()[source.line(offset)])
            .into();
        assert_eq!(lines, ["one", "one", "two", "two", "", ""]);
    }

    /// The base directory of a file name without a directory is the working directory.
    #[test]
    fn base_of_a_bare_name_is_the_working_directory() {
        let base = |path: &str| SourceFile::new(Path::new(path), "").base_dir().to_owned();
        assert_eq!(base("u.toml"), Path::new("."));
        assert_eq!(base("/etc/u.toml"), Path::new("/etc"));
    }
}
