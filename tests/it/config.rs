//! What good files mean, and that no file at all can do harm.

use std::path::Path;
use std::time::Duration;

use crate::common::cpu_time;
use crate::common::kinds::KINDS;
use proptest::prelude::*;
use udispatch::config::test::TestExpectation;
use udispatch::config::{
    Config, ControlSocket, InterfaceRef, NamedHandler, Problems, Workers, handlers,
};

fn parse(text: &str) -> Result<Config, Problems> {
    Config::parse(Path::new("u.toml"), text, KINDS)
}

fn good(text: &str) -> Config {
    parse(text).unwrap_or_else(|problems| panic!("{problems}"))
}

const FULL: &str = r#"
[daemon]
workers = 4
receive_buffer = "16MiB"
log = "debug"
control = "u.sock"
http = ":9253"
http_hosts = ["Stats.example", "192.0.2.1"]
watch = true
latency = true

[[route]]
destination = "127.0.0.1:1234"
handler = "echo"

[[route]]
destination = "0.0.0.0:1234"
handler = "print"

[[route]]
destination = "192.0.2.0/24:5000-5010"
source = ["10.0.0.0/8"]
expect_every = { "10.2.0.0/16" = "5s", "10.1.0.0/16" = "1m" }
handler = ["collectors", "echo"]

[[route]]
name = "market"
destination = ["239.1.2.3:5000", "[ff02::fb]:5353"]
interface = "eth0"
share = true
expect_every = "60s"
handler = "collectors"

[[route]]
destination = "[fe80::1]:53"
interface = "192.0.2.9"
handler = "print"

[handler.collectors]
kind = "forward"
upstreams = ["10.0.0.1:2055", "collector.example:2055"]

[[test]]
source = "10.1.2.3"
destination = "192.0.2.9:5005"
interface = "eth0"
payload = "é"
expect = { route = "192.0.2.0/24:5000-5010 from 10.0.0.0/8", handler = ["echo", "collectors"], upstream = "10.0.0.1:2055" }

[[test]]
source = "[2001:db8::1]:7"
destination = "[::1]:1"
expect = "no_route"
"#;

/// Every key of the language, read into what it means.
#[test]
fn a_full_file_is_read() {
    let config = good(FULL);
    assert!(matches!(config.daemon.workers, Workers::Count(count) if count.get() == 4));
    assert_eq!(config.daemon.receive_buffer, 16 << 20);
    assert_eq!(config.daemon.send_buffer, 4 << 20);
    assert_eq!(config.daemon.log, log::LevelFilter::Debug);
    assert!(config.warnings.is_empty(), "{}", config.warnings);

    let labels: Vec<&str> = config
        .routes
        .iter()
        .map(|route| route.label.as_str())
        .collect();
    let expected = [
        "127.0.0.1:1234",
        "0.0.0.0:1234",
        "192.0.2.0/24:5000-5010 from 10.0.0.0/8",
        "market",
        "[fe80::1]:53 on 192.0.2.9",
    ];
    assert_eq!(labels, expected);

    assert_eq!(
        config.daemon.control,
        ControlSocket::Path("./u.sock".into()),
        "beside the file"
    );
    assert_eq!(
        config
            .daemon
            .http
            .map(|address| address.to_string())
            .as_deref(),
        Some("127.0.0.1:9253")
    );
    assert_eq!(config.daemon.http_hosts, ["stats.example", "192.0.2.1"]);
    assert!(config.daemon.watch && config.daemon.latency);

    let names = |index: usize| -> Vec<&str> {
        let handlers = config.routes[index].handlers.iter();
        handlers
            .map(|id| config.handler(*id).name.as_str())
            .collect()
    };
    assert_eq!(names(2), ["collectors", "echo"]);
    assert_eq!(names(3), ["collectors"]);
    assert_eq!(
        config.handlers.len(),
        3,
        "one echo for both routes that name it"
    );

    let market = &config.routes[3];
    assert!(market.share);
    assert_eq!(market.destinations.len(), 2);
    let at = market.destinations[1].at.clone();
    assert_eq!(&config.source.text()[at], "\"[ff02::fb]:5353\"");
    let heard = |index: usize| -> Vec<(Option<String>, u64)> {
        let all = config.routes[index].expectations.iter();
        all.map(|one| (one.source.map(|net| net.to_string()), one.every.as_secs()))
            .collect()
    };
    assert_eq!(
        heard(2),
        [
            (Some("10.1.0.0/16".to_owned()), 60),
            (Some("10.2.0.0/16".to_owned()), 5)
        ]
    );
    assert_eq!((heard(3), heard(0)), (vec![(None, 60)], vec![]));

    let [first, second] = config.tests.as_slice() else {
        panic!("{:?}", config.tests)
    };
    assert_eq!(
        (first.source.to_string(), first.payload.as_slice()),
        ("10.1.2.3:40000".to_owned(), "é".as_bytes())
    );
    let TestExpectation::Taken {
        route: Some(route),
        handlers,
        upstream: Some(upstream),
    } = &first.expected
    else {
        panic!("{first:?}")
    };
    assert_eq!(
        (route.value, upstream.value.to_string().as_str()),
        (2, "10.0.0.1:2055")
    );
    let handlers: Vec<&str> = handlers
        .iter()
        .map(|handler| config.handler(handler.value).name.as_str())
        .collect();
    assert_eq!(handlers, ["echo", "collectors"]);
    assert!(matches!(second.expected, TestExpectation::NoRoute(_)));
    assert_eq!(second.source.port(), 7);

    let interface = |index: usize| config.routes[index].interface.as_ref().map(|it| &it.value);
    assert_eq!(interface(3), Some(&InterfaceRef::Name("eth0".to_owned())));
    assert!(matches!(interface(4), Some(InterfaceRef::Address(_))));
}

