//! Two network namespaces, joined by a veth pair: this host, where the benchmark and all that it starts run from then
//! on, and another one, for receivers. Neither has a name, so both are removed when the last process in them has ended,
//! however it ends.

use super::checked;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::process::{self, Command};

/// The ends of the veth pair, and their addresses.
const NEAR: &str = "udbench0";
const FAR: &str = "udbench1";
const NEAR_ADDRESS: &str = "198.18.0.1/30";
const FAR_ADDRESS: &str = "198.18.0.2/30";
/// The range of ports that the kernel assigns. No other program uses ports in these namespaces.
const PORTS: &str = "2048 64000";

/// This host and the other one.
pub(crate) struct Namespaces {
    near: File,
    far: File,
}

impl Namespaces {
    /// Moves the calling thread, which must be the only one, to a namespace of its own, with another one behind a veth
    /// pair. `far_cpu` does all work of the other host's kernel on receiving. The error says why that failed, and
    /// nothing has changed then.
    pub(crate) fn enter(far_cpu: usize) -> io::Result<Self> {
        let before = current()?;
        Self::make(far_cpu).inspect_err(|_| {
            // If this fails, too, the benchmark is in a namespace without a network, and every row says so.
            let _ = set(&before);
        })
    }

    fn make(far_cpu: usize) -> io::Result<Self> {
        unshare()?;
        let far = current()?;
        unshare()?;
        let near = current()?;
        let namespaces = Self { near, far };
        let far_path = format!("/proc/{}/fd/{}", process::id(), namespaces.far.as_raw_fd());
        run(&format!(
            "ip link add {NEAR} type veth peer name {FAR} netns {far_path}"
        ))?;
        run(&format!(
            "ip link set lo up && ip address add {NEAR_ADDRESS} dev {NEAR} && ip link set {NEAR} up"
        ))?;
        // This file is not writable everywhere. The rows with most sessions then say so.
        let _ = run(&format!(
            "echo {PORTS} > /proc/sys/net/ipv4/ip_local_port_range"
        ));
        namespaces.far(|| {
            run(&format!("ip link set lo up && ip address add {FAR_ADDRESS} dev {FAR} && ip link set {FAR} up"))?;
            // /sys shows the devices of the namespace in which it was mounted, so it is mounted anew, for this command
            // only.
            let queue = format!("/sys/class/net/{FAR}/queues/rx-0/rps_cpus");
            run(&format!("unshare -m sh -c 'mount -t sysfs sysfs /sys && echo {:x} > {queue}'", 1_u64 << far_cpu))
        })?;
        Ok(namespaces)
    }

    /// The address of the other host.
    pub(crate) fn far_address() -> Ipv4Addr {
        Ipv4Addr::new(198, 18, 0, 2)
    }

    /// Runs a function on the other host. The sockets that it makes stay there.
    pub(crate) fn far<T>(&self, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        set(&self.far)?;
        let result = act();
        set(&self.near)?;
        result
    }
}

/// The namespace of the calling thread.
fn current() -> io::Result<File> {
    File::open("/proc/thread-self/ns/net")
}

fn unshare() -> io::Result<()> {
    // SAFETY: the call touches no memory.
    checked(unsafe { libc::unshare(libc::CLONE_NEWNET) })
        .map(drop)
        .map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM) => io::Error::other(
                "needs a network namespace of its own: run it as root or under `unshare -rn`",
            ),
            _ => error,
        })
}

fn set(namespace: &File) -> io::Result<()> {
    // SAFETY: the call touches no memory.
    checked(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

/// Runs a shell command in the namespace of the calling thread.
fn run(command: &str) -> io::Result<()> {
    let output = Command::new("sh").args(["-c", command]).output()?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("`{command}`: {}", told.trim())))
}
