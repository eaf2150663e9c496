//! The test plays the service manager: it receives the messages of the daemon, keeps sockets, and hands them to the
//! next process.

use std::ffi::OsString;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use udispatch::build::service_manager::{
    ServiceManager, hand_on, passed_sockets, watchdog_interval,
};
use udispatch::build::socket_activation::{self, Store};
use udispatch::config::Config;
use udispatch::handlers::KINDS;
use udispatch::net::multicast;
use udispatch::net::socket::{ListenerOptions, bind_listener, block_new_datagrams};
use udispatch::plan::Plan;
use udispatch::plan::host::Host;
use udispatch::plan::identity::ListenerKey;

use crate::common::daemon::Daemon;
use crate::common::namespace::{again, netns_test, run, this_test};
use crate::common::restart::{send_signal, served_by_another};

/// Set in the process that a test starts as the next process of the daemon.
const NEXT: &str = "UDISPATCH_TEST_NEXT";

/// Destinations of each type: one group on two interfaces, an address, every address of a family.
const ROUTES: &str = r#"
[[route]]
destination = "239.1.2.3:7000"
interface = "lo"
handler = "drop"
[[route]]
destination = "239.1.2.3:7000"
interface = "cable0"
handler = "drop"
[[route]]
destination = "127.0.0.1:7001"
handler = "drop"
[[route]]
destination = "[::]:7002"
handler = "drop"
"#;

fn plan(text: &str) -> Plan {
    let config = Config::parse(Path::new("u.toml"), text, KINDS)
        .unwrap_or_else(|problems| panic!("{problems}"));
    let host = Host::this().expect("this host");
    Plan::new(&config, &host, 2).unwrap_or_else(|problems| panic!("{problems}"))
}

/// The receiving socket of a service manager.
struct Manager(UnixDatagram);

impl Manager {
    fn at(name: &str) -> Manager {
        let socket = match name.strip_prefix('@') {
            Some(name) => {
                UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name).expect("a name"))
            }
            None => UnixDatagram::bind(name),
        };
        let socket = socket.expect("bound");
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a time limit");
        Manager(socket)
    }

    /// The next message as lines, and the descriptors that came with it.
    fn hear(&self) -> (Vec<String>, Vec<OwnedFd>) {
        let mut text = [0; 4_096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            &self.0,
            &mut [IoSliceMut::new(&mut text)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        );
        let bytes = received.expect("a message").bytes;
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                fds.extend(passed);
            }
        }
        (
            std::str::from_utf8(&text[..bytes])
                .expect("text")
                .lines()
                .map(str::to_owned)
                .collect(),
            fds,
        )
    }

    fn hear_lines(&self) -> Vec<String> {
        let (lines, fds) = self.hear();
        assert!(fds.is_empty());
        lines
    }
}

/// Each message has the form of sd_notify(3), at a path and at an abstract name. A line break in a status does not
/// begin another assignment. Without a service manager nothing is sent and nothing fails.
#[test]
fn messages() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("notify").display().to_string();
    for name in [path, format!("@udispatch-test-{}", std::process::id())] {
        let ear = Manager::at(&name);
        let manager = ServiceManager::at(&OsString::from(name)).expect("a name");
        assert!(manager.is_there());
        manager.ready(4_711, "serving\nMAINPID=1").expect("sent");
        assert_eq!(
            ear.hear_lines(),
            ["MAINPID=4711", "READY=1", "STATUS=serving MAINPID=1"]
        );
        manager.reloading().expect("sent");
        let lines = ear.hear_lines();
        assert_eq!(lines[0], "RELOADING=1");
        let time = lines[1]
            .strip_prefix("MONOTONIC_USEC=")
            .expect("a time")
            .parse::<u64>()
            .expect("microseconds");
        assert!(time > 0);
        manager.alive().expect("sent");
        assert_eq!(ear.hear_lines(), ["WATCHDOG=1"]);
        manager.stopping().expect("sent");
        assert_eq!(ear.hear_lines(), ["STOPPING=1"]);
    }
    let nobody = ServiceManager::default();
    assert!(!nobody.is_there());
    nobody.ready(1, "").expect("not sent");
    assert!(
        ServiceManager::at("relative".as_ref()).is_err(),
        "neither a path nor an abstract name"
    );
}

