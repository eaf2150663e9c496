//! Runs a test again inside a network namespace and a process of its own ([`netns_test!`]).
#![expect(
    unsafe_code,
    reason = "options of an interface, and the user of the process"
)]

use std::env;
use std::fs::OpenOptions;
use std::io::Write;
use std::process::Command;

use super::eventually;
use super::heavy::Permit;

/// Set in the process inside the namespace, to the name of the test.
const INSIDE: &str = "UDISPATCH_TEST_NAMESPACE";
/// The beginning of a line that reports a test, or a part of one, that did not run.
const SKIPPED: &str = "SKIPPED: ";
/// Names the file to which each of those lines is appended, so that a script can count them.
const SKIPPED_FILE: &str = "UDISPATCH_TEST_SKIPPED";

/// The first statement of a test: what follows runs in a network namespace of its own, with loopback up.
///
/// ```ignore
/// /// Says what the test proves.
/// #[test]
/// fn a_small_link() {
///     netns_test!(needs = ["ip", "nft"]);
///     // Here the test is alone on its network, as root of it.
/// }
/// ```
///
/// The statement starts the test program again under `unshare` (util-linux), for this one test, and returns from the
/// function when that has ended, with the same outcome. The test is therefore also alone in its process: it may
/// change the environment, limits and signal handlers.
///
/// `needs` lists programs that the test runs. Where one is missing, the test is skipped, which is written to standard
/// error; under `CI` the test fails. `with` adds to the namespace:
///
/// - `mounts`: mounts of its own, so that files such as `/etc/hosts` can be replaced for the test;
/// - `root`: mounts of its own, and the host's users, for programs that change theirs. Such a test is skipped without
///   root, and fails under `CI`;
/// - `heavy`: a permit, because the test takes all processors (`common::heavy`).
///
/// It is a statement rather than a block around the test, so that rustfmt and editors see an ordinary `#[test]`.
macro_rules! netns_test {
    ($(needs = [$($program:literal),+ $(,)?])? $(,)? $(with = [$($addition:ident),+ $(,)?])?) => {
        let namespace = $crate::common::namespace::Namespace::of($crate::common::namespace::this_test!());
        $(let namespace = namespace.needs(&[$($program),+]);)?
        $($(let namespace = namespace.$addition();)+)?
        if !namespace.enter() {
            return;
        }
    };
}
pub(crate) use netns_test;

/// The name by which libtest knows the test that this is written in: `module::function`.
macro_rules! this_test {
    () => {
        $crate::common::namespace::test_name(std::any::type_name_of_val(&|| ()))
    };
}
pub(crate) use this_test;

/// The name of a test, from the type of a closure in it: `it::module::function::{{closure}}`.
pub fn test_name(closure: &'static str) -> &'static str {
    let function = closure.split("::{{closure}}").next().unwrap_or(closure);
    function
        .split_once("::")
        .expect("the program's name comes first")
        .1
}

/// A command that runs this program again for one test, by way of another program unless `wrapper` is empty.
pub fn again(wrapper: &[&str], test: &str) -> Command {
    let this = env::current_exe().expect("the test program's path");
    let mut command = match wrapper.split_first() {
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments).arg(this);
            command
        }
        None => Command::new(this),
    };
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command
}

/// Where a test runs, and what it needs. Made by [`netns_test!`].
pub struct Namespace {
    test: &'static str,
    programs: &'static [&'static str],
    has_mounts: bool,
    is_root: bool,
    is_heavy: bool,
}

impl Namespace {
    /// A namespace for this test.
    pub fn of(test: &'static str) -> Namespace {
        Namespace {
            test,
            programs: &[],
            has_mounts: false,
            is_root: false,
            is_heavy: false,
        }
    }

