//! Text in a given width, as a terminal counts it.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::palette::Tone;
use super::state::{Spots, TopState};

/// A line of the text over the table, and its style.
pub(super) type TextLine = (String, Tone);

/// Draws lines into an area, beginning at the scroll position.
pub(super) fn draw_text(
    frame: &mut Frame<'_>,
    state: &TopState,
    area: Rect,
    text: &[TextLine],
    spots: &mut Spots,
) {
    let scroll_max = text.len().saturating_sub(area.height.into());
    for ((text, tone), area) in text
        .iter()
        .skip(state.scroll.min(scroll_max))
        .zip(area.rows())
    {
        frame.render_widget(
            Line::styled(text.as_str(), tone.style(state.has_colours)),
            area,
        );
    }
    spots.body = area;
    spots.scroll_max = scroll_max;
}

/// Returns the number of columns that a text takes on the screen.
pub(super) fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// Returns the text in exactly this number of columns. The middle of a longer text is left out, since names differ at
/// their ends.
pub(super) fn fit(text: &str, columns: usize) -> String {
    let has = width(text);
    if has <= columns {
        return text.to_owned() + &" ".repeat(columns - has);
    }
    let Some(room) = columns.checked_sub(1) else {
        return String::new();
    };
    let head = take(text.chars(), room / 2);
    let tail: String = take(text.chars().rev(), room - width(&head))
        .chars()
        .rev()
        .collect();
    let blanks = room - width(&head) - width(&tail);
    format!("{head}…{tail}{}", " ".repeat(blanks))
}

/// Returns as many characters as fit in this number of columns.
fn take(characters: impl Iterator<Item = char>, columns: usize) -> String {
    let mut taken = String::new();
    for character in characters {
        taken.push(character);
        if width(&taken) > columns {
            taken.pop();
            break;
        }
    }
    taken
}

/// Returns lines of at most `columns` columns, broken between words if possible. All but the first are indented by
/// `indent` blanks.
pub(super) fn wrap(text: &str, columns: usize, indent: usize) -> Vec<String> {
    let indent = if indent + 10 < columns { indent } else { 0 };
    let mut lines = vec![String::new()];
    for word in text.split_inclusive(' ') {
        let mut word = word.to_owned();
        loop {
            let line = lines.last_mut().expect("there is a first line");
            if width(line) + width(word.trim_end()) <= columns {
                *line += &word;
                break;
            }
            // A word that fits in a line of its own starts the next line; a longer word is split.
            let room = columns - width(line).min(columns);
            if width(word.trim_end()) > columns - indent {
                let part = take(word.chars(), room);
                // One character is wider than the whole line.
                if part.is_empty() && room == columns - indent.min(columns) {
                    break;
                }
                word = word[part.len()..].to_owned();
                *line += &part;
            }
            lines.push(" ".repeat(indent));
        }
    }
    lines
        .iter()
        .map(|line| line.trim_end().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For any text, the columns after it keep their positions.
    #[test]
    fn every_text_has_the_same_width() {
        for text in [
            "",
            "a",
            "forward/10.0.0.1:2055",
            "häß",
            "日本語日本語",
            "e\u{301}e\u{301}e\u{301}",
        ] {
            for columns in 0..30 {
                assert_eq!(width(&fit(text, columns)), columns, "{text:?} in {columns}");
            }
        }
        assert_eq!(fit("forward/10.0.0.1:2055", 11), "forwa…:2055");
    }

    /// No line is wider than permitted, no text is lost, and the function always returns.
    #[test]
    fn long_text_is_broken() {
        let text = "the kernel dropped 12 datagrams to 127.0.0.1:1234 before us";
        assert_eq!(
            wrap("one two three four", 14, 2),
            ["one two three", "  four"]
        );
        for columns in 2..80 {
            let lines = wrap(text, columns, 2);
            assert!(
                lines.iter().all(|line| width(line) <= columns),
                "{columns}: {lines:?}"
            );
            let joined: String = lines.concat().split(' ').collect();
            assert_eq!(joined, text.replace(' ', ""), "{columns}");
        }
        let _ = (wrap("日本", 1, 0), wrap("a b", 0, 0));
    }
}
