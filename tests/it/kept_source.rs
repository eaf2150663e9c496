//! Sending with the sender's address, and other options of sockets to upstreams, as other hosts see them. Each test
//! uses veth pairs between network namespaces, in both families.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use crate::common::TIMEOUT;
use crate::common::client::Client;
use crate::common::host::Host;
use crate::common::namespace::{again, index_of, netns_test, run, this_test};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use udispatch::dispatch::udp_header::udp_header;
use udispatch::net::control_message::Sending;
use udispatch::net::kept_source::{hint, kept_source_socket};
use udispatch::net::send::{MESSAGES_MAX, Sender};
use udispatch::net::upstream::{UpstreamSocketOptions, set_ttl, upstream_socket};

const BOTH: [bool; 2] = [false, true];

/// A host at the end of the veth pair `a0`, where upstreams are, and one at the end of `b0`, where clients are. This
/// host is the router between them.
fn cables() -> (Host, Host) {
    let a = Host::at_the_end_of("a0", "10.1.0", "2001:db8:1", 1_500);
    let b = Host::at_the_end_of("b0", "10.2.0", "2001:db8:2", 1_500);
    for family in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        std::fs::write(format!("/proc/sys/net/{family}"), "1").unwrap();
    }
    for (host, net) in [(&a, 1), (&b, 2)] {
        host.run(&format!("ip route add default via 10.{net}.0.1"));
        host.run(&format!("ip -6 route add default via 2001:db8:{net}::1"));
    }
    (a, b)
}

/// An address of the network behind a veth pair.
fn ip(v6: bool, net: u8, host: u8) -> IpAddr {
    let text = if v6 {
        format!("2001:db8:{net}::{host:x}")
    } else {
        format!("10.{net}.0.{host}")
    };
    text.parse().unwrap()
}

fn options() -> UpstreamSocketOptions {
    UpstreamSocketOptions::plain(8 << 20)
}

/// A connected socket that keeps the source.
fn kept(upstream: SocketAddr, options: &UpstreamSocketOptions) -> UdpSocket {
    let socket = kept_source_socket(upstream, options).unwrap();
    socket.connect(upstream).unwrap();
    socket
}

/// Sends datagrams, each with its own source, in one call that has to take all of them, as `worker/flush.rs` does.
fn send_as(socket: &UdpSocket, datagrams: &[(SocketAddr, &[u8])], ttl: Option<u8>) {
    let upstream = socket.peer_addr().unwrap();
    let headers = datagrams
        .iter()
        .map(|(src, payload)| udp_header(*src, upstream, payload).unwrap());
    let headers: Vec<[u8; 8]> = headers.collect();
    send_with(socket, &headers, datagrams, ttl);
}

fn send_with(
    socket: &UdpSocket,
    headers: &[[u8; 8]],
    datagrams: &[(SocketAddr, &[u8])],
    ttl: Option<u8>,
) {
    let mut sender = Sender::new();
    let mut batch = sender.batch();
    for (header, (src, payload)) in headers.iter().zip(datagrams) {
        let v6 = src.is_ipv6();
        batch.begin(
            None,
            &Sending {
                from: Some(src.ip()),
                ttl,
                v6,
                ..Sending::default()
            },
        );
        batch.piece(header);
        batch.piece(payload);
    }
    assert_eq!(batch.send(socket, 0).unwrap(), datagrams.len());
}

/// All IP packets that arrive at a host's veth pair, with their headers.
struct Wire(Socket);