/// A daemon with the test as its service manager.
fn managed(config: &str) -> (Daemon, Manager) {
    let name = format!("@udispatch-test-{}", std::process::id());
    let ear = Manager::at(&name);
    (
        Daemon::of(config)
            .under(&["env", &format!("NOTIFY_SOCKET={name}")])
            .start(),
        ear,
    )
}

fn route(port: u16) -> String {
    format!("[[route]]\ndestination = \"127.0.0.1:{port}\"\nhandler = \"drop\"\n")
}

/// A listener that a takeover removes is no longer kept, although the process before had it kept. No other program
/// could have its address otherwise.
#[test]
fn forgotten_by_a_successor() {
    netns_test!();
    let one = route(1001);
    let both = route(1001) + &route(1002);
    let (daemon, ear) = managed(&both);
    let names: Vec<String> = plan(&both)
        .listeners
        .iter()
        .map(|listener| socket_activation::name(&listener.key()))
        .collect();
    let hear_until = |line: &str| while !ear.hear().0.iter().any(|heard| heard == line) {};
    hear_until(&format!("FDNAME={}", names[0]));
    std::fs::write(daemon.file(), one).expect("written");
    daemon.signal(libc::SIGUSR2);
    let forgotten = loop {
        let (lines, _) = ear.hear();
        if lines.iter().any(|line| line == "FDSTOREREMOVE=1") {
            break lines;
        }
    };
    assert!(
        forgotten.contains(&format!("FDNAME={}", names[1])),
        "{forgotten:?} of {names:?}"
    );
    let now = served_by_another(&daemon, daemon.pid());
    send_signal(now.pid, rustix::process::Signal::TERM);
}

/// The service manager is notified of a successor twice: by the old process before it ends, and by the successor when
/// it is ready. Whichever message comes first, the end of the old process is not the end of the service.
#[test]
fn the_main_process_is_named_by_both() {
    netns_test!();
    let (daemon, ear) = managed(&route(1001));
    daemon.signal(libc::SIGUSR2);
    let now = served_by_another(&daemon, daemon.pid());
    let named = format!("MAINPID={}", now.pid);
    let mut alone = Vec::new();
    while alone.len() < 2 {
        let (lines, _) = ear.hear();
        if lines.contains(&named) {
            alone.push(lines.len() == 1);
        }
    }
    alone.sort_unstable();
    assert_eq!(
        alone,
        [false, true],
        "one is told by who goes, the other with `ready`"
    );
    send_signal(now.pid, rustix::process::Signal::TERM);
}

/// Sockets that the service manager keeps receive what comes after the daemon has ended, so that a restart loses
/// nothing.
#[test]
fn a_restart_keeps_what_comes() {
    netns_test!();
    let (daemon, ear) = managed(&route(1001));
    let mut kept = Vec::new();
    while kept.is_empty() {
        kept = ear.hear().1;
    }
    let client = UdpSocket::bind("127.0.0.1:0").expect("bound");
    client.send_to(b"before", "127.0.0.1:1001").expect("sent");
    assert_eq!(daemon.stop().received(), 1);
    client.send_to(b"after", "127.0.0.1:1001").expect("sent");
    let sockets = kept.into_iter().map(UdpSocket::from);
    // The call does not block, because no message is on its way any more.
    let waiting =
        sockets.filter(|socket| socket.recv(&mut [0; 16]).is_ok_and(|length| length == 5));
    assert_eq!(waiting.count(), 1);
}

