//! Takeover: another process goes on with the very same sockets, sessions and accounts, and nothing is lost on the way.
//!
//! ```text
//!   the one that runs (server.rs)              the one that comes (client.rs)
//!                                    ◁─ Hello      its version
//!   what it serves, the listeners  Manifest ─▷     builds everything beside it
//!                                    ◁─ Ready      nothing can fail any more
//!   parks its workers; sessions,   Released ─▷     goes on with them
//!   lanes, accounts                  ◁─ Started    its workers run
//!   reads removed listeners out    FinalCounts ─▷     adds what was still counted
//! ```
//!
//! Until `Started` the first one can go on at any moment as if nobody had asked, and does so when the other one dies, is silent
//! for too long (ten seconds while the first one serves, about one while nobody does) or talks nonsense. It keeps the sockets open until then, and they hold what comes.

pub mod client;
pub mod messages;
pub mod server;
pub mod successor;
pub mod wire;

use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long either side waits for the other's next word.
pub const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// The same from `Released` to `Started`, when nobody reads the sockets, for as many sessions: reading and writing them down
/// was measured to take 5 µs each.
pub(crate) fn switchover_timeout(sessions: u64) -> Duration {
    (Duration::from_secs(1)
        + Duration::from_micros(100) * u32::try_from(sessions).unwrap_or(u32::MAX))
    .min(MESSAGE_TIMEOUT)
}

/// Where the next process asks for the sockets: beside the control socket.
pub fn path_beside(control: &Path) -> PathBuf {
    let mut path = control.as_os_str().to_owned();
    path.push(".takeover");
    path.into()
}
