//! One UDP port, many addresses, a handler for each.
//!
//! A datagram arrives at a destination; the destination names a route; the route owns handlers; a handler answers with a
//! verdict and leaves what is to be sent in an outbox. This is the map; `ARCHITECTURE.md` tells the story.
//!
//! - [`cli`]: the commands; [`cli::main`] is a whole daemon, with kinds of handlers of one's own if wished.
//! - [`admin`]: HTTP on the control socket.
//! - [`control`]: plans and builds what workers run, and watches over them.
//! - [`handlers`]: the kinds, one file each, and [`handlers::KINDS`], the one list of them.
//! - [`config`]: a TOML file, typed and checked; [`config::kind`] is what a kind of handler is.
//! - [`worker`]: the data plane.
//! - [`dispatch`]: the pure heart: which route, which verdict, what to send, and the ledger.
//! - [`net`]: sockets, and all unsafe code.
//! - [`datagram`]: the noun.
//! - [`number`]: conversions between integers.

// A cast that may change a number needs a limit that makes it safe, named where it stands. Tests cast small numbers at will.
#![cfg_attr(
    not(test),
    warn(
        clippy::cast_lossless,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss
    )
)]

pub mod admin;
pub mod build;
pub mod cli;
pub mod config;
pub mod datagram;
pub mod dispatch;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;
pub mod handlers;
pub mod handover;
pub mod monitor;
pub mod net;
pub mod number;
pub mod observe;
pub mod plan;
pub mod supervisor;
pub mod takeover;
pub mod worker;
