//! Groups and broadcasts on shared ports: each datagram is handled once, however many copies the kernel makes, with one
//! worker and with four.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use crate::common::client::Client;
use crate::common::daemon::{Daemon, on_file};
use crate::common::host::Host;
use crate::common::namespace::{index_of, netns_test, run};
use crate::common::{TIMEOUT, eventually};

/// Two other hosts, at the ends of the veth pairs `a0` and `b0`.
struct Cables {
    a: Host,
    b: Host,
}

fn cables() -> Cables {
    let a = Host::at_the_end_of("a0", "10.1.0", "2001:db8:1", 1_500);
    let b = Host::at_the_end_of("b0", "10.2.0", "2001:db8:2", 1_500);
    Cables { a, b }
}

/// A sender on another host, for groups and broadcasts of its network.
fn sender_on(host: &Host, v6: bool) -> UdpSocket {
    host.on(move || {
        let socket = UdpSocket::bind(if v6 { "[::]:0" } else { "0.0.0.0:0" }).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        let options = socket2::SockRef::from(&socket);
        if v6 {
            options
                .set_multicast_if_v6(index_of("eth0").unwrap())
                .unwrap();
        } else {
            options.set_broadcast(true).unwrap();
            options.bind_device(Some(b"eth0")).unwrap();
        }
        socket
    })
}

/// A sender to groups on this host itself, through `lo`.
fn sender_on_loopback() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket2::SockRef::from(&socket)
        .set_multicast_if_v4(&Ipv4Addr::LOCALHOST)
        .unwrap();
    socket
}

/// A datagram to a group is handled once, with one worker and with four. This holds when wildcard routes on the same
/// port would get copies, and when another program on this host has joined another group of the port.
#[test]
fn one_datagram_one_handling() {
    netns_test!();
    let config = r#"
        [[route]]
        destination = "239.1.2.3:5000"
        interface = "lo"
        handler = "group"
        [[route]]
        destination = "0.0.0.0:5000"
        handler = "rest"
        [handler.group]
        kind = "print"
        [handler.rest]
        kind = "drop"
    "#;
    // Another program joins a group on this port. Its datagrams are not for the daemon, although a wildcard listener of
    // the daemon has the port.
    let stranger = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    stranger
        .bind(&"0.0.0.0:0".parse::<SocketAddr>().unwrap().into())
        .unwrap();
    stranger
        .join_multicast_v4(&Ipv4Addr::new(239, 9, 9, 9), &Ipv4Addr::LOCALHOST)
        .unwrap();
    for workers in ["1", "4"] {
        let mut daemon = Daemon::of(config).workers(workers).start();
        let sender = sender_on_loopback();
        for count in 0..50 {
            sender.send_to(b"foreign", "239.9.9.9:5000").unwrap();
            sender
                .send_to(format!("ours {count}").as_bytes(), "239.1.2.3:5000")
                .unwrap();
            let line = daemon.line();
            assert!(
                line.ends_with(&format!(" > 239.1.2.3:5000 ours {count}")),
                "{line}"
            );
        }
        sender.send_to(b"unicast", "127.0.0.1:5000").unwrap();
        let ledger = daemon.ledger_when(|ledger| ledger.handler("rest").received == 1);
        assert_eq!(ledger.listener("239.1.2.3:5000 on lo").handled, 50);
        assert_eq!(ledger.received(), 51, "{workers} workers: {ledger:#?}");
        daemon.stop();
    }
}

/// One group on two interfaces leads to two handlers, in both families. The datagrams of each interface go to its own
/// route, once. IPv6 gives both sockets both copies, and the ledger names the ones that are not handled.
#[test]
fn one_group_on_two_interfaces() {
    netns_test!(needs = ["ip"]);
    let cables = cables();
    let config = r#"
        [[route]]
        destination = ["239.1.2.3:5000", "[ff05::1:3]:5000"]
        interface = "a0"
        handler = "from_a"
        [[route]]
        name = "b"
        destination = ["239.1.2.3:5000", "[ff05::1:3]:5000"]
        interface = "10.2.0.1"
        handler = "from_b"
        [handler.from_a]
        kind = "drop"
        [handler.from_b]
        kind = "drop"
    "#;
    for workers in ["1", "4"] {
        let mut daemon = Daemon::of(config).workers(workers).start();
        let a4 = sender_on(&cables.a, false);
        let b4 = sender_on(&cables.b, false);
        let a6 = sender_on(&cables.a, true);
        let b6 = sender_on(&cables.b, true);
        for _ in 0..10 {
            a4.send_to(b"a", "239.1.2.3:5000").unwrap();
            b4.send_to(b"b", "239.1.2.3:5000").unwrap();
            a6.send_to(b"a", "[ff05::1:3]:5000").unwrap();
            b6.send_to(b"b", "[ff05::1:3]:5000").unwrap();
            b6.send_to(b"b", "[ff05::1:3]:5000").unwrap();
        }
        let all = |ledger: &crate::common::ledger::Ledger| {
            ledger.handler("from_a").received == 20 && ledger.handler("from_b").received == 30
        };
        let ledger = daemon.ledger_when(all);
        let copies: u64 = ledger
            .listeners
            .values()
            .map(|row| row.reason("duplicate_copy"))
            .sum();
        assert_eq!(ledger.received(), 50 + copies, "{ledger:#?}");
        daemon.stop();
    }
}

