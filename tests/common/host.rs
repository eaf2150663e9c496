//! Another host: a network namespace of its own at the other end of a cable.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};

use super::namespace::run;

/// A namespace that lives as long as the process in it.
pub struct Host(Child);

impl Host {
    /// A host at the far end of a new cable: our end is called `ours` and has the first address of both networks, its end
    /// is called `eth0` and has the second.
    pub fn at_the_end_of(ours: &str, net_v4: &str, net_v6: &str) -> Host {
        // `cat` waits for its standard input to close, which happens when this test ends, however it ends.
        let holder = Command::new("unshare").args(["-n", "cat"]).stdin(Stdio::piped()).spawn().expect("a namespace");
        let host = Host(holder);
        host.wait_until_apart();
        run(&format!("ip link add {ours} type veth peer name eth0 netns {}", host.0.id()));
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{ours}/accept_dad"), "0").expect("no wait for duplicates");
        run(&format!("ip addr add {net_v4}.1/24 broadcast {net_v4}.255 dev {ours}"));
        run(&format!("ip -6 addr add {net_v6}::1/64 dev {ours} nodad"));
        run(&format!("ip link set {ours} up"));
        host.run("sysctl -qw net.ipv6.conf.eth0.accept_dad=0");
        host.run("ip link set lo up");
        host.run("ip link set eth0 up");
        host.run(&format!("ip addr add {net_v4}.2/24 broadcast {net_v4}.255 dev eth0"));
        host.run(&format!("ip -6 addr add {net_v6}::2/64 dev eth0 nodad"));
        host
    }

    fn namespace(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    /// The process starts in our namespace and leaves it a moment later.
    fn wait_until_apart(&self) {
        let ours = std::fs::read_link("/proc/self/ns/net").expect("our namespace");
        let deadline = std::time::Instant::now() + super::daemon::PATIENCE;
        while std::fs::read_link(self.namespace()).is_ok_and(|theirs| theirs == ours) {
            assert!(std::time::Instant::now() < deadline, "no namespace for the other host");
            std::thread::yield_now();
        }
    }

    /// Runs a command there that has to succeed.
    pub fn run(&self, command: &str) {
        run(&format!("nsenter --net={} {command}", self.namespace()));
    }

    /// Makes something there, such as a socket, which stays there.
    pub fn make<T: Send>(&self, make: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(self.namespace()).expect("its namespace");
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                // SAFETY: the descriptor is open; setns changes this thread alone, which ends here.
                assert_eq!(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
                make()
            });
            thread.join().expect("nothing panics there")
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The namespace goes with its process, and the cable with the namespace.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
