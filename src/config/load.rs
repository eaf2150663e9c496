//! Reads the text of a configuration file, and explains why a file cannot be read.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::configuration::Config;
use super::diagnostics::one_line;
use super::document;
use super::kind::Kind;
use super::limits::FILE_BYTES_MAX;
use super::problem::Problems;
use super::source::SourceFile;

/// The reason why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("{}: {why}", one_line(&file.to_string_lossy()))]
    Unreadable {
        /// The path of the file as it was given.
        file: PathBuf,
        /// A sentence with the cause and the cure.
        why: String,
    },
    /// The file was read and has errors.
    #[error("{0}")]
    Wrong(Box<Problems>),
}

impl From<Problems> for LoadError {
    fn from(problems: Problems) -> LoadError {
        LoadError::Wrong(Box::new(problems))
    }
}

impl LoadError {
    /// Returns the whole text for the user. `colours` adds escape sequences for a terminal.
    pub fn render(&self, colours: bool) -> String {
        match self {
            LoadError::Unreadable { .. } => format!("error: {self}"),
            LoadError::Wrong(problems) => problems.render(colours),
        }
    }
}

impl Config {
    /// Parses `text` as the contents of `file`. The file itself is not opened.
    ///
    /// # Errors
    ///
    /// Returns all problems of the text, if at least one of them is an error.
    pub fn parse(file: &Path, text: &str, kinds: &[Kind]) -> Result<Config, Problems> {
        document::parse(SourceFile::new(file, text), kinds)
    }

    /// Reads and parses a file.
    ///
    /// # Errors
    ///
    /// Returns [`LoadError::Unreadable`] if the file cannot be opened or read, or is a directory, a device, a named
    /// pipe or a socket. The same applies if it is larger than [`FILE_BYTES_MAX`] or not UTF-8. Returns
    /// [`LoadError::Wrong`] with all problems if its contents have errors.
    pub fn load(file: &Path, kinds: &[Kind]) -> Result<Config, LoadError> {
        let text = text(file)?;
        Ok(Config::parse(file, &text, kinds)?)
    }
}

/// Returns the text of a file.
fn text(file: &Path) -> Result<String, LoadError> {
    let unreadable = |why| LoadError::Unreadable {
        file: file.to_owned(),
        why,
    };
    let bytes = read(file).map_err(|error| unreadable(explain(&error)))?;
    if bytes.len() > FILE_BYTES_MAX {
        let limit = FILE_BYTES_MAX / (1024 * 1024);
        return Err(unreadable(format!(
            "larger than {limit} MiB; is this the right file?"
        )));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let bytes = error.as_bytes();
        let line = bytes[..good].iter().filter(|byte| **byte == b'\n').count() + 1;
        unreadable(format!(
            "not UTF-8: line {line} has the byte 0x{:02x} at offset {good}; TOML files are UTF-8",
            bytes[good]
        ))
    })
}

/// Reads at most one byte more than the limit, so that an endless file is detected and not read.
fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(file)?
        .take(FILE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens a file without waiting for another process: a named pipe may never have a writer.
fn open(file: &Path) -> io::Result<Box<dyn Read>> {
    if file == Path::new("/dev/stdin") {
        return Ok(Box::new(io::stdin()));
    }
    // With O_NONBLOCK, open(2) returns at once for every type of file. It has no effect on a regular file.
    let opened = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(file)?;
    let kind = opened.metadata()?.file_type();
    let why = match () {
        // A shell's pipe, as in <(...), has no name, and opening it never blocks (fifo_open in fs/pipe.c).
        () if kind.is_fifo() && has_no_name(&opened) => return Ok(Box::new(File::open(file)?)),
        () if kind.is_fifo() => {
            "this is a named pipe; name a file, or /dev/stdin to read from a pipe of the shell"
        }
        () if kind.is_char_device() || kind.is_block_device() => "this is a device; name a file",
        () => return Ok(Box::new(opened)),
    };
    Err(io::Error::other(why))
}

/// Returns whether a pipe has no name, by the link in /proc/self/fd (proc(5), /proc/pid/fd).
fn has_no_name(pipe: &File) -> bool {
    let name = fs::read_link(format!("/proc/self/fd/{}", pipe.as_raw_fd()));
    name.is_ok_and(|name| name.to_string_lossy().starts_with("pipe:["))
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "there is no such file".to_owned(),
        ErrorKind::IsADirectory => "this is a directory; name the file in it".to_owned(),
        ErrorKind::PermissionDenied => {
            "permission denied; `ls -l` shows which user may read it".to_owned()
        }
        ErrorKind::Other => error.to_string(),
        _ if error.raw_os_error() == Some(libc::ENXIO) => {
            "this is a socket; name a file".to_owned()
        }
        _ => format!("cannot be read: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(file: &Path) -> String {
        text(file).expect_err("must be refused").to_string()
    }

    /// Each reason why a file cannot be read is explained in words, with the file's name.
    #[test]
    fn explains_why_a_file_cannot_be_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let missing = dir.path().join("missing.toml");
        assert!(why(&missing).contains("missing.toml: there is no such file"));
        assert!(why(dir.path()).contains("this is a directory"));
        let large = dir.path().join("large.toml");
        File::create(&large)
            .expect("created")
            .set_len(FILE_BYTES_MAX as u64 + 1)
            .expect("grown");
        assert!(why(&large).contains("larger than 16 MiB"));

        let latin = dir.path().join("latin.toml");
        fs::write(&latin, b"# one\n# caf\xe9\n").expect("written");
        assert!(
            why(&latin).contains("line 2 has the byte 0xe9 at offset 11"),
            "{}",
            why(&latin)
        );
    }
}
