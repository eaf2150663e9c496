//! How commands find the running daemon and send requests to it, and the messages for failures.

use std::env;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::{Exit, output};
use crate::admin::client::{Client, HttpResponse, ResponseStream};
use crate::config::diagnostics::{one_line, printable};
use crate::supervisor::control_path::{Places, default_places};

/// The environment variable that names the control socket if `--control` does not.
const VARIABLE: &str = "UDISPATCH_CONTROL";
/// Longest wait for a response, a little longer than the daemon's own limit.
pub(super) const TIMEOUT: Duration = Duration::from_secs(15);
/// Longest wait for the response to a reload, which may resolve names.
pub(super) const RELOAD_TIMEOUT: Duration = Duration::from_secs(130);

/// Selects the daemon.
#[derive(Debug, Args)]
pub(super) struct Remote {
    /// The daemon's control socket [default: $UDISPATCH_CONTROL, or control.sock in $RUNTIME_DIRECTORY, /run/udispatch or
    /// $XDG_RUNTIME_DIR/udispatch, the first on which a daemon listens]
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
}

impl Remote {
    /// Sends a GET request. A refusal is printed.
    pub(super) fn get(&self, target: &str) -> Result<HttpResponse, Exit> {
        let client = self.client(TIMEOUT)?;
        check(&client, client.get(target))
    }

    /// Sends a GET request, and prints the response: as JSON, or as the text that `render` makes of it. A refusal is
    /// printed, too.
    pub(super) fn show<T: serde::de::DeserializeOwned>(
        &self,
        target: &str,
        json: bool,
        render: impl FnOnce(&T) -> String,
    ) -> Exit {
        let response = match self.get(target) {
            Ok(response) => response,
            Err(exit) => return exit,
        };
        if json {
            return print_json(&response);
        }
        match parse(&response) {
            Ok(value) => output::print(&render(&value)),
            Err(exit) => exit,
        }
    }

    /// Sends a GET request whose response does not end. A refusal is printed.
    pub(super) fn stream(&self, target: &str) -> Result<ResponseStream, Exit> {
        let client = self.client(TIMEOUT)?;
        let response = match client.stream(target) {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(refusal)) => Ok(refusal),
            Err(error) => Err(error),
        };
        Err(check(&client, response).err().unwrap_or(Exit::Failure))
    }

    /// Sends a POST request, and waits at most `timeout` for the response.
    pub(super) fn post(&self, target: &str, timeout: Duration) -> Result<HttpResponse, Exit> {
        let client = self.client(timeout)?;
        check(&client, client.post(target))
    }

    /// Sends a POST request whose response is a sentence, and prints that.
    pub(super) fn send_command(&self, target: &str) -> Exit {
        match self.post(target, TIMEOUT) {
            Ok(response) => output::print(&printable(&response.text())),
            Err(exit) => exit,
        }
    }

    /// Returns a client for the selected daemon.
    pub(super) fn client(&self, timeout: Duration) -> Result<Client, Exit> {
        let named = self.control.clone().or_else(|| {
            let path = env::var_os(VARIABLE).filter(|path| !path.is_empty());
            path.map(PathBuf::from)
        });
        if let Some(path) = named {
            return Ok(Client::new(path, timeout));
        }
        let places = default_places(&Places::this());
        let mut tried = Vec::new();
        for path in places {
            match UnixStream::connect(&path) {
                Ok(_) => return Ok(Client::new(path, timeout)),
                // A daemon exists here, but refuses access. Do not try the next path, which would be that of another
                // daemon.
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    return Ok(Client::new(path, timeout));
                }
                Err(error) => {
                    tried.push(format!("  {}: {}", path_text(&path), reason(&path, &error)));
                }
            }
        }
        output::print_error(&format!(
            "error: no daemon responds at any of the default paths\n{}",
            tried.join("\n")
        ));
        output::print_error(
            "  `udispatch run FILE` starts one. If its control socket has another path, use `--control PATH` or \
             $UDISPATCH_CONTROL",
        );
        Err(Exit::Failure)
    }
}

/// Returns whether the file at the path is not a socket. The kernel refuses a connection to such a file with the same error
/// as a connection to an abandoned socket.
fn is_other(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| !file.file_type().is_socket())
}

