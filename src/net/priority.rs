//! The priority of a thread.

/// Lets every other thread of this host go first, since the calling thread's work can wait: its nice value becomes the
/// highest, 19 (setpriority(2), which on Linux is about a thread). Anybody may.
pub fn let_others_go_first() {
    // SAFETY: no pointers; 0 is the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
}
