//! The loop of the live view: asks the daemon in a thread of its own, so that keys work while it does not answer.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use ratatui::crossterm::event;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::super::remote::why_not;
use super::input::{InputOutcome, on_event};
use super::screen::Screen;
use super::state::{Spots, TopState};
use crate::admin::client::Client;
use crate::config::diagnostics::printable;
use crate::observe::snapshot::Snapshot;

/// How long a signal or an answer may wait to be seen.
const TURN: Duration = Duration::from_millis(50);
/// A frame is drawn so often although nothing has happened: the age of what is shown grows.
const FRAME: Duration = Duration::from_millis(500);
/// Keys that are taken before a frame is drawn, so that a pasted text does not hold it up.
const KEYS_MAX: usize = 200;

/// An answer, and when it came.
type LiveUpdate = (Result<Snapshot, String>, Instant);

/// Shows it until somebody presses q, or a signal comes.
pub(super) fn run(client: Client, mut state: TopState, interval: Duration) -> io::Result<()> {
    let is_over = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&is_over))?;
    }
    let responses = listen(client, interval)?;
    let mut screen = Screen::open()?;
    let mut spots = Spots::default();
    let mut drawn: Option<Instant> = None;
    while !is_over.load(Ordering::Relaxed) {
        let has_news = hear(&responses, &mut state)?;
        if has_news || drawn.is_none_or(|drawn| drawn.elapsed() >= FRAME) {
            spots = screen.draw(&state, Instant::now())?;
            state.settle(&spots);
            drawn = Some(Instant::now());
        }
        match take_events(&mut state, &mut spots)? {
            Some(InputOutcome::End) => break,
            // The next turn draws what has changed.
            Some(InputOutcome::GoOn) => drawn = None,
            None => {}
        }
    }
    Ok(())
}

/// Takes the answers that have come. Whether there were any.
fn hear(responses: &Receiver<LiveUpdate>, state: &mut TopState) -> io::Result<bool> {
    let mut has_news = false;
    loop {
        match responses.try_recv() {
            Ok((response, at)) => state.hear(response, at),
            Err(TryRecvError::Empty) => return Ok(has_news),
            Err(TryRecvError::Disconnected) => {
                return Err(io::Error::other(
                    "the thread that asks the daemon has ended",
                ));
            }
        }
        has_news = true;
    }
}

/// Waits a turn for something to be pressed, and takes all that was. Nothing, if nothing was.
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

/// Asks again and again, until nobody wants to hear it. The thread ends with the process: it may be waiting for an answer.
fn listen(client: Client, interval: Duration) -> io::Result<Receiver<LiveUpdate>> {
    let (sender, receiver) = bounded(1);
    let listen = move || {
        let mut next = Instant::now() + interval;
        loop {
            thread::sleep(next.saturating_duration_since(Instant::now()));
            // After a long wait for an answer the rhythm begins anew, without a burst.
            next = (next + interval).max(Instant::now());
            let response = ask(&client);
            if sender.send((response, Instant::now())).is_err() {
                return;
            }
        }
    };
    thread::Builder::new()
        .name("top-asks".to_owned())
        .spawn(listen)?;
    Ok(receiver)
}

/// Asks, where no answer is news too.
fn ask(client: &Client) -> Result<Snapshot, String> {
    let response = client
        .get("/status")
        .map_err(|error| why_not(client, &error))?;
    if !response.is_success() {
        return Err(format!(
            "the daemon refuses: {}",
            printable(response.text().trim())
        ));
    }
    serde_json::from_slice(&response.body)
        .map_err(|error| format!("cannot understand its answer: {error}"))
}
