//! Whether the configuration file has changed (`daemon.watch`). It is looked at once a second: that also sees what editors and
//! container platforms do, who put another file in its place or turn a link to another directory.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Time between two looks. A change is applied when it has been there for two of them: who writes a file is then done.
const STEP: Duration = Duration::from_secs(1);

/// What tells one state of a file from another: which file, when written (nanoseconds), and how long.
type Mark = (u64, u64, i64, i64, u64);

/// A file that is watched.
#[derive(Debug)]
pub struct Watch {
    /// As it was last seen; `None` while it is missing.
    seen: Option<Mark>,
    /// Whether it has changed since it was last read, and may still be changing.
    is_new: bool,
    next: Instant,
}

impl Watch {
    /// Watches a file that has just been read.
    pub fn new(file: &Path, now: Instant) -> Watch {
        Watch { seen: mark(file), is_new: false, next: now + STEP }
    }

    /// When to look next.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// Looks, if it is time. Whether the file is to be read again.
    pub fn is_changed(&mut self, file: &Path, now: Instant) -> bool {
        if now < self.next {
            return false;
        }
        self.next = now + STEP;
        let mark = mark(file);
        if mark != self.seen {
            self.seen = mark;
            self.is_new = true;
            return false;
        }
        // A file that is missing says nothing; what comes in its place is another one.
        mark.is_some() && std::mem::take(&mut self.is_new)
    }
}

fn mark(file: &Path) -> Option<Mark> {
    let file = fs::metadata(file).ok()?;
    Some((file.dev(), file.ino(), file.mtime(), file.mtime_nsec(), file.len()))
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
        let mut watch = Watch::new(&link, now);
        let mut look = |expected: [bool; 3]| {
            for expected in expected {
                now += STEP;
                assert_eq!(watch.is_changed(&link, now), expected);
            }
        };
        look([false; 3]);
        fs::write(&file, "two, longer").expect("written");
        look([false, true, false]);
        fs::write(&other, "two, longer").expect("written");
        fs::rename(&other, &file).expect("renamed");
        look([false, true, false]);
        fs::remove_file(&file).expect("removed");
        look([false; 3]);
        fs::write(&file, "three").expect("written");
        look([false, true, false]);
    }
}
