//! The control socket: what it reports, what it changes, who may use it, and what happens without it. The tests use the
//! real daemon, curl and the program's own commands.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;

use crate::common::client::Client;
use crate::common::curl::{Answer, ask, get, post, snapshot};
use crate::common::daemon::{Daemon, udispatch};
use crate::common::eventually;
use crate::common::namespace::{netns_test, run};
use crate::common::upstream::{Server, answer, answer_at_last, forwarder, list, servers};
use serde_json::Value;
use udispatch::observe::snapshot::{DaemonState, Snapshot};
use udispatch::supervisor::sessions::SessionList;

const HERE: &str = "127.0.0.1:1234";
const ECHO: &str = "[[route]]\ndestination = \"127.0.0.1:1234\"\nhandler = \"echo\"\n";

/// Returns every key of a JSON value, with the keys that lead to it. Of an array, only the first entry is read.
fn keys(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    // The keys below these are names from the traffic, or may be absent.
    if [
        ".drops",
        ".failed",
        ".reported",
        ".send_errors",
        ".last_failure",
        ".shadow",
    ]
    .iter()
    .any(|end| path.ends_with(end))
    {
        return;
    }
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                found.insert(format!("{path}.{key}"));
                keys(value, &format!("{path}.{key}"), found);
            }
        }
        Value::Array(entries) => entries
            .iter()
            .take(1)
            .for_each(|entry| keys(entry, path, found)),
        _ => {}
    }
}

/// The snapshot over the socket equals the ledger: the same numbers, and law 3 in every row. It has exactly the keys
/// that docs/status.md shows, and the program can parse what it wrote.
#[test]
fn the_snapshot_is_the_ledger() {
    netns_test!();
    let server = Server::named("a", "127.0.0.1:9001");
    let dead = "127.0.0.1:9002".parse().unwrap();
    let health = "health = { probe = \"udp\", send = \"?\", interval = \"100ms\", timeout = \"50ms\", fall = 1 }\n";
    let config = forwarder("on", HERE, &list([server.address(), dead]), health)
        + "[[route]]\ndestination = \"0.0.0.0:1235\"\nhandler = [\"echo\", \"on\"]\n";
    let mut daemon = Daemon::start(&config);
    let client = Client::bind("127.0.0.1:0");
    for _ in 0..7 {
        answer_at_last(&client, HERE);
    }
    client.send(b"two of us", "127.0.0.1:1235");
    let ledger = daemon.ledger_when(|ledger| ledger.routes.values().any(|row| row.received == 1));
    let seen = eventually("a dead upstream is an alarm", || {
        let seen = snapshot(&daemon);
        if seen.alarms.is_empty() {
            return Err(format!("{:?}", seen.upstreams));
        }
        Ok(seen)
    });
    assert!(
        seen.balances && seen.state == DaemonState::Serving && seen.reasons.is_empty(),
        "{seen:?}"
    );
    assert_eq!(seen.pid, daemon.pid());
    for (name, row) in &ledger.routes {
        let found = seen
            .routes
            .iter()
            .find(|found| found.route == *name)
            .expect("the same routes");
        assert_eq!(
            (found.account.received, found.account.handled),
            (row.received, row.handled),
            "{name}"
        );
    }
    let accounts = seen
        .listeners
        .iter()
        .map(|row| &row.account)
        .chain(seen.routes.iter().map(|row| &row.account));
    for account in accounts.chain(seen.workers.iter().map(|row| &row.account)) {
        assert_eq!(
            account.received,
            account.handled + account.dropped + account.in_flight
        );
        assert_eq!(account.dropped, account.drops.values().sum::<u64>());
    }
    let received = |rows: &mut dyn Iterator<Item = u64>| rows.sum::<u64>();
    assert_eq!(
        received(&mut seen.listeners.iter().map(|row| row.account.received)),
        received(&mut seen.workers.iter().map(|row| row.account.received))
    );
    let alarm = &seen.alarms[0];
    assert_eq!(
        (alarm.name.as_str(), alarm.about.as_str()),
        ("upstream_dead", "on/127.0.0.1:9002")
    );
    let edges = |edges: &[udispatch::observe::snapshot::Edge]| {
        edges
            .iter()
            .map(|edge| (edge.from, edge.to))
            .collect::<Vec<_>>()
    };
    assert_eq!(edges(&seen.flows.listener_to_route), [(0, 0), (1, 1)]);
    assert_eq!(edges(&seen.flows.handler_to_upstream).len(), 2);
    assert_eq!(edges(&seen.flows.route_to_handler).len(), 3);

    let mut told = BTreeSet::new();
    let mut promised = BTreeSet::new();
    keys(&serde_json::to_value(&seen).unwrap(), "", &mut told);
    let docs = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/status.md")).unwrap();
    let example = docs
        .split("```json")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .expect("an example");
    let example: Value = serde_json::from_str(example).expect("the example is JSON");
    keys(&example, "", &mut promised);
    assert_eq!(
        told, promised,
        "the example in docs/status.md has the keys of a snapshot"
    );
    serde_json::from_value::<Snapshot>(example).expect("the example is a snapshot");
    daemon.stop();
}

