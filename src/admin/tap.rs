//! `GET /tap`: datagrams as they pass, one line of JSON each, until the client disconnects. A thread of its own formats
//! them, with a lower priority than all others. It waits for a slow client, and the workers never wait for it.

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
const PIECES: usize = 2;
/// Time between two checks whether the client is still connected, while no datagram arrives.
const LOOK: Duration = Duration::from_millis(100);

/// Returns a response with the lines of the tap.
pub fn respond(tapped: Tapped) -> Response {
    let (sender, receiver) = mpsc::channel(PIECES);
    match thread::Builder::new()
        .name("tap".to_owned())
        .spawn(move || pass_on(tapped, &sender))
    {
        Ok(_) => response::stream("application/x-ndjson", receiver),
        Err(error) => response::text(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("cannot start a thread: {error}\n"),
        ),
    }
}

fn pass_on(mut tapped: Tapped, client: &mpsc::Sender<Bytes>) {
    let_others_go_first();
    loop {
        let mut lines = Vec::new();
        let after = tapped.lines(LOOK, &mut lines);
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