impl Wire {
    fn tap(host: &Host, v6: bool) -> Wire {
        host.on(move || {
            let protocol = if v6 { libc::ETH_P_IPV6 } else { libc::ETH_P_IP } as u16;
            let protocol = Protocol::from(i32::from(protocol.to_be()));
            let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol)).unwrap();
            socket.set_read_timeout(Some(TIMEOUT)).unwrap();
            Wire(socket)
        })
    }

    /// The class (the whole byte), the TTL and the source of the next datagram. Packets that are not UDP are skipped.
    fn next(&self) -> (u8, u8, SocketAddr) {
        use std::io::Read;
        loop {
            let mut packet = [0; 2048];
            let len = (&self.0).read(&mut packet).expect("a packet comes");
            let packet = &packet[..len];
            let port = |at: usize| u16::from_be_bytes(packet[at..at + 2].try_into().unwrap());
            if packet[0] >> 4 == 4 && packet[9] == 17 {
                let src = <[u8; 4]>::try_from(&packet[12..16]).unwrap();
                return (packet[1], packet[8], (src, port(20)).into());
            }
            if packet[0] >> 4 == 6 && packet[6] == 17 {
                let src = <[u8; 16]>::try_from(&packet[8..24]).unwrap();
                return (
                    packet[0] << 4 | packet[1] >> 4,
                    packet[7],
                    (src, port(40)).into(),
                );
            }
        }
    }
}

/// A datagram arrives with its sender's address and port, in any size up to the largest, also in fragments, and the
/// reply goes straight to the sender.
#[test]
fn the_upstream_sees_the_sender() {
    netns_test!(needs = ["ip"]);
    let (a, b) = cables();
    for v6 in BOTH {
        let upstream = a.bind(&SocketAddr::new(ip(v6, 1, 2), 5_000).to_string());
        let client = b.bind(&SocketAddr::new(ip(v6, 2, 2), 4_000).to_string());
        let socket = kept(upstream.address(), &options());
        let most = if v6 { 65_527 } else { 65_507 };
        for len in [0, 1, 64, 503, 504, 513, 1_452, 1_472, 1_473, 9_000, most] {
            let payload: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            send_as(&socket, &[(client.address(), &payload)], None);
            let (got, from) = upstream.receive();
            assert!(got == payload, "{len} bytes came as {}", got.len());
            assert_eq!(from, client.address());
            upstream.send(b"answer", &from.to_string());
            assert_eq!(client.receive(), (b"answer".to_vec(), upstream.address()));
        }
    }
}

/// The receiver's kernel verifies the checksum. A wrong one never arrives and is counted there.
#[test]
fn checksums_are_verified() {
    netns_test!(needs = ["ip"]);
    let (a, b) = cables();
    for v6 in BOTH {
        let upstream = a.bind(&SocketAddr::new(ip(v6, 1, 2), 5_000).to_string());
        let client = b
            .bind(&SocketAddr::new(ip(v6, 2, 2), 4_000).to_string())
            .address();
        let socket = kept(upstream.address(), &options());
        let mut header = udp_header(client, upstream.address(), b"wrong").unwrap();
        header[7] ^= 1;
        send_with(&socket, &[header], &[(client, b"wrong")], None);
        send_as(&socket, &[(client, b"right")], None);
        assert_eq!(upstream.receive().0, b"right");
        let refused = a.on(move || {
            let file = if v6 { "snmp6" } else { "snmp" };
            let text = std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap();
            if v6 {
                let line = text
                    .lines()
                    .find(|line| line.starts_with("Udp6InCsumErrors"))
                    .unwrap()
                    .to_owned();
                return line.split_whitespace().last().unwrap().to_owned();
            }
            let mut lines = text
                .lines()
                .filter(|line| line.starts_with("Udp:"))
                .map(str::split_whitespace);
            let names = lines.next().unwrap();
            let values = lines.next().unwrap();
            names
                .zip(values)
                .find(|(name, _)| *name == "InCsumErrors")
                .unwrap()
                .1
                .to_owned()
        });
        assert_eq!(refused, "1");
    }
}