/// A source-specific join gets datagrams of the named sources and of no others. For more than ten sources
/// (igmp_max_msf), further sockets join.
#[test]
fn source_specific_groups() {
    netns_test!(needs = ["ip"]);
    let cables = cables();
    let mut sources = String::new();
    for last in 20..32 {
        cables
            .a
            .run(&format!("ip addr add 10.1.0.{last}/24 dev eth0"));
        sources += &format!("\"10.1.0.{last}\", ");
    }
    let config = format!(
        "[[route]]\ndestination = \"232.1.1.1:5000\"\ninterface = \"a0\"\nsource = [{sources}]\nhandler = \"print\"\n"
    );
    let mut daemon = Daemon::start(&config);
    let send_from = |source: &str| {
        let from = source.to_owned();
        let sender = cables.a.on(move || {
            let socket = UdpSocket::bind(format!("{from}:4000")).unwrap();
            socket2::SockRef::from(&socket)
                .bind_device(Some(b"eth0"))
                .unwrap();
            socket
        });
        sender.send_to(source.as_bytes(), "232.1.1.1:5000").unwrap();
    };
    send_from("10.1.0.2");
    for last in 20..32 {
        send_from(&format!("10.1.0.{last}"));
        let line = daemon.line();
        assert!(
            line.ends_with(&format!(
                "10.1.0.{last}:4000 > 232.1.1.1:5000 10.1.0.{last}"
            )),
            "{line}"
        );
    }
    let ledger = daemon.stop();
    assert_eq!(ledger.listeners.len(), 2, "{ledger:#?}");
    assert_eq!(ledger.received(), 12);
}

/// A hundred groups on one port: each datagram reaches its own route, and no other.
#[test]
fn a_hundred_groups_on_one_port() {
    netns_test!();
    let mut config = String::new();
    for group in 0..100 {
        config += &format!(
            "[[route]]\ndestination = \"239.7.7.{group}:5000\"\ninterface = \"lo\"\nhandler = \"drop\"\n"
        );
    }
    let mut daemon = Daemon::of(&config).workers(3).start();
    let sender = sender_on_loopback();
    for group in 0..100 {
        for _ in 0..=group {
            sender
                .send_to(b"hello", format!("239.7.7.{group}:5000"))
                .unwrap();
        }
    }
    let ledger = daemon.ledger_when(|ledger| ledger.received() == 5050);
    for group in 0..100 {
        assert_eq!(
            ledger
                .route(&format!("239.7.7.{group}:5000 on lo"))
                .received,
            group + 1,
            "{ledger:#?}"
        );
    }
    daemon.stop();
}

/// A broadcast address is a destination, of the subnet and of all, beside wildcard routes whose sockets get copies. Its
/// own route handles a datagram once. Without a route for the address, the wildcard's route does, once. This holds with
/// one worker and with four.
#[test]
fn broadcasts_are_handled_once() {
    netns_test!(needs = ["ip"]);
    let cables = cables();
    let config = r#"
        [[route]]
        destination = "10.1.0.255:5000"
        handler = "subnet"
        [[route]]
        destination = "255.255.255.255:5000"
        handler = "everyone"
        [[route]]
        destination = "0.0.0.0:5000"
        handler = "rest"
        [[route]]
        destination = "0.0.0.0:6000"
        handler = "wild"
        [handler.subnet]
        kind = "drop"
        [handler.everyone]
        kind = "drop"
        [handler.rest]
        kind = "drop"
        [handler.wild]
        kind = "drop"
    "#;
    for workers in [1, 4] {
        let mut daemon = Daemon::of(config).workers(workers).start();
        let sender = sender_on(&cables.a, false);
        for _ in 0..10 {
            sender.send_to(b"subnet", "10.1.0.255:5000").unwrap();
            sender.send_to(b"everyone", "255.255.255.255:5000").unwrap();
            sender.send_to(b"wild", "10.1.0.255:6000").unwrap();
        }
        let handlers = ["subnet", "everyone", "wild"];
        // The copies come in any order, so the test waits for all of them.
        let copies = 20 * workers + 10 * (workers - 1);
        let ledger = daemon.ledger_when(|ledger| ledger.received() == 30 + copies);
        for handler in handlers {
            assert_eq!(
                ledger.handler(handler).received,
                10,
                "{workers} workers, {handler}: {ledger:#?}"
            );
        }
        assert_eq!(ledger.handler("rest").received, 0);
        daemon.stop();
    }
}