/// A path that is requested, the status of the response, and words of it.
const READ: &[(&str, u16, &str)] = &[
    ("/nothing", 404, "/status"),
    ("/reload", 405, "use GET to read"),
    ("/sessions?handler=ehco", 404, "did you mean \"echo\"?"),
    ("/sessions?client=me", 404, "192.0.2.0/24"),
    (
        "/sessions?clinet=me",
        400,
        "there is no parameter \"clinet\" here; did you mean \"client\"?\n",
    ),
    (
        "/sessions?limit=all",
        400,
        "the parameter `limit` is \"all\"; write a whole number\n",
    ),
    (
        "/explain?to=here",
        400,
        "the parameter `to` is \"here\"; write an address and a port",
    ),
    (
        "/explain",
        400,
        "the parameter `to` is missing; write an address and a port",
    ),
    ("/tap?snap=-1", 400, "`snap`"),
];
const POSTED: &[(&str, u16, &str)] = &[
    ("/log?level=loud", 400, "trace"),
    (
        "/log",
        400,
        "the parameter `level` is missing; write off, error",
    ),
    (
        "/drain",
        400,
        "the parameter `upstream` is missing; write HANDLER/ADDRESS",
    ),
    (
        "/reload?dry_run=maybe",
        400,
        "the parameter `dry_run` is \"maybe\"; write 1, 0, true or false\n",
    ),
    ("/reload?dry_run=true", 200, "\"is_applied\":false"),
    ("/reload?dry_run", 200, "\"is_applied\":false"),
    ("/reload?dry_run=0", 200, "\"is_applied\":true"),
];

/// Each part of the snapshot can be requested separately. The probes of a supervisor such as Kubernetes work, and an
/// unknown path gets a message.
#[test]
fn parts_and_probes() {
    netns_test!();
    let daemon = Daemon::of(ECHO).workers(2).start();
    let whole = snapshot(&daemon);
    for (part, rows) in [
        ("listeners", 1),
        ("routes", 1),
        ("handlers", 1),
        ("upstreams", 0),
        ("workers", 2),
        ("alarms", 0),
    ] {
        let answer = get(&daemon, &format!("/status/{part}"));
        let value: Value = serde_json::from_str(&answer.body).expect("JSON");
        assert_eq!(value.as_array().map(Vec::len), Some(rows), "{part}");
        let in_whole = &serde_json::to_value(&whole).unwrap()[part];
        assert_eq!(&value, in_whole, "{part}");
    }
    for path in ["/livez", "/readyz"] {
        assert_eq!(get(&daemon, path).status, 200, "{path}");
    }
    for (way, requests) in [(get as fn(&Daemon, &str) -> Answer, READ), (post, POSTED)] {
        for (path, status, words) in requests {
            let answer = way(&daemon, path);
            assert!(
                answer.status == *status && answer.body.contains(words),
                "{path}: {answer:?}"
            );
        }
    }
    daemon.stop();
}

