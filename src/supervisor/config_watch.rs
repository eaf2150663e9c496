//! Whether the configuration file has changed (`daemon.watch`). It is looked at once a second: that also sees what editors and
//! container platforms do, who put another file in its place or turn a link to another directory.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::config::source::SourceFile;

/// Time between two looks. A change is applied when it has been there for two of them: who writes a file is then done.
const STEP: Duration = Duration::from_secs(1);

/// What tells one state of a file from another: which file, when written (nanoseconds), and how long.
type FileMark = (u64, u64, i64, i64, u64);

/// A file that is watched.
#[derive(Debug)]
pub struct ConfigWatch {
    /// As it was last seen; `None` at first, and while it is missing.
    seen: Option<FileMark>,
    /// Whether it has changed since it was last compared with what runs, and may still be changing.
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

    /// When to look next.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// Looks, if it is time. Whether the file is to be read again: it says something else than what runs.
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
        // A file that is missing says nothing; what comes in its place is another one.
        let is_at_rest = mark.is_some() && std::mem::take(&mut self.is_new);
        // One that cannot be read is refused, and says why.
        is_at_rest && fs::read_to_string(running.path()).ok().as_deref() != Some(running.text())
    }
}

fn mark(file: &Path) -> Option<FileMark> {
    // Nothing else can be read twice.
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

    /// A change is told of once, when the file has been quiet for a step, however it came: written to, put in place of the
    /// other, behind a link, or gone for a while.
    #[test]
    fn changes() {
        let directory = tempfile::tempdir().expect("a directory");
        let [file, other, link] = ["a", "b", "link"].map(|name| directory.path().join(name));
        fs::write(&file, "one").expect("written");
        std::os::unix::fs::symlink(&file, &link).expect("linked");
        let mut now = Instant::now();
        let mut watch = ConfigWatch::new(now);
        let mut look = |running: &str, expected: [bool; 3]| {
            for expected in expected {
                now += STEP;
                assert_eq!(
                    watch.is_changed(&SourceFile::new(&link, running), now),
                    expected
                );
            }
        };
        look("one", [false; 3]);
        fs::write(&file, "two, longer").expect("written");
        look("one", [false, true, false]);
        fs::write(&other, "three, longer").expect("written");
        fs::rename(&other, &file).expect("renamed");
        look("two, longer", [false, true, false]);
        fs::remove_file(&file).expect("removed");
        look("three, longer", [false; 3]);
        fs::write(&file, "four").expect("written");
        look("three, longer", [false, true, false]);
        // Written again as it runs, as when it was read at somebody's wish meanwhile.
        fs::write(&file, "five").expect("written");
        look("five", [false; 3]);
    }

    /// What was written while the daemon started is a change, too.
    #[test]
    fn changed_at_the_start() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("a");
        fs::write(&file, "what was written since").expect("written");
        let now = Instant::now();
        let (mut watch, running) = (
            ConfigWatch::new(now),
            SourceFile::new(&file, "what was read"),
        );
        assert!(!watch.is_changed(&running, now + STEP));
        assert!(watch.is_changed(&running, now + 2 * STEP));
    }
}
