//! The `[daemon]` table: what holds for the whole process. Every key has a default, and the table may
//! be absent.

use std::num::NonZeroUsize;

use log::LevelFilter;
use toml::de::DeValue;

use super::limits::{BUFFER_BYTES_MAX, BUFFER_BYTES_MIN, WORKERS_MAX};
use super::section::Section;
use super::setting::{self, Form, Setting};
use super::value::{Value, choice, integer, size_in};
use super::words::Mistake;

/// Its keys, for the section and for hints.
pub(super) const KEYS: &[&str] = &setting::keys(&SETTINGS);

/// What may stand behind them.
pub(super) const SETTINGS: [Setting; 4] = [
    Setting {
        key: "workers",
        form: Form::OneOf(&[Form::Choice(&["auto"]), Form::Integer { min: 1, max: WORKERS_MAX as u64 }]),
        default: r#""auto""#,
        meaning: "threads; unicast listeners are spread over them by the kernel",
    },
    Setting {
        key: "receive_buffer",
        form: BUFFER,
        default: r#""8MiB""#,
        meaning: "receive buffer of each listener; a warning names the sysctl if the kernel gives less",
    },
    Setting {
        key: "send_buffer",
        form: BUFFER,
        default: r#""4MiB""#,
        meaning: "send buffer of each upstream's socket",
    },
    Setting {
        key: "log",
        form: Form::Choice(&setting::words(&LEVELS)),
        default: r#""info""#,
        meaning: "what is logged; RUST_LOG overrides it",
    },
];

const BUFFER: Form = Form::Size { min: "128KiB", max: "1GiB" };

const LEVELS: [(&str, LevelFilter); 6] = [
    ("off", LevelFilter::Off),
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
    ("trace", LevelFilter::Trace),
];

/// What the process as a whole is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Daemon {
    /// How many threads receive.
    pub workers: Workers,
    /// Bytes that each listener's receive buffer is asked to hold. The kernel's own default of 208 KiB
    /// holds 256 small datagrams; 8 MiB hold 10,082 of them, a burst of 10 ms at a million a second.
    pub receive_buffer: usize,
    /// Bytes that each upstream's send buffer is asked to hold.
    pub send_buffer: usize,
    /// What is logged.
    pub log: LevelFilter,
}

/// How many threads receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// As many as the machine has use for; decided at start.
    Auto,
    /// So many, at most [`WORKERS_MAX`].
    Count(NonZeroUsize),
}

impl Default for Daemon {
    fn default() -> Daemon {
        Daemon {
            workers: Workers::Auto,
            receive_buffer: 8 * 1024 * 1024,
            send_buffer: 4 * 1024 * 1024,
            log: LevelFilter::Info,
        }
    }
}

impl Daemon {
    /// Reads the table.
    pub(super) fn read(section: &mut Section<'_>) -> Daemon {
        let default = Daemon::default();
        section.not_yet("control", "this version has no control socket yet", "leave it out; a signal stops the daemon");
        section.not_yet("http", "this version has no HTTP yet", "leave it out");
        Daemon {
            workers: section.or("workers", workers, default.workers),
            receive_buffer: section.or("receive_buffer", buffer, default.receive_buffer),
            send_buffer: section.or("send_buffer", buffer, default.send_buffer),
            log: section.or("log", choice(&LEVELS), default.log),
        }
    }
}

fn workers(value: Value<'_>) -> Result<Workers, Mistake> {
    if let DeValue::String(text) = value.inner()
        && text == "auto"
    {
        return Ok(Workers::Auto);
    }
    let count = integer(1..=WORKERS_MAX)(value).ok().and_then(NonZeroUsize::new);
    count
        .map(Workers::Count)
        .ok_or_else(|| value.expected(&format!("\"auto\" or a whole number from 1 to {WORKERS_MAX}")))
}

fn buffer(value: Value<'_>) -> Result<usize, Mistake> {
    let bytes = size_in(BUFFER_BYTES_MIN..=BUFFER_BYTES_MAX)(value)?;
    usize::try_from(bytes).map_err(|_| Mistake::new("is too large for this machine"))
}

#[cfg(test)]
mod tests {
    use super::super::value::{read, refusal};
    use super::*;

    /// `auto` or a number of threads within the limit.
    #[test]
    fn workers_are_auto_or_a_number() {
        assert_eq!(read("\"auto\"", workers), Ok(Workers::Auto));
        assert!(matches!(read("64", workers), Ok(Workers::Count(count)) if count.get() == 64));
        for text in ["0", "65", "\"4\"", "\"Auto\"", "1.5"] {
            assert!(refusal(text, workers).contains("\"auto\" or a whole number from 1 to 64"));
        }
    }

    /// A buffer is a size that the kernel can be asked for.
    #[test]
    fn buffers_have_bounds() {
        assert_eq!(read("\"8MiB\"", buffer), Ok(8 << 20));
        assert!(refusal("\"1KiB\"", buffer).contains("must be from 128KiB to 1GiB"));
        assert!(refusal("\"2GiB\"", buffer).contains("must be from 128KiB to 1GiB"));
    }
}