/// A service manager that does not read blocks no one: what does not fit into its queue is an error.
#[test]
fn a_deaf_manager() {
    let name = format!("@udispatch-test-deaf-{}", std::process::id());
    let _ear = Manager::at(&name);
    let manager = ServiceManager::at(&OsString::from(name)).expect("a name");
    assert!(
        (0..100_000).any(|_| manager.alive().is_err()),
        "the queue has an end"
    );
}

/// The time of the watchdog is taken from the environment if it is meant for this process. The next process requests
/// its own.
#[test]
fn watchdog() {
    if std::env::var_os(NEXT).is_some() {
        println!("the watchdog says {:?}", watchdog_interval());
        return;
    }
    let ask = |environment: &[(&str, &str)], is_handed_on: bool| {
        let mut command = again(&[], this_test!());
        command.env(NEXT, "1");
        command
            .env_remove("WATCHDOG_USEC")
            .env_remove("WATCHDOG_PID")
            .envs(environment.iter().copied());
        if is_handed_on {
            hand_on(&mut command);
        }
        String::from_utf8(command.output().expect("run").stdout).expect("text")
    };
    assert!(ask(&[], false).contains("says None"));
    assert!(ask(&[("WATCHDOG_USEC", "30000000")], false).contains("says Some(30s)"));
    assert!(ask(&[("WATCHDOG_USEC", "0")], false).contains("says None"));
    assert!(ask(&[("WATCHDOG_USEC", "a day")], false).contains("says None"));
    let of_another = [("WATCHDOG_USEC", "30000000"), ("WATCHDOG_PID", "1")];
    assert!(ask(&of_another, false).contains("says None"));
    assert!(ask(&of_another, true).contains("says Some(30s)"));
}

fn bind(key: &ListenerKey) -> UdpSocket {
    let options = ListenerOptions {
        reuse_port: key.is_spread,
        receive_buffer: 65_536,
        send_buffer: 65_536,
        destination: false,
        ttl: false,
        time: false,
        share: false,
    };
    let socket = bind_listener(key.address, &options).expect("bound");
    if let Some((interface, _)) = key.group {
        multicast::join(&socket, key.address.ip(), interface).expect("joined");
    }
    socket
}

/// The sockets of a process are kept and reach the next process, each at the listener that it belongs to, also those of
/// one group on two interfaces, with the datagrams in their queues. A socket that fits no listener any more is refused
/// and no longer kept.
#[test]
fn kept_sockets_come_back() {
    if std::env::var_os(NEXT).is_some() {
        return next_process();
    }
    netns_test!();
    run("ip link add cable0 type veth peer name cable1");
    run("ip link set cable0 up");
    let manager_name = "@udispatch-test-store";
    let ear = Manager::at(manager_name);
    let manager = ServiceManager::at(manager_name.as_ref()).expect("a name");
    let plan = plan(ROUTES);
    let mut sockets = Vec::new();
    for listener in &plan.listeners {
        let key = listener.key();
        let count = if key.is_spread { 2 } else { 1 };
        sockets.push((
            key.clone(),
            (0..count).map(|_| bind(&key)).collect::<Vec<_>>(),
        ));
    }
    let borrowed: Vec<_> = sockets
        .iter()
        .map(|(key, sockets)| (key.clone(), sockets.iter().map(AsFd::as_fd).collect()))
        .collect();
    let mut store = Store::new(manager);
    store.keep(&borrowed).expect("kept");
    let mut kept = Vec::new();
    for _ in &plan.listeners {
        let (lines, fds) = ear.hear();
        assert_eq!(&lines[..2], ["FDSTORE=1", "FDPOLL=0"]);
        let name = lines[2].strip_prefix("FDNAME=").expect("a name").to_owned();
        assert!(name.len() <= 255 && !name.contains(':'), "{name}");
        kept.extend(fds.into_iter().map(|fd| (name.clone(), fd)));
    }
    assert_eq!(
        kept.len(),
        6,
        "two groups, and two sockets each of the others"
    );

    UdpSocket::bind("127.0.0.1:0")
        .expect("bound")
        .send_to(b"waits", "127.0.0.1:7001")
        .expect("sent");
    sockets
        .iter()
        .flat_map(|(_, sockets)| sockets)
        .for_each(|socket| block_new_datagrams(socket).expect("closed"));
    drop(sockets);
    kept.push((
        "udispatch-0123456789abcdef".to_owned(),
        UdpSocket::bind("127.0.0.1:7009").expect("bound").into(),
    ));
    kept.push((
        "udispatch.socket".to_owned(),
        UdpSocket::bind("127.0.0.1:7010").expect("bound").into(),
    ));
    let told = give(this_test!(), &kept, manager_name);
    assert!(
        told.contains("no route has the destination 127.0.0.1:7009"),
        "{told}"
    );
    assert!(
        told.contains("no route has the destination 127.0.0.1:7010"),
        "{told}"
    );
    assert_eq!(
        ear.hear_lines(),
        ["FDSTOREREMOVE=1", "FDNAME=udispatch-0123456789abcdef"]
    );
}

