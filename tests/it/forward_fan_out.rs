//! Upstreams that do not reply: how much of the traffic each one gets, and how it is sent to them: TTL, class, source
//! and interface, to groups and between them.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::client::Client;
use crate::common::control_data::receive_with_class;
use crate::common::daemon::{Daemon, on_file, on_file_under};
use crate::common::host::Host;
use crate::common::ledger::{Ledger, Upstream, upstream};
use crate::common::namespace::{index_of, netns_test, run};
use crate::common::upstream::forwarder;

const HERE: &str = "127.0.0.1:1234";

/// Two networks, each with another host, connected by the veth pairs `one` and `two`.
fn two_networks() -> [Host; 2] {
    [("one", "10.1.0", "fd00:1"), ("two", "10.2.0", "fd00:2")]
        .map(|(name, v4, v6)| Host::at_the_end_of(name, v4, v6, 1_500))
}

/// A member of a group on a host, which receives the group only on its veth pair.
fn member(host: &Host, group: &str) -> Client {
    let group: SocketAddr = group.parse().unwrap();
    host.on(move || {
        let socket = UdpSocket::bind(group).unwrap();
        let interface = index_of("eth0").unwrap();
        match group {
            SocketAddr::V4(v4) => {
                let by = socket2::InterfaceIndexOrAddress::Index(interface);
                socket2::SockRef::from(&socket)
                    .join_multicast_v4_n(v4.ip(), &by)
                    .unwrap();
            }
            SocketAddr::V6(v6) => socket.join_multicast_v6(v6.ip(), interface).unwrap(),
        }
        Client::of(socket)
    })
}

/// Sends to a group through the veth pair of a host, with this TTL.
fn send_to_group(host: &Host, bytes: &'static [u8], group: &str, ttl: u32) {
    let group: SocketAddr = group.parse().unwrap();
    host.on(move || {
        let any = if group.is_ipv4() {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0)).unwrap();
        let options = socket2::SockRef::from(&socket);
        if group.is_ipv4() {
            options.bind_device(Some(b"eth0")).unwrap();
            options.set_multicast_ttl_v4(ttl).unwrap();
        } else {
            options
                .set_multicast_if_v6(index_of("eth0").unwrap())
                .unwrap();
            options.set_multicast_hops_v6(ttl).unwrap();
        }
        socket.send_to(bytes, group).unwrap();
    });
}

/// A sample is exact. One datagram of a train counts as one, and a datagram that no upstream's sample took is dropped
/// with a reason.
#[test]
fn samples() {
    netns_test!();
    let [tenth, third] = [0, 1].map(|_| Client::bind("127.0.0.1:0"));
    let tenth_at = tenth.address().to_string();
    let third_at = third.address().to_string();
    let tables = format!(
        "[{{ address = \"{tenth_at}\", sample = \"1/10\" }}, {{ address = \"{third_at}\", sample = \"2/3\" }}]"
    );
    let mut daemon = Daemon::start(&forwarder("on", HERE, &tables, "pick = \"all\""));
    let client = Client::bind("127.0.0.1:0");
    for number in 0..10_u8 {
        (0..30).for_each(|_| client.send(&[number; 8], HERE));
        client.send_segmented(&[number; 240], 8, HERE);
        // The wait keeps buffers from overflowing.
        let sent = 60 * (1 + u64::from(number));
        daemon.ledger_when(|ledger| ledger.received() == sent);
    }
    let ledger = daemon.stop();
    for (address, share) in [(&tenth_at, 60), (&third_at, 400)] {
        let Upstream { sent, skipped, .. } = upstream(&ledger, address);
        assert_eq!((sent, skipped), (share, 600 - share), "{address}");
    }
    (0..60).for_each(|_| drop(tenth.receive()));
    (0..400).for_each(|_| drop(third.receive()));
    assert!(tenth.is_empty() && third.is_empty());
    let row = ledger.handler("on");
    // Of each 30 datagrams, one upstream leaves out ten. The other one takes only three, so it leaves out at least
    // seven of these, too.
    assert_eq!(
        (row.handled + row.reason("sampled_out"), row.last),
        (600, 460)
    );
    assert!(row.reason("sampled_out") >= 140, "{row:?}");
}

