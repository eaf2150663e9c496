//! Takeover: another process continues with the very same sockets, sessions and counts, and nothing is lost.
//!
//! ```text
//!   server: the process that serves                client: the process that takes over
//!                                     ◁─ Hello        its version of the protocol
//!   what it serves, its sockets     Manifest ─▷       builds everything beside the server
//!                                     ◁─ Ready        nothing that is left can fail
//!   stops its workers; their state  Released ─▷       starts its workers with it
//!                                     ◁─ Started      they run
//!   closes its sockets           FinalCounts ─▷       adds what the server counted since
//! ```
//!
//! Exactly one process serves at any time, except between `Released` and `Started`, when none does and the sockets queue what
//! arrives. Until it has received `Started`, the server can resume. It does so if the client ends, is silent for too long, or
//! sends something else. `protocol/` decides all of this without sockets or clocks; `server.rs` and `switchover.rs`
//! perform its decisions in the server, `client.rs` in the client.
//!
//! # The server's handshake
//!
//! The server serves. Each failure ends the connection; the server restores the options of its sockets and continues to serve.
//!
//! | state | event | actions | next state |
//! |---|---|---|---|
//! | connected | accepted, another takeover is under way | refuse | ended |
//! | connected | accepted | receive for 10 s | awaiting `Hello` |
//! | awaiting `Hello` | `Hello` of another version, user or PID namespace | refuse, fail | ended |
//! | awaiting `Hello` | `Hello` | describe within 5 s | describing |
//! | describing | described | send `Manifest` within 10 s | sending `Manifest` |
//! | describing | not described, or too late | refuse, fail | ended |
//! | describing | this process is stopping | fail | ended |
//! | sending `Manifest` | sent | receive for 10 s | awaiting `Ready` |
//! | awaiting `Ready` | `Ready` | begin the switchover | ended |
//! | any | closed, too late, another message, no message, system error | fail | ended |
//!
//! # The server's switchover
//!
//! *T* is one second and 100 µs for each session, ten seconds at most. *Resume*: resume serving, restore the sockets' options,
//! report the failure.
//!
//! | state | event | actions | next state |
//! |---|---|---|---|
//! | waiting | begun; a reload is under way, the configuration has changed, or final counts are due | refuse | failed |
//! | waiting | begun | prepare threads | preparing |
//! | preparing | no threads | refuse | failed |
//! | preparing | threads are prepared | park the workers | parking |
//! | parking | parked: **no process serves** | send `Released` within *T* | sending the state |
//! | sending the state | sent | receive for *T* | awaiting `Started` |
//! | sending the state | closed, too late, too large, system error | resume | failed |
//! | awaiting `Started` | `Started`: **the client serves** | announce MAINPID, close sockets, send `FinalCounts` within 10 s | sending the final counts |
//! | awaiting `Started` | closed: the client has ended or will not start | resume | failed |
//! | awaiting `Started` | too late, another message, no message, system error | kill the client, wait until it has ended, for 1 s | killing |
//! | killing | it has ended | resume | failed |
//! | killing | it may still run | report that, resume | failed |
//! | sending the final counts | sent, or not | report what is lost | taken over |
//!
//! So no process serves for at most 2 *T* + 1 s, plus the time to park and to resume.
//!
//! # The client's handshake
//!
//! | state | event | action | next state |
//! |---|---|---|---|
//! | begun, pausing | begun, pause is over | connect | connecting |
//! | connecting | not connected | fail | ended |
//! | connecting | connected | send `Hello` within 10 s | sending `Hello` |
//! | sending `Hello` | sent, or not: the server may have sent a refusal instead of reading it | receive for 10 s | awaiting `Manifest` |
//! | awaiting `Manifest` | `Manifest` | prepare | ended |
//! | awaiting `Manifest` | closed, at most twice: the server is being taken over | pause for 200 ms | pausing |
//! | awaiting `Manifest` | `Refused`, too late, another message, no message, system error | fail | ended |
//!
//! # The client's switchover
//!
//! | state | event | action | next state |
//! |---|---|---|---|
//! | preparing | prepared | send `Ready` within 10 s | sending `Ready` |
//! | sending `Ready` | sent | receive for 10 s | awaiting `Released` |
//! | sending `Ready` | not sent | fail | ended |
//! | awaiting `Released` | `Released` | start the workers: **the client serves** | starting |
//! | awaiting `Released` | `Refused`, closed, too late, another message, no message, system error | fail | ended |
//! | starting | started | send `Started` within 10 s | sending `Started` |
//! | sending `Started` | sent | receive the final counts for 10 s | ended |
//! | sending `Started` | not sent | check whether the server runs | checking the server |
//! | checking the server | it has ended | serve alone | ended |
//! | checking the server | it runs, so it will serve again | exit; the connection stays open until then | ended |

pub mod client;
mod conversation;
pub mod error;
pub mod messages;
pub mod protocol;
pub mod server;
pub mod successor;
pub mod switchover;
pub mod wire;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Returns the path of the takeover socket: that of the control socket, with `.takeover` appended.
pub fn path_beside(control: &Path) -> PathBuf {
    let mut path = control.as_os_str().to_owned();
    path.push(".takeover");
    path.into()
}

/// Returns the time that is left until the deadline.
fn time_until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