/// Starts a test again with these descriptors from number 3 on, as a service manager does. Returns its output.
fn give(test: &str, kept: &[(String, OwnedFd)], manager: &str) -> String {
    let high: Vec<OwnedFd> = kept
        .iter()
        .map(|(_, fd)| fcntl_dupfd_cloexec(fd, 200).expect("a duplicate"))
        .collect();
    high.iter()
        .for_each(|fd| fcntl_setfd(fd, FdFlags::empty()).expect("inheritable"));
    let places: Vec<String> = high
        .iter()
        .enumerate()
        .map(|(at, fd)| format!("{}<&{} {}<&-", at + 3, fd.as_raw_fd(), fd.as_raw_fd()))
        .collect();
    let names: Vec<&str> = kept.iter().map(|(name, _)| name.as_str()).collect();
    let script = format!(
        "export LISTEN_PID=$$; exec \"$0\" \"$@\" {}",
        places.join(" ")
    );
    let output = again(&["bash", "-c", &script], test)
        .envs([
            (NEXT, "1"),
            ("NOTIFY_SOCKET", manager),
            ("LISTEN_FDNAMES", &names.join(":")),
        ])
        .env("LISTEN_FDS", kept.len().to_string())
        .output()
        .expect("run");
    let told = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    told
}

/// The next process of the daemon: the sockets that it gets match its plan, and are used once.
fn next_process() {
    let plan = plan(ROUTES);
    let (mut lent_sockets, words) = socket_activation::take(&plan.listeners);
    println!("{}", words.join("\n"));
    assert_eq!(words.len(), 2);
    assert!(passed_sockets().is_empty(), "given once");
    let client = UdpSocket::bind("127.0.0.1:0").expect("bound");
    let mut waiting = 0;
    for listener in &plan.listeners {
        let key = listener.key();
        let sockets = lent_sockets.take(&key);
        assert_eq!(
            sockets.len(),
            if key.is_spread { 2 } else { 1 },
            "{}",
            listener.label
        );
        for socket in &sockets {
            assert_eq!(socket.local_addr().expect("an address"), key.address);
            // The call does not block: the deadline is that of the test.
            while let Ok(bytes) = socket.recv(&mut [0; 16]) {
                assert_eq!((bytes, key.address.port()), (5, 7_001));
                waiting += 1;
            }
            if let Some((interface, _)) = key.group {
                let again = multicast::join(socket, key.address.ip(), interface)
                    .expect_err("joined already");
                assert_eq!(
                    again.raw_os_error(),
                    Some(libc::EADDRINUSE),
                    "{}",
                    listener.label
                );
            }
        }
        if key.address.port() == 7_001 {
            client.send_to(b"new", key.address).expect("sent");
            assert!(
                sockets
                    .iter()
                    .any(|socket| socket.recv(&mut [0; 16]).is_ok()),
                "the socket receives again"
            );
        }
    }
    assert_eq!(waiting, 1, "what waited is still there");
    assert_eq!(lent_sockets.rest().count(), 0);
}

