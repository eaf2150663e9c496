//! The `[daemon]` table: settings of the whole process. Every key has a default, and the table may be absent.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use log::LevelFilter;
use toml::de::DeValue;

use super::diagnostics::Mistake;
use super::limits::{BUFFER_BYTES_MAX, BUFFER_BYTES_MIN, HTTP_HOSTS_MAX, WORKERS_MAX};
use super::section::Section;
use super::setting::{self, Form, Setting};
use super::value::{
    Value, boolean, choice, host_header, http_address, integer, size_in, socket_path,
};

/// The keys of the `[daemon]` table, for the section and for hints.
pub(super) const KEYS: &[&str] = &setting::keys(&SETTINGS);

/// The definition of each key of the `[daemon]` table.
pub(super) const SETTINGS: [Setting; 9] = [
    Setting {
        key: "workers",
        form: Form::OneOf(&[
            Form::Choice(&["auto"]),
            Form::Integer {
                min: 1,
                max: WORKERS_MAX as u64,
            },
        ]),
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
    Setting {
        key: "control",
        form: Form::OneOf(&[Form::Text("path"), Form::False]),
        default: "control.sock below $RUNTIME_DIRECTORY, /run/udispatch or $XDG_RUNTIME_DIR/udispatch",
        meaning: "unix socket for `udispatch status`, `reload` and the like; false for none",
    },
    Setting {
        key: "http",
        form: Form::Text(r#""ADDRESS:PORT", or "PORT" of 127.0.0.1"#),
        default: "none",
        meaning: "where metrics and the page are shown, read-only",
    },
    Setting {
        key: "http_hosts",
        form: Form::List(&Form::Text("host name or address")),
        default: "none",
        meaning: "names under which `http` may be asked, besides its address and localhost",
    },
    Setting {
        key: "watch",
        form: Form::Boolean,
        default: "false",
        meaning: "reload when the file changes",
    },
    Setting {
        key: "latency",
        form: Form::Boolean,
        default: "false",
        meaning: "measure the time that datagrams spend in the daemon, from the kernel's receive to the send",
    },
];

const CONTROL: &str = "the path of a unix socket between quotes, or false for none";

const BUFFER: Form = Form::Size {
    min: "128KiB",
    max: "1GiB",
};

const LEVELS: [(&str, LevelFilter); 6] = [
    ("off", LevelFilter::Off),
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
    ("trace", LevelFilter::Trace),
];

/// Settings of the whole process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    /// The number of threads that receive.
    pub workers: Workers,
    /// The size in bytes that is requested for each listener's receive buffer. The kernel's own default of 208 KiB
    /// holds 256 small datagrams. 8 MiB hold 10,082 of them, which is a burst of 10 ms at a million a second.
    pub receive_buffer: usize,
    /// The size in bytes that is requested for each upstream's send buffer.
    pub send_buffer: usize,
    /// The most detailed level that is logged.
    pub log: LevelFilter,
    /// The control socket, which commands connect to.
    pub control: ControlSocket,
    /// The TCP address of the HTTP server; `None` if HTTP is off.
    pub http: Option<SocketAddr>,
    /// The names that the Host header of a request to `http` may have, besides its address and localhost. Names are
    /// in lower case; addresses have no brackets and are in their shortest form. There is no port.
    pub http_hosts: Vec<String>,
    /// Whether a change of the file triggers a reload.
    pub watch: bool,
    /// Whether the time from the kernel's receive to the send is measured.
    pub latency: bool,
}

/// The control socket, which commands connect to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ControlSocket {
    /// The default path, which is chosen at run time.
    #[default]
    Default,
    /// A unix socket with this path of at most [`SOCKET_PATH_BYTES_MAX`](super::limits::SOCKET_PATH_BYTES_MAX) bytes.
    /// A relative path has been joined to the directory of the file; the result may still be relative to the working
    /// directory.
    Path(PathBuf),
    /// No control socket.
    Off,
}

/// The number of threads that receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// A number that suits the machine, which is chosen at start.
    Auto,
    /// This number of threads, at most [`WORKERS_MAX`].
    Count(NonZeroUsize),
}

