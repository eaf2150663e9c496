//! Writes alarms to the log. Each cause gets at most one line for its beginning and one for its end per minute, however
//! often it comes and goes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::Alarm;

/// Shortest time between two log lines for the beginning of one cause.
const INTERVAL: Duration = Duration::from_secs(60);
/// Largest number of lines written at once. Further alarms are reported as a number only.
const LINES_MAX: usize = 16;

/// The state of each cause that was recently written to the log.
#[derive(Debug, Default)]
pub struct Journal {
    causes: HashMap<(String, String), CauseState>,
}

/// What the log says about one cause.
#[derive(Debug)]
struct CauseState {
    /// When the beginning of the cause was last logged.
    at: Option<Instant>,
    /// The time since which the cause exists, in unix seconds; `None` while it does not exist.
    since: Option<u64>,
    /// Whether the last log line about the cause says that it exists.
    is_logged: bool,
    /// The number of times that the cause began since the last line without a line of its own.
    again: u32,
}

/// A line for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JournalLine {
    /// An alarm began; logged as a warning.
    Begins(String),
    /// An alarm ended; logged for information.
    Ends(String),
}

impl Journal {
    /// Writes a log line for each alarm that began or ended since the last call.
    pub fn write(&mut self, alarms: &[Alarm], now: Instant, now_unix: u64) {
        for line in self.lines(alarms, now, now_unix) {
            match line {
                JournalLine::Begins(text) => log::warn!("{text}"),
                JournalLine::Ends(text) => log::info!("{text}"),
            }
        }
    }

    fn lines(&mut self, alarms: &[Alarm], now: Instant, now_unix: u64) -> Vec<JournalLine> {
        let mut lines = Vec::new();
        let mut present: HashMap<(String, String), &Alarm> = HashMap::with_capacity(alarms.len());
        for alarm in alarms {
            let cause = (alarm.name.clone(), alarm.about.clone());
            let known = self.causes.entry(cause.clone()).or_insert(CauseState {
                at: None,
                since: None,
                is_logged: false,
                again: 0,
            });
            let is_new = known.since.replace(alarm.since).is_none();
            let is_early = known
                .at
                .is_some_and(|at| now.saturating_duration_since(at) < INTERVAL);
            if !known.is_logged && is_early {
                known.again += u32::from(is_new);
            } else if !known.is_logged {
                let again = std::mem::take(&mut known.again);
                known.is_logged = true;
                known.at = Some(now);
                lines.push(JournalLine::Begins(begins(alarm, again)));
            }
            present.insert(cause, alarm);
        }
        self.causes.retain(|cause, known| {
            if present.contains_key(cause) {
                return true;
            }
            let since = known.since.take();
            if std::mem::take(&mut known.is_logged) {
                let lasted =
                    Duration::from_secs(now_unix.saturating_sub(since.unwrap_or(now_unix)));
                let (name, about) = cause;
                let lasted = humantime::format_duration(lasted);
                lines.push(JournalLine::Ends(format!(
                    "alarm {name}, {about}: over after {lasted}"
                )));
            }
            known
                .at
                .is_some_and(|at| now.saturating_duration_since(at) < INTERVAL)
        });
        cut(lines)
    }
}

/// Limits the number of lines to [`LINES_MAX`].
fn cut(mut lines: Vec<JournalLine>) -> Vec<JournalLine> {
    let omitted = lines.len().saturating_sub(LINES_MAX);
    lines.truncate(LINES_MAX);
    if omitted > 0 {
        lines.push(JournalLine::Begins(format!(
            "{omitted} more alarms have begun or ended; `udispatch status` lists them"
        )));
    }
    lines
}

fn begins(alarm: &Alarm, again: u32) -> String {
    let Alarm {
        name,
        about,
        text,
        cure,
        ..
    } = alarm;
    let again = if again > 0 {
        format!(" (since the last line it has begun {again} times)")
    } else {
        String::new()
    };
    format!("alarm {name}, {about}: {text}. {cure}{again}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alarm(about: &str) -> Alarm {
        let text = |text: &str| text.to_owned();
        Alarm {
            name: text("dead"),
            about: text(about),
            since: 1_000,
            text: text("it is dead"),
            cure: text("Revive it"),
        }
    }

    /// An alarm is logged once when it begins and once when it ends. A cause that comes and goes is logged again after
    /// a minute, with the number of times that it existed meanwhile.
    #[test]
    fn each_cause_has_a_line_in_a_minute() {
        let mut journal = Journal::default();
        let start = Instant::now();
        let mut at = |seconds: u64, is_there: bool| {
            let alarms = if is_there {
                vec![alarm("a")]
            } else {
                Vec::new()
            };
            journal.lines(
                &alarms,
                start + Duration::from_secs(seconds),
                1_000 + seconds,
            )
        };
        let begins = |more: &str| {
            vec![JournalLine::Begins(format!(
                "alarm dead, a: it is dead. Revive it{more}"
            ))]
        };
        assert_eq!(at(0, true), begins(""));
        assert_eq!(at(1, true), []);
        assert_eq!(
            at(5, false),
            [JournalLine::Ends("alarm dead, a: over after 5s".to_owned())]
        );
        assert_eq!(at(6, true), []);
        assert_eq!(at(7, false), []);
        assert_eq!(at(8, true), []);
        assert_eq!(at(59, true), []);
        assert_eq!(
            at(60, true),
            begins(" (since the last line it has begun 2 times)")
        );
        assert_eq!(at(61, false).len(), 1);
        assert_eq!(at(200, true), begins(""));
    }

    /// A hundred alarms at once produce a few lines, and one line with the number of the others.
    #[test]
    fn many_at_once_are_few_lines() {
        let alarms: Vec<Alarm> = (0..100).map(|number| alarm(&number.to_string())).collect();
        let lines = Journal::default().lines(&alarms, Instant::now(), 1_000);
        assert_eq!(lines.len(), LINES_MAX + 1);
        let more = "84 more alarms have begun or ended; `udispatch status` lists them";
        assert_eq!(lines.last(), Some(&JournalLine::Begins(more.to_owned())));
    }
}
