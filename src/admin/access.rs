//! Access rules for requests, and the headers of every response. The mode of its file protects the control socket. Any
//! page in a browser on this host can reach the TCP socket. It is therefore read-only, and accepts only this daemon's
//! host names.

use std::net::IpAddr;
use std::sync::Arc;

use hyper::body::{Body as _, Incoming};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::{Method, Request, StatusCode};

use super::response::{self, Response};
use super::tap;
use crate::observe::admin_stats::AdminStats;

/// Bytes of a request's body. No endpoint reads one.
const BODY_BYTES_MAX: u64 = 64 * 1024;

/// The listener at which a client connected.
#[derive(Debug, Clone)]
pub enum ListenerKind {
    /// The control socket.
    Control,
    /// The TCP socket.
    Http {
        /// The local address that the client connected to.
        local: IpAddr,
        /// Further host names of this daemon, in lower case, without port.
        hosts: Arc<Vec<String>>,
    },
}

/// Checks whether the endpoints may handle the request.
///
/// # Errors
///
/// Returns the response to send instead: if the `Host` is not allowed, if a request over TCP would change something or
/// show datagrams, or if the body is too large.
pub fn check(
    listener_kind: &ListenerKind,
    request: &Request<Incoming>,
    admin_stats: &AdminStats,
) -> Result<(), Box<Response>> {
    admin_stats.requests.more();
    if let ListenerKind::Http { local, hosts } = listener_kind {
        let host = request
            .headers()
            .get(HOST)
            .and_then(|host| host.to_str().ok());
        if !host.is_some_and(|host| is_ours(host, *local, hosts)) {
            admin_stats.refused_hosts.more();
            let text = "this daemon does not have this host name; use its address or localhost, or add the name to `http_hosts` \
                         below [daemon]\n";
            return Err(refused(StatusCode::MISDIRECTED_REQUEST, text));
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            admin_stats.refused_methods.more();
            let text = "the TCP port is read-only; send commands to the control socket: `udispatch reload`, or curl \
                         --unix-socket\n";
            let mut refused = refused(StatusCode::METHOD_NOT_ALLOWED, text);
            let allowed = HeaderValue::from_static("GET, HEAD");
            refused.headers_mut().insert(ALLOW, allowed);
            return Err(refused);
        }
        if request.uri().path() == tap::PATH {
            admin_stats.refused_methods.more();
            let text = "payloads are not shown over TCP; `udispatch tap` uses the control socket\n";
            return Err(refused(StatusCode::FORBIDDEN, text));
        }
    }
    if request.body().size_hint().lower() > BODY_BYTES_MAX {
        admin_stats.refused_requests.more();
        let text = "the body of the request is too large\n";
        return Err(refused(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    Ok(())
}

fn refused(status: StatusCode, text: &'static str) -> Box<Response> {
    Box::new(response::text(status, text))
}

/// Returns whether a `Host` header names this daemon. A foreign page that resolves its own name to our address (DNS
/// rebinding) still sends that name.
fn is_ours(host: &str, local: IpAddr, hosts: &[String]) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let is_local = name.parse::<IpAddr>().is_ok_and(|ip| ip == local);
    is_local
        || name == "localhost"
        || hosts
            .iter()
            .any(|ours| *ours == name || is_same_address(ours, &name))
}

fn is_same_address(ours: &str, name: &str) -> bool {
    matches!((ours.parse::<IpAddr>(), name.parse::<IpAddr>()), (Ok(ours), Ok(name)) if ours == name)
}

/// Sets the headers of every response. It must not be cached, browsers must not guess its type, and only our own page may
/// use it.
pub fn add_headers(response: &mut Response) {
    let policy = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, policy),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Our address, localhost and the names in the file are accepted, with or without a port, in any notation; no other
    /// name is.
    #[test]
    fn names_of_ours() {
        let hosts = ["stats.example".to_owned(), "2001:db8::1".to_owned()];
        let v4 = IpAddr::from([127, 0, 0, 1]);
        for host in [
            "127.0.0.1:9253",
            "127.0.0.1",
            "localhost:1",
            "LOCALHOST",
            "stats.example.",
            "Stats.Example:80",
        ] {
            assert!(is_ours(host, v4, &hosts), "{host}");
        }
        for host in [
            "",
            ":",
            "127.0.0.2",
            "localhost.evil.example",
            "evil.example:9253",
            "[::1]:9253",
            "127.0.0.1.nip.io",
        ] {
            assert!(!is_ours(host, v4, &hosts), "{host}");
        }
        let v6 = "::1".parse().expect("an address");
        assert!(
            is_ours("[::1]:9253", v6, &[])
                && is_ours("[0:0::1]", v6, &[])
                && is_ours("[2001:DB8:0::1]:1", v6, &hosts)
        );
        assert!(!is_ours("[::2]:9253", v6, &[]) && !is_ours("[", v6, &[]));
    }
}
