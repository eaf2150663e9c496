//! Runs a test again inside a user and network namespace of its own (`unshare -rn`, which needs no root).
#![allow(unsafe_code)]

use std::process::Command;

const INSIDE: &str = "UDISPATCH_TEST_NAMESPACE";

/// Call it first in a test, with the test's name: `if !enter("name") { return }`. Outside it runs the test again in a new
/// namespace, with loopback up, and says `false`; inside it says `true`.
pub fn enter(test: &str) -> bool {
    enter_by("-rn", test)
}

/// The same, and with mounts of its own, so that files such as `/etc/hosts` can be others for the test.
pub fn enter_with_mounts(test: &str) -> bool {
    enter_by("-rnm", test)
}

/// The same with the host's own users, for programs that change theirs, and with mounts of its own. Needs root: without
/// it the test is skipped and says so; in CI it has to run.
pub fn enter_as_root(test: &str) -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    let is_root = unsafe { libc::geteuid() } == 0;
    assert!(
        is_root || std::env::var("CI").is_err(),
        "CI must run as root"
    );
    if !is_root {
        println!("SKIPPED: needs root");
    }
    is_root && enter_by("-nm", test)
}

fn enter_by(flags: &str, test: &str) -> bool {
    if std::env::var(INSIDE).as_deref() == Ok(test) {
        bring_loopback_up();
        return true;
    }
    let this = std::env::current_exe().expect("the test's own path");
    let output = Command::new("unshare")
        .args([flags, "--"])
        .arg(this)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, test)
        .output()
        .expect("`unshare` (util-linux) is needed to give each test a network of its own");
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{test} failed in its namespace ({}):\n{text}",
        output.status
    );
    // A test that was renamed would be filtered out and pass without running.
    assert!(
        text.contains("1 passed"),
        "{test} did not run in its namespace:\n{text}"
    );
    print!("{text}");
    false
}

/// Whether a program is installed. Where it is not, the test is skipped and says so; in CI it has to be there.
pub fn has(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output();
    let found = found.is_ok_and(|output| output.status.success());
    assert!(
        found || std::env::var("CI").is_err(),
        "{program} is missing, and CI must have it"
    );
    if !found {
        println!("SKIPPED: {program} is not installed");
    }
    found
}

/// Runs a program, such as `ip`, that has to succeed.
pub fn run(command: &str) {
    let words: Vec<&str> = command.split_whitespace().collect();
    let output = Command::new(words[0])
        .args(&words[1..])
        .output()
        .unwrap_or_else(|error| panic!("{command}: {error}"));
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Returns the index of the interface with this name, if there is one.
pub fn index_of(name: &str) -> Option<u32> {
    let interfaces = udispatch::net::interfaces::list().ok()?;
    let interface = interfaces
        .into_iter()
        .find(|interface| interface.name == name)?;
    Some(interface.index)
}

/// What `ip link set lo up` does, for machines without iproute2 (netdevice(7)).
fn bring_loopback_up() {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket to ask through");
    // SAFETY: ifreq is plain data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
    // SAFETY: the request is a readable ifreq, as SIOCSIFFLAGS wants it.
    let result = unsafe { libc::ioctl(fd, libc::SIOCSIFFLAGS, &raw const request) };
    assert_eq!(
        result,
        0,
        "loopback does not come up: {}",
        std::io::Error::last_os_error()
    );
}
