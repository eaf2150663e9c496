//! Parsers for the properties of datagrams sent to upstreams: source address, class of service, interface.

use std::net::{IpAddr, SocketAddr};

use super::super::diagnostics::{Mistake, did_you_mean};
use super::super::interface::InterfaceRef;
use super::super::upstream::SendFrom;
use super::{Value, integer, interface_name};

/// The names in the IANA registry "Differentiated Services Field Codepoints", in lower case. `df` is the registry's
/// name for CS0 (RFC 8436).
pub const DSCP: [(&str, u8); 24] = [
    ("df", 0),
    ("le", 1),
    ("cs0", 0),
    ("cs1", 8),
    ("af11", 10),
    ("af12", 12),
    ("af13", 14),
    ("cs2", 16),
    ("af21", 18),
    ("af22", 20),
    ("af23", 22),
    ("cs3", 24),
    ("af31", 26),
    ("af32", 28),
    ("af33", 30),
    ("cs4", 32),
    ("af41", 34),
    ("af42", 36),
    ("af43", 38),
    ("cs5", 40),
    ("voice-admit", 44),
    ("ef", 46),
    ("cs6", 48),
    ("cs7", 56),
];

/// The largest code point: the field has six bits (RFC 2474, section 3).
pub const DSCP_MAX: u8 = 63;

/// Reads a code point, given by number or by name.
///
/// # Errors
///
/// Returns a mistake if the value is neither a number from 0 to [`DSCP_MAX`] nor a name in [`DSCP`].
pub fn dscp(value: Value<'_>) -> Result<u8, Mistake> {
    let accepted =
        format!("a number from 0 to {DSCP_MAX} or a name such as \"ef\", \"af41\" or \"cs1\"");
    let Ok(name) = value.text("") else {
        return integer(0..=DSCP_MAX)(value).map_err(|_| value.expected(&accepted));
    };
    if name.parse::<u8>().is_ok_and(|number| number <= DSCP_MAX) {
        return Err(value.expected(&accepted).hint("write it without quotes"));
    }
    match DSCP.iter().find(|(known, _)| *known == name) {
        Some((_, number)) => Ok(*number),
        None => Err(value
            .expected(&accepted)
            .maybe_hint(did_you_mean(name, DSCP.iter().map(|(known, _)| *known)))),
    }
}

/// Reads the source of sent datagrams: `"own"`, `"keep"`, `"192.0.2.1"`, `"192.0.2.1:5353"`, `"2001:db8::1"`,
/// `"[2001:db8::1]:53"`.
///
/// # Errors
///
/// Returns a mistake if the value is none of these, has port 0, or is an address that no host can send from.
pub fn send_from(value: Value<'_>) -> Result<SendFrom, Mistake> {
    const ACCEPTED: &str = "\"own\", \"keep\" or an address such as \"192.0.2.1\"";
    let text = value.text(ACCEPTED)?;
    let address = match text {
        "own" => return Ok(SendFrom::Own),
        "keep" => return Ok(SendFrom::Keep),
        _ => text
            .parse::<SocketAddr>()
            .or_else(|_| text.parse().map(|ip: IpAddr| SocketAddr::new(ip, 0))),
    };
    let address = address.map_err(|_| {
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let hint = match bare.filter(|bare| bare.parse::<IpAddr>().is_ok()) {
            Some(bare) => Some(format!(
                "write it without brackets, because there is no port: \"{bare}\""
            )),
            None => did_you_mean(text, ["own", "keep"]),
        };
        value.expected(ACCEPTED).maybe_hint(hint)
    })?;
    if address.port() == 0 && text.parse::<SocketAddr>().is_ok() {
        let hint = format!(
            "leave the port out to let the kernel choose one: \"{}\"",
            address.ip()
        );
        return Err(Mistake::new("port 0 is not a port").hint(hint));
    }
    check_source(address.ip())?;
    Ok(SendFrom::Address(address))
}

fn check_source(ip: IpAddr) -> Result<(), Mistake> {
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    if ip.is_unspecified() {
        let hint = "write \"own\", or one address of this host";
        return Err(Mistake::new(format!(
            "{ip} stands for every address, but a datagram has one source"
        ))
        .hint(hint));
    }
    if ip.is_multicast() || is_broadcast {
        let message = format!("{ip} cannot be the source of a datagram");
        return Err(Mistake::new(message).hint("write an address of this host"));
    }
    if let IpAddr::V6(v6) = ip
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        let message = format!("{ip} is an IPv4-mapped IPv6 address");
        return Err(Mistake::new(message).hint(format!("write \"{v4}\"")));
    }
    Ok(())
}

