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

/// Memory of this size and more goes back to the system as soon as it is not used any more (M_MMAP_THRESHOLD in mallopt(3)). The
/// C library would raise this mark with each large piece that is freed; each reload frees the buffers of all workers, and
/// what is left between them would stay: measured, 300 MB after a hundred reloads, and 20 MB with this.
pub fn return_large_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only sets a parameter of the allocator; any thread may at any time.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES);
    }
}

/// The C library's own first mark (M_MMAP_THRESHOLD in mallopt(3)).
#[cfg(target_env = "gnu")]
const LARGE_BYTES: i32 = 128 << 10;

/// How many files may be open now.
pub fn open_files() -> u64 {
    read_open_files().map_or(OPEN_FILES_DEFAULT, |limit| limit.rlim_cur)
}

/// What nearly every system starts with (INR_OPEN_CUR in include/uapi/linux/fs.h).
const OPEN_FILES_DEFAULT: u64 = 1_024;

fn read_open_files() -> Option<libc::rlimit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a writable rlimit.
    (unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0).then_some(limit)
}
