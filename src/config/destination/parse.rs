//! The parser of destinations, with an explanation for each malformed one.
//!
//! Host names are never resolved here: a destination is an address of this host, or a group.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::super::diagnostics::{Mistake, quoted, unexpected_scheme};
use super::{Destination, PortSpan};

impl FromStr for Destination {
    type Err = Mistake;

    fn from_str(text: &str) -> Result<Destination, Mistake> {
        let several = "write several as a list: [\"...\", \"...\"]";
        if text.contains(char::is_whitespace) {
            let mistake = Mistake::new(format!("{} contains a blank", quoted(text)));
            let without: String = text.split_whitespace().collect();
            return Err(match without.parse::<Destination>() {
                Ok(_) => mistake.hint(format!("write \"{without}\"")),
                Err(_) => mistake.hint(several),
            });
        }
        if text.contains(',') {
            return Err(Mistake::new(format!("{} contains a comma", quoted(text))).hint(several));
        }
        if let Some(mistake) = unexpected_scheme(text) {
            return Err(mistake);
        }
        let (host, ports) = split(text)?;
        let ports = ports.parse()?;
        let net = match host {
            HostText::Bracketed(host) => net_v6(host, ports)?,
            HostText::Bare(host) => net_v4(host, ports)?,
        };
        Ok(Destination { net, ports })
    }
}

/// The host part of a destination, in front of the port.
enum HostText<'a> {
    Bracketed(&'a str),
    Bare(&'a str),
}

fn split(text: &str) -> Result<(HostText<'_>, &str), Mistake> {
    let no_port = |hint: String| Mistake::new(format!("{} has no port", quoted(text))).hint(hint);
    if let Some(rest) = text.strip_prefix('[') {
        let Some((host, ports)) = rest.split_once(']') else {
            return Err(
                Mistake::new(format!("{} has no closing bracket", quoted(text)))
                    .hint("IPv6 is written \"[2001:db8::1]:53\""),
            );
        };
        return match ports.strip_prefix(':') {
            Some(ports) => Ok((HostText::Bracketed(host), ports)),
            None if ports.starts_with('/') => {
                let (length, ports) = ports[1..].split_once(':').unwrap_or((&ports[1..], "53"));
                Err(
                    Mistake::new("the prefix length belongs inside the brackets")
                        .hint(format!("write \"[{host}/{length}]:{ports}\"")),
                )
            }
            None if ports.is_empty() => Err(no_port(format!("add one: \"[{host}]:53\""))),
            None => Err(Mistake::new(format!("{} is not a port", quoted(ports)))
                .hint(format!("write \"[{host}]:53\""))),
        };
    }
    match text.rsplit_once(':') {
        None => Err(no_port(
            if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
                format!("for every IPv4 address write \"0.0.0.0:{text}\"")
            } else {
                "add one, as in \"127.0.0.1:1234\"".to_owned()
            },
        )),
        Some((host, _)) if host.contains(':') => Err(missing_brackets(text)),
        Some((host, ports)) => Ok((HostText::Bare(host), ports)),
    }
}

/// Explains a text with more than one colon and no bracket: IPv6, in which the port is ambiguous.
fn missing_brackets(text: &str) -> Mistake {
    let is_v6 = |text: &str| {
        let address = text.split_once('/').map_or(text, |(address, _)| address);
        address.parse::<Ipv6Addr>().is_ok()
    };
    let hint = match text.rsplit_once(':') {
        Some((host, ports)) if is_v6(host) && ports.parse::<PortSpan>().is_ok() => {
            format!("write \"[{host}]:{ports}\"")
        }
        _ if is_v6(text) => format!("write \"[{text}]:PORT\""),
        _ => "IPv6 is written \"[2001:db8::1]:53\"".to_owned(),
    };
    Mistake::new(format!("{} has colons but no brackets", quoted(text))).hint(hint)
}

impl FromStr for PortSpan {
    type Err = Mistake;

    fn from_str(text: &str) -> Result<PortSpan, Mistake> {
        let Some((first, last)) = text.split_once('-') else {
            let port = port(text)?;
            return Ok(PortSpan {
                first: port,
                last: port,
            });
        };
        let first = port(first)?;
        let last = port(last)?;
        PortSpan::new(first, last).ok_or_else(|| {
            Mistake::new(format!("the ports {first}-{last} run backwards"))
                .hint(format!("did you mean {last}-{first}?"))
        })
    }
}

fn port(text: &str) -> Result<u16, Mistake> {
    let hint = "ports are 1 to 65535, a range is 5000-5010";
    if text.is_empty() {
        return Err(Mistake::new("the port is missing").hint(hint));
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Mistake::new(format!("{} is not a port", quoted(text))).hint(hint));
    }
    match text.parse() {
        Ok(0) => Err(Mistake::new("nothing can be sent to port 0").hint(hint)),
        Ok(port) => Ok(port),
        Err(_) => Err(Mistake::new(format!("port {} is above 65535", quoted(text))).hint(hint)),
    }
}

