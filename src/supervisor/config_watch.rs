//! Detects changes of the configuration file (`daemon.watch`). The file is checked once a second. A check also detects editors
//! and container platforms that replace the file, or point a link to another directory.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::config::source::SourceFile;

/// Time between two checks. A change is applied when two checks have seen it, since the writer has then finished.
const STEP: Duration = Duration::from_secs(1);

/// The properties that identify the state of a file: device, inode, modification time (seconds and nanoseconds), and
/// size.
type FileMark = (u64, u64, i64, i64, u64);

/// A watched file.
#[derive(Debug)]
pub struct ConfigWatch {
    /// The state at the last check; `None` at first, and while the file is missing.
    seen: Option<FileMark>,
    /// Whether the file has changed since it was last compared with the running configuration. It may still be
    /// changing.
    is_new: bool,
    next: Instant,
}

impl ConfigWatch {
    /// Watches a file, which may have changed since it was read.
    pub fn new(now: Instant) -> ConfigWatch {
        ConfigWatch {
            seen: None,
            is_new: false,
            next: now + STEP,
        }
    }

    /// Returns the time of the next check.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// Checks the file, if a check is due. Returns whether it must be read again, because its text differs from that of
    /// the running configuration.
    pub fn is_changed(&mut self, running: &SourceFile, now: Instant) -> bool {
        if now < self.next {
            return false;
        }
        self.next = now + STEP;
        let mark = mark(running.path());
        if mark != self.seen {
            self.seen = mark;
            self.is_new = true;
            return false;
        }
        // A missing file does not count as a change. A file that appears in its place does.
        let is_at_rest = mark.is_some() && std::mem::take(&mut self.is_new);
        // A file that cannot be read counts as changed; the reload is refused and reports why.
        is_at_rest && fs::read_to_string(running.path()).ok().as_deref() != Some(running.text())
    }
}

fn mark(file: &Path) -> Option<FileMark> {
    // Only a regular file can be read twice.
    let file = fs::metadata(file).ok().filter(fs::Metadata::is_file)?;
    Some((
        file.dev(),
        file.ino(),
        file.mtime(),
        file.mtime_nsec(),
        file.len(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change is reported once, when the file has been unchanged for a step. It may be written, replaced, changed
    /// behind a link, or missing for a while.
    #[test]
    fn changes() {
        let directory = tempfile::tempdir().expect("a directory");
        let [file, other, link] = ["a", "b", "link"].map(|name| directory.path().join(name));
        fs::write(&file, "one").expect("written");
        std::os::unix::fs::symlink(&file, &link).expect("linked");
        let mut now = Instant::now();
        let mut watch = ConfigWatch::new(now);
        let mut check = |running: &str, expected: [bool; 3]| {
            for expected in expected {
                now += STEP;
                assert_eq!(
                    watch.is_changed(&SourceFile::new(&link, running), now),
                    expected
                );
            }
        };
        check("one", [false; 3]);
        fs::write(&file, "two, longer").expect("written");
        check("one", [false, true, false]);
        fs::write(&other, "three, longer").expect("written");
        fs::rename(&other, &file).expect("renamed");
        check("two, longer", [false, true, false]);
        fs::remove_file(&file).expect("removed");
        check("three, longer", [false; 3]);
        fs::write(&file, "four").expect("written");
        check("three, longer", [false, true, false]);
        // The file is written as it runs, as after a reload that was requested meanwhile.
        fs::write(&file, "five").expect("written");
        check("five", [false; 3]);
    }

    /// A change while the daemon started is reported, too.
    #[test]
    fn changed_at_the_start() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("a");
        fs::write(&file, "the text that was written since").expect("written");
        let now = Instant::now();
        let (mut watch, running) = (
            ConfigWatch::new(now),
            SourceFile::new(&file, "the text that was read"),
        );
        assert!(!watch.is_changed(&running, now + STEP));
        assert!(watch.is_changed(&running, now + 2 * STEP));
    }
}