/// A broadcast address that is added after the start, as with DHCP, is handled once, although its listener was planned
/// before. This holds with one worker and with four, beside a wildcard and alone.
#[test]
fn a_broadcast_address_that_comes_later() {
    netns_test!(needs = ["ip"]);
    let config = r#"
        [[route]]
        destination = ["10.9.0.255:5000", "10.9.0.255:6000"]
        handler = "later"
        [[route]]
        destination = "0.0.0.0:5000"
        handler = "rest"
        [handler.later]
        kind = "echo"
        [handler.rest]
        kind = "drop"
    "#;
    run("ip link add near type veth peer name far");
    run("ip link set near up");
    run("ip link set far up");
    for workers in [1, 4] {
        let mut daemon = Daemon::of(config).workers(workers).start();
        run("ip addr add 10.9.0.1/24 broadcast 10.9.0.255 dev near");
        let sender = UdpSocket::bind("10.9.0.1:0").unwrap();
        sender.set_broadcast(true).unwrap();
        for _ in 0..10 {
            sender.send_to(b"later", "10.9.0.255:5000").unwrap();
            sender.send_to(b"alone", "10.9.0.255:6000").unwrap();
        }
        let ledger = daemon.ledger_when(|ledger| ledger.received() == 30 * workers);
        let row = ledger.handler("later");
        assert_eq!(
            (row.received, row.reason("group_request")),
            (20, 20),
            "{workers} workers: {ledger:#?}"
        );
        assert_eq!(ledger.handler("rest").received, 0);
        run("ip addr del 10.9.0.1/24 dev near");
        daemon.stop();
    }
}

/// With `reply_to_groups`, a reply to a request to a group comes from this host's own address, never from the group.
/// Without it, the request is refused. This holds in both families.
#[test]
fn answers_to_groups() {
    netns_test!(needs = ["ip"]);
    let cables = cables();
    let config = r#"
        [[route]]
        destination = ["239.1.2.3:5000", "[ff02::1:3]:5000"]
        interface = "a0"
        handler = "open"
        [[route]]
        name = "closed"
        destination = "239.1.2.3:5001"
        interface = "a0"
        handler = "echo"
        [handler.open]
        kind = "echo"
        reply_to_groups = true
        ttl = 9
    "#;
    let mut daemon = Daemon::start(config);
    let client = Client(sender_on(&cables.a, false));
    client.send(b"refused", "239.1.2.3:5001");
    let (bytes, from) = client.ask(b"who is there?", "239.1.2.3:5000");
    assert_eq!(
        (bytes.as_slice(), from),
        (
            b"who is there?".as_slice(),
            "10.1.0.1:5000".parse().unwrap()
        )
    );
    let client = Client(sender_on(&cables.a, true));
    let (bytes, from) = client.ask(b"and here?", "[ff02::1:3]:5000");
    assert_eq!(bytes, b"and here?");
    let SocketAddr::V6(from) = from else {
        panic!("{from}")
    };
    assert!(
        from.ip().is_unicast_link_local() && from.port() == 5000,
        "{from}"
    );
    let ledger = daemon.ledger_when(|ledger| ledger.received() == 3);
    assert_eq!(ledger.handler("echo").reason("group_request"), 1);
    daemon.stop();
}

