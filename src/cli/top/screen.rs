//! The terminal. It is restored however the program ends: normally, on an error, on a panic of any thread, or on a
//! signal (`live.rs` then ends its loop).

use std::io::{self, Stdout};
use std::panic;
use std::time::Instant;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{DisableMouseCapture, EnableMouseCapture};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

use super::state::{Spots, TopState};
use super::view;

/// The terminal, in the mode of the live view.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Switches the terminal to the mode of the live view.
    pub(super) fn open() -> io::Result<Screen> {
        restore_on_panic();
        enable_raw_mode()?;
        // From here on a drop restores the terminal, also if the next step fails.
        let terminal =
            Terminal::new(CrosstermBackend::new(io::stdout())).inspect_err(|_| restore())?;
        let screen = Screen { terminal };
        execute!(io::stdout(), EnterAlternateScreen, EnableMouseCapture)?;
        Ok(screen)
    }

    /// Draws a frame, and returns where its elements are.
    pub(super) fn draw(&mut self, state: &TopState, now: Instant) -> io::Result<Spots> {
        let mut spots = Spots::default();
        self.terminal
            .draw(|frame| spots = view::draw(frame, state, now))?;
        Ok(spots)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Restores the terminal. A failure means that the terminal is gone.
pub(super) fn restore() {
    let _ = execute!(
        io::stdout(),
        DisableMouseCapture,
        LeaveAlternateScreen,
        Show
    );
    let _ = disable_raw_mode();
}

/// Restores the terminal before a panic is reported, since the message would be lost with the alternate screen.
fn restore_on_panic() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        restore();
        before(info);
    }));
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::process::{Command, Stdio};

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::{LocalModes, tcgetattr};

    use super::*;

    /// Set when the test runs itself in a terminal.
    const INSIDE: &str = "UDISPATCH_TEST_TERMINAL";

    /// After a panic the terminal is restored, and the panic message is readable.
    #[test]
    fn a_panic_restores_the_terminal() {
        if env::var_os(INSIDE).is_some() {
            let _screen = Screen::open().expect("a terminal");
            panic!("the text of the panic");
        }
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        grantpt(&master).expect("granted");
        unlockpt(&master).expect("unlocked");
        let name = ptsname(&master, Vec::new()).expect("a name");
        let name = name.to_str().expect("a path");
        let slave: OwnedFd = File::options()
            .read(true)
            .write(true)
            .open(name)
            .expect("the slave")
            .into();
        let end = || Stdio::from(slave.try_clone().expect("a copy"));
        let mut command = Command::new(env::current_exe().expect("the test's own path"));
        command.args([
            "--exact",
            "cli::top::screen::tests::a_panic_restores_the_terminal",
            "--nocapture",
        ]);
        command
            .env(INSIDE, "1")
            .stdin(end())
            .stdout(end())
            .stderr(end());
        let mut child = command.spawn().expect("the test starts");
        // The command holds copies of the slave, which would keep the reader waiting.
        drop(command);
        let mut master_reader = File::from(master.try_clone().expect("a copy"));
        let before = LocalModes::ICANON | LocalModes::ECHO;
        let reader = std::thread::spawn(move || {
            let mut written = Vec::new();
            // The read ends with EIO when the last descriptor of the slave is closed.
            let _ = master_reader.read_to_end(&mut written);
            String::from_utf8_lossy(&written).into_owned()
        });
        child.wait().expect("it ends");
        let modes = tcgetattr(&slave).expect("its modes").local_modes;
        drop(slave);
        let written = reader.join().expect("read");
        assert!(modes.contains(before), "{modes:?}");
        let place = |what: &str| {
            written
                .find(what)
                .unwrap_or_else(|| panic!("no {what:?} in {written:?}"))
        };
        assert!(
            place("\u{1b}[?1049h") < place("\u{1b}[?1049l"),
            "{written:?}"
        );
        assert!(
            place("\u{1b}[?1049l") < place("the text of the panic"),
            "{written:?}"
        );
    }
}
