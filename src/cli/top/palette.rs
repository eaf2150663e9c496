//! The styles of the screen. Important text is also marked by bold or reversed letters, so that it stands out without
//! colours.

use ratatui::style::{Color, Modifier, Style};

/// The role of a piece of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    /// A heading or name.
    Strong,
    /// Secondary information.
    Quiet,
    Good,
    /// A number of lost datagrams.
    Warning,
    /// A problem that must be noticed.
    Alarm,
    /// The selected row or tab.
    Selected,
}

impl Tone {
    /// Returns the style of the tone, with colours or without.
    pub(super) fn style(self, has_colours: bool) -> Style {
        let (modifier, colour) = match self {
            Tone::Plain => (Modifier::empty(), None),
            Tone::Strong => (Modifier::BOLD, None),
            Tone::Quiet => (Modifier::DIM, None),
            Tone::Good => (Modifier::empty(), Some(Color::Green)),
            Tone::Warning => (Modifier::BOLD, Some(Color::Yellow)),
            Tone::Alarm => (Modifier::BOLD.union(Modifier::REVERSED), Some(Color::Red)),
            Tone::Selected => (Modifier::REVERSED, None),
        };
        let style = Style::new().add_modifier(modifier);
        match colour.filter(|_| has_colours) {
            Some(colour) => style.fg(colour),
            None => style,
        }
    }
}
