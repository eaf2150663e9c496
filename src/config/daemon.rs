//! The `[daemon]` table: settings of the whole process. Every key has a default, and the table may be absent.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use log::LevelFilter;
use toml::de::DeValue;

use super::definition::{Form, SettingTable};
use super::diagnostics::Mistake;
use super::limits::{BUFFER_BYTES_MAX, BUFFER_BYTES_MIN, HTTP_HOSTS_MAX, WORKERS_MAX};
use super::section::Section;
use super::setting::{ListSetting, Optional, Setting};
use super::value::{
    Value, host_header, http_address, integer, socket_name, socket_path, whole_number,
};

/// The definition of each key of the `[daemon]` table.
pub(super) const SETTINGS: SettingTable = &[
    &WORKERS,
    &RECEIVE_BUFFER,
    &SEND_BUFFER,
    &LOG,
    &CONTROL,
    &HTTP,
    &HTTP_HOSTS,
    &WATCH,
    &LATENCY,
];

const WORKERS: Setting<Workers> = Setting::custom("workers", WORKERS_FORM, workers)
    .default_as(Workers::Auto, "\"auto\"")
    .meaning("number of threads that receive; the kernel spreads unicast datagrams over them");

const RECEIVE_BUFFER: Setting<usize> = Setting::size("receive_buffer", BUFFER_BYTES)
    .default(8 * 1024 * 1024)
    .meaning(
        "size of each listener's receive buffer; a warning names the sysctl if the kernel gives less",
    );

const SEND_BUFFER: Setting<usize> = Setting::size("send_buffer", BUFFER_BYTES)
    .default(4 * 1024 * 1024)
    .meaning("size of the send buffer of each upstream's socket");

const LOG: Setting<LevelFilter> = Setting::choice("log", &LEVELS)
    .default(LevelFilter::Info)
    .meaning("most detailed level that is logged; RUST_LOG overrides it");

const CONTROL: Setting<ControlSocket, Optional> = Setting::custom(
    "control",
    Form::OneOf(&[Form::Text("path"), Form::False]),
    control,
)
.optional("control.sock below $RUNTIME_DIRECTORY, /run/udispatch or $XDG_RUNTIME_DIR/udispatch")
.meaning("unix socket for `udispatch status`, `reload` and the other commands; false for none");

const HTTP: Setting<SocketAddr, Optional> = Setting::custom(
    "http",
    Form::Text(r#""ADDRESS:PORT", or "PORT" of 127.0.0.1"#),
    http_address,
)
.optional("none")
.meaning("address that serves metrics and the web page, read-only");

const HTTP_HOSTS: ListSetting<String, Optional> = Setting::custom(
    "http_hosts",
    Form::Text("host name or address"),
    host_header,
)
.optional("none")
.meaning(
    "names that the Host header of a request to `http` may have, besides its address and localhost",
)
.list();

const WATCH: Setting<bool> = Setting::boolean("watch")
    .default(false)
    .meaning("whether a change of the file triggers a reload");

const LATENCY: Setting<bool> = Setting::boolean("latency").default(false).meaning(
    "whether the time that datagrams spend in the daemon is measured, from the kernel's receive to the send",
);

const WORKERS_FORM: Form = Form::OneOf(&[
    Form::Choice(&["auto"]),
    Form::integer(1..=WORKERS_MAX as u64),
]);

const BUFFER_BYTES: RangeInclusive<u64> = BUFFER_BYTES_MIN..=BUFFER_BYTES_MAX;

const CONTROL_VALUES: &str = "the path of a unix socket between quotes, or false for none";

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
            workers: WORKERS.default_value(),
            receive_buffer: RECEIVE_BUFFER.default_value(),
            send_buffer: SEND_BUFFER.default_value(),
            log: LOG.default_value(),
            control: ControlSocket::Default,
            http: None,
            http_hosts: Vec::new(),
            watch: WATCH.default_value(),
            latency: LATENCY.default_value(),
        }
    }
}

impl Daemon {
    /// Reads the table. A value that cannot be used is reported to the section and replaced by its default.
    pub(super) fn read(section: &mut Section<'_>) -> Daemon {
        if section.has(HTTP_HOSTS.key) && !section.has(HTTP.key) {
            section.problem(
                HTTP_HOSTS.key,
                "has an effect only with `http`",
                "add http = \"127.0.0.1:9253\"",
            );
        }
        Daemon {
            workers: section.get(&WORKERS),
            receive_buffer: section.get(&RECEIVE_BUFFER),
            send_buffer: section.get(&SEND_BUFFER),
            log: section.get(&LOG),
            control: read_control(section).unwrap_or_default(),
            http: section.find(&HTTP),
            http_hosts: read_http_hosts(section),
            watch: section.get(&WATCH),
            latency: section.get(&LATENCY),
        }
    }
}

fn read_control(section: &mut Section<'_>) -> Option<ControlSocket> {
    match section.find(&CONTROL)? {
        ControlSocket::Path(written) => {
            let path = socket_path(&section.base_dir().join(written));
            section.accept(CONTROL.key, path).map(ControlSocket::Path)
        }
        other => Some(other),
    }
}

fn control(value: Value<'_>) -> Result<ControlSocket, Mistake> {
    match value.inner() {
        DeValue::Boolean(false) => Ok(ControlSocket::Off),
        DeValue::Boolean(true) => Err(value
            .expected(CONTROL_VALUES)
            .hint("leave the key out to get a control socket at the default path")),
        DeValue::String(_) => socket_name(value).map(ControlSocket::Path),
        _ => Err(value.expected(CONTROL_VALUES)),
    }
}

fn read_http_hosts(section: &mut Section<'_>) -> Vec<String> {
    let hosts = section.find_list(&HTTP_HOSTS).unwrap_or_default();
    if hosts.len() > HTTP_HOSTS_MAX {
        section.problem(
            HTTP_HOSTS.key,
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
    let counts = 1..=WORKERS_MAX;
    let accepted = format!("\"auto\" or {}", whole_number(&counts));
    let count = integer(counts)(value).ok().and_then(NonZeroUsize::new);
    count
        .map(Workers::Count)
        .ok_or_else(|| value.expected(&accepted))
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
        let buffer = |value: Value<'_>| RECEIVE_BUFFER.parse(value);
        assert_eq!(read("\"8MiB\"", buffer), Ok(8 << 20));
        assert!(refusal("\"1KiB\"", buffer).contains("must be from 128KiB to 1GiB"));
        assert!(refusal("\"2GiB\"", buffer).contains("must be from 128KiB to 1GiB"));
    }
}