/// A listener that is gone is no longer kept, one with fewer sockets is kept anew, and no message is sent twice.
#[test]
fn the_store_follows() {
    let name = format!("@udispatch-test-follows-{}", std::process::id());
    let ear = Manager::at(&name);
    let mut store = Store::new(ServiceManager::at(&OsString::from(name)).expect("a name"));
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
    let key = |port| ListenerKey {
        address: ([127, 0, 0, 1], port).into(),
        group: None,
        is_spread: true,
    };
    let two = vec![socket.as_fd(), socket.as_fd()];
    store.keep(&[(key(1), two)]).expect("kept");
    let (lines, fds) = ear.hear();
    assert_eq!((lines[0].as_str(), fds.len()), ("FDSTORE=1", 2));
    let first = lines[2].clone();
    store.keep(&[(key(1), vec![socket.as_fd()])]).expect("kept");
    assert_eq!(
        ear.hear_lines(),
        ["FDSTOREREMOVE=1".to_owned(), first.clone()]
    );
    assert_eq!(ear.hear().1.len(), 1);
    store.keep(&[(key(2), vec![socket.as_fd()])]).expect("kept");
    assert_eq!(
        ear.hear_lines(),
        ["FDSTOREREMOVE=1".to_owned(), first.clone()]
    );
    let (lines, _) = ear.hear();
    assert_ne!(lines[2], first, "a name for each listener");
}

/// A descriptor that is not a socket for a listener is refused with a reason. A socket that comes twice is used once.
#[test]
fn misfits() {
    let listens = |text: &str| {
        plan(&format!(
            "[[route]]\ndestination = \"{text}\"\nhandler = \"drop\"\n"
        ))
        .listeners
    };
    let bound = UdpSocket::bind("127.0.0.1:0").expect("bound");
    let address = bound.local_addr().expect("an address");
    let listeners = listens(&address.to_string());
    let words = |fd: OwnedFd, name: &str| {
        socket_activation::assign(vec![(fd, name.to_owned())], &listeners)
            .1
            .join("\n")
    };

    let refused = words(
        TcpListener::bind("127.0.0.1:0").expect("bound").into(),
        "web",
    );
    assert!(
        refused.contains("`web`") && refused.contains("no UDP socket"),
        "{refused}"
    );
    let refused = words(
        std::fs::File::open("/dev/null").expect("open").into(),
        "null",
    );
    assert!(refused.contains("no UDP socket"), "{refused}");
    let refused = words(UnixDatagram::unbound().expect("a socket").into(), "unix");
    assert!(refused.contains("no UDP socket"), "{refused}");
    let connected = UdpSocket::bind("127.0.0.1:0").expect("bound");
    connected.connect("127.0.0.1:9").expect("connected");
    let refused = words(connected.into(), "a");
    assert!(refused.contains("connected to 127.0.0.1:9"), "{refused}");
    let refused = words(UdpSocket::bind("[::]:0").expect("bound").into(), "a");
    assert!(refused.contains("BindIPv6Only=ipv6-only"), "{refused}");
    let refused = words(UdpSocket::bind("239.9.9.9:0").expect("bound").into(), "a");
    assert!(refused.contains("is a multicast group"), "{refused}");

    let twice = vec![
        (
            OwnedFd::from(bound.try_clone().expect("a duplicate")),
            "udispatch.socket".to_owned(),
        ),
        (
            OwnedFd::from(bound),
            socket_activation::name(&listeners[0].key()),
        ),
    ];
    let (mut lent_sockets, words) = socket_activation::assign(twice, &listeners);
    assert!(words.is_empty(), "{words:?}");
    assert_eq!(lent_sockets.take(&listeners[0].key()).len(), 1);
}
