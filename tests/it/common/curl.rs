//! Clients of the control socket: curl, as a user would run it, and the program's own commands.

use std::process::Command;

use udispatch::observe::snapshot::Snapshot;

use super::daemon::{Daemon, Outcome, udispatch};

/// Limit of one request in seconds, in curl's notation.
const SECONDS_MAX: &str = "30";

/// The result of one request.
#[derive(Debug)]
pub struct Answer {
    /// The status code, or 0 if the connection ended before a response came.
    pub status: u16,
    /// The headers, with the status line.
    pub head: String,
    /// The body of the response.
    pub body: String,
}

/// Runs curl.
pub fn curl(arguments: &[&str]) -> Answer {
    let output = Command::new("curl")
        .args(["-s", "-i", "-m", SECONDS_MAX])
        .args(arguments)
        .output();
    let output = output.expect("curl is needed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0);
    Answer {
        status,
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}

/// Gets a path over the control socket.
pub fn get(daemon: &Daemon, path: &str) -> Answer {
    let control = daemon.control();
    curl(&[
        "--unix-socket",
        control.to_str().unwrap(),
        &format!("http://localhost{path}"),
    ])
}

/// Posts to a path over the control socket.
pub fn post(daemon: &Daemon, path: &str) -> Answer {
    let control = daemon.control();
    curl(&[
        "-X",
        "POST",
        "--unix-socket",
        control.to_str().unwrap(),
        &format!("http://localhost{path}"),
    ])
}

/// The daemon's snapshot, parsed as the program itself parses it.
pub fn snapshot(daemon: &Daemon) -> Snapshot {
    let answer = get(daemon, "/status");
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.body))
}

/// Runs a command against the daemon.
pub fn ask(daemon: &Daemon, words: &[&str]) -> Outcome {
    let control = daemon.control();
    let control = ["--control", control.to_str().unwrap()];
    udispatch(&[&words[..1], &control, &words[1..]].concat())
}
