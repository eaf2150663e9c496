//! Parsers for addresses: an IP address, a socket address, a prefix of sources, an upstream.
//!
//! Host names are recognised here but never resolved. Resolving can block, and is done by the plan and the monitor.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use ipnet::IpNet;

use super::super::destination::prefix_of;
use super::super::diagnostics::{Mistake, quoted, unexpected_scheme};
use super::super::limits::{HOST_NAME_BYTES_MAX, INTERFACE_NAME_BYTES_MAX};
use super::super::upstream::{Egress, Upstream, UpstreamHost};
use super::Value;

const UPSTREAM: &str = "an upstream such as \"10.0.0.1:2055\" or \"collector.example:2055\"";

/// Reads an IP address: `"192.0.2.1"`, `"2001:db8::1"`.
///
/// # Errors
///
/// Returns a mistake if the value is not text or not an IP address.
pub fn ip_address(value: Value<'_>) -> Result<IpAddr, Mistake> {
    let text = value.text("an IP address such as \"192.0.2.1\"")?;
    let bad = || Mistake::new(format!("{} is not an IP address", quoted(text)));
    text.parse().map_err(|_| {
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        match bare.filter(|bare| bare.parse::<Ipv6Addr>().is_ok()) {
            Some(bare) => bad().hint(format!("without brackets: \"{bare}\"")),
            None if text.parse::<SocketAddr>().is_ok() => bad().hint("without a port"),
            None => bad(),
        }
    })
}

/// Reads an address with a port: `"127.0.0.1:9253"`, `"[::1]:9253"`.
///
/// # Errors
///
/// Returns a mistake if the value is not text, is not an address with a port, or has port 0.
pub fn socket_address(value: Value<'_>) -> Result<SocketAddr, Mistake> {
    let text = value.text("an address and port such as \"127.0.0.1:9253\"")?;
    let bad = || Mistake::new(format!("{} is not an address with a port", quoted(text)));
    let address: SocketAddr = text.parse().map_err(|_| match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => bad().hint(format!("add the port, as in \"{ip}:9253\"")),
        Ok(IpAddr::V6(ip)) => bad().hint(format!("add brackets and port, as in \"[{ip}]:9253\"")),
        Err(_) => bad().hint("write \"127.0.0.1:9253\" or \"[::1]:9253\""),
    })?;
    match address.port() {
        0 => Err(Mistake::new("port 0 is not a port").hint("ports are 1 to 65535")),
        _ => Ok(address),
    }
}

/// Reads a prefix of source addresses, or one host: `"10.0.0.0/8"`, `"2001:db8::/32"`, `"10.1.1.1"`.
///
/// # Errors
///
/// Returns a mistake if the value is not text or not a prefix, or has a port, brackets or bits after its prefix
/// length.
pub fn prefix(value: Value<'_>) -> Result<IpNet, Mistake> {
    prefix_text(value.text("an address or prefix such as \"10.0.0.0/8\"")?)
}

/// Reads a prefix of source addresses from the text of a value or a key.
fn prefix_text(text: &str) -> Result<IpNet, Mistake> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    if let Some(bare) = bare.filter(|bare| prefix_of(bare).is_ok()) {
        let message = format!("{} has brackets but no port", quoted(text));
        return Err(Mistake::new(message).hint(format!("write \"{bare}\"")));
    }
    if text.parse::<SocketAddr>().is_ok() {
        let message = format!(
            "{} has a port; sources are matched by address",
            quoted(text)
        );
        return Err(Mistake::new(message).hint("leave the port out"));
    }
    prefix_of(text)
}

/// Reads an address or a prefix that datagrams may come from.
///
/// # Errors
///
/// Returns a mistake if `text` is not a prefix, or if no datagram can come from it: multicast groups, IPv4-mapped and
/// unspecified addresses.
pub(in super::super) fn source_of(text: &str) -> Result<IpNet, Mistake> {
    let net = prefix_text(text)?;
    if net.addr().is_multicast() {
        return Err(Mistake::new("a group cannot be the source of a datagram")
            .hint("`source` is the sender; write groups in `destination`"));
    }
    if let IpAddr::V6(v6) = net.addr()
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        let message = format!("{v6} is an IPv4-mapped IPv6 address");
        return Err(Mistake::new(message).hint(format!("write \"{v4}\"")));
    }
    if net.addr().is_unspecified() && net.prefix_len() == net.max_prefix_len() {
        return Err(Mistake::new("no host can have this address")
            .hint("for every source leave `source` out"));
    }
    Ok(net)
}

/// Returns whether a prefix is an IPv4 prefix.
pub(in super::super) fn is_v4(net: &IpNet) -> bool {
    matches!(net, IpNet::V4(_))
}