/// A rate limit holds over all workers together: a tenth of a second's worth at once, and then no more than the rate.
#[test]
fn a_rate_over_two_workers() {
    netns_test!();
    let [slow, all] = [0, 1].map(|_| Client::bind("127.0.0.1:0"));
    let slow_at = slow.address().to_string();
    let all_at = all.address().to_string();
    let tables = format!("[{{ address = \"{slow_at}\", max_rate = \"100/s\" }}, \"{all_at}\"]");
    let config = forwarder("on", HERE, &tables, "pick = \"all\"");
    let mut daemon = Daemon::of(&config).workers(2).start();
    let clients: Vec<Client> = (0..10).map(|_| Client::bind("127.0.0.1:0")).collect();
    let begun = Instant::now();
    let mut sent = 0;
    while begun.elapsed() < Duration::from_millis(1_500) || sent < 200 {
        clients
            .iter()
            .for_each(|client| client.send(b"as much as you may", HERE));
        sent += 10;
        thread::sleep(Duration::from_millis(3));
    }
    let ledger = daemon.ledger_when(|ledger| ledger.received() == sent);
    let elapsed = begun.elapsed();
    let most = 10.0 + 100.0 * elapsed.as_secs_f64() + 1.0;
    let Upstream {
        sent: passed,
        skipped,
        ..
    } = upstream(&ledger, &slow_at);
    assert_eq!(passed + skipped, sent);
    assert!(passed as f64 <= most, "{passed} in {elapsed:?}");
    // A machine that stalls leaves fewer chances to send.
    assert!(passed >= 20, "{passed} of {sent} in {elapsed:?}");
    assert_eq!(upstream(&ledger, &all_at).sent, sent);
    (0..passed).for_each(|_| drop(slow.receive()));
    assert!(slow.is_empty());
    daemon.stop();
}

/// Each upstream gets the TTL and the class that its table says, in both families. In a train, every datagram does.
#[test]
fn ttl_and_class() {
    netns_test!();
    let receivers = ["127.0.0.1:0", "[::1]:0", "127.0.0.1:0", "[::1]:0"].map(Client::bind);
    let keys = [
        ", ttl = 5, dscp = \"ef\"",
        ", ttl = 6, dscp = 10",
        ", dscp = \"cs1\"",
        "",
    ];
    let tables = receivers
        .iter()
        .zip(keys)
        .map(|(client, keys)| format!("{{ address = \"{}\"{keys} }}", client.address()));
    let tables = format!("[{}]", tables.collect::<Vec<_>>().join(", "));
    for replies in ["", "replies = \"first\""] {
        let daemon = Daemon::start(&forwarder(
            "on",
            HERE,
            &tables,
            &format!("pick = \"all\"\n{replies}"),
        ));
        let client = Client::bind("127.0.0.1:0");
        client.send(b"one", HERE);
        client.send_segmented(b"twosix", 3, HERE);
        for (receiver, (ttl, class)) in receivers.iter().zip([(5, 46), (6, 10), (63, 8), (63, 0)]) {
            for bytes in [b"one", b"two", b"six"] {
                assert_eq!(
                    receive_with_class(receiver),
                    (bytes.to_vec(), ttl, class),
                    "{:?}",
                    receiver.address()
                );
            }
        }
        daemon.stop();
    }
}

/// `interface` decides by which of two paths a datagram is sent. `source` decides which address and port the upstream
/// sees.
#[test]
fn interface_and_source() {
    netns_test!(needs = ["ip"]);
    let hosts = two_networks();
    for (number, host) in (1..).zip(&hosts) {
        // One address is behind both, and the route through the first veth pair is preferred.
        host.run("ip addr add 10.9.9.9/32 dev lo");
        run(&format!(
            "ip route add 10.9.9.9/32 via 10.{number}.0.2 metric {number}"
        ));
    }
    run("ip addr add 10.1.0.77/24 dev one");
    run("ip addr add 10.2.0.77/24 dev two");
    let receivers = hosts.each_ref().map(|host| host.bind("10.9.9.9:9001"));
    let client = Client::bind("127.0.0.1:0");
    for (keys, way, source) in [
        ("", 0, "10.1.0.1"),
        (", interface = \"one\"", 0, "10.1.0.1"),
        (", interface = \"two\"", 1, "10.2.0.1"),
        (", interface = \"10.2.0.77\"", 1, "10.2.0.1"),
        (", source = \"10.1.0.77\"", 0, "10.1.0.77"),
        (", source = \"10.1.0.77:5353\"", 0, "10.1.0.77:5353"),
        (
            ", source = \"10.2.0.77\", interface = \"two\"",
            1,
            "10.2.0.77",
        ),
    ] {
        for replies in [false, true] {
            let has_port = source.contains(':');
            if has_port && replies {
                continue;
            }
            let tables = format!("[{{ address = \"10.9.9.9:9001\"{keys} }}]");
            let daemon = Daemon::start(&forwarder(
                "on",
                HERE,
                &tables,
                &format!("replies = {replies}"),
            ));
            client.send(keys.as_bytes(), HERE);
            let (bytes, from) = receivers[way].receive();
            let from = if has_port {
                from.to_string()
            } else {
                from.ip().to_string()
            };
            assert_eq!(
                (bytes.as_slice(), from.as_str()),
                (keys.as_bytes(), source),
                "replies = {replies}"
            );
            assert!(receivers[1 - way].is_empty());
            daemon.stop();
        }
    }
}