/// The same file with a byte order mark and the line ends of another system means the same.
#[test]
fn other_editors_write_the_same_file() {
    let text = format!("\u{feff}{}", FULL.replace('\n', "\r\n"));
    assert_eq!(good(&text).routes.len(), good(FULL).routes.len());
}

/// Routes that differ in source, interface or width of range are different routes.
#[test]
fn what_differs_is_no_duplicate() {
    let config = good(
        r#"route = [
  { destination = "10.0.0.1:5", handler = "echo" },
  { destination = "10.0.0.1:5-6", handler = "echo" },
  { destination = "10.0.0.1:5", source = "10.0.0.0/8", handler = "echo" },
  { destination = "10.0.0.1:5", source = "10.0.0.0/9", handler = "echo" },
  { destination = "10.0.0.1:5", interface = "eth0", handler = "echo" },
  { destination = ["10.0.0.2:5", "[::1]:5"], handler = "echo" },
  { destination = "10.0.0.2:5", source = ["10.0.0.1", "10.0.0.2"], handler = "echo" },
]"#,
    );
    let mut labels: Vec<_> = config
        .routes
        .iter()
        .map(|route| route.label.clone())
        .collect();
    assert_eq!(labels[5], "10.0.0.2:5 +1");
    assert_eq!(labels[6], "10.0.0.2:5 from 10.0.0.1 +1");
    labels.sort();
    labels.dedup();
    assert_eq!(labels.len(), config.routes.len());
}

/// Two routes that would get the same made label are numbered.
#[test]
fn made_labels_are_unique() {
    let config = good(
        r#"route = [
  { destination = ["10.0.0.1:5", "10.0.0.2:5"], handler = "echo" },
  { destination = ["10.0.0.1:5", "10.0.0.3:5"], handler = "echo", source = "10.0.0.0/8" },
  { destination = ["10.0.0.1:5", "10.0.0.3:5"], handler = "echo", source = "10.0.0.0/9" },
  { destination = ["10.0.0.1:5", "10.0.0.4:5"], handler = "echo", source = ["10.0.0.0/10", "10.0.0.0/11"] },
  { destination = ["10.0.0.1:5", "10.0.0.4:5"], handler = "echo", source = ["10.0.0.0/12", "10.0.0.0/13"] },
  { destination = ["10.0.0.9:5", "10.0.0.1:6"], handler = "echo" },
  { destination = ["10.0.0.9:6", "10.0.0.1:7"], handler = "echo" },
]"#,
    );
    let mut labels: Vec<_> = config
        .routes
        .iter()
        .map(|route| route.label.clone())
        .collect();
    labels.sort();
    labels.dedup();
    assert_eq!(labels.len(), config.routes.len());
}

