//! HTTP on the control socket, and read-only on a TCP port if the file requests one: status, metrics, the page, and the
//! commands. One thread serves it, beside the supervisor and the workers. It sends requests to the supervisor
//! ([`Requests`]) and has no access to the workers, so a client cannot disturb the datagrams.
//!
//! `listeners.rs` binds the sockets. `server.rs` accepts clients and enforces the limits, and `reserve_fd.rs` helps if
//! descriptors run out. `access.rs` checks requests, `routes.rs` is the table of endpoints, and `parameters.rs` parses
//! their parameters. `endpoint.rs` sends requests to the supervisor, and `response.rs` builds responses. `events.rs` is the
//! live view, `tap.rs` the stream of datagrams, `metrics/` the text for Prometheus, and `page/` the page. `client.rs` is the
//! client of the commands.

mod access;
pub mod client;
mod endpoint;
mod events;
mod listeners;
mod metrics;
mod page;
mod parameters;
mod reserve_fd;
mod response;
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

/// Longest wait for the thread to end. Everything else at the end takes at most 4.5 of the five seconds that are
/// promised.
const JOIN_MAX: Duration = Duration::from_millis(400);
/// Time between two checks whether the thread has ended.
const JOIN_STEP: Duration = Duration::from_millis(2);

/// The running server.
pub struct Admin {
    listeners: AdminListeners,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Admin {
    /// Starts to serve clients of these listeners.
    ///
    /// # Errors
    ///
    /// Returns the error of the kernel if the thread or its runtime cannot be started, or if a socket cannot be
    /// registered.
    pub fn start(listeners: AdminListeners, requests: Requests) -> io::Result<Admin> {
        listeners.own(true);
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        // Register the sockets here, so that an error is known at once.
        let open_listeners = {
            let _inside = runtime.enter();
            server::open(&listeners, &requests, &stopped)?
        };
        let serve = move || {
            runtime.block_on(server::serve(open_listeners, stopped));
            // Tasks in progress end with the runtime. None of them blocks.
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

    /// Returns the listening sockets, for a process that takes over: the control socket, and the TCP socket.
    pub fn as_fds(&self) -> (Option<BorrowedFd<'_>>, Option<BorrowedFd<'_>>) {
        self.listeners.as_fds()
    }

    /// Accepts no more clients, briefly waits for requests in progress, and removes the socket's file if it is still
    /// ours.
    pub fn stop(mut self) {
        self.end();
    }

    /// Stops like [`Admin::stop`], but leaves the socket's file, because another process serves it from now on.
    pub fn abandon(mut self) {
        self.listeners.own(false);
        self.end();
    }

    fn end(&mut self) {
        // This fails only if the server has ended already.
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