/// A group gets what was sent to a host, and a host gets what was sent to a group, in both families, with the TTL of
/// groups.
#[test]
fn to_groups_and_from_groups() {
    netns_test!(needs = ["ip"]);
    let hosts = two_networks();
    for (group, unicast, here) in [
        ("239.1.2.3:5000", "10.2.0.2:9001", HERE),
        ("[ff05::1:3]:5000", "[fd00:2::2]:9001", "[::1]:1234"),
    ] {
        let listening = [member(&hosts[0], group), member(&hosts[1], group)];
        let host = hosts[1].bind(unicast);
        let to_one = format!("{{ address = \"{group}\", interface = \"one\" }}");
        let config = format!(
            "{}{}",
            forwarder("to", here, &to_one, ""),
            forwarder("from", group, &format!("\"{unicast}\""), "")
                .replace("\"from\"\n[", "\"from\"\ninterface = \"one\"\n[")
        );
        let daemon = Daemon::start(&config);
        let client = Client::bind(if group.starts_with('[') {
            "[::1]:0"
        } else {
            "127.0.0.1:0"
        });
        client.send(b"to the group", here);
        let (bytes, ttl, _) = receive_with_class(&listening[0]);
        assert_eq!((bytes.as_slice(), ttl), (&b"to the group"[..], 16));
        // This host receives what is sent to the group, too.
        assert_eq!(host.receive().0, b"to the group");
        // A sender to a group starts with a TTL of 1. A forwarded datagram has the host's default.
        send_to_group(&hosts[0], b"from the group", group, 1);
        let (bytes, ttl, _) = receive_with_class(&host);
        assert_eq!((bytes.as_slice(), ttl), (&b"from the group"[..], 64));
        assert!(listening[1].is_empty() && host.is_empty());
        daemon.stop();
    }
}

/// The daemon joins a group on two networks in both directions with `loop = false`. A datagram that is sent on one
/// network arrives once on the other, and never comes back.
#[test]
fn a_group_on_two_networks() {
    netns_test!(needs = ["ip"]);
    let hosts = two_networks();
    let groups = ["239.1.2.3:5000", "[ff05::1:3]:5000"];
    let mut config = String::new();
    for (from, to) in [("one", "two"), ("two", "one")] {
        let tables = groups.map(|group| {
            format!("{{ address = \"{group}\", interface = \"{to}\", loop = false }}")
        });
        for (family, (group, table)) in groups.iter().zip(tables).enumerate() {
            let name = format!("{from}_{family}");
            let route = forwarder(&name, group, &table, "ttl = 9");
            config += &route.replacen(
                "\nhandler",
                &format!("\ninterface = \"{from}\"\nhandler"),
                1,
            );
        }
    }
    // If the daemon received its own datagrams, the other route would send them back.
    let outcome = on_file("check", &config.replace(", loop = false", ""), &[]);
    assert_eq!(outcome.code, 78, "{}", outcome.errors);
    assert!(
        outcome.errors.contains("closes a loop"),
        "{}",
        outcome.errors
    );
    let mut daemon = Daemon::of(&config).workers(2).start();
    for group in groups {
        let listening = [member(&hosts[0], group), member(&hosts[1], group)];
        for (number, host) in hosts.iter().enumerate() {
            for _ in 0..10 {
                send_to_group(host, b"hello", group, 1);
                assert_eq!(listening[1 - number].receive().0, b"hello");
                // This is its own datagram, looped back by its own host.
                assert_eq!(listening[number].receive().0, b"hello");
            }
        }
        let passed = if group == groups[0] { 20 } else { 40 };
        let sent = |ledger: &Ledger| ledger.handlers.values().map(|row| row.last).sum::<u64>();
        let ledger = daemon.ledger_when(|ledger| sent(ledger) == passed);
        let handled: u64 = ledger.handlers.values().map(|row| row.handled).sum();
        assert_eq!(handled, passed, "nothing came back: {ledger:#?}");
        assert!(listening.iter().all(Client::is_empty));
    }
    daemon.stop();
}