/// Reads an upstream: `"10.0.0.1:2055"`, `"[::1]:53"`, `"[fe80::1%eth0]:53"`, `"collector.example:2055"`.
///
/// # Errors
///
/// Returns a mistake if the value is not text, or if its host or port is malformed. An address that nothing can be
/// sent to is rejected, and so is a link-local address without a zone.
pub fn upstream(value: Value<'_>) -> Result<Upstream, Mistake> {
    let text = value.text(UPSTREAM)?;
    let (host, port) = parse_upstream(text)?;
    Ok(Upstream {
        host,
        port,
        at: value.at(),
        egress: Egress::default(),
    })
}

fn parse_upstream(text: &str) -> Result<(UpstreamHost, u16), Mistake> {
    let bad = || Mistake::new(format!("{} is not {UPSTREAM}", quoted(text)));
    if let Some(mistake) = unexpected_scheme(text) {
        return Err(mistake);
    }
    if let Ok(ip) = text.parse::<Ipv6Addr>() {
        return Err(bad().hint(format!("add brackets and port, as in \"[{ip}]:2055\"")));
    }
    let Some((host, port)) = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()) else {
        return Err(bad().hint("add the port after a colon"));
    };
    let port = parse_port(port)?;
    let bracketed = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let host = match bracketed {
        Some(host) => host_v6(host, port).ok_or_else(bad)??,
        None if host.parse::<Ipv6Addr>().is_ok() => {
            return Err(bad().hint(format!("put brackets around IPv6: \"[{host}]:{port}\"")));
        }
        None => host_v4_or_name(host, port)?,
    };
    Ok((host, port))
}

/// Reads a port from digits alone: `+53` and ` 53` are rejected.
fn parse_port(text: &str) -> Result<u16, Mistake> {
    let bad = || Mistake::new(format!("{} is not a port", quoted(text)));
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port > 0 => Ok(port),
        _ if text.trim() != text => Err(bad().hint("write it without the blank")),
        _ => Err(bad().hint("ports are 1 to 65535")),
    }
}

/// Reads the host part from between brackets; `None` if it is not an IPv6 address.
fn host_v6(text: &str, port: u16) -> Option<Result<UpstreamHost, Mistake>> {
    let (address, zone) = match text.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (text, None),
    };
    let address: Ipv6Addr = address.parse().ok()?;
    Some(match (zone, address.is_unicast_link_local()) {
        (None, true) => Err(Mistake::new(format!(
            "{address} is link-local, so it needs an interface"
        ))
        .hint(format!("name the interface: \"[{address}%eth0]:{port}\""))),
        (Some(_), false) if !is_link_local_group(&address) => Err(Mistake::new(format!(
            "{address} is not link-local, so it has no zone"
        ))
        .hint(format!("write \"[{address}]:{port}\""))),
        (Some(zone), _) => with_zone(address, zone, port),
        (None, false) => sendable(IpAddr::V6(address), port),
    })
}

fn is_link_local_group(address: &Ipv6Addr) -> bool {
    address.is_multicast() && matches!(address.segments()[0] & 0x000f, 1 | 2)
}

fn with_zone(address: Ipv6Addr, zone: &str, port: u16) -> Result<UpstreamHost, Mistake> {
    if !zone.is_empty() && zone.bytes().all(|byte| byte.is_ascii_digit()) {
        let bad = |_| Mistake::new(format!("{} is not the index of an interface", quoted(zone)));
        let index = zone.parse().map_err(bad)?;
        let address = SocketAddrV6::new(address, port, 0, index);
        return Ok(UpstreamHost::Address(SocketAddr::V6(address)));
    }
    let interface = interface_name(zone)?;
    Ok(UpstreamHost::Scoped { address, interface })
}

fn host_v4_or_name(text: &str, port: u16) -> Result<UpstreamHost, Mistake> {
    if let Ok(ip) = text.parse() {
        return sendable(IpAddr::V4(ip), port);
    }
    if text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        let message = format!("{} is not an IPv4 address", quoted(text));
        return Err(Mistake::new(message).hint("four numbers from 0 to 255"));
    }
    if is_host_name(text) {
        return Ok(UpstreamHost::Name(text.to_owned()));
    }
    let message = format!(
        "{} is neither an address nor the name of a host",
        quoted(text)
    );
    Err(Mistake::new(message).hint("names have letters, digits, hyphens and dots"))
}

fn sendable(ip: IpAddr, port: u16) -> Result<UpstreamHost, Mistake> {
    if ip.is_unspecified() {
        let message = format!("{ip} stands for every address; nothing can be sent to it");
        let here = if ip.is_ipv4() { "127.0.0.1" } else { "[::1]" };
        return Err(Mistake::new(message).hint(format!("this host is \"{here}:{port}\"")));
    }
    if let IpAddr::V6(v6) = ip
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        let message = format!("{ip} is an IPv4-mapped IPv6 address");
        return Err(Mistake::new(message).hint(format!("write \"{v4}:{port}\"")));
    }
    Ok(UpstreamHost::Address(SocketAddr::new(ip, port)))
}

fn is_host_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    name.len() <= HOST_NAME_BYTES_MAX
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        })
}

