//! Network and process namespaces for the soak, where the system allows them. Nothing else is disturbed, and all
//! processes end with the soak.

use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The environment variable that is set for the program inside the namespaces.
const INSIDE: &str = "UDISPATCH_SOAK_INSIDE";

/// Runs this program again in namespaces of its own, and does not return then. Otherwise it returns whether this
/// process is inside.
pub fn enter() -> io::Result<bool> {
    if env::var_os(INSIDE).is_some() {
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        return match up {
            Ok(status) if status.success() => Ok(true),
            _ => Err(io::Error::other(
                "`ip link set lo up` (iproute2) fails; use --host to run without a network of its own",
            )),
        };
    }
    let is_root = rustix::process::geteuid().is_root();
    // All processes that `unshare` has started end with it.
    let flags = if is_root { "-npf" } else { "-rnpf" };
    let works = Command::new("unshare")
        .args([flags, "--kill-child", "true"])
        .output();
    if !works.is_ok_and(|output| output.status.success()) {
        return Ok(false);
    }
    let error = Command::new("unshare")
        .args([flags, "--kill-child", "--"])
        .arg(env::current_exe()?)
        .args(env::args_os().skip(1))
        .env(INSIDE, "1")
        .exec();
    Err(error)
}
