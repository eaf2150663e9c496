//! The output of commands. A reader that closes the pipe (`| head`) causes neither a failure nor a panic.

use std::io::{self, ErrorKind, IsTerminal, Write};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Exit;
use crate::config::LoadError;
use crate::config::diagnostics::is_unprintable;

/// Writes the output of a command to standard output.
pub(super) fn print(text: &str) -> Exit {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Exit::Ok,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Exit::Ok,
        Err(error) => {
            print_error(&format!("error: cannot write to standard output: {error}"));
            Exit::Failure
        }
    }
}

/// Returns whether the reader of standard output has closed the pipe (`| head`), which a write would detect too.
pub(super) fn is_unread() -> bool {
    let out = io::stdout();
    // The kernel reports POLLERR and POLLHUP even if they are not requested (poll(2)).
    let mut watched = [PollFd::new(&out, PollFlags::empty())];
    let has_event = poll(&mut watched, Some(&Timespec::default())).is_ok_and(|ready| ready > 0);
    has_event
        && watched[0]
            .revents()
            .intersects(PollFlags::ERR | PollFlags::HUP)
}

/// Escapes characters in JSON that are valid there but that a terminal would interpret. They occur only inside strings.
pub(super) fn json_text(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for char in json.chars() {
        if is_unprintable(char) && char != '\n' {
            text.extend(
                char.encode_utf16(&mut [0; 2])
                    .iter()
                    .map(|unit| format!("\\u{unit:04x}")),
            );
        } else {
            text.push(char);
        }
    }
    text
}

/// Writes a message of any kind to standard error.
pub(super) fn print_error(text: &str) {
    // If standard error is closed, only the exit code can report the failure.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Reports why there is no configuration, and returns the exit code for it.
pub(super) fn refuse(error: &LoadError) -> Exit {
    print_error(&error.render(colours()));
    Exit::Configuration
}

/// Returns whether to use colours on standard error: it is a terminal, and the user has not disabled colours.
pub(super) fn colours() -> bool {
    io::stderr().is_terminal() && !colours_are_disabled()
}

/// Returns whether to use colours on standard output: it is a terminal, and the user has not disabled colours.
pub(super) fn stdout_colours() -> bool {
    io::stdout().is_terminal() && !colours_are_disabled()
}

fn colours_are_disabled() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}
