//! What commands print. A reader that went away (`| head`) is no failure, and never a panic.

use std::io::{self, ErrorKind, IsTerminal, Write};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Exit;
use crate::config::LoadError;
use crate::config::diagnostics::is_unprintable;

/// Writes a command's answer to standard output.
pub(super) fn print(text: &str) -> Exit {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Exit::Ok,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Exit::Ok,
        Err(error) => {
            complain(&format!("error: cannot write to standard output: {error}"));
            Exit::Failure
        }
    }
}

/// Whether who read standard output has gone (`| head`), which a write would find out too.
pub(super) fn is_unread() -> bool {
    let out = io::stdout();
    // These are told whether they are asked for or not.
    let mut look = [PollFd::new(&out, PollFlags::empty())];
    let is_told = poll(&mut look, Some(&Timespec::default())).is_ok_and(|told| told > 0);
    is_told
        && look[0]
            .revents()
            .intersects(PollFlags::ERR | PollFlags::HUP)
}

/// JSON without what it lets stand and a terminal obeys, which can only be in its strings.
pub(super) fn json_text(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for char in json.chars() {
        match is_unprintable(char) && char != '\n' {
            true => text.extend(
                char.encode_utf16(&mut [0; 2])
                    .iter()
                    .map(|unit| format!("\\u{unit:04x}")),
            ),
            false => text.push(char),
        }
    }
    text
}

/// Writes a message for people to standard error.
pub(super) fn complain(text: &str) {
    // If standard error is gone, the exit code is all that can still be said.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Says why there is no configuration, and gives the exit code for it.
pub(super) fn refuse(error: &LoadError) -> Exit {
    complain(&error.render(colours()));
    Exit::Configuration
}

/// Whether standard error shows colours: a terminal whose user did not ask for none.
pub(super) fn colours() -> bool {
    io::stderr().is_terminal() && !colours_are_unwanted()
}

/// The same for standard output.
pub(super) fn stdout_colours() -> bool {
    io::stdout().is_terminal() && !colours_are_unwanted()
}

fn colours_are_unwanted() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}
