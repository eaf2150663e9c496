//! HTTP on the control socket, and read-only on a TCP port where the file asks for one: status, metrics, the page, and the
//! verbs. One thread, beside the supervisor and the workers: it asks the supervisor ([`Requests`]) and never touches what
//! serves datagrams, so a client can at most wait.
//!
//! `listeners.rs` binds, `server.rs` accepts and keeps the limits (`reserve_fd.rs` where files run out), `access.rs` says who may ask what, `routes.rs` is the table of
//! endpoints, `endpoint.rs` asks the supervisor for them, `parameters.rs` reads what they are told, `events.rs` the live view, `tap.rs` the one of datagrams, `metrics/` the text for Prometheus, `page/` the page, and `client.rs` the other end.

mod access;
pub mod client;
mod endpoint;
mod events;
mod listeners;
mod metrics;
mod page;
mod parameters;
mod reserve_fd;
mod routes;
mod server;
mod tap;
mod write_timeout;

use std::io;
use std::os::fd::BorrowedFd;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::watch;

pub use self::listeners::{AdminListeners, BoundListeners, Taken};
use crate::supervisor::requests::Requests;

/// Longest wait for the thread, which should be gone by then. Everything else at the end takes at most 4.5 of the five seconds
/// that are promised.
const JOIN_MAX: Duration = Duration::from_millis(400);
/// Time between two looks whether it is gone.
const JOIN_STEP: Duration = Duration::from_millis(2);

/// The server, running.
pub struct Admin {
    listeners: AdminListeners,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Admin {
    /// Serves what comes by these listeners from now on.
    pub fn start(listeners: AdminListeners, requests: Requests) -> io::Result<Admin> {
        listeners.own(true);
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        // Registered from here, so that what cannot work is known at once.
        let open_listeners = {
            let _inside = runtime.enter();
            server::open(&listeners, &requests, &stopped)?
        };
        let serve = move || {
            runtime.block_on(server::serve(open_listeners, stopped));
            // What is still under way ends with the runtime; nothing in it blocks.
            runtime.shutdown_background();
        };
        let thread = thread::Builder::new()
            .name("admin".to_owned())
            .spawn(serve)?;
        Ok(Admin {
            listeners,
            stop,
            thread: Some(thread),
        })
    }

    /// The sockets that it listens on, for a process that takes over: the control socket, and the TCP one.
    pub fn as_fds(&self) -> (Option<BorrowedFd<'_>>, Option<BorrowedFd<'_>>) {
        self.listeners.as_fds()
    }

    /// Accepts nobody any more, finishes what is under way for a moment, and removes the socket's file if it is still ours.
    pub fn stop(mut self) {
        self.end();
    }

    /// The same, but leaves the socket's file: another process serves it from now on.
    pub fn abandon(mut self) {
        self.listeners.own(false);
        self.end();
    }

    fn end(&mut self) {
        // Without a receiver it has ended already.
        let _ = self.stop.send(true);
        let deadline = Instant::now() + JOIN_MAX;
        let Some(thread) = self.thread.take() else {
            return;
        };
        while !thread.is_finished() && Instant::now() < deadline {
            thread::sleep(JOIN_STEP);
        }
    }
}
