//! The monitor of upstreams against real sockets: upstreams that die and return, over UDP and TCP, names that move, and
//! look-ups that hang. The events that workers would get are collected instead.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, TryRecvError};
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
use udispatch::monitor::{Monitor, MonitoredUpstream, Outside, ProbeFailure, UpstreamState};
use udispatch::supervisor::Supervisor;

const FIRST: UpstreamId = UpstreamId(0);

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Settings of a probe that is sent every 20 ms.
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
        interface: 0,
        state: UpstreamState::new(Some(address(at))),
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

/// A monitor, and the events that it reported.
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
            notify: Box::new(move |id, change| {
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

    /// Waits until the upstream is dead, and returns the reason.
    fn dies(&self) -> String {
        assert_eq!(self.next(), (FIRST, UpstreamEvent::Alive(false)));
        let state = &self.monitor.snapshot()[0];
        assert!(!state.alive && state.changed.is_some());
        self.why(FIRST)
    }

    /// Asserts that no event waits to be read.
    fn assert_no_news(&self) {
        assert_eq!(self.changes.try_recv(), Err(TryRecvError::Empty));
    }

    fn returns(&self) {
        assert_eq!(self.next(), (FIRST, UpstreamEvent::Alive(true)));
        assert!(self.monitor.snapshot()[0].alive);
    }
}

/// A server that sends replies until it is dropped.
struct Server {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Calls `turn` again and again. It must not wait for long, and returns whether it has served a probe.
    fn run(mut turn: impl FnMut() -> bool + Send + 'static) -> Server {
        let stop = Arc::new(AtomicBool::new(false));
        let served = Arc::new(AtomicU64::new(0));
        let stopped = Arc::clone(&stop);
        let count = Arc::clone(&served);
        let run = move || {
            while !stopped.load(Ordering::Relaxed) {
                count.fetch_add(u64::from(turn()), Ordering::Relaxed);
            }
        };
        Server {
            stop,
            served,
            thread: Some(thread::spawn(run)),
        }
    }

    /// Waits until it has served some more probes. The monitor sends a probe only after it has judged the one before.
    fn serves_more(&self) {
        let before = self.served.load(Ordering::Relaxed);
        eventually("more probes come", || {
            self.served.load(Ordering::Relaxed) >= before + 5
        });
    }

    /// Replies to each datagram with all of these.
    fn udp(at: &str, answers: &'static [&'static str]) -> Server {
        let socket = UdpSocket::bind(at).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        Server::run(move || {
            let Ok((_, from)) = socket.recv_from(&mut [0; 100]) else {
                return false;
            };
            answers
                .iter()
                .for_each(|answer| drop(socket.send_to(answer.as_bytes(), from)));
            true
        })
    }

    /// Reads a request of that length from each connection, and sends the replies, some time apart.
    fn tcp(at: &str, question: usize, answers: &'static [&'static str]) -> Server {
        let listener = TcpListener::bind(at).unwrap();
        listener.set_nonblocking(true).unwrap();
        Server::run(move || {
            let Ok((mut stream, _)) = listener.accept() else {
                thread::yield_now();
                return false;
            };
            stream.set_nonblocking(false).unwrap();
            stream.set_read_timeout(Some(TIMEOUT)).unwrap();
            let _ = stream.read_exact(&mut vec![0; question]);
            for answer in answers {
                let _ = stream.write_all(answer.as_bytes());
                thread::sleep(Duration::from_millis(5));
            }
            true
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

/// An upstream that is stopped is dead at once, because of ICMP errors, and alive again when it is started again.
#[test]
fn a_udp_upstream_dies_and_returns() {
    netns_test!();
    for at in ["127.0.0.1:5000", "[::1]:5000"] {
        let mut slow = probe(ProbeOver::Udp, "ping", "pong");
        slow.timeout = TIMEOUT;
        let server = Server::udp(at, &["pong"]);
        let mut kept = Kept::start(vec![monitored(at, slow)]);
        server.serves_more();
        kept.assert_no_news();
        assert_eq!(kept.monitor.snapshot()[0].failed, None);
        drop(server);
        assert_eq!(kept.dies(), "refused");
        let _server = Server::udp(at, &["other", "a pong is in here"]);
        kept.returns();
        kept.monitor.stop();
        assert_eq!(
            kept.changes.recv_timeout(TIMEOUT),
            Err(RecvTimeoutError::Disconnected),
            "nothing is reported after the stop"
        );
    }
}

/// An upstream that exists but does not reply, or not with the expected bytes, is dead, and the reason says which.
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
    // If nothing is expected, an empty datagram is a reply.
    let _empty = Server::udp("127.0.0.1:5001", &[""]);
    brief.expect.clear();
    let kept = Kept::start(vec![
        monitored("127.0.0.1:5001", brief),
        monitored("127.0.0.1:5002", probe(ProbeOver::Udp, "", "")),
    ]);
    assert_eq!(kept.next(), (UpstreamId(1), UpstreamEvent::Alive(false)));
    assert_eq!(kept.monitor.snapshot()[0].failed, None);
}

/// Over TCP the open connection is the reply, unless something is sent or expected.
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
        let mut slow = probe(ProbeOver::Tcp, send, expect);
        slow.timeout = TIMEOUT;
        let kept = Kept::start(vec![monitored(at, slow)]);
        server.serves_more();
        kept.assert_no_news();
        assert_eq!(kept.monitor.snapshot()[0].failed, None, "{at}");
        drop(server);
        assert_eq!(kept.dies(), "refused", "{at}");
        let _server = Server::tcp(at, send.len(), answers);
        kept.returns();
    }
}