/// Checks the form of the name of a network interface. Whether the interface exists is checked later.
///
/// # Errors
///
/// Returns a mistake if the name is empty, longer than [`INTERFACE_NAME_BYTES_MAX`] bytes, or has a character that
/// the kernel does not allow.
pub(in super::super) fn interface_name(text: &str) -> Result<String, Mistake> {
    let name = || format!("{} cannot be the name of an interface", quoted(text));
    if text.is_empty() {
        return Err(Mistake::new("the name of the interface is empty"));
    }
    if text.len() > INTERFACE_NAME_BYTES_MAX {
        let message = format!("{}: more than {INTERFACE_NAME_BYTES_MAX} bytes", name());
        return Err(Mistake::new(message).hint("`ip link` lists them"));
    }
    let bad = |char: char| char == '/' || char.is_whitespace() || char.is_control();
    if text.contains(bad) || matches!(text, "." | "..") {
        return Err(Mistake::new(name()).hint("`ip link` lists them"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::{read, refusal};
    use super::*;

    /// Each form of an upstream is displayed as it was written.
    #[test]
    fn upstreams_round_trip() {
        for text in [
            "10.0.0.1:2055",
            "[::1]:53",
            "[fe80::1%eth0]:53",
            "[fe80::1%7]:53",
            "[ff02::fb%eth0]:5353",
            "239.1.2.3:5000",
            "collector.example:2055",
            "localhost:1",
            "_dns.example.:65535",
        ] {
            let upstream = read(&format!("\"{text}\""), upstream).expect(text);
            assert_eq!(upstream.to_string(), text);
            assert_eq!(upstream.at, 6..8 + text.len());
        }
    }

    /// Each malformed upstream has an explanation of its own.
    #[test]
    fn bad_upstreams() {
        for (text, expected) in [
            ("10.0.0.1", "add the port"),
            (":53", "add the port"),
            ("", "add the port"),
            ("10.0.0.1:0", "ports are 1 to 65535"),
            ("10.0.0.1:65536", "ports are 1 to 65535"),
            ("10.0.0.1:+53", "ports are 1 to 65535"),
            ("10.0.0.256:53", "is not an IPv4 address"),
            ("0.0.0.0:53", "this host is \"127.0.0.1:53\""),
            ("[::]:53", "this host is \"[::1]:53\""),
            ("::1", "add brackets and port"),
            ("2001:db8::1:2:53", "\"[2001:db8::1:2:53]:2055\""),
            (
                "1:2:3:4:5:6:7:8:53",
                "put brackets around IPv6: \"[1:2:3:4:5:6:7:8]:53\"",
            ),
            ("[fe80::1]:53", "name the interface"),
            ("[fe80::1%]:53", "name of the interface is empty"),
            ("[fe80::1%99999999999]:53", "is not the index"),
            ("[2001:db8::1%eth0]:53", "not link-local"),
            ("[::ffff:10.0.0.1]:53", "write \"10.0.0.1:53\""),
            ("[10.0.0.1]:53", "is not an upstream"),
            ("exa mple:53", "neither an address nor the name"),
            ("udp://x:80", "leave out \"udp://\": write \"x:80\""),
            ("-x:80", "neither an address nor the name"),
        ] {
            let refusal = refusal(&format!("\"{text}\""), upstream);
            assert!(refusal.contains(expected), "{text}: {refusal}");
        }
    }

    /// Sources are prefixes or hosts. Host bits, brackets and ports have explanations of their own.
    #[test]
    fn prefixes() {
        let ok = |text: &str| read(text, prefix).map(|net| net.to_string());
        assert_eq!(ok("\"10.0.0.0/8\"").as_deref(), Ok("10.0.0.0/8"));
        assert_eq!(ok("\"10.1.1.1\"").as_deref(), Ok("10.1.1.1/32"));
        assert_eq!(ok("\"2001:db8::1\"").as_deref(), Ok("2001:db8::1/128"));
        for (text, expected) in [
            ("\"10.1.1.1/8\"", "did you mean \"10.0.0.0/8\"?"),
            ("\"10.0.0.0/33\"", "at most 32"),
            ("\"[2001:db8::/32]\"", "write \"2001:db8::/32\""),
            ("\"10.0.0.1:53\"", "leave the port out"),
            ("\"elsewhere\"", "is not an IP address"),
            ("7", "expected an address or prefix"),
        ] {
            let refusal = refusal(text, prefix);
            assert!(refusal.contains(expected), "{text}: {refusal}");
        }
    }

    /// Plain addresses are read with and without a port.
    #[test]
    fn addresses() {
        assert!(read("\"192.0.2.1\"", ip_address).is_ok());
        assert!(refusal("\"[::1]\"", ip_address).contains("without brackets"));
        assert!(refusal("\"10.0.0.1:5\"", ip_address).contains("without a port"));
        assert!(read("\"[::1]:9253\"", socket_address).is_ok());
        assert!(refusal("\"::1\"", socket_address).contains("\"[::1]:9253\""));
        assert!(refusal("\"127.0.0.1:0\"", socket_address).contains("port 0"));
        assert!(refusal("\"9253\"", socket_address).contains("write \"127.0.0.1:9253\""));
    }
}
