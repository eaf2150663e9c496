//! The loop of the live view. It requests snapshots on a separate thread, so that keys work while the daemon does not
//! respond.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use ratatui::crossterm::event;

use super::super::remote::explain_failure;
use super::ending::Ending;
use super::input::{InputOutcome, on_event};
use super::screen::Screen;
use super::state::{Spots, TopState};
use crate::admin::client::Client;
use crate::config::diagnostics::printable;
use crate::observe::snapshot::Snapshot;

/// Longest delay until a signal or a response is noticed.
const TURN: Duration = Duration::from_millis(50);
/// Time after which a frame is drawn although nothing has happened, since the age of the data grows.
const FRAME: Duration = Duration::from_millis(500);
/// Largest number of keys that are handled before a frame is drawn, so that pasted text does not delay it.
const KEYS_MAX: usize = 200;

/// A response, and when it arrived.
type LiveUpdate = (Result<Snapshot, String>, Instant);

/// Shows the live view until the user presses q, a signal arrives, or the terminal is gone.
pub(super) fn run(client: Client, mut state: TopState, interval: Duration) -> io::Result<()> {
    let ending = Ending::watch()?;
    let responses = start_requests(client, interval)?;
    let mut screen = Screen::open()?;
    let mut spots = Spots::default();
    let mut drawn: Option<Instant> = None;
    while !ending.is_due() {
        let has_news = receive_all(&responses, &mut state)?;
        if has_news || drawn.is_none_or(|drawn| drawn.elapsed() >= FRAME) {
            spots = screen.draw(&state, Instant::now())?;
            state.settle(&spots);
            drawn = Some(Instant::now());
        }
        match take_events(&mut state, &mut spots)? {
            Some(InputOutcome::End) => break,
            // The next iteration draws the change.
            Some(InputOutcome::Continue) => drawn = None,
            None => {}
        }
    }
    Ok(())
}

/// Handles the responses that have arrived. Returns whether there were any.
fn receive_all(responses: &Receiver<LiveUpdate>, state: &mut TopState) -> io::Result<bool> {
    let mut has_news = false;
    loop {
        match responses.try_recv() {
            Ok((response, at)) => state.on_response(response, at),
            Err(TryRecvError::Empty) => return Ok(has_news),
            Err(TryRecvError::Disconnected) => {
                return Err(io::Error::other(
                    "the thread that requests snapshots has ended",
                ));
            }
        }
        has_news = true;
    }
}

/// Waits briefly for input, and handles all that has arrived. Returns `None` if there was none.
fn take_events(state: &mut TopState, spots: &mut Spots) -> io::Result<Option<InputOutcome>> {
    let mut next = None;
    let mut timeout = TURN;
    for _ in 0..KEYS_MAX {
        // A signal may have interrupted the wait.
        match event::poll(timeout) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => break,
            Err(error) => return Err(error),
        }
        next = Some(on_event(state, spots, &event::read()?));
        if next == Some(InputOutcome::End) {
            break;
        }
        timeout = Duration::ZERO;
    }
    Ok(next)
}

/// Requests snapshots until the receiver is dropped. The thread ends with the process, since it may be waiting for a
/// response.
fn start_requests(client: Client, interval: Duration) -> io::Result<Receiver<LiveUpdate>> {
    let (sender, receiver) = bounded(1);
    let work = move || {
        let mut next = Instant::now() + interval;
        loop {
            thread::sleep(next.saturating_duration_since(Instant::now()));
            // After a long wait for a response, the interval starts anew, without a burst of requests.
            next = (next + interval).max(Instant::now());
            let response = request_snapshot(&client);
            if sender.send((response, Instant::now())).is_err() {
                return;
            }
        }
    };
    thread::Builder::new()
        .name("top-requests".to_owned())
        .spawn(work)?;
    Ok(receiver)
}

/// Requests a snapshot. A missing response is returned as an error text, for display.
fn request_snapshot(client: &Client) -> Result<Snapshot, String> {
    let response = client
        .get("/status")
        .map_err(|error| explain_failure(client, &error))?;
    if !response.is_success() {
        return Err(format!(
            "the daemon refused the request: {}",
            printable(response.text().trim())
        ));
    }
    serde_json::from_slice(&response.body)
        .map_err(|error| format!("cannot parse the response: {error}"))
}