/// A drained upstream gets no new session, keeps its sessions, and gets new ones again after `undrain`. A name that
/// matches no upstream, or two of them, is an error.
#[test]
fn draining_by_hand() {
    netns_test!();
    let both = servers(2);
    let addresses: Vec<_> = both.iter().map(Server::address).collect();
    let config = forwarder("on", HERE, &list(addresses.clone()), "")
        + &forwarder("too", "127.0.0.1:1235", &list([addresses[1]]), "");
    let daemon = Daemon::of(&config).workers(2).start();
    let old = Client::bind("127.0.0.1:0");
    let first = answer(&old, HERE);
    let (mine, other) = if first.starts_with("0:") {
        (0, 1)
    } else {
        (1, 0)
    };
    let name = format!("on/{}", addresses[mine]);
    let outcome = ask(&daemon, &["drain", &name]);
    assert!(
        outcome.code == 0 && outcome.output.contains("gets no new sessions"),
        "{}{}",
        outcome.output,
        outcome.errors
    );
    for _ in 0..8 {
        assert!(answer(&Client::newcomer(), HERE).starts_with(&format!("{other}:")));
    }
    assert_eq!(answer(&old, HERE), first, "a session goes on");
    let rows = snapshot(&daemon).upstreams;
    let row = rows
        .iter()
        .find(|row| row.handler == "on" && row.upstream == addresses[mine].to_string())
        .unwrap();
    assert!(row.draining && row.drained_by_hand && row.alive, "{row:?}");
    assert_eq!(rows.iter().filter(|row| row.draining).count(), 1);
    assert!(ask(&daemon, &["upstreams"]).output.contains("draining"));

    let more = config + "[[route]]\ndestination = \"127.0.0.1:1236\"\nhandler = \"on\"\n";
    fs::write(daemon.file(), more).unwrap();
    let outcome = ask(&daemon, &["reload"]);
    assert_eq!(outcome.code, 0, "{}{}", outcome.output, outcome.errors);
    let is_draining = || snapshot(&daemon).upstreams.iter().any(|row| row.draining);
    assert!(is_draining(), "it stays drained");

    let outcome = ask(&daemon, &["undrain", &name]);
    assert!(
        outcome.code == 0 && outcome.output.contains("gets new sessions again"),
        "{}{}",
        outcome.output,
        outcome.errors
    );
    eventually("it gets new sessions again", || {
        answer(&Client::newcomer(), HERE).starts_with(&format!("{mine}:"))
    });
    eventually("no upstream is draining", || !is_draining());
    let two = addresses[1].to_string();
    let outcome = ask(&daemon, &["drain", &two]);
    assert!(
        outcome.code == 2 && outcome.errors.contains(&format!("too/{two}")),
        "{}",
        outcome.errors
    );
    let outcome = ask(&daemon, &["drain", &format!("no/{two}")]);
    assert!(
        outcome.code == 2 && outcome.errors.contains("did you mean \"on/"),
        "{}",
        outcome.errors
    );
    daemon.stop();
}

/// All sessions are listed once, over several pages and workers. A limit truncates the list and says so, and a filter
/// finds one session of many. Their number equals that of the snapshot.
#[test]
fn sessions_are_listed() {
    netns_test!();
    const CLIENTS: usize = 2_300;
    let server = Server::named("a", "127.0.0.1:9001");
    let mut daemon = Daemon::of(&forwarder("on", HERE, &list([server.address()]), ""))
        .workers(2)
        .start();
    let clients: Vec<Client> = (0..CLIENTS).map(|_| Client::bind("127.0.0.1:0")).collect();
    clients.iter().for_each(|client| drop(answer(client, HERE)));
    daemon.ledger_when(|ledger| ledger.handler("on").sessions.open == CLIENTS as u64);
    let sessions = |parameters: &str| -> SessionList {
        serde_json::from_str(&get(&daemon, &format!("/sessions{parameters}")).body).expect("a list")
    };
    let all = sessions("");
    let seen: BTreeSet<&str> = all.sessions.iter().map(|row| row.client.as_str()).collect();
    assert_eq!(
        (all.sessions.len(), seen.len(), all.is_cut),
        (CLIENTS, CLIENTS, false)
    );
    assert!(all.sessions.iter().all(|row| {
        row.is_answered
            && (row.requests, row.replies) == (1, 1)
            && row.upstreams == ["127.0.0.1:9001"]
    }));
    assert!(
        (0..2).all(|worker| all.sessions.iter().any(|row| row.worker == worker)),
        "both workers have some"
    );
    for (limit, is_cut) in [(1_500, true), (CLIENTS, false)] {
        let some = sessions(&format!("?limit={limit}&handler=on"));
        assert_eq!((some.sessions.len(), some.is_cut), (limit, is_cut));
    }
    let one = clients[1_234].address().to_string();
    let found = sessions(&format!("?client={one}"));
    assert_eq!(
        found
            .sessions
            .iter()
            .map(|row| &row.client)
            .collect::<Vec<_>>(),
        [&one]
    );
    assert_eq!(sessions("?client=127.0.0.0/8").sessions.len(), CLIENTS);
    assert_eq!(sessions("?client=192.0.2.1").sessions.len(), 0);

    let table = ask(&daemon, &["sessions", "--limit", "3"]).output;
    assert!(
        table.lines().count() == 5 && table.ends_with("--client\n"),
        "{table}"
    );
    let live = ask(
        &daemon,
        &["explain", "--live", "--to", HERE, "--from", &one],
    );
    assert!(
        live.output
            .contains(&format!("has received {CLIENTS} datagrams")),
        "{}{}",
        live.output,
        live.errors
    );
    assert!(
        live.output.contains(&format!(
            "session   {one} has a session with 127.0.0.1:9001"
        )),
        "{}",
        live.output
    );
    // The datagrams that `explain` imagines leave no trace.
    assert_eq!(
        snapshot(&daemon).handlers[0].sessions.opened,
        CLIENTS as u64
    );
    daemon.stop();
}

