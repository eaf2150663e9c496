//! The packaged unit in a real systemd: what it promises there, from the sandbox to the sockets that are kept.

use std::fs;

use crate::common::client::Client;
use crate::common::namespace::{netns_test, this_test};
use crate::common::restart::{Talker, reporting};
use crate::common::systemd::Systemd;

/// A socket of each type, one of them below 1024.
const CONFIG: &str = r#"
[daemon]
workers = 2
[[route]]
destination = "127.0.0.1:1234"
handler = "echo"
[[route]]
destination = "127.0.0.2:1234"
handler = "on"
[[route]]
destination = "239.1.2.3:1235"
interface = "lo"
handler = "drop"
[[route]]
destination = "[::]:53"
handler = "echo"
[handler.on]
kind = "forward"
upstreams = ["127.0.0.1:5555"]
"#;
/// Two workers' sockets for each destination, and one for the group.
const SOCKETS: u32 = 7;
/// The time at which systemd received the last watchdog message.
const SIGN: &str = "WatchdogTimestampMonotonic";
/// The watchdog time of the unit itself would be too long to wait for.
const SERVICE: &str = "WatchdogSec=5";

/// The unit from its start to its end, in one systemd, because that takes seconds to start.
#[test]
fn the_unit() {
    netns_test!(needs = ["systemd-nspawn"], with = [root, heavy]);
    let _upstream = reporting("127.0.0.1:5555");
    let Some(systemd) = Systemd::boot(this_test!(), CONFIG, SERVICE) else {
        return;
    };
    starts_in_its_sandbox(&systemd);
    reload_takes_over(&systemd);
    wrong_file_fails_the_reload(&systemd);
    killed_it_comes_back(&systemd);
    restart_keeps_what_comes(&systemd);
    stops_in_order(&systemd);
    silent_it_is_ended(&systemd);
    sockets_of_a_unit(&systemd);
}

fn starts_in_its_sandbox(systemd: &Systemd) {
    systemd.wait_for("ActiveState", "active");
    assert_eq!(systemd.number("NFileDescriptorStore"), SOCKETS);
    let pid = systemd.number("MainPID");
    let status = systemd.output_of(&format!("cat /proc/{pid}/status"));
    let has_line = |line: &str| status.lines().any(|found| found.replace('\t', " ") == line);
    assert!(
        has_line("NoNewPrivs: 1") && has_line("Seccomp: 2") && has_line("CapEff: 0000000000000400"),
        "{status}"
    );
    assert_ne!(
        systemd.output_of(&format!("stat --format=%u /proc/{pid}")),
        "0",
        "a user of its own"
    );
    assert_eq!(
        Client::bind("[::1]:0").ask(b"below 1024", "[::1]:53").0,
        b"below 1024"
    );
    // Bursts would be too long for the buffer that a system allows by default. There are no other warnings.
    let words = systemd.journal();
    assert!(
        !words.contains("ERROR")
            && words.matches("WARN").count() == words.matches("receive buffers").count(),
        "{words}"
    );
}

/// Makes another process take over.
fn reload(systemd: &Systemd) {
    let first = systemd.property("MainPID");
    systemd.output_of("systemctl reload udispatch");
    systemd.wait_for_another("MainPID", &first);
}

/// The successor is the main process of the unit, has all sockets of the process before, and sends the watchdog
/// messages.
fn reload_takes_over(systemd: &Systemd) {
    let talkers = ["127.0.0.1:1234", "127.0.0.2:1234"].map(Talker::begin);
    let client = Client::newcomer();
    let port = client.ask(b"?", "127.0.0.2:1234").0;
    // This is repeated, because systemd receives the message of the new process and the end of the old one at nearly
    // the same time.
    for _ in 0..15 {
        reload(systemd);
        let now = client.ask(b"?", "127.0.0.2:1234").0;
        assert_eq!(now, port, "the session goes on: {}", systemd.journal());
    }
    assert_eq!(systemd.status().pid, systemd.number("MainPID"));
    assert_eq!(systemd.number("NFileDescriptorStore"), SOCKETS);
    // The successor sends watchdog messages of its own.
    for _ in 0..2 {
        systemd.wait_for_another(SIGN, &systemd.property(SIGN));
    }
    assert_eq!(systemd.number("NRestarts"), 0, "{}", systemd.journal());
    assert!(talkers.map(Talker::end).iter().all(|asked| *asked > 100));
}