/// TCP replies that are wrong, missing, or longer than the part that is searched.
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
    // It accepts the connection and then sends nothing.
    let _silent = TcpListener::bind("127.0.0.1:5003").unwrap();
    let mut brief = probe(ProbeOver::Tcp, "ping", "200 OK");
    brief.timeout = Duration::from_millis(100);
    assert_eq!(
        Kept::start(vec![monitored("127.0.0.1:5003", brief)]).dies(),
        "no reply within 100ms"
    );
}

/// A late reply does not count as the reply to the next probe.
#[test]
fn late_answers_do_not_count() {
    netns_test!();
    let socket = UdpSocket::bind("127.0.0.1:5000").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    let mut late = Vec::new();
    let server = Server::run(move || {
        let Ok((_, from)) = socket.recv_from(&mut [0; 100]) else {
            return false;
        };
        late.drain(..)
            .for_each(|from| drop(socket.send_to(b"pong", from)));
        late.push(from);
        true
    });
    let mut brief = probe(ProbeOver::Udp, "ping", "pong");
    brief.timeout = Duration::from_millis(50);
    let kept = Kept::start(vec![monitored("127.0.0.1:5000", brief)]);
    assert_eq!(kept.dies(), "no reply within 50ms");
    server.serves_more();
    kept.assert_no_news();
}

/// Probes are sent from the address that the file names, with a port of their own, and through the interface.
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
    let udp = probe(ProbeOver::Udp, "", "");
    let fall = udp.fall;
    let mut no_interface = monitored("127.0.0.1:5000", udp);
    no_interface.interface = 999;
    let kept = Kept::start(vec![nowhere, no_interface]);
    // An upstream would be dead after as many failures as `fall` says.
    for _ in 0..=fall {
        let before = Instant::now();
        eventually("both probes fail for a reason of this host", || {
            let states = kept.monitor.snapshot();
            let is_ours = |state: &UpstreamState| matches!(&state.failed, Some((at, ProbeFailure::Ours(_))) if *at > before);
            if states.iter().all(is_ours) {
                return Ok(());
            }
            Err(format!("{states:?}"))
        });
    }
    kept.assert_no_news();
    assert!(kept.monitor.snapshot().iter().all(|state| state.alive));
}

/// When the address of a name changes, the workers are notified and the new address is probed. A look-up that fails
/// changes nothing.
#[test]
fn a_name_moves() {
    netns_test!();
    let _server = Server::udp("127.0.0.2:5000", &["pong"]);
    let at_first = named(
        monitored("127.0.0.1:5000", probe(ProbeOver::Udp, "ping", "pong")),
        "a.example",
    );
    let no_address = MonitoredUpstream {
        state: UpstreamState::new(None),
        probe: None,
        ..named(at_first.clone(), "b.example")
    };
    let names: Arc<Mutex<HashMap<&str, Vec<SocketAddr>>>> = Arc::default();
    let known = Arc::clone(&names);
    let look_ups = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&look_ups);
    let kept = Kept::with_names(vec![at_first, no_address], move |name| {
        count.fetch_add(u64::from(name == "a.example"), Ordering::SeqCst);
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
    // The address that is in use is among those of the name, though not the first.
    names.lock().unwrap().insert(
        "a.example",
        vec![address("127.0.0.2:0"), address("127.0.0.1:0")],
    );
    let before = look_ups.load(Ordering::SeqCst);
    // The name is looked up again only after the last result was read, and one look-up may have been under way.
    eventually("the name is looked up again", || {
        look_ups.load(Ordering::SeqCst) >= before + 3
    });
    kept.assert_no_news();
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
        state: UpstreamState::new(None),
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
        hangs.try_recv().is_err(),
        "the same name is not asked for twice at a time"
    );
    kept.monitor.stop();
    assert_eq!(
        kept.changes.recv_timeout(TIMEOUT),
        Err(RecvTimeoutError::Disconnected),
        "the monitor has ended, though the look-up has not"
    );
}

/// A thousand upstreams are all probed, by one thread, spread over the interval. One of them that dies is found.
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
        let Ok((_, from)) = socket.recv_from(&mut [0; 9]) else {
            return false;
        };
        heard.lock().unwrap().push((Instant::now(), from));
        let _ = socket.send_to(b"pong", from);
        true
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
    // Probes that are all sent at once would come in three of these tenths. A busy machine may read late, but not most
    // of the time.
    let tenths: BTreeSet<u128> = asked
        .iter()
        .map(|(at, _)| at.duration_since(start).as_millis() / 100)
        .collect();
    assert!(tenths.len() >= 15, "only in these tenths: {tenths:?}");
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

/// A kind with an upstream that is probed.
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

/// The daemon monitors the upstreams of its configuration from its start on.
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
