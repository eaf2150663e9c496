//! Takeover: another process goes on with the very same sockets, sessions and accounts, and nothing is lost on the way.
//!
//! ```text
//!   the one that runs (giver.rs)              the one that comes (taker.rs)
//!                                    ◁─ Hello      its version
//!   what it serves, the listeners  Manifest ─▷     builds everything beside it
//!                                    ◁─ Ready      nothing can fail any more
//!   parks its workers; sessions,   Released ─▷     goes on with them
//!   lanes, accounts                  ◁─ Started    its workers run
//!   reads removed listeners out    Farewell ─▷     adds what was still counted
//! ```
//!
//! Until `Started` the first one can go on at any moment as if nobody had asked, and does so when the other one dies, is silent
//! for too long or talks nonsense. It keeps the sockets open until then, and they hold what comes.

pub mod giver;
pub mod successor;
pub mod taker;
pub mod wire;
pub mod words;

use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long either side waits for the other's next word.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Where the next process asks for the sockets: beside the control socket.
pub fn path_beside(control: &Path) -> PathBuf {
    let mut path = control.as_os_str().to_owned();
    path.push(".takeover");
    path.into()
}
