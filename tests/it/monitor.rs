//! The upkeep of upstreams against real sockets: who dies and returns, over UDP and TCP; names that move; look-ups that
//! hang. What the workers would be told is collected instead.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::common::namespace::netns_test;
use crate::common::{TIMEOUT, eventually};
use udispatch::config::Config;
use udispatch::config::kind::{
    BuildContext, BuildError, HandlerSpec, Kind, MonitorSettings, Needs, Upstream,
};
use udispatch::config::upstream::{Egress, ProbeOver, ProbeSettings, SendFrom, UpstreamHost};
use udispatch::dispatch::handler::{Batch, Context, Handler};
use udispatch::dispatch::id::UpstreamId;
use udispatch::dispatch::upstream_event::UpstreamEvent;
use udispatch::monitor::{Monitor, MonitoredUpstream, Outside, ProbeFailure};
use udispatch::supervisor::Supervisor;

const FIRST: UpstreamId = UpstreamId(0);

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Asks every 20 ms.
fn probe(over: ProbeOver, send: &str, expect: &str) -> ProbeSettings {
    ProbeSettings {
        over,
        send: send.into(),
        expect: expect.into(),
        interval: Duration::from_millis(20),
        timeout: Duration::from_millis(500),
        rise: 2,
        fall: 3,
    }
}

fn monitored(at: &str, probe: ProbeSettings) -> MonitoredUpstream {
    let upstream = Upstream {
        host: UpstreamHost::Address(address(at)),
        port: address(at).port(),
        at: 0..0,
        egress: Egress::default(),
    };
    MonitoredUpstream {
        handler: "web".to_owned(),
        upstream,
        address: Some(address(at)),
        interface: 0,
        is_alive: true,
        probe: Some(Arc::new(probe)),
        resolve_interval: Duration::ZERO,
    }
}

fn named(monitored: MonitoredUpstream, name: &str) -> MonitoredUpstream {
    let upstream = Upstream {
        host: UpstreamHost::Name(name.to_owned()),
        ..monitored.upstream
    };
    MonitoredUpstream {
        upstream,
        resolve_interval: Duration::from_millis(50),
        ..monitored
    }
}

/// An upkeep whose changes are collected.
struct Kept {
    monitor: Monitor,
    changes: Receiver<(UpstreamId, UpstreamEvent)>,
}

impl Kept {
    fn start(monitored_upstreams: Vec<MonitoredUpstream>) -> Kept {
        Kept::with_names(monitored_upstreams, |name| {
            Err(io::Error::other(format!("{name} is not known here")))
        })
    }