fn path_text(path: &Path) -> String {
    one_line(&path.to_string_lossy())
}

fn reason(path: &Path, error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => "there is no socket",
        ErrorKind::ConnectionRefused if is_other(path) => "it is not a socket",
        ErrorKind::ConnectionRefused => "it was left by a daemon that has ended",
        _ => "it cannot be used",
    }
}

/// Returns a sentence that says why there is no response, and what to do about it.
pub(super) fn explain_failure(client: &Client, error: &io::Error) -> String {
    let path = path_text(client.path());
    match error.kind() {
        ErrorKind::NotFound => format!(
            "there is no control socket {path}. Check that the daemon runs, and that this is its `control` path; \
             `--control PATH` names another"
        ),
        ErrorKind::ConnectionRefused if is_other(client.path()) => {
            format!(
                "{path} is not a socket. `--control` names the control socket of the daemon, not its configuration file"
            )
        }
        ErrorKind::ConnectionRefused => {
            format!(
                "no daemon listens on {path}: the socket was left by one that has ended. `udispatch run FILE` starts a daemon"
            )
        }
        ErrorKind::PermissionDenied => format!(
            "no permission to use the control socket {path}: only its owner and its group may. Run this command with sudo or as \
             the daemon's user, or join the group"
        ),
        ErrorKind::TimedOut => {
            format!(
                "the daemon at {path} does not respond in time; its log may say why, and SIGTERM ends it"
            )
        }
        _ => format!("cannot send a request to the daemon at {path}: {error}"),
    }
}

/// Returns the response if the daemon did what was requested. Otherwise prints the text of the refusal, or the cause of
/// the failure.
pub(super) fn check(
    client: &Client,
    response: io::Result<HttpResponse>,
) -> Result<HttpResponse, Exit> {
    let response = response.map_err(|error| {
        output::print_error(&format!("error: {}", explain_failure(client, &error)));
        Exit::Failure
    })?;
    if response.is_success() {
        return Ok(response);
    }
    // A response with status 422 is a report, not a sentence; the caller renders it.
    if response.status == 422 {
        return Ok(response);
    }
    let text = printable(response.text().trim_end());
    let text = if text.is_empty() {
        format!("the daemon responded with status {}", response.status)
    } else {
        text
    };
    output::print_error(&format!("error: {text}"));
    Err(match response.status {
        400 | 404 => Exit::Usage,
        _ => Exit::Failure,
    })
}

/// Parses a response. The response of a daemon of another version may have another form.
pub(super) fn parse<T: serde::de::DeserializeOwned>(response: &HttpResponse) -> Result<T, Exit> {
    serde_json::from_slice(&response.body).map_err(|error| {
        output::print_error(&format!(
            "error: cannot parse the response of the daemon ({error}); it may be of another version. `--json` prints it unchanged"
        ));
        Exit::Failure
    })
}

/// Prints JSON as it was received.
fn print_json(response: &HttpResponse) -> Exit {
    output::print(&(output::json_text(response.text().trim_end()) + "\n"))
}

/// Returns a path with parameters, percent-encoded as in a URL (RFC 3986, section 2.1).
pub(super) fn target(path: &str, parameters: &[(&str, Option<&str>)]) -> String {
    let mut target = path.to_owned();
    let mut mark = '?';
    for (key, value) in parameters
        .iter()
        .filter_map(|(key, value)| Some((key, (*value)?)))
    {
        target.push(mark);
        target += key;
        target.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    target.push(byte.into());
                }
                byte => target += &format!("%{byte:02X}"),
            }
        }
        mark = '&';
    }
    target
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text from the user never becomes another parameter or another path.
    #[test]
    fn parameters_are_escaped() {
        assert_eq!(target("/a", &[]), "/a");
        let parameters = [
            ("x", Some("[::1]:53")),
            ("y", None),
            ("z", Some("a&b=c /?#%ä")),
        ];
        assert_eq!(
            target("/a", &parameters),
            "/a?x=%5B%3A%3A1%5D%3A53&z=a%26b%3Dc%20%2F%3F%23%25%C3%A4"
        );
    }
}
