//! The terminal: taken, and given back as it was, however the program ends: at its end, on an error, on a panic of any
//! thread, on a signal (`live.rs` ends its loop then).

use std::io::{self, Stdout};
use std::panic;
use std::time::Instant;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{DisableMouseCapture, EnableMouseCapture};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};

use super::input::Spots;
use super::state::State;
use super::view;

/// The terminal, while it is ours.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Takes it.
    pub(super) fn open() -> io::Result<Screen> {
        restore_on_panic();
        enable_raw_mode()?;
        // From here on dropping it gives the terminal back, also where the next step fails.
        let terminal = Terminal::new(CrosstermBackend::new(io::stdout())).inspect_err(|_| restore())?;
        let screen = Screen { terminal };
        execute!(io::stdout(), EnterAlternateScreen, EnableMouseCapture)?;
        Ok(screen)
    }

    /// Draws a frame, and says where things are.
    pub(super) fn draw(&mut self, state: &State, now: Instant) -> io::Result<Spots> {
        let mut spots = Spots::default();
        self.terminal.draw(|frame| spots = view::draw(frame, state, now))?;
        Ok(spots)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back. What fails here fails because it is gone.
fn restore() {
    let _ = execute!(io::stdout(), DisableMouseCapture, LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
}

/// Words of a panic would be lost with the alternate screen that they are written to.
fn restore_on_panic() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        restore();
        before(info);
    }));
}