fn net_v6(host: &str, ports: PortSpan) -> Result<IpNet, Mistake> {
    if let Some((address, zone)) = host.split_once('%') {
        return Err(Mistake::new("a destination has no zone").hint(format!(
            "write \"[{address}]:{ports}\" and, as a key of its own, interface = \"{zone}\""
        )));
    }
    let address = host.split_once('/').map_or(host, |(address, _)| address);
    if address.parse::<Ipv4Addr>().is_ok() {
        return Err(Mistake::new("IPv4 has no brackets").hint(format!("write \"{host}:{ports}\"")));
    }
    if host.is_empty() {
        return Err(Mistake::new("the brackets are empty")
            .hint(format!("for every IPv6 address write \"[::]:{ports}\"")));
    }
    if let Ok(v6) = address.parse::<Ipv6Addr>()
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        return Err(
            Mistake::new(format!("{address} is an IPv4-mapped IPv6 address"))
                .hint(format!("write \"{v4}:{ports}\"")),
        );
    }
    as_destination(host, ports)
}

fn net_v4(host: &str, ports: PortSpan) -> Result<IpNet, Mistake> {
    let every = || format!("for every IPv4 address write \"0.0.0.0:{ports}\"");
    match host {
        "" => return Err(Mistake::new("the address is missing").hint(every())),
        "*" => return Err(Mistake::new("\"*\" is not an address").hint(every())),
        _ => {}
    }
    let address = host.split_once('/').map_or(host, |(address, _)| address);
    let is_numeric = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    if address.parse::<Ipv4Addr>().is_err() && !address.bytes().all(is_numeric) {
        let hint = match address {
            "localhost" => format!("write \"127.0.0.1:{ports}\", and \"[::1]:{ports}\" for IPv6"),
            _ => "write its address; a name can have several, and they change".to_owned(),
        };
        let message = format!("{} is a name; destinations are addresses", quoted(host));
        return Err(Mistake::new(message).hint(hint));
    }
    as_destination(host, ports)
}

/// Reads the host part, with the checks that are the same in both families.
fn as_destination(host: &str, ports: PortSpan) -> Result<IpNet, Mistake> {
    let mut net = prefix_of(host)?;
    if net.addr().is_unspecified() && !host.contains('/') {
        // Sockets are bound to this address for all addresses, and the file uses the same notation.
        net = every(net);
    }
    if net.addr().is_unspecified() && net.prefix_len() == net.max_prefix_len() {
        let message = format!("{} is not the address of a host", quoted(host));
        let every = Destination {
            net: every(net),
            ports,
        };
        return Err(Mistake::new(message).hint(format!("for every address write \"{every}\"")));
    }
    if net.addr().is_multicast() && net.prefix_len() < net.max_prefix_len() {
        let example = match net {
            IpNet::V4(_) => "\"239.1.2.3:5000\"",
            IpNet::V6(_) => "\"[ff02::fb]:5353\"",
        };
        return Err(Mistake::new("a prefix of groups cannot be joined")
            .hint(format!("name each group: {example}")));
    }
    Ok(net)
}

fn every(net: IpNet) -> IpNet {
    match net {
        IpNet::V4(_) => IpNet::V4(Ipv4Net::default()),
        IpNet::V6(_) => IpNet::V6(Ipv6Net::default()),
    }
}

/// Reads an address, or a prefix without host bits.
///
/// # Errors
///
/// Returns a mistake if the address or the prefix length is malformed, or if bits are set after the prefix length.
pub(in super::super) fn prefix_of(text: &str) -> Result<IpNet, Mistake> {
    let Some((address, length)) = text.split_once('/') else {
        return text
            .parse::<IpAddr>()
            .map(IpNet::from)
            .map_err(|_| no_address(text));
    };
    let address: IpAddr = address.parse().map_err(|_| no_address(address))?;
    let longest = IpNet::from(address).prefix_len();
    let digits =
        (1..=3).contains(&length.len()) && length.bytes().all(|byte| byte.is_ascii_digit());
    let net = length
        .parse()
        .ok()
        .filter(|_| digits)
        .map(|length| IpNet::new(address, length));
    let Some(Ok(net)) = net else {
        let message = format!("{} is not a prefix length", quoted(length));
        let hint = mask_length(address, length).map_or_else(
            || format!("at most {longest} for this family"),
            |length| format!("write \"{address}/{length}\""),
        );
        return Err(Mistake::new(message).hint(hint));
    };
    if net.trunc() != net {
        return Err(
            Mistake::new(format!("{net} has bits after its prefix length")).hint(format!(
                "did you mean \"{}\"? or, for this host alone, \"{address}\"",
                net.trunc()
            )),
        );
    }
    Ok(net)
}

