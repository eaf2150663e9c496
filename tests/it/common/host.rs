//! Other hosts: network namespaces beside that of the test, connected by veth pairs. They provide other addresses,
//! groups on several interfaces, and paths whose MTU, route and link can change.
#![expect(unsafe_code, reason = "system calls that no safe crate offers")]

use std::net::UdpSocket;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use super::client::Client;
use super::eventually;
use super::namespace::{run, wait_for_route};

type Task = Box<dyn FnOnce() + Send>;

/// Another host: a thread in a network namespace of its own.
pub struct Host {
    id: i32,
    tasks: Option<Sender<Task>>,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    /// A host at the far end of a new veth pair. Our end is called `ours` and has the first address of both networks.
    /// Its end is called `eth0` and has the second address. Needs `ip`.
    pub fn at_the_end_of(ours: &str, net_v4: &str, net_v6: &str, mtu: u32) -> Host {
        let host = Host::cable(&run, ours, net_v4, net_v6, mtu);
        wait_for_groups(ours);
        wait_for_route(&format!("{net_v6}::1"));
        host
    }

    /// Another host behind this one, which becomes a router.
    pub fn behind(&self, net_v4: &str, net_v6: &str, mtu: u32) -> Host {
        let beyond = Host::cable(&|command| self.run(command), "onward", net_v4, net_v6, mtu);
        self.on(|| {
            for family in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                std::fs::write(format!("/proc/sys/net/{family}"), "1").unwrap();
            }
        });
        beyond.run(&format!("ip route add default via {net_v4}.1"));
        beyond.run(&format!("ip -6 route add default via {net_v6}::1"));
        beyond
    }

    fn cable(here: &dyn Fn(&str), ours: &str, net_v4: &str, net_v6: &str, mtu: u32) -> Host {
        let host = Host::start();
        here(&format!(
            "ip link add {ours} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {}",
            host.id
        ));
        host.run("ip link set lo up");
        for (run, interface, last) in [
            (here, ours, 1),
            (&|command: &str| host.run(command), "eth0", 2),
        ] {
            run(&format!(
                "ip addr add {net_v4}.{last}/24 broadcast {net_v4}.255 dev {interface}"
            ));
            run(&format!(
                "ip -6 addr add {net_v6}::{last}/64 dev {interface} nodad"
            ));
            // The link-local address can be used at once, without duplicate address detection.
            run(&format!("ip link set {interface} addrgenmode none"));
            run(&format!(
                "ip -6 addr add fe80::{last}/64 dev {interface} nodad"
            ));
            run(&format!("ip link set {interface} up"));
        }
        let address = format!("{net_v6}::2");
        host.on(move || {
            wait_for_groups("eth0");
            wait_for_route(&address);
        });
        host
    }

    fn start() -> Host {
        let (tasks, queue) = channel::<Task>();
        let (say, hear) = channel();
        let thread = thread::spawn(move || {
            // SAFETY: only this thread moves to a new namespace; it owns no socket yet.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
            // SAFETY: gettid cannot fail.
            say.send(unsafe { libc::gettid() }).unwrap();
            queue.into_iter().for_each(|task| task());
        });
        Host {
            id: hear.recv().expect("the namespace is made"),
            tasks: Some(tasks),
            thread: Some(thread),
        }
    }

    /// Runs a function on the host.
    pub fn on<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> T {
        let (say, hear) = channel();
        let task = move || say.send(act()).unwrap();
        let tasks = self
            .tasks
            .as_ref()
            .expect("it is there until it is dropped");
        tasks.send(Box::new(task)).expect("it has not failed");
        hear.recv().expect("it has not failed")
    }

    /// Runs a program on the host, which has to succeed.
    pub fn run(&self, command: &str) {
        let command = command.to_owned();
        self.on(move || run(&command));
    }

    /// A client on the host. Its socket stays in the host's namespace, whichever thread uses it.
    pub fn bind(&self, address: &str) -> Client {
        let address = address.to_owned();
        self.on(move || {
            let socket =
                UdpSocket::bind(&address).unwrap_or_else(|error| panic!("{address}: {error}"));
            Client::of(socket)
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.tasks.take());
        let ended = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            assert!(ended.is_none_or(|ended| ended.is_ok()));
        }
    }
}

/// Waits for the route for IPv6 groups, which the kernel adds to an interface some time after the other end of the veth
/// pair is up.
fn wait_for_groups(interface: &str) {
    let is_route = |line: &str| line.starts_with("ff00") && line.trim_end().ends_with(interface);
    eventually(format!("a route for groups on {interface}"), || {
        let routes = std::fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap();
        routes.lines().any(is_route)
    });
}