    fn with_names(
        monitored_upstreams: Vec<MonitoredUpstream>,
        look_up: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Kept {
        let (sender, changes) = mpsc::channel();
        let outside = Outside {
            tell: Box::new(move |id, change| {
                let _ = sender.send((id, change));
            }),
            look_up: Arc::new(look_up),
            permit: Box::new(|_, _| Ok(())),
        };
        Kept {
            monitor: Monitor::start(monitored_upstreams, outside).unwrap(),
            changes,
        }
    }

    fn next(&self) -> (UpstreamId, UpstreamEvent) {
        self.changes
            .recv_timeout(TIMEOUT)
            .unwrap_or_else(|_| panic!("no change: {:?}", self.monitor.snapshot()))
    }

    fn why(&self, id: UpstreamId) -> String {
        self.monitor.snapshot()[id.index()]
            .failed
            .as_ref()
            .expect("a failure")
            .1
            .to_string()
    }

    /// Waits until the upstream is dead, and says why.
    fn dies(&self) -> String {
        assert_eq!(self.next(), (FIRST, UpstreamEvent::Alive(false)));
        let state = &self.monitor.snapshot()[0];
        assert!(!state.alive && state.changed.is_some());
        self.why(FIRST)
    }

    fn returns(&self) {
        assert_eq!(self.next(), (FIRST, UpstreamEvent::Alive(true)));
        assert!(self.monitor.snapshot()[0].alive);
    }
}

/// Something that answers until it is dropped.
struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Calls `turn` again and again, which must not wait for long.
    fn run(mut turn: impl FnMut() + Send + 'static) -> Server {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let run = move || {
            while !stopped.load(Ordering::Relaxed) {
                turn();
            }
        };
        Server {
            stop,
            thread: Some(thread::spawn(run)),
        }
    }

    /// Gives the same answers to each datagram.
    fn udp(at: &str, answers: &'static [&'static str]) -> Server {
        let socket = UdpSocket::bind(at).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        Server::run(move || {
            let mut question = [0; 100];
            if let Ok((_, from)) = socket.recv_from(&mut question) {
                answers
                    .iter()
                    .for_each(|answer| drop(socket.send_to(answer.as_bytes(), from)));
            }
        })
    }

    /// Reads a question of that length from each connection, and gives the answers, some time apart.
    fn tcp(at: &str, question: usize, answers: &'static [&'static str]) -> Server {
        let listener = TcpListener::bind(at).unwrap();
        listener.set_nonblocking(true).unwrap();
        Server::run(move || {
            let Ok((mut stream, _)) = listener.accept() else {
                thread::yield_now();
                return;
            };
            stream.set_nonblocking(false).unwrap();
            stream.set_read_timeout(Some(TIMEOUT)).unwrap();
            let _ = stream.read_exact(&mut vec![0; question]);
            for answer in answers {
                let _ = stream.write_all(answer.as_bytes());
                thread::sleep(Duration::from_millis(5));
            }
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

/// An upstream that is stopped is dead, by what ICMP says at once, and alive again when it is started again.
#[test]
fn a_udp_upstream_dies_and_returns() {
    netns_test!();
    for at in ["127.0.0.1:5000", "[::1]:5000"] {
        let mut slow = probe(ProbeOver::Udp, "ping", "pong");
        slow.timeout = TIMEOUT;
        let server = Server::udp(at, &["pong"]);
        let mut kept = Kept::start(vec![monitored(at, slow)]);
        // Long enough for some probes, none of which may be news.
        assert!(
            kept.changes
                .recv_timeout(Duration::from_millis(200))
                .is_err()
        );
        assert_eq!(kept.monitor.snapshot()[0].failed, None);
        drop(server);
        assert_eq!(kept.dies(), "refused");
        let server = Server::udp(at, &["other", "a pong is in here"]);
        kept.returns();
        kept.monitor.stop();
        drop(server);
        assert!(
            kept.changes
                .recv_timeout(Duration::from_millis(200))
                .is_err(),
            "nobody is told any more"
        );
    }
}

/// An upstream that is there but does not answer, or not with what is expected, is dead, and the reason says which.
#[test]
fn silence_is_told_from_a_wrong_answer() {
    netns_test!();
    let mut brief = probe(ProbeOver::Udp, "ping", "pong");
    brief.timeout = Duration::from_millis(100);
    let silent = UdpSocket::bind("127.0.0.1:5000").unwrap();
    assert_eq!(
        Kept::start(vec![monitored("127.0.0.1:5000", brief.clone())]).dies(),
        "no reply within 100ms"
    );
    drop(silent);
    let _server = Server::udp("127.0.0.1:5000", &["po", "ng", ""]);
    let kept = Kept::start(vec![monitored("127.0.0.1:5000", brief.clone())]);
    assert_eq!(kept.dies(), "the reply lacks the expected bytes");
    // Where nothing is expected, an empty datagram is an answer.
    let _empty = Server::udp("127.0.0.1:5001", &[""]);
    brief.expect.clear();
    let kept = Kept::start(vec![
        monitored("127.0.0.1:5001", brief),
        monitored("127.0.0.1:5002", probe(ProbeOver::Udp, "", "")),
    ]);
    assert_eq!(kept.next(), (UpstreamId(1), UpstreamEvent::Alive(false)));
    assert_eq!(kept.monitor.snapshot()[0].failed, None);
}

/// Over TCP the open connection is the answer, unless something is sent or expected.
#[test]
fn a_tcp_upstream_dies_and_returns() {
    netns_test!();
    for (at, send, expect, answers) in [
        ("127.0.0.1:5000", "", "", &[][..]),
        (
            "[::1]:5000",
            "GET /\r\n",
            "200 OK",
            &["HTTP/1.1 20", "0 OK\r\n"][..],
        ),
        ("127.0.0.1:5001", "any", "", &["thing"][..]),
        ("127.0.0.1:5002", "", "SMTP", &["220 SMTP ready"][..]),
    ] {
        let server = Server::tcp(at, send.len(), answers);
        let kept = Kept::start(vec![monitored(at, probe(ProbeOver::Tcp, send, expect))]);
        assert!(
            kept.changes
                .recv_timeout(Duration::from_millis(200))
                .is_err(),
            "{at}"
        );
        assert_eq!(kept.monitor.snapshot()[0].failed, None, "{at}");
        drop(server);
        assert_eq!(kept.dies(), "refused", "{at}");
        let _server = Server::tcp(at, send.len(), answers);
        kept.returns();
    }
}

/// TCP answers that are wrong, missing, or longer than anybody searches.
#[test]
fn a_tcp_upstream_answers_wrongly() {
    netns_test!();
    const LONG: &str = match std::str::from_utf8(&[b'x'; 5_000]) {
        Ok(text) => text,
        Err(_) => panic!(),
    };
    for (port, answers, why) in [
        (
            5000,
            &["HTTP/1.1 500"][..],
            "the reply lacks the expected bytes",
        ),
        (5001, &[], "the connection was closed without a reply"),
        (
            5002,
            &[LONG, "200 OK"],
            "the reply lacks the expected bytes",
        ),
    ] {
        let at = format!("127.0.0.1:{port}");
        let _server = Server::tcp(&at, 4, answers);
        assert_eq!(
            Kept::start(vec![monitored(
                &at,
                probe(ProbeOver::Tcp, "ping", "200 OK")
            )])
            .dies(),
            why,
            "{port}"
        );
    }
    // It takes the connection and is silent ever after.
    let _silent = TcpListener::bind("127.0.0.1:5003").unwrap();
    let mut brief = probe(ProbeOver::Tcp, "ping", "200 OK");
    brief.timeout = Duration::from_millis(100);
    assert_eq!(
        Kept::start(vec![monitored("127.0.0.1:5003", brief)]).dies(),
        "no reply within 100ms"
    );
}

/// A late answer is no answer to the next probe.
#[test]
fn late_answers_do_not_count() {
    netns_test!();
    let socket = UdpSocket::bind("127.0.0.1:5000").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    let mut late = Vec::new();
    let _server = Server::run(move || {
        let mut question = [0; 100];
        let Ok((_, from)) = socket.recv_from(&mut question) else {
            return;
        };
        late.drain(..)
            .for_each(|from| drop(socket.send_to(b"pong", from)));
        late.push(from);
    });
    let mut brief = probe(ProbeOver::Udp, "ping", "pong");
    brief.timeout = Duration::from_millis(50);
    let kept = Kept::start(vec![monitored("127.0.0.1:5000", brief)]);
    assert_eq!(kept.dies(), "no reply within 50ms");
    assert!(
        kept.changes
            .recv_timeout(Duration::from_millis(300))
            .is_err()
    );
}

/// Probes leave from the address that the file names, with a port of their own, and through the interface.
#[test]
fn probes_leave_as_the_file_says() {
    netns_test!();
    let upstream = UdpSocket::bind("127.0.0.1:5000").unwrap();
    let _taken = UdpSocket::bind("127.0.0.2:6000").unwrap();
    let mut from = monitored("127.0.0.1:5000", probe(ProbeOver::Udp, "ping", ""));
    from.upstream.egress.from = SendFrom::Address(address("127.0.0.2:6000"));
    from.interface = 1;
    let kept = Kept::start(vec![from]);
    upstream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let (_, source) = upstream.recv_from(&mut [0; 9]).unwrap();
    assert_eq!(source.ip(), address("127.0.0.2:0").ip());
    assert_ne!(source.port(), 6000);
    assert_eq!(kept.monitor.snapshot()[0].failed, None);

    // What this host lacks says nothing about the upstream.
    let mut nowhere = monitored("127.0.0.1:5000", probe(ProbeOver::Tcp, "", ""));
    nowhere.upstream.egress.from = SendFrom::Address(address("192.0.2.1:0"));
    let mut no_interface = monitored("127.0.0.1:5000", probe(ProbeOver::Udp, "", ""));
    no_interface.interface = 999;
    let kept = Kept::start(vec![nowhere, no_interface]);
    assert!(
        kept.changes
            .recv_timeout(Duration::from_millis(300))
            .is_err()
    );
    for state in kept.monitor.snapshot() {
        assert!(
            state.alive && matches!(state.failed, Some((_, ProbeFailure::Ours(_)))),
            "{state:?}"
        );
    }
}

/// When a name moves, the workers hear of it and the new address is probed; a failing look-up changes nothing.
#[test]
fn a_name_moves() {
    netns_test!();
    let _server = Server::udp("127.0.0.2:5000", &["pong"]);
    let at_first = named(
        monitored("127.0.0.1:5000", probe(ProbeOver::Udp, "ping", "pong")),
        "a.example",
    );
    let no_address = MonitoredUpstream {
        address: None,
        probe: None,
        ..named(at_first.clone(), "b.example")
    };
    let names: Arc<Mutex<HashMap<&str, Vec<SocketAddr>>>> = Arc::default();
    let known = Arc::clone(&names);
    let kept = Kept::with_names(vec![at_first, no_address], move |name| {
        known
            .lock()
            .unwrap()
            .get(name)
            .cloned()
            .ok_or_else(|| io::Error::other("no such name"))
    });
    assert_eq!(kept.dies(), "refused");
    assert_eq!(
        kept.monitor.snapshot()[0].address,
        Some(address("127.0.0.1:5000"))
    );
    names
        .lock()
        .unwrap()
        .insert("b.example", vec![address("127.0.0.3:0")]);
    assert_eq!(
        kept.next(),
        (
            UpstreamId(1),
            UpstreamEvent::Moved(address("127.0.0.3:5000"))
        )
    );
    // In use already, though not the first.
    names.lock().unwrap().insert(
        "a.example",
        vec![address("127.0.0.2:0"), address("127.0.0.1:0")],
    );
    assert!(
        kept.changes
            .recv_timeout(Duration::from_millis(200))
            .is_err()
    );
    names
        .lock()
        .unwrap()
        .insert("a.example", vec![address("127.0.0.2:0")]);
    assert_eq!(
        kept.next(),
        (FIRST, UpstreamEvent::Moved(address("127.0.0.2:5000")))
    );
    kept.returns();
    assert_eq!(
        kept.monitor.snapshot()[0].address,
        Some(address("127.0.0.2:5000"))
    );
}

/// A look-up that hangs delays no probe, no other look-up, and not the end.
#[test]
fn a_look_up_hangs() {
    netns_test!();
    let (asked, hangs) = mpsc::channel();
    let server = Server::udp("127.0.0.1:5000", &["pong"]);
    let probed = monitored("127.0.0.1:5000", probe(ProbeOver::Udp, "ping", "pong"));
    let other = MonitoredUpstream {
        address: None,
        probe: None,
        ..named(probed.clone(), "works.example")
    };
    let mut kept =
        Kept::with_names(
            vec![named(probed, "hangs.example"), other],
            move |name| match name {
                "hangs.example" => {
                    asked.send(()).unwrap();
                    loop {
                        thread::park();
                    }
                }
                _ => Ok(vec![address("127.0.0.3:0")]),
            },
        );
    hangs.recv_timeout(TIMEOUT).unwrap();
    let start = Instant::now();
    assert_eq!(
        kept.next(),
        (
            UpstreamId(1),
            UpstreamEvent::Moved(address("127.0.0.3:5000"))
        )
    );
    drop(server);
    assert_eq!(kept.dies(), "refused");
    let _server = Server::udp("127.0.0.1:5000", &["pong"]);
    kept.returns();
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    assert!(
        hangs.try_recv().is_err(),
        "the same name is not asked for twice at a time"
    );
    let start = Instant::now();
    kept.monitor.stop();
    assert!(
        start.elapsed() < Duration::from_millis(400),
        "{:?}",
        start.elapsed()
    );
}

/// A thousand upstreams are all probed, on one thread, spread over the interval; one that dies is found among them.
#[test]
fn a_thousand_upstreams() {
    netns_test!();
    let asked: Arc<Mutex<Vec<(Instant, SocketAddr)>>> = Arc::default();
    let heard = Arc::clone(&asked);
    let socket = UdpSocket::bind("0.0.0.0:5000").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    let _server = Server::run(move || {
        let mut question = [0; 9];
        if let Ok((_, from)) = socket.recv_from(&mut question) {
            heard.lock().unwrap().push((Instant::now(), from));
            let _ = socket.send_to(b"pong", from);
        }
    });
    let mut calm = probe(ProbeOver::Udp, "ping", "pong");
    (calm.interval, calm.timeout) = (Duration::from_secs(2), Duration::from_secs(1));
    let mut monitored_upstreams = vec![monitored("127.0.0.1:5000", calm); 1_000];
    monitored_upstreams[700] = monitored("127.0.0.1:5001", probe(ProbeOver::Udp, "ping", "pong"));
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let before = threads();
    let start = Instant::now();
    let kept = Kept::start(monitored_upstreams);
    assert_eq!(kept.next(), (UpstreamId(700), UpstreamEvent::Alive(false)));
    assert!(threads() <= before + 1);
    eventually("2,500 probes", || {
        let count = asked.lock().unwrap().len();
        if count >= 2_500 {
            return Ok(());
        }
        Err(format!("{count} probes"))
    });
    let asked = asked.lock().unwrap();
    // 999 in two seconds are 50 in a tenth; a busy machine may add what it held up.
    let within = |at: Instant| {
        asked
            .iter()
            .filter(|(one, _)| *one >= at && *one < at + Duration::from_millis(100))
            .count()
    };
    let most = asked.iter().map(|(at, _)| within(*at)).max().unwrap();
    assert!(most < 200, "{most} in a tenth of a second");
    assert!(
        start.elapsed() > Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    drop(asked);
    assert!(
        kept.monitor
            .snapshot()
            .iter()
            .enumerate()
            .all(|(id, state)| state.alive == (id != 700))
    );
}

/// A kind whose upstream is probed.
const WATCHED: Kind = Kind {
    name: "watched",
    summary: "is probed",
    settings: &[],
    example: "",
    read: |_| {
        Some(Box::new(Idle(vec![
            monitored("127.0.0.1:5000", probe(ProbeOver::Udp, "", "")).upstream,
        ])))
    },
};

#[derive(Debug)]
struct Idle(Vec<Upstream>);

impl HandlerSpec for Idle {
    fn needs(&self) -> Needs {
        Needs::NOTHING
    }
    fn upstreams(&self) -> &[Upstream] {
        &self.0
    }
    fn monitor_settings(&self) -> MonitorSettings {
        MonitorSettings {
            probe: Some(probe(ProbeOver::Udp, "are you there?", "")),
            ..MonitorSettings::default()
        }
    }
    fn describe(&self) -> String {
        "is probed".to_owned()
    }
    fn build(&self, _: &mut dyn BuildContext) -> Result<Box<dyn Handler>, BuildError> {
        struct Ignores;
        impl Handler for Ignores {
            fn on_batch(&mut self, _: &Batch<'_>, _: &mut Context<'_>) {}
        }
        Ok(Box::new(Ignores))
    }
}

/// The daemon looks after what its configuration names, from its start on.
#[test]
fn a_daemon_looks_after_its_upstreams() {
    netns_test!();
    let upstream = UdpSocket::bind("127.0.0.1:5000").unwrap();
    upstream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let text = "[[route]]\ndestination = \"127.0.0.1:1234\"\nhandler = \"watched\"\n";
    let config = Config::parse(Path::new("test.toml"), text, &[WATCHED]).unwrap();
    let _daemon = Supervisor::start(config).unwrap();
    let mut question = [0; 100];
    let len = upstream.recv(&mut question).unwrap();
    assert_eq!(&question[..len], b"are you there?");
}
