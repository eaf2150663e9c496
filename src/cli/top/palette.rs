//! How things look. What matters is told apart by bold and reversed letters too, so that it stands out without colours.

use ratatui::style::{Color, Modifier, Style};

/// What a piece of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    /// Heads and names.
    Strong,
    /// What is there for those who look for it.
    Quiet,
    Good,
    /// Losses.
    Warning,
    /// What has to be seen.
    Alarm,
    /// The row or the tab that is selected.
    Selected,
}

impl Tone {
    /// Its look, with colours or without.
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