fn wrong_file_fails_the_reload(systemd: &Systemd) {
    let file = systemd.file("etc/udispatch/udispatch.toml");
    let pid = systemd.number("MainPID");
    fs::write(&file, CONFIG.replace("\"drop\"", "\"dorp\"")).expect("written");
    assert!(!systemd.run("systemctl reload udispatch").status.success());
    assert!(
        systemd
            .journal()
            .contains("there is no handler and no kind \"dorp\""),
        "{}",
        systemd.journal()
    );
    fs::write(&file, CONFIG).expect("written");
    systemd.wait_for("ActiveState", "active");
    assert_eq!(
        (systemd.number("MainPID"), systemd.status().pid),
        (pid, pid)
    );
}

/// Datagrams that come while there is no process wait for the next one. systemd starts it, although it did not start
/// the one that died.
fn killed_it_comes_back(systemd: &Systemd) {
    let client = Client::newcomer();
    systemd.output_of("systemctl kill --kill-whom=main --signal=KILL udispatch");
    let mut sent = 0_u32;
    while systemd.number("NRestarts") == 0 {
        client.send(&sent.to_be_bytes(), "127.0.0.1:1234");
        sent += 1;
    }
    for number in 0..sent {
        assert_eq!(client.receive().0, number.to_be_bytes());
    }
    assert!(sent > 0, "it was noticed at once");
    assert_eq!(systemd.number("NFileDescriptorStore"), SOCKETS);
}

fn restart_keeps_what_comes(systemd: &Systemd) {
    let talkers = [(); 4].map(|()| Talker::begin("127.0.0.1:1234"));
    for _ in 0..3 {
        systemd.output_of("systemctl restart udispatch");
    }
    assert!(talkers.map(Talker::end).iter().all(|asked| *asked > 10));
    let status = systemd.status();
    assert_eq!(
        status
            .listeners
            .iter()
            .map(|row| row.counters.kernel_drops)
            .sum::<u64>(),
        0,
        "{status:#?}"
    );
}

/// A process that systemd did not start itself is stopped in order, and not killed.
fn stops_in_order(systemd: &Systemd) {
    reload(systemd);
    let stops = |systemd: &Systemd| systemd.journal().matches("SIGTERM: stopping").count();
    let before = stops(systemd);
    systemd.output_of("systemctl stop udispatch");
    systemd.wait_for("Result", "success");
    assert_eq!(stops(systemd), before + 1, "{}", systemd.journal());
    // If the process is not a child of systemd when systemd is notified of it, systemd kills it at once.
    assert!(
        !systemd.journal().contains("not our child"),
        "{}",
        systemd.journal()
    );
    systemd.output_of("systemctl start udispatch");
}

fn silent_it_is_ended(systemd: &Systemd) {
    let pid = systemd.number("MainPID");
    let restarts = systemd.number("NRestarts");
    systemd.output_of("systemctl kill --kill-whom=main --signal=STOP udispatch");
    systemd.wait_for("NRestarts", &(restarts + 1).to_string());
    systemd.wait_for("ActiveState", "active");
    assert_ne!(systemd.number("MainPID"), pid);
    assert!(
        systemd.journal().contains("Watchdog timeout"),
        "{}",
        systemd.journal()
    );
    assert_eq!(
        Client::newcomer().ask(b"again", "127.0.0.1:1234").0,
        b"again"
    );
}

/// The example of a socket unit: datagrams that come before there is a process start one, also after one has ended.
fn sockets_of_a_unit(systemd: &Systemd) {
    fs::write(
        systemd.file("etc/udispatch/udispatch.toml"),
        CONFIG.replace("workers = 2", "workers = 1"),
    )
    .expect("written");
    systemd.output_of("systemctl stop udispatch");
    systemd.output_of("systemctl start udispatch.socket");
    for word in [b"first", b"again"] {
        systemd.wait_for("ActiveState", "inactive");
        assert_eq!(Client::newcomer().ask(word, "127.0.0.1:1234").0, word);
        systemd.wait_for("ActiveState", "active");
        reload(systemd);
        assert_eq!(Client::newcomer().ask(word, "127.0.0.1:1234").0, word);
        systemd.output_of("systemctl stop udispatch");
    }
}
