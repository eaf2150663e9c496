//! Parsers for the addresses of the daemon itself: its control socket, and HTTP over TCP.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use toml::de::DeValue;

use super::super::diagnostics::{Mistake, quoted};
use super::super::limits::{HOST_NAME_BYTES_MAX, SOCKET_PATH_BYTES_MAX};
use super::{Value, path, socket_address};

/// Reads the path of a unix socket. A relative path is to be joined to the directory of the file; [`socket_path`]
/// checks the result.
///
/// # Errors
///
/// Returns a mistake if the value is not a path or ends with `/`.
pub fn socket_name(value: Value<'_>) -> Result<PathBuf, Mistake> {
    let written = path(value)?;
    if written.to_string_lossy().ends_with('/') {
        let hint = format!(
            "name the socket in it: \"{}control.sock\"",
            written.display()
        );
        return Err(Mistake::new("this is a directory").hint(hint));
    }
    Ok(written)
}

/// Returns the path if a unix socket can have it.
///
/// # Errors
///
/// Returns a mistake if the path is longer than `SOCKET_PATH_BYTES_MAX` bytes.
pub fn socket_path(path: &Path) -> Result<PathBuf, Mistake> {
    match path.as_os_str().len() {
        bytes if bytes > SOCKET_PATH_BYTES_MAX => {
            let message = format!("the path has {bytes} bytes; that of a unix socket has at most ");
            Err(Mistake::new(format!("{message}{SOCKET_PATH_BYTES_MAX}"))
                .hint("choose a shorter one below /run"))
        }
        _ => Ok(path.to_owned()),
    }
}

/// Reads the address of the HTTP server: `"127.0.0.1:9253"`, `"[::]:9253"`. A port alone stands for that port of
/// 127.0.0.1: `":9253"`, `"9253"`.
///
/// # Errors
///
/// Returns a mistake if the value is not text, or neither a port nor an address with a port.
pub fn http_address(value: Value<'_>) -> Result<SocketAddr, Mistake> {
    if let DeValue::Integer(port) = value.inner() {
        let hint = format!("write it between quotes: \"127.0.0.1:{}\"", port.as_str());
        return Err(value
            .expected("an address and port such as \"127.0.0.1:9253\"")
            .hint(hint));
    }
    let text = value.text("an address and port such as \"127.0.0.1:9253\"")?;
    let digits = text.strip_prefix(':').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return socket_address(value);
    }
    match digits.parse() {
        Ok(port) if port > 0 => Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)),
        _ => {
            Err(Mistake::new(format!("{} is not a port", quoted(digits)))
                .hint("ports are 1 to 65535"))
        }
    }
}

/// Reads a name that a Host header may have, without its port: `"stats.example"`, `"192.0.2.1"`, `"2001:db8::1"`.
///
/// # Errors
///
/// Returns a mistake if the value is not text, or neither a host name nor an address.
pub fn host_header(value: Value<'_>) -> Result<String, Mistake> {
    let text = value.text("the name of a host such as \"stats.example\"")?;
    let bad = || Mistake::new(format!("{} is not the name of a host", quoted(text)));
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(ip.to_string());
    }
    let is_label = |label: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(is_plain) && !label.starts_with('-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    match text.rsplit_once(':') {
        _ if text.contains("://") => Err(bad().hint("write the name alone, without http://")),
        Some((host, port)) if port.parse::<u16>().is_ok() => {
            Err(bad().hint(format!("without the port: {}", quoted(host))))
        }
        _ if text == "*" => {
            Err(bad().hint("write each name in full; a pattern would let web pages of other sites read the server through a browser"))
        }
        _ if name.len() > HOST_NAME_BYTES_MAX || !name.split('.').all(is_label) => {
            Err(bad().hint("letters, digits, hyphens and dots"))
        }
        _ => Ok(name.to_ascii_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{read, refusal};
    use super::*;

    /// A path that the kernel cannot bind is rejected.
    #[test]
    fn paths_of_sockets() {
        assert_eq!(
            read("\"/run/u.sock\"", socket_name),
            Ok(PathBuf::from("/run/u.sock"))
        );
        assert!(refusal("\"/run/\"", socket_name).contains("\"/run/control.sock\""));
        assert!(refusal("\"\"", socket_name).contains("is empty"));
        let path = |bytes| socket_path(Path::new(&"x".repeat(bytes)));
        assert_eq!(path(107).map(|path| path.as_os_str().len()), Ok(107));
        let mistake = path(108).expect_err("the path is too long");
        let message = "the path has 108 bytes; that of a unix socket has at most 107";
        assert_eq!(mistake.message, message);
    }

    /// A port alone means the loopback address; every other address is written in full.
    #[test]
    fn addresses_of_http() {
        for (text, address) in [
            ("\"9253\"", "127.0.0.1:9253"),
            ("\":9253\"", "127.0.0.1:9253"),
            ("\"0.0.0.0:80\"", "0.0.0.0:80"),
            ("\"[::1]:9253\"", "[::1]:9253"),
        ] {
            assert_eq!(
                read(text, http_address)
                    .map(|address| address.to_string())
                    .as_deref(),
                Ok(address),
                "{text}"
            );
        }
        for (text, expected) in [
            ("9253", "write it between quotes: \"127.0.0.1:9253\""),
            ("\":0\"", "ports are 1 to 65535"),
            ("\"65536\"", "ports are 1 to 65535"),
            ("\":\"", "is not an address with a port"),
            ("\"localhost:9253\"", "write \"127.0.0.1:9253\""),
            ("\"127.0.0.1\"", "add the port"),
            ("true", "expected an address and port"),
        ] {
            let refusal = refusal(text, http_address);
            assert!(refusal.contains(expected), "{text}: {refusal}");
        }
    }

    /// Names are stored as a request has them: in lower case, without port and final dot.
    #[test]
    fn names_of_hosts() {
        for (text, host) in [
            ("\"Stats.Example.\"", "stats.example"),
            ("\"box\"", "box"),
            ("\"192.0.2.1\"", "192.0.2.1"),
            ("\"[2001:DB8:0::1]\"", "2001:db8::1"),
        ] {
            assert_eq!(read(text, host_header).as_deref(), Ok(host), "{text}");
        }
        for (text, expected) in [
            (
                "\"stats.example:9253\"",
                "without the port: \"stats.example\"",
            ),
            ("\"http://stats.example\"", "without http://"),
            ("\"*\"", "write each name in full"),
            ("\"*.example\"", "letters, digits, hyphens and dots"),
            ("\"a..b\"", "is not the name of a host"),
            ("\"\"", "is not the name of a host"),
            ("\"exa mple\"", "letters, digits"),
            ("5", "expected the name of a host"),
        ] {
            let refusal = refusal(text, host_header);
            assert!(refusal.contains(expected), "{text}: {refusal}");
        }
    }
}