/// Reads a network interface, given by name or by one of its addresses.
///
/// # Errors
///
/// Returns a mistake if the value is not text, or neither an address nor a possible name of an interface.
pub fn interface(value: Value<'_>) -> Result<InterfaceRef, Mistake> {
    let text = value.text("the name or an address of an interface, such as \"eth0\"")?;
    match text.parse() {
        Ok(address) => Ok(InterfaceRef::Address(address)),
        Err(_) => interface_name(text).map(InterfaceRef::Name),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{read, refusal};
    use super::*;

    /// Numbers and every name of the registry are accepted. A misspelt name has a suggestion.
    #[test]
    fn code_points() {
        assert_eq!(read("0", dscp), Ok(0));
        assert_eq!(read("0x3f", dscp), Ok(63));
        for (name, number) in DSCP {
            assert_eq!(read(&format!("\"{name}\""), dscp), Ok(number), "{name}");
        }
        // The number of CSn is n << 3, that of AFcd is c << 3 | d << 1 (RFC 2474, RFC 2597).
        let number = |name: &str| {
            DSCP.iter()
                .find(|(known, _)| *known == name)
                .map(|(_, number)| *number)
        };
        for class in 0..8_u8 {
            assert_eq!(number(&format!("cs{class}")), Some(class << 3));
        }
        for (class, drop) in (1..=4_u8).flat_map(|class| (1..=3_u8).map(move |drop| (class, drop)))
        {
            assert_eq!(
                number(&format!("af{class}{drop}")),
                Some(class << 3 | drop << 1)
            );
        }
        for (text, expected) in [
            ("64", "a number from 0 to 63"),
            ("-1", "found the number -1"),
            ("\"EF\"", "did you mean \"ef\"?"),
            ("\"af44\"", "did you mean \"af4"),
            ("\"46\"", "write it without quotes"),
            ("\"\"", "or a name such as"),
            ("true", "found `true`"),
        ] {
            let refusal = refusal(text, dscp);
            assert!(refusal.contains(expected), "{text}: {refusal}");
        }
    }

    /// Words and addresses, with and without a port, are accepted. Other values have explanations.
    #[test]
    fn sources() {
        assert_eq!(read("\"own\"", send_from), Ok(SendFrom::Own));
        assert_eq!(read("\"keep\"", send_from), Ok(SendFrom::Keep));
        for (text, address) in [
            ("192.0.2.1", "192.0.2.1:0"),
            ("192.0.2.1:53", "192.0.2.1:53"),
            ("2001:db8::1", "[2001:db8::1]:0"),
            ("[2001:db8::1]:53", "[2001:db8::1]:53"),
        ] {
            let address = SendFrom::Address(address.parse().expect("an address"));
            assert_eq!(
                read(&format!("\"{text}\""), send_from),
                Ok(address),
                "{text}"
            );
        }
        for (text, expected) in [
            ("\"kep\"", "did you mean \"keep\"?"),
            (
                "\"192.0.2.1:0\"",
                "leave the port out to let the kernel choose one: \"192.0.2.1\"",
            ),
            (
                "\"[2001:db8::1]\"",
                "write it without brackets, because there is no port: \"2001:db8::1\"",
            ),
            ("\"0.0.0.0\"", "stands for every address"),
            ("\"239.1.1.1\"", "cannot be the source"),
            ("\"255.255.255.255\"", "cannot be the source"),
            ("\"[ff02::1]:5\"", "cannot be the source"),
            ("\"::ffff:10.0.0.1\"", "write \"10.0.0.1\""),
            (
                "\"collector.example\"",
                "expected \"own\", \"keep\" or an address",
            ),
            ("\"\"", "expected \"own\""),
            ("1", "found the number 1"),
        ] {
            let refusal = refusal(text, send_from);
            assert!(refusal.contains(expected), "{text}: {refusal}");
        }
    }

    /// An interface is given by name or by address.
    #[test]
    fn interfaces() {
        assert_eq!(
            read("\"eth0\"", interface),
            Ok(InterfaceRef::Name("eth0".to_owned()))
        );
        assert!(matches!(
            read("\"192.0.2.1\"", interface),
            Ok(InterfaceRef::Address(_))
        ));
        assert!(refusal("\"eth/0\"", interface).contains("`ip link` lists them"));
    }
}