/// Two daemons forward two groups to each other. A datagram goes round until its TTL is spent, and no longer.
#[test]
fn a_loop_over_groups_dies() {
    netns_test!(needs = ["ip"]);
    let hosts = two_networks();
    for (there, back) in [
        ("239.1.1.1:5000", "239.1.1.2:5000"),
        ("[ff05::1:1]:5000", "[ff05::1:2]:5000"),
    ] {
        let config = |from: &str, to: &str, interface: &str| {
            let table = format!("{{ address = \"{to}\", interface = \"{interface}\" }}");
            forwarder("on", from, &table, "").replacen(
                "\nhandler",
                &format!("\ninterface = \"{interface}\"\nhandler"),
                1,
            )
        };
        let mut here = Daemon::start(&config(there, back, "one"));
        let other = config(back, there, "eth0");
        let other = hosts[0].on(move || Daemon::start(&other));
        send_to_group(&hosts[0], b"round and round", there, 12);
        here.ledger_when(|ledger| ledger.handler("on").reason("ttl_spent") == 1);
        let ledgers = [here.stop(), other.stop()].map(|ledger| ledger.handler("on").clone());
        let spent: u64 = ledgers.iter().map(|row| row.reason("ttl_spent")).sum();
        let received: u64 = ledgers.iter().map(|row| row.received).sum();
        assert_eq!((spent, received), (1, 11), "{ledgers:?}");
    }
}

/// With `source = "keep"`, an upstream on another host sees the address and port of the sender, in both families.
#[test]
fn the_senders_address_is_kept() {
    netns_test!(needs = ["ip"]);
    let hosts = two_networks();
    for family in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        std::fs::write(format!("/proc/sys/net/{family}"), "1").unwrap();
    }
    for (number, host) in (1..).zip(&hosts) {
        host.run(&format!("ip route add default via 10.{number}.0.1"));
        host.run(&format!("ip -6 route add default via fd00:{number}::1"));
    }
    for (here, client, there) in [
        ("10.1.0.1:1234", "10.1.0.2:4321", "10.2.0.2:9001"),
        ("[fd00:1::1]:1234", "[fd00:1::2]:4321", "[fd00:2::2]:9001"),
    ] {
        let receiver = hosts[1].bind(there);
        let client = hosts[0].bind(client);
        let plain = Client::bind(if there.starts_with('[') {
            "[::1]:0"
        } else {
            "127.0.0.1:0"
        });
        let table = format!(
            "[{{ address = \"{there}\", source = \"keep\" }}, \"{}\"]",
            plain.address()
        );
        let daemon = Daemon::of(&forwarder("on", here, &table, "pick = \"all\""))
            .workers(2)
            .start();
        for size in [0, 1, 1_000, 5_000] {
            client.send(&vec![7; size], here);
            let (bytes, from) = receiver.receive();
            assert_eq!((bytes.len(), from), (size, client.address()));
            assert_ne!(plain.receive().1, client.address());
            // The reply goes straight to the client.
            receiver.send(b"straight", &from.to_string());
            assert_eq!(client.receive(), (b"straight".to_vec(), receiver.address()));
        }
        daemon.stop();
    }
}

/// Without the capability that `source = "keep"` needs, the daemon does not start, and says what is missing.
#[test]
fn keeping_needs_a_capability() {
    netns_test!(needs = ["setpriv"]);
    let config = forwarder(
        "on",
        HERE,
        "[{ address = \"127.0.0.1:9001\", source = \"keep\" }]",
        "",
    );
    let outcome = on_file_under(
        &["setpriv", "--bounding-set", "-net_raw"],
        "run",
        &config,
        &[],
    );
    assert_eq!(outcome.code, 1, "{}", outcome.errors);
    for words in [
        "CAP_NET_RAW",
        "source = \"keep\"",
        "127.0.0.1:9001",
        "setcap",
    ] {
        assert!(
            outcome.errors.contains(words),
            "{words}: {}",
            outcome.errors
        );
    }
}
