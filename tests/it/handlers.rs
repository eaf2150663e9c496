//! What each handler does with real datagrams: exact lines, exact replies, exact shares. Nothing that a sender writes
//! escapes from them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use crate::common::client::{Client, gather};
use crate::common::daemon::{Daemon, on_file};
use crate::common::ledger::Ledger;
use crate::common::namespace::netns_test;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A route and a handler of its own, called `name`.
fn service(name: &str, destination: &str, keys: &str) -> String {
    format!(
        "[[route]]\ndestination = \"{destination}\"\nhandler = \"{name}\"\n[handler.{name}]\n{keys}\n"
    )
}

/// The keys of a forwarder to these upstreams.
fn forward(upstreams: &[Client], more: &str) -> String {
    let upstreams: Vec<_> = upstreams
        .iter()
        .map(|upstream| format!("\"{}\"", upstream.address()))
        .collect();
    format!(
        "kind = \"forward\"\nupstreams = [{}]\n{more}",
        upstreams.join(", ")
    )
}

fn receivers(count: usize) -> Vec<Client> {
    (0..count).map(|_| Client::bind("127.0.0.1:0")).collect()
}

/// What senders may try on terminals, shells, paths and parsers, and how a line of text shows it.
fn hostile() -> Vec<(Vec<u8>, String)> {
    let mut hostile: Vec<(Vec<u8>, String)> = [
        (&b""[..], ""),
        (b"plain text", "plain text"),
        (b"\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        (b"a\0b", r"a\x00b"),
        (b"one\ntwo\r\nthree\r\ttab", r"one\ntwo\r\nthree\r\ttab"),
        (b"\n\n\n", r"\n\n\n"),
        (b"\xff\xfe\xc3(", r"\xff\xfe\xc3("),
        (b"cut \xe2\x82", r"cut \xe2\x82"),
        (b"surrogate \xed\xa0\x80", r"surrogate \xed\xa0\x80"),
        (b"overlong \xc0\xaf", r"overlong \xc0\xaf"),
        (
            b"$(touch owned) `touch owned`",
            "$(touch owned) `touch owned`",
        ),
        (b"; touch owned | cat &&", "; touch owned | cat &&"),
        (b"../../owned", "../../owned"),
        (b"%s%n%x {} {0}", "%s%n%x {} {0}"),
        (br#"","src":"forged","x":""#, r#"","src":"forged","x":""#),
        (br"\x1b is not ESC", r"\\x1b is not ESC"),
        (b"\x7f", r"\x7f"),
    ]
    .map(|(bytes, shown)| (bytes.to_vec(), shown.to_owned()))
    .into();
    hostile.push((
        "\u{2028}\u{2029}\u{85}\u{9b}31m".into(),
        r"\u{2028}\u{2029}\u{85}\u{9b}31m".into(),
    ));
    hostile.push(("é 漢 🦀".into(), "é 漢 🦀".into()));
    hostile.push((vec![b'\n'; 65_507], r"\n".repeat(65_507)));
    hostile.push((vec![0x9b; 65_507], r"\x9b".repeat(65_507)));
    hostile
}

/// A line of `print` without its time, which has to be between the two instants.
fn without_time(line: &str, from: SystemTime) -> &str {
    let (time, rest) = line.split_once(' ').expect("a time and more");
    check_time(time, from);
    rest
}

fn check_time(time: &str, from: SystemTime) {
    assert_eq!(time.len(), "2001-09-09T01:46:40.000001Z".len(), "{time}");
    let time = humantime::parse_rfc3339(time).unwrap_or_else(|error| panic!("{time}: {error}"));
    // The kernel's timestamp is cut to microseconds.
    let from = from - Duration::from_micros(1);
    assert!(from <= time && time <= SystemTime::now(), "{time:?}");
}

/// `print` as text writes exactly one line for each datagram, whatever it contains, with the time, the source, the
/// destination and the escaped payload.
#[test]
fn print_text() {
    netns_test!();
    let mut daemon =
        Daemon::start("[[route]]\ndestination = \"0.0.0.0:1234\"\nhandler = \"print\"\n");
    let client = Client::bind("127.0.0.1:0");
    for (payload, shown) in hostile() {
        let begun = SystemTime::now();
        client.send(&payload, "127.0.0.7:1234");
        let expected = format!("{} > 127.0.0.7:1234 {shown}", client.address());
        assert_eq!(without_time(&daemon.line(), begun), expected);
    }
    let output = daemon.take_output();
    let ledger = daemon.stop();
    assert_eq!(output.count(), 0, "no line without a datagram");
    assert_eq!(ledger.handler("print").handled, hostile().len() as u64);
}

/// `print` as hex writes the payload as pairs of digits behind the usual head, in IPv6, too.
#[test]
fn print_hex() {
    netns_test!();
    let keys = "kind = \"print\"\nformat = \"hex\"";
    let mut daemon = Daemon::start(&service("dump", "[::]:1234", keys));
    let client = Client::bind("[::1]:0");
    for (payload, _) in hostile() {
        let begun = SystemTime::now();
        client.send(&payload, "[::1]:1234");
        let digits: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = format!("{} > [::1]:1234 {digits}", client.address());
        assert_eq!(without_time(&daemon.line(), begun), expected);
    }
    daemon.stop();
}

/// `print` as JSON writes one object a line, with exactly the documented keys. The payload is there as text if it is
/// UTF-8, and always in base64. Both give back exactly what was sent, and nothing in a line can control a terminal.
#[test]
fn print_json() {
    netns_test!();
    let route =
        "[[route]]\nname = \"my_route\"\ndestination = \"0.0.0.0:1234\"\nhandler = \"json\"\n";
    let handler = "[handler.json]\nkind = \"print\"\nformat = \"json\"\n";
    let mut daemon = Daemon::start(&format!("{route}{handler}"));
    let client = Client::bind("127.0.0.1:0");
    for (payload, _) in hostile() {
        let begun = SystemTime::now();
        client.send(&payload, "127.0.0.7:1234");
        let line = daemon.line();
        let is_harmless = |character: char| {
            !character.is_control() && !matches!(character, '\u{2028}' | '\u{2029}')
        };
        assert!(line.chars().all(is_harmless), "{line}");
        let object: BTreeMap<String, serde_json::Value> =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let mut keys = vec![
            "dst",
            "interface",
            "length",
            "payload_base64",
            "route",
            "src",
            "time",
        ];
        if let Ok(text) = std::str::from_utf8(&payload) {
            keys.insert(3, "payload");
            assert_eq!(object["payload"], text);
        }
        assert!(object.keys().eq(&keys), "{keys:?}: {line}");
        check_time(object["time"].as_str().unwrap(), begun);
        assert_eq!(object["src"], client.address().to_string());
        assert_eq!(object["dst"], "127.0.0.7:1234");
        assert_eq!(object["interface"], "lo");
        assert_eq!(object["route"], "my_route");
        assert_eq!(object["length"], payload.len());
        let decoded = STANDARD.decode(object["payload_base64"].as_str().unwrap());
        assert_eq!(decoded.unwrap(), payload);
    }
    daemon.stop();
}

/// Hostile payloads pass every other handler: they are echoed and forwarded byte for byte, get the configured reply, or
/// are discarded. No handler fails, and no file appears.
#[test]
fn hostile_payloads_change_nothing() {
    netns_test!();
    let upstream = receivers(1);
    let config = service("echo_it", "127.0.0.1:1001", "kind = \"echo\"")
        + &service(
            "reply_it",
            "127.0.0.1:1002",
            "kind = \"reply\"\ntext = \"\"",
        )
        + &service("drop_it", "127.0.0.1:1003", "kind = \"drop\"")
        + &service("forward_it", "127.0.0.1:1004", &forward(&upstream, ""));
    let mut daemon = Daemon::start(&config);
    let client = Client::bind("127.0.0.1:0");
    for (payload, _) in hostile() {
        assert_eq!(client.ask(&payload, "127.0.0.1:1001").0, payload);
        assert_eq!(client.ask(&payload, "127.0.0.1:1002").0, b"");
        client.send(&payload, "127.0.0.1:1003");
        client.send(&payload, "127.0.0.1:1004");
        assert_eq!(upstream[0].receive().0, payload);
    }
    let count = hostile().len() as u64;
    let ledger = daemon.ledger_when(|ledger| ledger.received() == 4 * count);
    for name in ["echo_it", "reply_it", "forward_it"] {
        let row = ledger.handler(name);
        assert_eq!((row.handled, row.last), (count, count), "{name}");
    }
    assert_eq!(daemon.files(), ["test.toml"]);
    assert!(!std::path::Path::new("owned").exists());
    daemon.stop();
}

/// `drop` counts what it takes as discarded, in its own row, the route's and the listener's, and sends nothing.
#[test]
fn drop_is_counted() {
    netns_test!();
    let config = "[[route]]\ndestination = \"127.0.0.1:1234\"\nhandler = \"drop\"\n";
    let mut daemon = Daemon::start(config);
    let client = Client::bind("127.0.0.1:0");
    for _ in 0..100 {
        client.send(b"away", "127.0.0.1:1234");
    }
    let ledger = daemon.ledger_when(|ledger| ledger.received() == 100);
    for row in [
        ledger.listener("127.0.0.1:1234"),
        ledger.route("127.0.0.1:1234"),
        ledger.handler("drop"),
    ] {
        assert_eq!(
            (row.handled, row.reason("discarded"), row.last),
            (0, 100, 0)
        );
    }
    assert!(client.is_empty());
    daemon.stop();
}

/// `reply` sends what its file says as text, as hex digits or in another file. That one is found beside the
/// configuration, wherever the daemon was started, and is read once.
#[test]
fn reply_text_hex_file() {
    netns_test!();
    let bytes: Vec<u8> = (0..=255).collect();
    let config = service(
        "text",
        "127.0.0.1:1001",
        "kind = \"reply\"\ntext = \"line\\n\\u00e9\\u0000\"",
    ) + &service(
        "hex",
        "127.0.0.1:1002",
        "kind = \"reply\"\nhex = \"00 fF 7f\\n0a\"",
    ) + &service(
        "file",
        "127.0.0.1:1003",
        "kind = \"reply\"\nfile = \"answer.bin\"",
    ) + &service(
        "again",
        "127.0.0.1:1004",
        "kind = \"reply\"\nfile = \"./answer.bin\"\namplification_max = 65507",
    );
    let daemon = Daemon::of(&config).beside("answer.bin", &bytes).start();
    let client = Client::bind("127.0.0.1:0");
    let request = [b'?'; 100];
    for (port, answer) in [
        (1001, "line\n\u{e9}\0".as_bytes()),
        (1002, b"\x00\xff\x7f\x0a"),
        (1003, &bytes),
        (1004, &bytes),
    ] {
        let to = format!("127.0.0.1:{port}");
        assert_eq!(
            client.ask(&request, &to),
            (answer.to_vec(), to.parse().unwrap())
        );
    }
    daemon.stop();
}

/// A `reply` whose file cannot be a reply is a wrong configuration, with exit code 78 and the place in the file, for
/// `check` and `run` alike.
#[test]
fn reply_file_that_cannot_be() {
    netns_test!();
    for (file, why) in [
        ("missing.bin", "No such file"),
        (".", "is not a file"),
        ("/dev/zero", "is not a file"),
        ("test.toml/x", "Not a directory"),
        ("", "`file`"),
    ] {
        let keys = format!("kind = \"reply\"\nfile = \"{file}\"");
        let config = service("answer", "127.0.0.1:1234", &keys);
        for command in ["check", "run"] {
            let outcome = on_file(command, &config, &[]);
            assert_eq!(outcome.code, 78, "{file}: {}", outcome.errors);
            assert!(
                outcome.errors.contains("test.toml:6:8"),
                "{}",
                outcome.errors
            );
            assert!(outcome.errors.contains(why), "{file}: {}", outcome.errors);
        }
    }
}

/// `pick = "all"` gives every upstream every datagram, once and in order.
#[test]
fn forward_to_all() {
    netns_test!();
    let upstreams = receivers(3);
    let config = service(
        "on",
        "127.0.0.1:1234",
        &forward(&upstreams, "pick = \"all\""),
    );
    let daemon = Daemon::start(&config);
    let client = Client::bind("127.0.0.1:0");
    for window in 0..20_u32 {
        let numbers = window * 50..(window + 1) * 50;
        for number in numbers.clone() {
            client.send(&number.to_be_bytes(), "127.0.0.1:1234");
        }
        for upstream in &upstreams {
            for number in numbers.clone() {
                assert_eq!(upstream.receive().0, number.to_be_bytes());
            }
        }
    }
    let ledger = daemon.stop();
    assert_eq!(ledger.handler("on").handled, 1_000);
    assert_eq!(ledger.handler("on").last, 3_000);
    assert!(upstreams.iter().all(Client::is_empty));
}

/// `pick = "round_robin"`, also the default, gives each upstream exactly its share where an upstream is picked for each
/// datagram. This holds for plain datagrams, and for those of one segmented send, which the kernel delivers as one
/// train.
#[test]
fn forward_in_turn() {
    netns_test!();
    for more in [
        "pick = \"round_robin\"\nreplies = false",
        "spread = \"datagram\"",
    ] {
        let upstreams = receivers(3);
        let daemon = Daemon::start(&service("on", "127.0.0.1:1234", &forward(&upstreams, more)));
        let client = Client::bind("127.0.0.1:0");
        for number in 0..60_u8 {
            client.send(&[number; 8], "127.0.0.1:1234");
        }
        let train: Vec<u8> = (60..120_u8).flat_map(|number| [number; 8]).collect();
        client.send_segmented(&train, 8, "127.0.0.1:1234");
        for turn in 0..40_u8 {
            for (place, upstream) in upstreams.iter().enumerate() {
                assert_eq!(upstream.receive().0, [3 * turn + place as u8; 8]);
            }
        }
        assert_eq!(daemon.stop().handler("on").last, 120);
        assert!(upstreams.iter().all(Client::is_empty));
    }
}

/// `pick = "random"` gives each upstream about its share. Of 4,000 datagrams each of four gets 1,000 ± 27 (one standard
/// deviation). A difference of more than seven of those is not chance.
#[test]
fn forward_at_random() {
    netns_test!();
    let upstreams = receivers(4);
    let config = service(
        "on",
        "127.0.0.1:1234",
        &forward(&upstreams, "pick = \"random\"\nreplies = false"),
    );
    let daemon = Daemon::start(&config);
    let client = Client::bind("127.0.0.1:0");
    let mut counts = [0; 4];
    for _ in 0..40 {
        for _ in 0..100 {
            client.send(b"any", "127.0.0.1:1234");
        }
        for (count, got) in counts.iter_mut().zip(gather(&upstreams, 100)) {
            *count += got.len();
        }
    }
    assert!(
        counts.iter().all(|count| count.abs_diff(1_000) < 7 * 27),
        "{counts:?}"
    );
    assert_eq!(daemon.stop().handler("on").last, 4_000);
}

/// The upstream that gets the datagrams of each client: five each, which all go to one upstream, in order.
fn ways(clients: &[Client], to: impl Fn(usize) -> String, upstreams: &[Client]) -> Vec<usize> {
    let mut ways = vec![];
    for (index, client) in clients.iter().enumerate() {
        let sent: Vec<Vec<u8>> = (0..5).map(|number| vec![index as u8, number]).collect();
        for bytes in &sent {
            client.send(bytes, &to(index));
        }
        let got = gather(upstreams, 5);
        let way = got.iter().position(|got| *got == sent);
        ways.push(way.unwrap_or_else(|| panic!("client {index} was split: {got:?}")));
    }
    ways
}

/// `pick = "hash"` sends datagrams with equal `hash_on` to one upstream, and others elsewhere: by source, by source
/// address alone, by destination. Four workers pick as one does, and so does a daemon that was restarted.
#[test]
fn forward_by_hash() {
    netns_test!();
    let upstreams = receivers(3);
    let ports: Vec<Client> = (0..40).map(|_| Client::bind("127.0.0.1:0")).collect();
    let hosts: Vec<Client> = (1..=40)
        .map(|host| Client::bind(&format!("127.0.5.{host}:0")))
        .collect();
    let one = |_| "127.0.0.1:1234".to_owned();
    let many = |index| format!("127.0.9.{}:1234", index + 1);
    let all_used = |ways: &[usize]| BTreeSet::from_iter(ways).len() == 3;
    let all_same = |ways: &[usize]| BTreeSet::from_iter(ways).len() == 1;
    for hash_on in ["", "source", "source_address", "destination"] {
        let mut more = "pick = \"hash\"\n".to_owned();
        if !hash_on.is_empty() {
            more += &format!("hash_on = \"{hash_on}\"\n");
        }
        let config = service("on", "0.0.0.0:1234", &forward(&upstreams, &more));
        let mut before = None;
        for workers in ["1", "4", "1"] {
            let daemon = Daemon::of(&config).workers(workers).start();
            let by_port = ways(&ports, one, &upstreams);
            let by_host = ways(&hosts, one, &upstreams);
            let by_destination = ways(&ports, many, &upstreams);
            match hash_on {
                "destination" => {
                    assert!(all_same(&by_port) && all_same(&by_host) && all_used(&by_destination));
                }
                "source_address" => {
                    assert!(all_same(&by_port) && all_used(&by_host) && all_same(&by_destination));
                }
                _ => {
                    assert!(all_used(&by_port) && all_used(&by_host));
                    assert_eq!(by_port, by_destination);
                }
            }
            let now = (by_port, by_host, by_destination);
            assert_eq!(*before.get_or_insert(now.clone()), now, "{workers} workers");
            assert_eq!(daemon.stop().handler("on").last, 600);
        }
    }
}

/// IPv6 upstreams, IPv4 datagrams to IPv6 upstreams and the reverse, and an upstream by name.
#[test]
fn forward_across_families() {
    netns_test!();
    let four = Client::bind("127.0.0.1:9001");
    let six = Client::bind("[::1]:9002");
    let keys =
        "kind = \"forward\"\npick = \"all\"\nupstreams = [\"localhost:9001\", \"[::1]:9002\"]";
    let both = "127.0.0.1:1234\", \"[::1]:1234";
    let config =
        service("on", both, keys).replace(&format!("\"{both}\""), &format!("[\"{both}\"]"));
    let daemon = Daemon::start(&config);
    for (from, to) in [("127.0.0.1:0", "127.0.0.1:1234"), ("[::1]:0", "[::1]:1234")] {
        let client = Client::bind(from);
        for payload in [&b""[..], b"one", &[7; 65_507]] {
            client.send(payload, to);
            assert_eq!(four.receive().0, payload);
            let (bytes, source) = six.receive();
            assert_eq!(bytes, payload);
            assert!(source.is_ipv6());
        }
    }
    let ledger = daemon.stop();
    assert_eq!(
        (ledger.handler("on").handled, ledger.handler("on").last),
        (6, 12)
    );
}

/// A forwarded datagram has the TTL that it came with, less one, also across families. `ttl` sets it. A datagram with a
/// TTL of 1 is not forwarded.
#[test]
fn forward_ttl() {
    netns_test!();
    for (local, from, upstream) in [
        ("127.0.0.1:1234", "127.0.0.1:0", "127.0.0.1:9001"),
        ("[::1]:1234", "[::1]:0", "[::1]:9001"),
        ("127.0.0.1:1234", "127.0.0.1:0", "[::1]:9001"),
        ("[::1]:1234", "[::1]:0", "127.0.0.1:9001"),
    ] {
        let upstream = [Client::bind(upstream)];
        let client = Client::bind(from);
        let set_ttl = |ttl: u32| {
            let socket = socket2::SockRef::from(&client.0);
            if client.address().is_ipv4() {
                socket.set_ttl_v4(ttl).unwrap();
            } else {
                socket.set_unicast_hops_v6(ttl).unwrap();
            }
        };
        for (more, cases) in [
            ("", &[(255, 254), (64, 63), (2, 1)][..]),
            ("ttl = 9", &[(255, 9), (64, 9), (1, 9)]),
        ] {
            let mut daemon = Daemon::start(&service("on", local, &forward(&upstream, more)));
            for (ttl, expected) in cases {
                set_ttl(*ttl);
                client.send(b"how far?", local);
                // This holds for the datagrams of a train, too.
                client.send_segmented(b"aabb", 2, local);
                let expected =
                    [&b"how far?"[..], b"aa", b"bb"].map(|bytes| (bytes.to_vec(), *expected));
                assert_eq!(upstream[0].receive_with_ttl(3), expected);
            }
            if more.is_empty() {
                set_ttl(1);
                client.send(b"no further", local);
                client.send_segmented(b"aabb", 2, local);
                let spent = |ledger: &Ledger| ledger.handler("on").reason("ttl_spent") == 3;
                assert_eq!(daemon.ledger_when(spent).handler("on").last, 9);
            }
            assert!(upstream[0].is_empty());
            daemon.stop();
        }
    }
}

/// Several handlers on one route, and one handler on two routes: each gets everything that is its own.
#[test]
fn forwarders_share_routes() {
    netns_test!();
    let one = receivers(1);
    let two = receivers(1);
    let config = format!(
        "[[route]]\ndestination = \"127.0.0.1:1001\"\nhandler = [\"one\", \"two\"]\n\
         [[route]]\ndestination = \"127.0.0.1:1002\"\nhandler = [\"two\"]\n\
         [handler.one]\n{}[handler.two]\n{}",
        forward(&one, ""),
        forward(&two, "")
    );
    let daemon = Daemon::start(&config);
    let client = Client::bind("127.0.0.1:0");
    for number in 0..100_u8 {
        client.send(&[1, number], "127.0.0.1:1001");
        assert_eq!(one[0].receive().0, [1, number]);
        assert_eq!(two[0].receive().0, [1, number]);
        client.send(&[2, number], "127.0.0.1:1002");
        assert_eq!(two[0].receive().0, [2, number]);
    }
    let ledger = daemon.stop();
    assert_eq!(ledger.received(), 200);
    let count = |name| (ledger.handler(name).received, ledger.handler(name).last);
    assert_eq!((count("one"), count("two")), ((100, 100), (200, 200)));
}

/// Pseudo-random numbers that are equal in every run (xorshift, Marsaglia 2003).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }

    /// Sizes that make and break runs: often the last one again, then a shorter, a longer, an empty or a huge one.
    fn sizes(&mut self) -> Vec<usize> {
        let mut sizes = vec![];
        let mut bytes = 0;
        let mut size = 100;
        while sizes.len() < 60 && bytes < 60_000 {
            size = match self.below(12) {
                0 => 0,
                1 => 1 + self.below(1_472),
                2 => size / 2,
                3 => size + 1,
                4 if sizes.is_empty() => 65_507 - self.below(3),
                _ => size,
            };
            bytes += size;
            sizes.push(size);
        }
        sizes
    }
}

/// Sends windows of datagrams through a forwarder and compares what arrives at each of its upstreams, byte for byte and
/// in order. A window fits into the smallest of the buffers on the path, so nothing may be lost. The daemon is stopped
/// while every second window is sent, so that it gets full batches.
fn forward_windows(upstreams: usize, mut send: impl FnMut(&Client, &mut Numbers) -> Vec<Vec<u8>>) {
    let upstreams = receivers(upstreams);
    let config = service(
        "on",
        "127.0.0.1:1234",
        &forward(&upstreams, "pick = \"all\""),
    );
    let daemon = Daemon::start(&config);
    let client = Client::bind("127.0.0.1:0");
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    let mut count = 0;
    for window in 0..100 {
        if window % 2 == 1 {
            daemon.pause();
        }
        let sent = send(&client, &mut numbers);
        daemon.resume();
        for upstream in &upstreams {
            for (index, bytes) in sent.iter().enumerate() {
                let got = upstream.receive().0;
                assert!(
                    got == *bytes,
                    "window {window}, datagram {index} of {}: {} bytes for {}",
                    sent.len(),
                    got.len(),
                    bytes.len()
                );
            }
        }
        count += sent.len() as u64;
    }
    assert!(count > 2_000, "{count} are too few to prove anything");
    assert!(upstreams.iter().all(Client::is_empty));
    let ledger = daemon.stop();
    let row = ledger.handler("on");
    assert_eq!(ledger.kernel_drops(), 0);
    assert_eq!((row.received, row.handled), (count, count));
    assert_eq!(row.last, count * upstreams.len() as u64);
}

fn send_one_by_one(client: &Client, numbers: &mut Numbers) -> Vec<Vec<u8>> {
    let sizes = numbers.sizes();
    let datagrams: Vec<_> = sizes.into_iter().map(|size| numbers.bytes(size)).collect();
    for bytes in &datagrams {
        client.send(bytes, "127.0.0.1:1234");
    }
    datagrams
}

/// Sends trains of up to 128 datagrams. Some have a shorter last one, and some are followed by an empty or a single
/// datagram or by another train of equal size.
fn send_in_trains(client: &Client, numbers: &mut Numbers) -> Vec<Vec<u8>> {
    let to = "127.0.0.1:1234";
    let segment = 1 + numbers.below(1_400);
    // 64 was the limit of a segmented send until Linux 6.10.
    let most = if numbers.below(2) == 0 {
        64
    } else {
        segments_max()
    };
    let len = (segment * (1 + numbers.below(most)))
        .saturating_sub(numbers.below(2) * numbers.below(segment))
        .clamp(1, 65_507 / segment * segment);
    let mut datagrams = vec![];
    for _ in 0..=numbers.below(2) {
        let bytes = numbers.bytes(len);
        client.send_segmented(&bytes, segment as u16, to);
        datagrams.extend(bytes.chunks(segment).map(<[u8]>::to_vec));
        for &size in &[0, segment][..numbers.below(3)] {
            let bytes = numbers.bytes(size);
            client.send(&bytes, to);
            datagrams.push(bytes);
        }
    }
    datagrams
}

/// The largest number of segments that the running kernel takes in one send.
fn segments_max() -> usize {
    let probe = Client::bind("127.0.0.1:0");
    let to = probe.address();
    probe.0.connect(to).unwrap();
    let option = (libc::SOL_UDP, libc::UDP_SEGMENT);
    udispatch::net::option::set_int(&probe.0, option.0, option.1, 1).unwrap();
    if probe.0.send(&[0; 128]).is_ok() {
        128
    } else {
        64
    }
}

/// A receiver gets thousands of datagrams of mixed sizes from a plain sender: complete, in order, byte for byte.
#[test]
fn forward_batches() {
    netns_test!();
    forward_windows(1, send_one_by_one);
}

/// Each of three receivers gets thousands of datagrams from a plain sender: complete, in order, byte for byte.
#[test]
fn forward_batches_to_three() {
    netns_test!();
    forward_windows(3, send_one_by_one);
}

/// A receiver gets thousands of datagrams from a segmenting sender (UDP_SEGMENT): complete, in order, byte for byte.
#[test]
fn forward_trains() {
    netns_test!();
    forward_windows(1, send_in_trains);
}

/// Each of three receivers gets thousands of datagrams from a segmenting sender: complete, in order, byte for byte.
#[test]
fn forward_trains_to_three() {
    netns_test!();
    forward_windows(3, send_in_trains);
}
