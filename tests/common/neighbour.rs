//! Another host: a namespace beside the test's own, with a veth pair between the two, so that there is a path with an MTU,
//! a route and a link that can fail.
#![allow(unsafe_code)]

use std::net::UdpSocket;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use super::client::Client;
use super::namespace::run;

/// This side's address and the other's.
pub const HERE: &str = "10.9.0.1";
pub const THERE: &str = "10.9.0.2";
/// The same in IPv6.
pub const HERE_V6: &str = "fd00:9::1";
pub const THERE_V6: &str = "fd00:9::2";

/// A host behind the other.
pub const BEYOND: &str = "10.10.0.2";
pub const BEYOND_V6: &str = "fd00:10::2";

type Task = Box<dyn FnOnce() + Send>;

/// The other host, which is a thread in a network namespace of its own.
pub struct Neighbour {
    id: i32,
    tasks: Option<Sender<Task>>,
    thread: Option<JoinHandle<()>>,
}

impl Neighbour {
    /// Makes it and the link to it: `near` here, `far` there, with this MTU. Needs `ip`.
    pub fn new(mtu: u32) -> Neighbour {
        let neighbour = Neighbour::start();
        run(&format!("ip link add near mtu {mtu} type veth peer name far mtu {mtu}"));
        run(&format!("ip link set far netns {}", neighbour.id));
        set_up(run, "near", HERE, HERE_V6);
        set_up(|command| neighbour.run(command), "far", THERE, THERE_V6);
        neighbour
    }

    /// Another host behind this one, which becomes a router, over a link with this MTU.
    pub fn behind(&self, mtu: u32) -> Neighbour {
        let beyond = Neighbour::start();
        self.run(&format!("ip link add onward mtu {mtu} type veth peer name back mtu {mtu}"));
        self.run(&format!("ip link set back netns {}", beyond.id));
        set_up(|command| self.run(command), "onward", "10.10.0.1", "fd00:10::1");
        set_up(|command| beyond.run(command), "back", BEYOND, BEYOND_V6);
        self.on(|| {
            for family in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                std::fs::write(format!("/proc/sys/net/{family}"), "1").unwrap();
            }
        });
        run(&format!("ip route add 10.10.0.0/24 via {THERE}"));
        run(&format!("ip route add fd00:10::/64 via {THERE_V6}"));
        beyond.run("ip route add 10.9.0.0/24 via 10.10.0.1");
        beyond.run("ip route add fd00:9::/64 via fd00:10::1");
        beyond
    }

    fn start() -> Neighbour {
        let (tasks, queue) = channel::<Task>();
        let (say, hear) = channel();
        let thread = thread::spawn(move || {
            // SAFETY: only this thread moves to a new namespace; it owns no socket yet.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
            // SAFETY: gettid cannot fail.
            say.send(unsafe { libc::gettid() }).unwrap();
            queue.into_iter().for_each(|task| task());
        });
        Neighbour { id: hear.recv().expect("the namespace is made"), tasks: Some(tasks), thread: Some(thread) }
    }

    /// Does something there.
    pub fn on<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> T {
        let (say, hear) = channel();
        let task = move || say.send(act()).unwrap();
        let tasks = self.tasks.as_ref().expect("it is there until it is dropped");
        tasks.send(Box::new(task)).expect("it has not failed");
        hear.recv().expect("it has not failed")
    }

    /// Runs a program there, which has to succeed.
    pub fn run(&self, command: &str) {
        let command = command.to_owned();
        self.on(move || run(&command));
    }

    /// A client there. Its socket stays there, whoever uses it.
    pub fn bind(&self, address: &str) -> Client {
        let address = address.to_owned();
        self.on(move || {
            let socket = UdpSocket::bind(&address).unwrap_or_else(|error| panic!("{address}: {error}"));
            Client::of(socket)
        })
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        drop(self.tasks.take());
        let ended = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            assert!(ended.is_none_or(|ended| ended.is_ok()));
        }
    }
}

fn set_up(run: impl Fn(&str), interface: &str, v4: &str, v6: &str) {
    run(&format!("ip addr add {v4}/24 dev {interface}"));
    run(&format!("ip addr add {v6}/64 dev {interface} nodad"));
    run(&format!("ip link set {interface} up"));
}