/// The live explanation takes the health of upstreams into account, which the file does not contain.
#[test]
fn explaining_live() {
    netns_test!();
    let good = Server::named("good", "127.0.0.1:9001");
    let dead = "127.0.0.1:9002".parse().unwrap();
    let more = "pick = \"first_alive\"\nhealth = { probe = \"udp\", send = \"?\", interval = \"100ms\", timeout = \"50ms\" }\n";
    let daemon = Daemon::start(&forwarder("on", HERE, &list([dead, good.address()]), more));
    eventually("it is found dead", || {
        !snapshot(&daemon).upstreams.iter().all(|row| row.alive)
    });
    let text = ask(&daemon, &["explain", "--live", "--to", HERE]).output;
    assert!(
        text.contains("bytes to 127.0.0.1:9001") && !text.contains("bytes to 127.0.0.1:9002"),
        "{text}"
    );
    assert!(
        text.contains("127.0.0.1:9002: dead") && text.contains("has received 0 datagrams"),
        "{text}"
    );
    ask(&daemon, &["drain", "127.0.0.1:9001"]);
    let text = ask(&daemon, &["explain", "--live", "--to", HERE]).output;
    assert!(text.contains("127.0.0.1:9001: alive, draining"), "{text}");
    daemon.stop();
}

/// Every command prints text for people, and with --json output for programs. `log` changes the level of the log.
/// `stop` ends the daemon in order, and afterwards the commands report that no daemon runs.
#[test]
fn commands() {
    netns_test!(needs = ["mount"], with = [mounts]);
    // A daemon of this machine, at the default place, must not reply.
    run("mount -t tmpfs tmpfs /run");
    let server = Server::named("a", "127.0.0.1:9001");
    let mut daemon = Daemon::start(&forwarder("on", HERE, &list([server.address()]), ""));
    answer(&Client::bind("127.0.0.1:0"), HERE);
    for (command, words) in [
        ("status", "balance         exact"),
        ("routes", "received"),
        ("sessions", "127.0.0.1:9001"),
        ("upstreams", "on/127.0.0.1:9001"),
    ] {
        let text = ask(&daemon, &[command]);
        assert!(
            text.code == 0 && text.output.contains(words),
            "{command}: {}{}",
            text.output,
            text.errors
        );
        let json = ask(&daemon, &[command, "--json"]);
        assert!(
            serde_json::from_str::<Value>(&json.output).is_ok(),
            "{command}: {}",
            json.output
        );
    }
    let loud = ask(&daemon, &["log", "loud"]);
    let words = "\"loud\" is not a log level; write off, error, warn, info, debug or trace";
    assert!(
        loud.code == 2 && loud.errors.contains(words),
        "{}",
        loud.errors
    );
    assert!(
        ask(&daemon, &["log", "error"])
            .output
            .contains("is now error; it was info")
    );
    ask(&daemon, &["drain", "127.0.0.1:9001"]);
    assert!(
        ask(&daemon, &["log", "info"])
            .output
            .contains("is now info; it was error")
    );
    ask(&daemon, &["undrain", "127.0.0.1:9001"]);
    daemon.wait_for("gets new sessions again");
    assert!(
        !daemon
            .log()
            .iter()
            .any(|line| line.contains("gets no new sessions")),
        "it was not to be logged"
    );

    let control = daemon.control();
    let outcome = ask(&daemon, &["stop"]);
    assert_eq!(outcome.code, 0, "{}", outcome.errors);
    daemon.wait_for("balance: exact");
    eventually("its file goes with it", || !control.exists());
    let outcome = ask(&daemon, &["status"]);
    assert!(
        outcome.code == 1 && outcome.errors.contains("there is no control socket"),
        "{}",
        outcome.errors
    );
    let outcome = udispatch(&["status"]);
    assert!(
        outcome.code == 1 && outcome.errors.contains("udispatch run FILE"),
        "{}",
        outcome.errors
    );
}