/// A full batch, each datagram with another address, is sent in one call. Each may have a TTL of its own.
#[test]
fn a_batch_of_many_senders() {
    netns_test!(needs = ["ip"]);
    let (a, _b) = cables();
    for v6 in BOTH {
        let upstream = a.bind(&SocketAddr::new(ip(v6, 1, 2), 5_000).to_string());
        let socket = kept(upstream.address(), &options());
        let wire = Wire::tap(&a, v6);
        let senders =
            (0..MESSAGES_MAX).map(|n| SocketAddr::new(ip(v6, 2, n as u8 + 10), 4_000 + n as u16));
        let payloads: Vec<(SocketAddr, Vec<u8>)> =
            senders.map(|src| (src, src.to_string().into())).collect();
        let datagrams: Vec<_> = payloads
            .iter()
            .map(|(src, payload)| (*src, &payload[..]))
            .collect();
        send_as(&socket, &datagrams, Some(9));
        for (src, payload) in payloads {
            assert_eq!(upstream.receive(), (payload, src));
            assert_eq!(wire.next(), (0, 9, src));
        }
    }
}

/// What this host receives is not copied into such a socket, even without its filter and before it is connected, and
/// costs it nothing: the kernel's table does not list it. The kernel copies it into other raw sockets.
#[test]
fn nothing_comes_in() {
    netns_test!(needs = ["ip"]);
    let (a, _b) = cables();
    for v6 in BOTH {
        let upstream = a.bind(&SocketAddr::new(ip(v6, 1, 2), 5_000).to_string());
        let ours = Client::bind(&SocketAddr::new(ip(v6, 1, 1), 6_000).to_string());
        let connected = kept(upstream.address(), &options());
        let waiting = kept_source_socket(upstream.address(), &options()).unwrap();
        for socket in [&connected, &waiting] {
            SockRef::from(socket).detach_filter().unwrap();
            SockRef::from(socket).set_recv_buffer_size(1 << 20).unwrap();
        }
        let file = format!("/proc/thread-self/net/raw{}", if v6 { "6" } else { "" });
        let in_table = || std::fs::read_to_string(&file).unwrap().lines().count() - 1;
        assert_eq!(in_table(), 0);
        let domain = Domain::for_address(upstream.address());
        let raw: UdpSocket = Socket::new(domain, Type::RAW, Some(Protocol::UDP))
            .unwrap()
            .into();
        assert_eq!(in_table(), 1);
        upstream.send(b"hello", &ours.address().to_string());
        assert_eq!(ours.receive().0, b"hello");
        raw.set_nonblocking(true).unwrap();
        assert!(raw.recv(&mut [0; 100]).is_ok());
        for socket in [&connected, &waiting] {
            assert_eq!(
                socket.recv(&mut [0; 100]).unwrap_err().kind(),
                ErrorKind::WouldBlock
            );
        }
    }
}

