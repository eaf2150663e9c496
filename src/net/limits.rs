//! The resource limits of this process.

/// Raises the soft limit of open files to the hard limit (getrlimit(2)). If the system refuses this, the limit stays.
/// Opening a file beyond the limit then fails with EMFILE.
pub fn raise_open_files() {
    if let Some(mut limit) = read_open_files() {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is a readable rlimit.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    }
}

/// Makes the allocator return pieces of 128 KiB and more to the system as soon as they are freed (M_MMAP_THRESHOLD in
/// mallopt(3)). The C library would otherwise raise this threshold with each large piece that is freed. Each reload
/// frees the buffers of all workers, and the memory between them would stay: measured, 300 MB after a hundred reloads,
/// and 20 MB with this.
pub fn return_large_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only sets a parameter of the allocator; any thread may at any time.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES);
    }
}

/// The C library's initial threshold (M_MMAP_THRESHOLD in mallopt(3)).
#[cfg(target_env = "gnu")]
const LARGE_BYTES: i32 = 128 << 10;

/// Returns the current limit of open files.
pub fn open_files() -> u64 {
    read_open_files().map_or(OPEN_FILES_DEFAULT, |limit| limit.rlim_cur)
}

/// The limit that nearly every system starts with (INR_OPEN_CUR in include/uapi/linux/fs.h).
const OPEN_FILES_DEFAULT: u64 = 1_024;

/// Returns the soft and the hard limit of open files; `None` if getrlimit(2) fails.
fn read_open_files() -> Option<libc::rlimit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a writable rlimit.
    (unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0).then_some(limit)
}