    /// Names the programs that the test runs.
    pub fn needs(self, programs: &'static [&'static str]) -> Namespace {
        Namespace { programs, ..self }
    }

    /// Gives the test mounts of its own.
    pub fn mounts(self) -> Namespace {
        Namespace {
            has_mounts: true,
            ..self
        }
    }

    /// Gives the test mounts of its own and the host's users.
    pub fn root(self) -> Namespace {
        Namespace {
            is_root: true,
            ..self
        }
    }

    /// Lets only a few such tests run at a time.
    pub fn heavy(self) -> Namespace {
        Namespace {
            is_heavy: true,
            ..self
        }
    }

    /// Returns whether this process is inside the namespace, so that the test has to run. Outside, runs the test in a
    /// new namespace first, or skips it.
    pub fn enter(self) -> bool {
        if env::var(INSIDE).as_deref() == Ok(self.test) {
            bring_loopback_up();
            return true;
        }
        if self.can_run() {
            let _permit = self.is_heavy.then(Permit::take);
            self.run();
        }
        false
    }

    fn can_run(&self) -> bool {
        if let Some(missing) = self.programs.iter().find(|program| !is_installed(program)) {
            skip(self.test, &format!("{missing} is not installed"));
            return false;
        }
        // SAFETY: geteuid has no preconditions and cannot fail.
        if self.is_root && unsafe { libc::geteuid() } != 0 {
            skip(self.test, "it needs root");
            return false;
        }
        true
    }

    fn run(&self) {
        let flags = match (self.is_root, self.has_mounts) {
            (true, _) => "-nm",
            (false, true) => "-rnm",
            (false, false) => "-rn",
        };
        let test = self.test;
        let output = again(&["unshare", flags, "--"], test)
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
        // A name that libtest does not know would be filtered out, and pass without running.
        assert!(
            text.contains("1 passed"),
            "{test} did not run in its namespace:\n{text}"
        );
        text.lines()
            .filter(|line| line.starts_with(SKIPPED))
            .for_each(announce);
        print!("{text}");
    }
}

/// Reports that a test does not run for lack of something that CI must have: under `CI` the test fails.
pub fn skip(test: &str, reason: &str) {
    assert!(
        env::var_os("CI").is_none(),
        "{test} cannot run, and CI must run it: {reason}"
    );
    announce(&format!("{SKIPPED}{test}: {reason}"));
}

/// Reports that a test does not run for lack of something that a machine of CI may lack, too.
pub fn skip_even_in_ci(test: &str, reason: &str) {
    announce(&format!("{SKIPPED}{test}: {reason}"));
}

/// Writes a line to standard error itself, because libtest captures what a passing test prints by `println!`. The line
/// also goes to the file in which such lines are counted.
fn announce(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
    let file = env::var_os(SKIPPED_FILE);
    // Inside a namespace, the process outside reads the line and counts it.
    if let Some(file) = file.filter(|_| env::var_os(INSIDE).is_none()) {
        let file = OpenOptions::new().create(true).append(true).open(file);
        let mut file = file.expect("the file that counts skipped tests");
        file.write_all(format!("{line}\n").as_bytes())
            .expect("the line is counted");
    }
}

fn is_installed(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output();
    found.is_ok_and(|output| output.status.success())
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

/// Gives loopback an IPv6 address, which can be used when this returns.
pub fn add_address(ip: &str) {
    run(&format!("ip -6 addr add {ip}/128 dev lo nodad"));
    wait_for_route(ip);
}

/// Waits until the kernel delivers what is sent to an IPv6 address of its own. It adds the local route some time after
/// the address (addrconf_dad_work), and reports "no route" until then.
pub fn wait_for_route(ip: &str) {
    /// RTF_LOCAL of linux/ipv6_route.h.
    const LOCAL: u32 = 0x8000_0000;
    let ip: std::net::Ipv6Addr = ip.parse().expect("an IPv6 address");
    let beginning = format!("{:032x} 80 ", u128::from(ip));
    eventually(format!("a local route to {ip}"), || {
        let routes = std::fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap();
        let flags = |line: &str| u32::from_str_radix(line.split_whitespace().nth(8)?, 16).ok();
        routes
            .lines()
            .filter(|line| line.starts_with(&beginning))
            .filter_map(flags)
            .any(|flags| flags & LOCAL != 0)
    });
}

/// Brings loopback up as `ip link set lo up` does, for machines without iproute2 (netdevice(7)).
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

/// Returns the index of the interface with this name, if there is one.
pub fn index_of(name: &str) -> Option<u32> {
    let interfaces = udispatch::net::interfaces::list().ok()?;
    let interface = interfaces
        .into_iter()
        .find(|interface| interface.name == name)?;
    Some(interface.index)
}