impl Default for Daemon {
    fn default() -> Daemon {
        Daemon {
            workers: Workers::Auto,
            receive_buffer: 8 * 1024 * 1024,
            send_buffer: 4 * 1024 * 1024,
            log: LevelFilter::Info,
            control: ControlSocket::Default,
            http: None,
            http_hosts: Vec::new(),
            watch: false,
            latency: false,
        }
    }
}

impl Daemon {
    /// Reads the table. A value that cannot be used is reported to the section and replaced by its default.
    pub(super) fn read(section: &mut Section<'_>) -> Daemon {
        let default = Daemon::default();
        let base = section.base_dir().to_owned();
        let control = |value: Value<'_>| match value.inner() {
            DeValue::Boolean(false) => Ok(ControlSocket::Off),
            DeValue::Boolean(true) => Err(value
                .expected(CONTROL)
                .hint("leave it out, and there is one")),
            DeValue::String(_) => socket_path(&base)(value).map(ControlSocket::Path),
            _ => Err(value.expected(CONTROL)),
        };
        if section.has("http_hosts") && !section.has("http") {
            section.problem(
                "http_hosts",
                "means something only with `http`",
                "add http = \"127.0.0.1:9253\"",
            );
        }
        Daemon {
            workers: section.or("workers", workers, default.workers),
            receive_buffer: section.or("receive_buffer", buffer, default.receive_buffer),
            send_buffer: section.or("send_buffer", buffer, default.send_buffer),
            log: section.or("log", choice(&LEVELS), default.log),
            control: section.or("control", control, default.control),
            http: section.optional("http", http_address),
            http_hosts: read_http_hosts(section),
            watch: section.or("watch", boolean, default.watch),
            latency: section.or("latency", boolean, default.latency),
        }
    }
}

fn read_http_hosts(section: &mut Section<'_>) -> Vec<String> {
    let hosts = section
        .optional_list("http_hosts", host_header)
        .unwrap_or_default();
    if hosts.len() > HTTP_HOSTS_MAX {
        section.problem(
            "http_hosts",
            format!("more than {HTTP_HOSTS_MAX} names"),
            "",
        );
    }
    hosts
}

fn workers(value: Value<'_>) -> Result<Workers, Mistake> {
    if let DeValue::String(text) = value.inner()
        && text == "auto"
    {
        return Ok(Workers::Auto);
    }
    let count = integer(1..=WORKERS_MAX)(value)
        .ok()
        .and_then(NonZeroUsize::new);
    count.map(Workers::Count).ok_or_else(|| {
        value.expected(&format!(
            "\"auto\" or a whole number from 1 to {WORKERS_MAX}"
        ))
    })
}

fn buffer(value: Value<'_>) -> Result<usize, Mistake> {
    let bytes = size_in(BUFFER_BYTES_MIN..=BUFFER_BYTES_MAX)(value)?;
    usize::try_from(bytes).map_err(|_| Mistake::new("is too large for this machine"))
}

#[cfg(test)]
mod tests {
    use super::super::value::{read, refusal};
    use super::*;

    /// The value is `auto` or a number of threads within the limit.
    #[test]
    fn workers_are_auto_or_a_number() {
        assert_eq!(read("\"auto\"", workers), Ok(Workers::Auto));
        assert!(matches!(read("64", workers), Ok(Workers::Count(count)) if count.get() == 64));
        for text in ["0", "65", "\"4\"", "\"Auto\"", "1.5"] {
            assert!(refusal(text, workers).contains("\"auto\" or a whole number from 1 to 64"));
        }
    }

    /// The size of a buffer stays within what the kernel accepts.
    #[test]
    fn buffers_have_bounds() {
        assert_eq!(read("\"8MiB\"", buffer), Ok(8 << 20));
        assert!(refusal("\"1KiB\"", buffer).contains("must be from 128KiB to 1GiB"));
        assert!(refusal("\"2GiB\"", buffer).contains("must be from 128KiB to 1GiB"));
    }
}