/// Without a word about it, nothing is served over TCP, watched or measured, and the control socket has its own place.
#[test]
fn what_a_daemon_does_unless_told() {
    let config = good("[[route]]\ndestination = \"127.0.0.1:1\"\nhandler = \"echo\"\n");
    let daemon = &config.daemon;
    assert_eq!(
        (&daemon.control, daemon.http),
        (&ControlSocket::Default, None)
    );
    assert!(!daemon.watch && !daemon.latency && daemon.http_hosts.is_empty());
    assert!(config.routes[0].expectations.is_empty() && config.tests.is_empty());
    let off = good(
        "[daemon]\ncontrol = false\n[[route]]\ndestination = \"127.0.0.1:1\"\nhandler = \"echo\"\n",
    );
    assert_eq!(off.daemon.control, ControlSocket::Off);
}

/// Routes and handlers of two files that say the same have the same texts, however they are written; others have not.
#[test]
fn what_says_the_same_has_the_same_text() {
    let other = FULL
        .replace(
            "[\"10.0.0.1:2055\", \"collector.example:2055\"]",
            "[ '10.0.0.1:2055', # one\n 'collector.example:2055', ]",
        )
        .replace(
            "share = true\nexpect_every = \"60s\"\n",
            "expect_every = \"60s\" # silence\nshare=true\n",
        );
    let (one, two) = (good(FULL), good(&format!("# another file\n{other}")));
    let routes = |config: &Config| {
        config
            .routes
            .iter()
            .map(|route| route.text.clone())
            .collect::<Vec<_>>()
    };
    let handlers = |config: &Config| {
        config
            .handlers
            .iter()
            .map(|handler| handler.text.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (routes(&one), handlers(&one)),
        (routes(&two), handlers(&two))
    );
    assert!(
        handlers(&one).contains(&"kind = \"echo\"".to_owned()),
        "{:?}",
        handlers(&one)
    );
    assert_ne!(
        routes(&one),
        routes(&good(&FULL.replace("\"60s\"", "\"61s\"")))
    );
    assert_ne!(
        handlers(&one),
        handlers(&good(&FULL.replace("10.0.0.1:2055", "10.0.0.2:2055")))
    );
}

/// A handler is read again from its name and text, with a table of its own or without; what is wrong is told.
#[test]
fn a_handler_is_read_from_its_text() {
    for handler in good(FULL).handlers {
        let again = handlers::one(&handler.name, &handler.text, KINDS)
            .unwrap_or_else(|problems| panic!("{problems}"));
        let facts = |one: &NamedHandler| (one.name.clone(), one.text.clone(), one.kind.name);
        assert_eq!(facts(&again), facts(&handler));
        let places = |one: &NamedHandler| {
            one.spec
                .upstreams()
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(places(&again), places(&handler));
    }
    for (name, text, expected) in [
        ("a b", "kind = \"echo\"", "the name of a handler cannot be"),
        ("a", "kind = ", "not TOML"),
        ("a", "", "[handler.a] has no `kind`"),
        ("a", "kind = \"ecko\"", "there is no kind \"ecko\""),
        ("a", "kind = \"forward\"", "has no `upstreams`"),
        ("a", "kind = \"echo\"\nttl = 0", "`ttl`"),
        ("a", "kind = \"echo\"\nttk = 1", "has no key \"ttk\""),
    ] {
        let told = handlers::one(name, text, KINDS)
            .expect_err(text)
            .to_string();
        assert!(told.contains(expected), "{text}: {told}");
    }
}

/// A handler that no route names is told, and the file is used.
#[test]
fn an_unused_handler_is_a_warning() {
    let text = "[[route]]\ndestination = \"127.0.0.1:1\"\nhandler = \"echo\"\n\n\
        [handler.spare]\nkind = \"print\"\n";
    let warnings = good(text).warnings;
    assert_eq!((warnings.errors(), warnings.warnings()), (0, 1));
    let text = warnings.to_string();
    assert!(
        text.contains("no route names the handler \"spare\""),
        "{text}"
    );
    assert!(text.contains("u.toml:5:10"), "{text}");
}

/// Every example of a kind is a file that works.
#[test]
fn examples_are_good_files() {
    for kind in KINDS {
        let config = good(kind.example);
        assert!(
            config
                .handlers
                .iter()
                .any(|handler| handler.kind.name == kind.name)
        );
    }
}

/// 10,000 routes, all different or all equal, are read in no time that anyone notices.
#[test]
fn many_routes_are_read_fast() {
    let route = |ip: usize| {
        let (a, b) = (ip / 250, ip % 250 + 1);
        format!("[[route]]\ndestination = \"10.0.{a}.{b}/32:5\"\nhandler = \"nobody\"\n")
    };
    let different: String = (0..4_000).map(route).collect();
    let equal: String = (0..10_000).map(|_| route(1)).collect();
    let ranges: String = (0..10_000)
        .map(|n| {
            let (first, last) = (n % 100 + 1, n / 100 + 1000);
            format!("[[route]]\ndestination = \"10.0.0.0/8:{first}-{last}\"\nhandler = \"echo\"\n")
        })
        .collect();
    let begun = cpu_time();
    assert_eq!(
        good(&different.replace("nobody", "echo")).routes.len(),
        4_000
    );
    assert_eq!(good(&ranges).routes.len(), 10_000);
    assert_eq!(
        parse(&equal).expect_err("equal routes").errors(),
        10_000 + 9_999
    );
    let spent = cpu_time() - begun;
    assert!(spent < Duration::from_secs(10), "{spent:?}");
}

/// A file that is accepted holds what was promised; one that is not says why, inside the text.
fn check(text: &str) -> Result<(), TestCaseError> {
    match parse(text) {
        Ok(config) => {
            prop_assert!(!config.routes.is_empty());
            for route in &config.routes {
                prop_assert!(!route.destinations.is_empty() && !route.handlers.is_empty());
                route
                    .handlers
                    .iter()
                    .for_each(|id| drop(config.handler(*id).name.clone()));
            }
        }
        Err(problems) => {
            prop_assert!(problems.errors() > 0);
            for problem in problems.iter() {
                prop_assert!(problem.at.start <= problem.at.end);
                prop_assert!(problem.at.end <= text.len());
            }
            let shown = problems.to_string();
            let is_harmless = |char: char| char == '\n' || !char.is_control();
            prop_assert!(shown.chars().all(is_harmless), "{:?}", shown);
        }
    }
    Ok(())
}

/// Pieces of the language, so that random files get past the first line.
fn piece() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "[[route]]\n",
        "[route]\n",
        "[daemon]\n",
        "[handler.a]\n",
        "[handler.echo]\n",
        "[handlers.x]\n",
        "[[test]]\n",
        "expect = ",
        "expect_every = ",
        "http_hosts = ",
        "{ \"10.0.0.0/8\" = \"5s\" }\n",
        "{ route = \"a\", handler = \"echo\" }\n",
        "\"no_route\"\n",
        "destination = ",
        "handler = ",
        "source = ",
        "interface = ",
        "name = ",
        "share = ",
        "kind = ",
        "upstreams = ",
        "workers = ",
        "log = ",
        "receive_buffer = ",
        "control = ",
        "ttl = ",
        "text = ",
        "\"127.0.0.1:1234\"\n",
        "\"[::1]:5-9\"\n",
        "\"10.0.0.0/8\"\n",
        "\"echo\"\n",
        "\"a\"\n",
        "\"forward\"\n",
        "\"reply\"\n",
        "[\"a\", \"echo\"]\n",
        "[]\n",
        "{}\n",
        "nan\n",
        "-0x\n",
        "99999999999999999999999\n",
        "true\n",
        "1979-05-27\n",
        "\"\\u0000\\u009b\"\n",
        "\n",
        "\r\n",
        "a.b = ",
        "[[handler.a]]\n",
        "\u{feff}",
        "\u{9b}",
        "ä",
        "\t",
    ]);
    prop_oneof![20 => known.prop_map(str::to_owned), 1 => "\\PC{0,8}", 1 => any::<String>()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// No sequence of the language's own pieces makes it panic or be silent.
    #[test]
    fn any_pieces(pieces in prop::collection::vec(piece(), 0..24)) {
        check(&pieces.concat())?;
    }

    /// No text at all does.
    #[test]
    fn any_text(text in any::<String>()) {
        check(&text)?;
    }

    /// No bytes do: what is not UTF-8 is refused before, what is becomes a text.
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&String::from_utf8_lossy(&bytes))?;
    }
}
