//! udispatch as a library: build a daemon with your own kinds of handlers beside the built-in ones.
//!
//! A datagram arrives at a destination. The destination names a route, and the route owns handlers. A handler returns
//! verdicts, and puts the datagrams to send into an outbox. This program is a whole daemon, with one more kind:
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use udispatch::prelude::*;
//!
//! /// Replies to each datagram with its bytes in reverse order.
//! #[derive(Debug, Clone, Default)]
//! struct Reverse {
//!     /// Kept between datagrams, so that the data path allocates nothing.
//!     reply: Vec<u8>,
//! }
//!
//! const REVERSE: Kind = Kind {
//!     name: "reverse",
//!     summary: "replies with the bytes in reverse order",
//!     settings: &[],
//!     example: "[[route]]\ndestination = \"127.0.0.1:1234\"\nhandler = \"reverse\"\n",
//!     read: |_| Some(Box::new(Reverse::default())),
//! };
//!
//! impl HandlerSpec for Reverse {
//!     /// A reply is sent to the source, from the destination, and with a TTL that ends loops.
//!     fn needs(&self) -> Needs {
//!         Needs { source: true, destination: true, ttl: true, ..Needs::NOTHING }
//!     }
//!
//!     fn describe(&self) -> String {
//!         "replies with the bytes in reverse order".to_owned()
//!     }
//!
//!     fn build(&self, _: &mut dyn BuildContext) -> Result<Box<dyn Handler>, BuildError> {
//!         Ok(Box::new(self.clone()))
//!     }
//! }
//!
//! impl Handler for Reverse {
//!     fn on_batch(&mut self, batch: &Batch<'_>, cx: &mut Context<'_>) {
//!         batch.for_each(cx, |datagram, cx| {
//!             self.reply.clear();
//!             self.reply.extend(datagram.payload.iter().rev());
//!             cx.reply(datagram, &self.reply, &ReplyPolicy::default())
//!         });
//!     }
//! }
//!
//! fn main() -> ExitCode {
//!     let mut kinds = KINDS.to_vec();
//!     kinds.push(REVERSE);
//!     udispatch::cli::main(&kinds)
//! }
//! ```
//!
//! The command line, the checks of the file, `explain`, the schema for editors and the ledger support the new kind
//! without further code.
//!
//! # Words
//!
//! - A [`Kind`](prelude::Kind) has a name, settings, an example, and a function that reads the settings from the file.
//! - A [`HandlerSpec`](prelude::HandlerSpec) holds the checked settings of one handler. It builds the handler once for
//!   each worker.
//! - A [`Handler`](prelude::Handler) handles runs of datagrams of one route. It sees no socket, clock or thread.
//! - A [`Context`](prelude::Context) is the interface through which a handler replies, forwards and reports verdicts.
//!
//! # Variations
//!
//! - Settings: `examples/custom_handler.rs` reads one.
//! - Upstreams: [`BuildContext::upstream`](prelude::BuildContext::upstream) opens one, and
//!   [`Context::forward`](prelude::Context::forward) sends to it. Replies of upstreams go to the kind `forward` alone.
//! - Anything that may block, such as a file, belongs behind a bounded sink ([`prelude::sink`]).
//!
//! Everything that this page does not name is private; `ARCHITECTURE.md` describes it. The feature `internals` opens it
//! to the project's own tests, and its interfaces may change at any time.

// A cast that may change a number needs a limit that makes it safe, which is named beside the cast. Tests may cast
// small numbers.
#![cfg_attr(
    not(test),
    warn(
        clippy::cast_lossless,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss
    )
)]

pub mod cli;
pub mod prelude;

// Private, so that rustc reports unused items. Tests, benchmarks and fuzz targets see them through `internals`.
#[cfg(not(feature = "internals"))]
mod admin;
#[cfg(not(feature = "internals"))]
mod build;
#[cfg(not(feature = "internals"))]
mod config;
#[cfg(not(feature = "internals"))]
mod datagram;
#[cfg(not(feature = "internals"))]
mod dispatch;
#[cfg(not(feature = "internals"))]
mod handlers;
#[cfg(not(feature = "internals"))]
mod handover;
#[cfg(not(feature = "internals"))]
mod monitor;
#[cfg(not(feature = "internals"))]
mod net;
#[cfg(not(feature = "internals"))]
mod number;
#[cfg(not(feature = "internals"))]
mod observe;
#[cfg(not(feature = "internals"))]
mod plan;
#[cfg(not(feature = "internals"))]
mod supervisor;
#[cfg(not(feature = "internals"))]
mod takeover;
#[cfg(not(feature = "internals"))]
mod worker;

#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod admin;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod build;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod config;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod datagram;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod dispatch;
#[cfg(any(test, feature = "internals"))]
#[doc(hidden)]
pub mod fuzz;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod handlers;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod handover;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod monitor;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod net;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod number;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod observe;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod plan;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod supervisor;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod takeover;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod worker;
