//! The process's own limits.

/// Raises the soft limit of open files to the hard one (getrlimit(2)). Where that is refused, the limit stays and opening
/// a file too many says so.
pub fn raise_open_files() {
    if let Some(mut limit) = read_open_files() {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is a readable rlimit.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    }
}

/// How many files may be open now.
pub fn open_files() -> u64 {
    read_open_files().map_or(OPEN_FILES_DEFAULT, |limit| limit.rlim_cur)
}

/// What nearly every system starts with (INR_OPEN_CUR in include/uapi/linux/fs.h).
const OPEN_FILES_DEFAULT: u64 = 1_024;

fn read_open_files() -> Option<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a writable rlimit.
    (unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0).then_some(limit)
}
