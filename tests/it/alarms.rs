//! Alarms of the real daemon. Each one is active as long as its cause, and names the cause and the cure. The log
//! reports its beginning and its end, without any request.

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use udispatch::observe::snapshot::{Alarm, Snapshot};

use crate::common::client::Client;
use crate::common::curl::{ask, snapshot};
use crate::common::daemon::Daemon;
use crate::common::eventually;
use crate::common::namespace::{netns_test, run};

/// Polls until there is an alarm that matches, and calls `meanwhile` after each poll.
fn alarm_when(
    daemon: &Daemon,
    mut meanwhile: impl FnMut(),
    fits: impl Fn(&Alarm) -> bool,
) -> Alarm {
    look_until(daemon, |seen| {
        meanwhile();
        seen.alarms.iter().find(|alarm| fits(alarm)).cloned()
    })
}

/// Polls until no alarm of this name is left.
fn none_is_left(daemon: &Daemon, name: &str, mut meanwhile: impl FnMut()) {
    look_until(daemon, |seen| {
        meanwhile();
        seen.alarms
            .iter()
            .all(|alarm| alarm.name != name)
            .then_some(())
    });
}

fn look_until<T>(daemon: &Daemon, mut find: impl FnMut(&Snapshot) -> Option<T>) -> T {
    eventually("the snapshot has it", || {
        let seen = snapshot(daemon);
        find(&seen).ok_or_else(|| format!("{:?}", seen.alarms))
    })
}

/// A route that gets nothing for longer than the file says is an alarm until the next datagram. So is a source,
/// whatever else its route gets; a handler does not need to use sources for that. The log reports both ends of each.
#[test]
fn silence_is_an_alarm() {
    netns_test!();
    let mut daemon = Daemon::start(
        r#"
        route = [
            { name = "all", destination = "127.0.0.1:1001", handler = "drop", expect_every = "1s" },
            { name = "some", destination = "0.0.0.0:1002", handler = "drop",
              expect_every = { "127.0.0.0/28" = "1s", "127.0.0.16/28" = "1s" } },
        ]
        "#,
    );
    daemon.wait_for("alarm route_silent, all: route all has received nothing for longer than 1s");
    daemon.wait_for("alarm source_silent, some from 127.0.0.16/28: ");
    let near = Client::bind("127.0.0.1:0");
    let far = Client::bind("127.0.0.17:0");
    // Only the far source stays silent.
    let talk = || near.send(b"here", "127.0.0.1:1002");
    look_until(&daemon, |seen| {
        talk();
        let silent: Vec<&str> = seen
            .alarms
            .iter()
            .map(|alarm| alarm.about.as_str())
            .collect();
        (silent == ["all", "some from 127.0.0.16/28"]).then_some(())
    });
    none_is_left(&daemon, "route_silent", || {
        near.send(b"here", "127.0.0.1:1001");
    });
    none_is_left(&daemon, "source_silent", || {
        talk();
        far.send(b"there", "127.0.0.1:1002");
    });
    daemon.wait_for("alarm source_silent, some from 127.0.0.16/28: over after ");
    daemon.stop();
}

/// A source that was seen before a reload counts as seen after it: no alarm comes early, and no time starts again.
#[test]
fn a_reload_does_not_forget_who_was_heard() {
    netns_test!();
    let config = r#"
        [[route]]
        destination = "127.0.0.1:1001"
        handler = "drop"
        expect_every = { "127.0.0.0/8" = "3s" }
    "#;
    let daemon = Daemon::start(config);
    let client = Client::bind("127.0.0.1:0");
    let silent = eventually("a round that takes less than 3 s", || {
        client.send(b"here", "127.0.0.1:1001");
        let sent = Instant::now();
        while sent.elapsed() < Duration::from_secs(2) {
            assert_eq!(ask(&daemon, &["reload"]).code, 0);
        }
        // A round that took longer than this on a busy machine proves nothing.
        let is_silent = !snapshot(&daemon).alarms.is_empty();
        (sent.elapsed() < Duration::from_secs(3)).then_some(is_silent)
    });
    assert!(!silent, "it was heard less than 3 s ago");
    eventually("silent although it is reloaded again and again", || {
        assert_eq!(ask(&daemon, &["reload"]).code, 0);
        !snapshot(&daemon).alarms.is_empty()
    });
    daemon.stop();
}

/// A socket that another program has bound over one of ours is an alarm as long as it is open. The alarm names the
/// process and the addresses that it takes.
#[test]
fn a_socket_of_another_program_is_an_alarm() {
    netns_test!();
    let mut daemon = Daemon::start(
        "[[route]]\ndestination = \"0.0.0.0:1234\"\nhandler = \"drop\"\n[[route]]\ndestination = \"127.0.0.1:1234\"\nhandler = \"echo\"\n",
    );
    let other = over("127.0.0.2:1234");
    let alarm = alarm_when(&daemon, || {}, |alarm| alarm.name == "overlap");
    assert_eq!(alarm.about, "0.0.0.0:1234");
    let who = format!(
        "(pid {}), bound to 127.0.0.2:1234, takes all that is sent to 127.0.0.2",
        std::process::id()
    );
    assert!(alarm.text.contains(&who), "{alarm:?}");
    daemon.wait_for("alarm overlap, 0.0.0.0:1234: ");
    // A more specific address of the daemon's own is not an alarm.
    assert_eq!(snapshot(&daemon).alarms.len(), 1);
    drop(other);
    none_is_left(&daemon, "overlap", || {});
    daemon.wait_for("alarm overlap, 0.0.0.0:1234: over after ");
    daemon.stop();
}