/// Without the capability the error is EPERM, and a message explains it.
#[test]
fn without_the_capability() {
    let upstream = "127.0.0.1:9".parse().unwrap();
    const WITHOUT: &str = "UDISPATCH_TEST_WITHOUT_NET_RAW";
    if std::env::var(WITHOUT).is_ok() {
        let error = kept_source_socket(upstream, &options()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        let hint = hint(&error).unwrap();
        assert!(
            hint.contains("setcap cap_net_raw") && hint.contains("/it-"),
            "{hint}"
        );
        // Every other setting of an upstream needs no capability.
        let options = UpstreamSocketOptions {
            dscp: Some(46),
            ttl: Some(9),
            interface: 1,
            loop_back: false,
            ..options()
        };
        upstream_socket(upstream, &options).unwrap();
        upstream_socket("239.1.2.3:9".parse().unwrap(), &options).unwrap();
        return;
    }
    netns_test!(needs = ["setpriv"]);
    kept_source_socket(upstream, &options()).unwrap();
    let setpriv = [
        "setpriv",
        "--bounding-set",
        "-net_raw,-net_admin",
        "--inh-caps",
        "-net_raw,-net_admin",
    ];
    let output = again(&setpriv, this_test!())
        .env(WITHOUT, "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("1 passed"),
        "{output:?}"
    );
}

/// Class, TTL and source are seen on the wire, with and without the sender's address. A TTL can change later, and
/// workers share a fixed port.
#[test]
fn class_ttl_and_source() {
    netns_test!(needs = ["ip"]);
    let (a, _b) = cables();
    for (v6, device) in BOTH
        .into_iter()
        .zip(["10.1.0.77/32", "2001:db8:1::77/128 nodad"])
    {
        run(&format!("ip addr add {device} dev lo"));
        let upstream = SocketAddr::new(ip(v6, 1, 2), 5_000);
        let _upstream = a.bind(&upstream.to_string());
        let wire = Wire::tap(&a, v6);
        let source = SocketAddr::new(ip(v6, 1, if v6 { 0x77 } else { 77 }), 7_000);
        let interface = index_of("a0").unwrap();
        let options = UpstreamSocketOptions {
            dscp: Some(46),
            ttl: Some(33),
            source: Some(source),
            interface,
            ..options()
        };
        let mut workers = Vec::new();
        for _ in 0..2 {
            let socket = upstream_socket(upstream, &options).unwrap();
            socket.connect(upstream).unwrap();
            socket.send(b"hello").unwrap();
            assert_eq!(wire.next(), (46 << 2, 33, source));
            set_ttl(&socket, v6, Some(5)).unwrap();
            socket.send(b"hello").unwrap();
            assert_eq!(wire.next(), (46 << 2, 5, source));
            workers.push(socket);
        }
        let socket = kept(upstream, &options);
        let client = SocketAddr::new(ip(v6, 2, 9), 9_999);
        send_as(&socket, &[(client, b"hello")], None);
        assert_eq!(wire.next(), (46 << 2, 33, client));
        // The kernel chooses a port for each.
        let source = SocketAddr::new(source.ip(), 0);
        let made = || {
            upstream_socket(
                upstream,
                &UpstreamSocketOptions {
                    source: Some(source),
                    ..options
                },
            )
            .unwrap()
        };
        assert_ne!(
            made().local_addr().unwrap().port(),
            made().local_addr().unwrap().port()
        );
    }
}

/// Datagrams to a group are sent through the configured interface, with the configured TTL, and are received on this
/// host only if configured. This holds for a kept source as well.
#[test]
fn groups() {
    netns_test!(needs = ["ip"]);
    let (a, b) = cables();
    for (v6, group) in BOTH.into_iter().zip(["239.1.2.3:5000", "[ff15::123]:5000"]) {
        let group: SocketAddr = group.parse().unwrap();
        // There is a member on each host, and one on this host, where the datagrams of the group are sent.
        let member = move |interface: &'static str| {
            let socket = UdpSocket::bind(group).unwrap();
            udispatch::net::multicast::join(&socket, group.ip(), index_of(interface).unwrap())
                .unwrap();
            Client::of(socket)
        };
        let local = member("b0");
        let there = b.on(move || member("eth0"));
        let elsewhere = a.on(move || member("eth0"));
        let wire = Wire::tap(&b, v6);
        let client = SocketAddr::new(ip(v6, 1, 2), 4_000);
        for loop_back in [false, true] {
            let interface = index_of("b0").unwrap();
            let options = UpstreamSocketOptions {
                ttl: Some(7),
                dscp: Some(10),
                interface,
                loop_back,
                ..options()
            };
            let socket = upstream_socket(group, &options).unwrap();
            socket.connect(group).unwrap();
            socket.send(b"hello").unwrap();
            let (bytes, from) = there.receive();
            assert_eq!((bytes, from.ip()), (b"hello".to_vec(), ip(v6, 2, 1)));
            assert_eq!(wire.next(), (10 << 2, 7, from));
            send_as(&kept(group, &options), &[(client, b"kept")], None);
            assert_eq!(there.receive(), (b"kept".to_vec(), client));
            assert_eq!(wire.next(), (10 << 2, 7, client));
            if loop_back {
                assert_eq!(local.receive(), (b"hello".to_vec(), from));
                assert_eq!(local.receive(), (b"kept".to_vec(), client));
            }
            assert!(local.is_empty(), "loop {loop_back}, IPv6 {v6}");
        }
        assert!(elsewhere.is_empty());
    }
}