/// A second daemon in the same directory is refused with the process that runs and a way to continue, and changes
/// nothing. A stale socket is replaced, and another file is not touched. The mode of the socket is 0660.
#[test]
fn one_daemon_in_one_place() {
    netns_test!();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("u.sock");
    let config = format!("[daemon]\ncontrol = {path:?}\n{ECHO}");
    // A stale socket: it is bound, but no process listens any more.
    drop(UnixListener::bind(&path).unwrap());
    let first = Daemon::start(&config);
    let file = fs::symlink_metadata(&path).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o660);

    let other = directory.path().join("other.toml");
    fs::write(&other, config.replace("1234", "1299")).unwrap();
    let outcome = udispatch(&["run", other.to_str().unwrap()]);
    assert_eq!(outcome.code, 1, "{}", outcome.errors);
    for words in [
        &format!("process id {}", first.pid()),
        "test.toml",
        "--takeover",
        "control = ",
    ] {
        assert!(
            outcome.errors.contains(words),
            "{words}: {}",
            outcome.errors
        );
    }
    assert_eq!(
        fs::symlink_metadata(&path).unwrap().ino(),
        file.ino(),
        "the first one's socket is still there"
    );
    let control = path.to_str().unwrap();
    assert_eq!(udispatch(&["status", "--control", control]).code, 0);
    // At its end the daemon removes only a socket of its own.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "mine").unwrap();
    first.stop();
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    let outcome = udispatch(&["status", "--control", control]);
    assert!(
        outcome.code == 1
            && outcome
                .errors
                .contains(&format!("{control} is not a socket")),
        "{}",
        outcome.errors
    );
    let left_over = directory.path().join("left.sock");
    drop(UnixListener::bind(&left_over).unwrap());
    let outcome = udispatch(&["status", "--control", left_over.to_str().unwrap()]);
    assert!(
        outcome.code == 1 && outcome.errors.contains("no daemon listens on"),
        "{}",
        outcome.errors
    );

    // With a file in the way, or without the directory, the daemon serves, is degraded, and says why.
    for (config, words) in [
        (config.clone(), "another file has this name"),
        (
            format!("[daemon]\ncontrol = \"/no/such/place\"\n{ECHO}"),
            "create its directory",
        ),
    ] {
        let http = config.replace("[daemon]", "[daemon]\nhttp = \"127.0.0.1:9253\"");
        let mut daemon = Daemon::start(&http);
        assert_eq!(answer_at_last(&Client::bind("127.0.0.1:0"), HERE), "?");
        assert!(
            daemon
                .log()
                .iter()
                .any(|line| line.contains("WARN") && line.contains(words)),
            "{:?}",
            daemon.log()
        );
        let seen: Snapshot = serde_json::from_str(
            &crate::common::curl::curl(&["http://127.0.0.1:9253/status"]).body,
        )
        .unwrap();
        assert!(
            seen.state == DaemonState::Degraded && seen.reasons[0].contains(words),
            "{seen:?}"
        );
        daemon.ledger_when(|_| true);
        daemon.stop();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
}

/// A user who is neither the owner of the socket nor in its group may not use it, and the error says what to do.
#[test]
fn others_may_not_ask() {
    netns_test!(with = [root]);
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    let path = directory.path().join("u.sock");
    let daemon = Daemon::start(&format!("[daemon]\ncontrol = {path:?}\n{ECHO}"));
    // The other users must be able to read the program itself.
    let program = directory.path().join("udispatch");
    fs::copy(env!("CARGO_BIN_EXE_udispatch"), &program).unwrap();
    let words = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    let status = |words: &[&str]| {
        let output = std::process::Command::new(words[0])
            .args(&words[1..])
            .args([
                program.to_str().unwrap(),
                "status",
                "--control",
                path.to_str().unwrap(),
            ])
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, errors) = status(&words);
    assert!(
        code == Some(1) && errors.contains("only its owner and its group may"),
        "{errors}"
    );
    let group = ["setpriv", "--reuid=65534", "--regid=0", "--clear-groups"];
    assert_eq!(status(&group).0, Some(0), "its group may");
    daemon.stop();
}