/// Without `interface` the kernel chooses one, and the log names it. Where the kernel has no choice, the error lists
/// the interfaces.
#[test]
fn the_kernels_choice_is_said() {
    netns_test!(needs = ["ip"]);
    let cables = cables();
    let config = "[[route]]\ndestination = \"239.1.2.3:5000\"\nhandler = \"print\"\n";
    let refused = on_file("check", config, &[]);
    assert_eq!(refused.code, 78);
    assert!(
        refused
            .errors
            .contains("the kernel has no route to 239.1.2.3, so it cannot choose an interface"),
        "{}",
        refused.errors
    );
    assert!(
        refused.errors.contains("a0 (10.1.0.1"),
        "{}",
        refused.errors
    );
    run("ip route add 224.0.0.0/4 dev b0");
    let mut daemon = Daemon::start(config);
    let said = "239.1.2.3 is joined on b0, which is the kernel's choice";
    assert!(
        daemon.log().iter().any(|line| line.contains(said)),
        "{:?}",
        daemon.log()
    );
    sender_on(&cables.b, false)
        .send_to(b"hello", "239.1.2.3:5000")
        .unwrap();
    assert!(daemon.line().ends_with("> 239.1.2.3:5000 hello"));
    daemon.stop();
}

/// If an interface does not exist, the error lists those that do.
#[test]
fn a_wrong_interface_lists_the_right_ones() {
    netns_test!();
    for wrong in ["eth7", "192.0.2.1"] {
        let config = format!(
            "[[route]]\ndestination = \"239.1.2.3:5000\"\ninterface = \"{wrong}\"\nhandler = \"print\"\n"
        );
        for command in ["check", "run"] {
            let outcome = on_file(command, &config, &[]);
            assert_eq!(outcome.code, 78);
            for words in ["test.toml:3:13", wrong, "it has: lo (127.0.0.1"] {
                assert!(
                    outcome.errors.contains(words),
                    "{words} in {}",
                    outcome.errors
                );
            }
        }
    }
}

/// With `share = true` the daemon runs beside another program on the same port and group, and both get every datagram.
/// Without it, the daemon refuses and names the program. The other program is the real avahi-daemon on
/// 224.0.0.251:5353.
#[test]
fn beside_avahi() {
    netns_test!(needs = ["avahi-daemon", "ip"], with = [root]);
    let cables = cables();
    let directory = tempfile::tempdir().unwrap();
    run("mount -t tmpfs tmpfs /run"); // Its pid file is not the host's.
    let avahi = avahi::start(directory.path());
    let route = |share| {
        format!(
            "[[route]]\ndestination = \"224.0.0.251:5353\"\ninterface = \"a0\"\nshare = {share}\nhandler = \"print\"\n"
        )
    };
    let refused = on_file("run", &route(false), &[]);
    assert_eq!(refused.code, 1);
    assert!(
        refused.errors.contains("avahi-daemon (pid "),
        "{}",
        refused.errors
    );

    let mut daemon = Daemon::start(&route(true));
    // The request is for avahi's own host name, which it replies to by multicast.
    let asker = sender_on(&cables.a, false);
    // The first requests may come before avahi is ready.
    let pause = std::time::Duration::from_millis(500);
    asker.set_read_timeout(Some(pause)).unwrap();
    let question = b"\x12\x34\0\0\0\x01\0\0\0\0\0\0\x0audisp-test\x05local\0\0\x01\0\x01";
    let len = eventually("avahi replies beside the daemon", || {
        asker.send_to(question, "224.0.0.251:5353").unwrap();
        asker.recv(&mut [0; 512])
    });
    assert!(len > question.len(), "a reply of {len} bytes");
    assert!(
        daemon.line().contains("> 224.0.0.251:5353"),
        "and we got the question too"
    );
    daemon.stop();
    drop(avahi);
}

mod avahi {
    use std::path::Path;
    use std::process::{Child, Command, Stdio};

    use udispatch::build::port_owners;

    use crate::common::eventually;

    pub struct Avahi(Child);

    impl Drop for Avahi {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// Runs avahi-daemon in this namespace, without D-Bus and without changing its user.
    pub fn start(directory: &Path) -> Avahi {
        let config = directory.join("avahi.conf");
        let text = "[server]\nhost-name=udisp-test\nuse-ipv6=no\nallow-interfaces=a0\nenable-dbus=no\n\
                    [publish]\npublish-workstation=no\n[rlimits]\n";
        std::fs::write(&config, text).unwrap();
        let child = Command::new("avahi-daemon")
            .args([
                "--no-drop-root",
                "--no-chroot",
                "--no-rlimits",
                "--no-proc-title",
                "-f",
            ])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let avahi = Avahi(child);
        eventually("avahi-daemon binds its port", || {
            let owners = port_owners::find("224.0.0.251:5353".parse().unwrap());
            owners
                .iter()
                .filter_map(|owner| owner.process.as_ref())
                .any(|(pid, _)| *pid == avahi.0.id())
        });
        avahi
    }
}