/// Binds a socket beside the daemon's: it belongs to the same user and has SO_REUSEPORT.
fn over(address: &str) -> UdpSocket {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket
        .bind(&address.parse::<SocketAddr>().unwrap().into())
        .unwrap();
    socket.into()
}

/// A group on an interface that is deleted is an alarm. It stays when the interface is created again, which the kernel
/// treats as another one, until a reload joins the group there, as the alarm says.
#[test]
fn a_group_on_an_interface_that_is_gone_is_an_alarm() {
    netns_test!(needs = ["ip"]);
    let make = || {
        run("ip link add lan type veth peer name far");
        run("ip addr add 10.7.0.1/24 dev lan");
        run("ip link set lan up");
        run("ip link set far up");
    };
    make();
    let mut daemon = Daemon::start(
        "[[route]]\ndestination = \"239.1.2.3:5000\"\ninterface = \"lan\"\nhandler = \"drop\"\n\
         [[route]]\nname = \"local\"\ndestination = \"0.0.0.0:5001\"\ninterface = \"lan\"\nhandler = \"drop\"\n",
    );
    let is_gone =
        |alarm: &Alarm| alarm.name == "interface_gone" && alarm.about == "239.1.2.3:5000 on lan";
    run("ip link del lan");
    let alarm = alarm_when(&daemon, || {}, is_gone);
    assert!(
        alarm.text.starts_with("interface lan (index ")
            && alarm.text.contains("no longer receives datagrams"),
        "{alarm:?}"
    );
    daemon.wait_for("alarm interface_gone, 239.1.2.3:5000 on lan: ");
    assert!(
        snapshot(&daemon)
            .alarms
            .iter()
            .any(|alarm| alarm.about == "local"),
        "a route that names it is too"
    );
    // Without the interface, a reload is refused and changes nothing.
    assert_ne!(ask(&daemon, &["reload"]).code, 0);
    alarm_when(&daemon, || {}, is_gone);

    make();
    let alarm = alarm_when(
        &daemon,
        || {},
        |alarm| is_gone(alarm) && alarm.text.contains("created again"),
    );
    assert!(
        alarm.cure.starts_with("run `udispatch reload`"),
        "{alarm:?}"
    );
    let sender = Client::bind("10.7.0.1:0");
    socket2::SockRef::from(&sender.0)
        .set_multicast_if_v4(&"10.7.0.1".parse().unwrap())
        .unwrap();
    let received = |seen: &Snapshot| {
        seen.listeners
            .iter()
            .map(|row| row.account.received)
            .sum::<u64>()
    };
    sender.send(b"too early", "239.1.2.3:5000");
    assert_eq!(
        received(&snapshot(&daemon)),
        0,
        "nothing reaches a membership that is gone"
    );
    assert_eq!(ask(&daemon, &["reload"]).code, 0);
    none_is_left(&daemon, "interface_gone", || {});
    look_until(&daemon, |seen| {
        sender.send(b"hello", "239.1.2.3:5000");
        (received(seen) > 0).then_some(())
    });
    daemon.stop();
}

/// Datagrams that the kernel drops before the daemon are an alarm with the right cure: the limit of the host where it
/// made the buffer smaller than the file asks, and otherwise the number of workers.
#[test]
fn kernel_drops_are_an_alarm_with_the_right_cure() {
    netns_test!();
    for (asked, cure) in [
        ("64MiB", "`sysctl -w net.core.rmem_max=67108864`"),
        ("128KiB", "processors has a worker"),
    ] {
        let config = "[daemon]\nreceive_buffer = \"ASKED\"\n[[route]]\ndestination = \"127.0.0.1:1234\"\nhandler = \"drop\"\n";
        let workers = thread::available_parallelism().unwrap().to_string();
        let mut daemon = Daemon::of(&config.replace("ASKED", asked))
            .workers(workers)
            .start();
        let client = Client::bind("127.0.0.1:0");
        daemon.pause();
        for _ in 0..20_000 {
            client.send(&[0; 1_000], "127.0.0.1:1234");
        }
        daemon.resume();
        let alarm = alarm_when(&daemon, || {}, |alarm| alarm.name == "kernel_drops");
        assert!(
            alarm.about == "127.0.0.1:1234" && alarm.cure.contains(cure),
            "{asked}: {alarm:?}"
        );
        daemon.wait_for("alarm kernel_drops, 127.0.0.1:1234: the kernel dropped ");
        let row = &snapshot(&daemon).listeners[0];
        assert!(row.receive_buffer_bytes < 64 << 20, "{row:?}");
        daemon.stop();
    }
}