/// All viewers get the same snapshots, at most one a second, and are counted as long as they are there.
#[test]
fn viewers_share_snapshots() {
    netns_test!();
    let daemon = Daemon::start(ECHO);
    let control = daemon.control();
    let watch = || {
        let mut command = std::process::Command::new("curl");
        command.args([
            "-sN",
            "--unix-socket",
            control.to_str().unwrap(),
            "http://localhost/events",
        ]);
        command
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("curl is needed")
    };
    let begun = unix_ms();
    let mut viewers: Vec<_> = (0..3).map(|_| watch()).collect();
    eventually("three viewers", || snapshot(&daemon).admin.viewers == 3);
    let joined = unix_ms();
    let seen: Vec<Vec<u64>> = viewers
        .iter_mut()
        .map(|viewer| moments(viewer.stdout.as_mut().unwrap(), joined))
        .collect();
    // A viewer that joined late has missed the first snapshots. After all have joined, each one gets every snapshot.
    let shared = |moments: &[u64]| -> Vec<u64> {
        let after = moments.iter().filter(|moment| **moment > joined);
        after.take(SHARED).copied().collect()
    };
    assert!(
        seen.iter()
            .all(|moments| shared(moments) == shared(&seen[0])),
        "after {joined}: {seen:?}"
    );
    // The first snapshot is taken after the first viewer has come. A late snapshot does not make the next one early.
    let is_slow = |moments: &Vec<u64>| {
        (begun..)
            .step_by(1_000)
            .zip(moments)
            .all(|(at, moment)| *moment >= at)
    };
    assert!(
        seen.iter().all(is_slow),
        "more than one a second since {begun}: {seen:?}"
    );
    for viewer in &mut viewers {
        viewer.kill().unwrap();
        viewer.wait().unwrap();
    }
    eventually("no viewer", || snapshot(&daemon).admin.viewers == 0);
    daemon.stop();
}

/// Number of snapshots by which viewers are compared.
const SHARED: usize = 3;

fn unix_ms() -> u64 {
    let since = std::time::UNIX_EPOCH.elapsed().expect("after 1970");
    since
        .as_millis()
        .try_into()
        .expect("before the year 500 million")
}

/// Returns when the snapshots of a stream of events were taken, in milliseconds of unix time. It reads until [`SHARED`]
/// of them were taken after `joined`.
fn moments(stream: &mut impl Read, joined: u64) -> Vec<u64> {
    let mut text = String::new();
    let mut buffer = [0; 65_536];
    loop {
        let whole = text.rfind("\n\n").map_or("", |end| &text[..end]);
        let found: Vec<u64> = whole
            .lines()
            .filter_map(|line| serde_json::from_str::<Snapshot>(line.strip_prefix("data: ")?).ok())
            .map(|snapshot| snapshot.taken_unix_ms)
            .collect();
        if found.iter().filter(|moment| **moment > joined).count() >= SHARED {
            return found;
        }
        let len = stream.read(&mut buffer).expect("events come");
        assert!(len > 0, "events have no end");
        text += std::str::from_utf8(&buffer[..len]).expect("text");
    }
}

/// A daemon that cannot open another file still serves the clients that are connected, and lets others wait. It never
/// ends, and datagrams flow.
#[test]
fn no_files_left() {
    netns_test!();
    let mut daemon = Daemon::of(ECHO)
        .under(&["prlimit", "--nofile=40:40"])
        .start();
    let control = daemon.control();
    let connections: Vec<_> = (0..40)
        .filter_map(|_| std::os::unix::net::UnixStream::connect(&control).ok())
        .collect();
    assert_eq!(answer_at_last(&Client::bind("127.0.0.1:0"), HERE), "?");
    daemon.ledger_when(|ledger| ledger.received() > 0);
    drop(connections);
    assert_eq!(
        get(&daemon, "/livez").status,
        200,
        "when they are gone, others are let in"
    );
    daemon.stop();
}
