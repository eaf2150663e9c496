//! `GET /tap`: datagrams as they pass, one line of JSON each, until the client disconnects. A separate thread formats
//! them, with a lower priority than all others. The thread waits for a slow client. The workers never wait for the thread.

use std::thread;
use std::time::Duration;

use hyper::StatusCode;
use hyper::body::Bytes;
use tokio::sync::mpsc;

use super::response::{self, Response};
use crate::net::priority::let_others_go_first;
use crate::observe::tap::{TapProgress, Tapped};

/// The path of the endpoint, which is not available over TCP.
pub const PATH: &str = "/tap";
/// Number of chunks that wait for a slow client. A chunk holds the lines of one page of datagrams.
const CHUNKS_MAX: usize = 2;
/// Time between two checks whether the client is still connected, while no datagram arrives.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Returns a response with the lines of the tap.
pub fn respond(tapped: Tapped) -> Response {
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    match thread::Builder::new()
        .name("tap".to_owned())
        .spawn(move || send_lines(tapped, &sender))
    {
        Ok(_) => response::stream("application/x-ndjson", receiver),
        Err(error) => response::text(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("cannot start a thread for the tap: {error}\n"),
        ),
    }
}

fn send_lines(mut tapped: Tapped, client: &mpsc::Sender<Bytes>) {
    let_others_go_first();
    loop {
        let mut lines = Vec::new();
        let after = tapped.lines(CHECK_INTERVAL, &mut lines);
        let is_gone = if lines.is_empty() {
            client.is_closed()
        } else {
            client.blocking_send(lines.into()).is_err()
        };
        if is_gone || after == TapProgress::End {
            return;
        }
    }
}
