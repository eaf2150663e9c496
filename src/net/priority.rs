//! The priority of a thread.

/// Gives the calling thread the lowest priority, since its work can wait: the highest nice value, 19 (setpriority(2),
/// which on Linux applies to a thread). No capability is needed.
pub fn let_others_go_first() {
    // SAFETY: no pointers; 0 is the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
}