/// Returns the length of an IPv4 prefix that is written with a mask, as in 10.0.0.0/255.0.0.0.
fn mask_length(address: IpAddr, mask: &str) -> Option<u8> {
    let mask: Ipv4Addr = mask.parse().ok().filter(|_| address.is_ipv4())?;
    ipnet::ipv4_mask_to_prefix(mask).ok()
}

/// Explains what is wrong with a malformed address and what an address looks like.
fn no_address(text: &str) -> Mistake {
    let is_made_of = |char: &dyn Fn(char) -> bool| !text.is_empty() && text.chars().all(char);
    let hint = if is_made_of(&|char| char.is_ascii_digit() || char == '.') {
        Some("IPv4 is four numbers from 0 to 255, as in \"127.0.0.1\", without leading zeros")
    } else if text.contains(':')
        && is_made_of(&|char| char.is_ascii_hexdigit() || matches!(char, ':' | '.'))
    {
        Some("IPv6 is groups of up to four hexadecimal digits, as in \"2001:db8::1\"")
    } else {
        None
    };
    Mistake::new(format!("{} is not an IP address", quoted(text)))
        .maybe_hint(hint.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each malformed destination has an explanation of its own.
    #[test]
    fn every_mistake_has_a_hint() {
        for (text, expected) in [
            ("127.0.0.1", "has no port / add one"),
            ("127.0.0.1:", "the port is missing"),
            ("1234", "write \"0.0.0.0:1234\""),
            ("", "has no port"),
            (":1234", "write \"0.0.0.0:1234\""),
            ("*:1234", "write \"0.0.0.0:1234\""),
            ("127.0.0.1:0", "nothing can be sent to port 0"),
            ("127.0.0.1:65536", "port \"65536\" is above 65535"),
            ("127.0.0.1:99999999999999999999", "is above 65535"),
            ("127.0.0.1:+5", "\"+5\" is not a port"),
            ("127.0.0.1:dns", "\"dns\" is not a port"),
            ("127.0.0.1:10-5", "run backwards / did you mean 5-10?"),
            ("127.0.0.1:0-5", "port 0"),
            ("127.0.0.1:5-", "the port is missing"),
            ("192.0.2.1/24:5000", "did you mean \"192.0.2.0/24\"?"),
            ("[2001:db8::1/32]:53", "did you mean \"2001:db8::/32\"?"),
            (
                "192.0.2.0/33:5000",
                "\"33\" is not a prefix length / at most 32",
            ),
            ("[::/129]:53", "at most 128"),
            (
                "10.0.0.0/255.0.0.0:514",
                "\"255.0.0.0\" is not a prefix length / write \"10.0.0.0/8\"",
            ),
            ("10.0.0.0/255.0.255.0:514", "at most 32"),
            ("[2001:db8::/255.0.0.0]:514", "at most 128"),
            (
                "udp://0.0.0.0:514",
                "begins with a scheme / leave out \"udp://\": write \"0.0.0.0:514\"",
            ),
            ("192.0.2.0/x:5000", "\"x\" is not a prefix length"),
            ("192.0.2.0/:5000", "is not a prefix length"),
            ("::1:53", "write \"[::1]:53\""),
            ("2001:db8::1", "write \"[2001:db8::1]:PORT\""),
            ("2001:db8::beef", "write \"[2001:db8::beef]:PORT\""),
            ("2001:db8::/32:53", "write \"[2001:db8::/32]:53\""),
            ("[::1", "no closing bracket"),
            ("[::1]", "add one: \"[::1]:53\""),
            ("[::1]53", "\"53\" is not a port"),
            ("[2001:db8::]/32:53", "write \"[2001:db8::/32]:53\""),
            ("[]:53", "write \"[::]:53\""),
            ("[127.0.0.1]:53", "write \"127.0.0.1:53\""),
            ("[fe80::1%eth0]:53", "interface = \"eth0\""),
            ("[::ffff:192.0.2.1]:53", "write \"192.0.2.1:53\""),
            ("localhost:53", "write \"127.0.0.1:53\""),
            ("collector.example:53", "destinations are addresses"),
            ("10.0.0.256:53", "\"10.0.0.256\" is not an IP address"),
            ("010.0.0.1:53", "is not an IP address"),
            ("239.0.0.0/8:5000", "name each group"),
            ("[ff00::/8]:5000", "name each group"),
            ("0.0.0.0/32:5", "for every address write \"0.0.0.0:5\""),
            ("[::/128]:5", "for every address write \"[::]:5\""),
            ("127.0.0.1: 53", "contains a blank"),
        ] {
            let mistake = text.parse::<Destination>().expect_err(text);
            let reported = format!("{} / {}", mistake.message, mistake.hint.unwrap_or_default());
            assert!(reported.contains(expected), "{text}: {reported}");
        }
    }
}
