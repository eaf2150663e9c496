//! A systemd of the test's own: a container of this machine's programs, in the network namespace of the test, that runs
//! the unit as packages install it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use udispatch::observe::snapshot::Snapshot;

use super::namespace::{run, skip_even_in_ci};
use super::restart::process;
use super::{Lazy, eventually_within};

/// Longest wait for a systemd to start or to stop.
const BOOT_MAX: Duration = Duration::from_secs(60);

/// A running systemd.
pub struct Systemd {
    nspawn: Child,
    init: u32,
    directory: tempfile::TempDir,
    /// Removed after all processes in them have ended.
    _groups: ControlGroups,
}

impl Systemd {
    /// Boots a systemd with this configuration, and with these lines added to the unit's `[Service]`. The test needs
    /// mounts of its own. Returns `None`, and reports the test as skipped, if none starts on this machine, as in most
    /// containers.
    pub fn boot(test: &str, config: &str, service: &str) -> Option<Systemd> {
        let directory = tempfile::tempdir().expect("a directory");
        furnish(directory.path(), config, service).expect("the container's files are written");
        // systemd-nspawn registers its containers in this directory, so the test has its own.
        run("mount -t tmpfs tmpfs /run");
        let log = fs::File::create(directory.path().join("console")).expect("a file");
        let groups = ControlGroups::make();
        let mut nspawn = groups
            .command("systemd-nspawn")
            .arg("-D")
            .arg(directory.path().join("root"))
            .arg(format!(
                "--overlay=/usr:{}:/usr",
                directory.path().join("usr").display()
            ))
            .arg(format!(
                "--network-namespace-path=/proc/{}/ns/net",
                std::process::id()
            ))
            .args([
                "--register=no",
                "--keep-unit",
                "--kill-signal=SIGRTMIN+3",
                "--console=pipe",
                "--boot",
            ])
            .arg("systemd.unit=udispatch.service")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .spawn()
            .expect("systemd-nspawn (systemd-container) starts");
        let deadline = Instant::now() + BOOT_MAX;
        while Instant::now() < deadline && nspawn.try_wait().expect("it is our child").is_none() {
            thread::sleep(Duration::from_millis(100));
            let Some(init) = child_of(nspawn.id()) else {
                continue;
            };
            let state = inside(init, &["systemctl", "is-system-running"]).stdout;
            if matches!(
                String::from_utf8_lossy(&state).trim(),
                "running" | "degraded"
            ) {
                return Some(Systemd {
                    nspawn,
                    init,
                    directory,
                    _groups: groups,
                });
            }
        }
        let console = fs::read_to_string(directory.path().join("console")).unwrap_or_default();
        println!("the console of the container that does not come up:\n{console}");
        skip_even_in_ci(test, "no systemd comes up in a container on this machine");
        let _ = nspawn.kill();
        let _ = nspawn.wait();
        None
    }

    /// Runs a program in the container.
    pub fn run(&self, command: &str) -> Output {
        inside(self.init, &command.split_whitespace().collect::<Vec<_>>())
    }

    /// Runs a program in the container, which must succeed, and returns what it prints.
    pub fn output_of(&self, command: &str) -> String {
        let output = self.run(command);
        assert!(
            output.status.success(),
            "{command}: {output:?}\n{}",
            self.journal()
        );
        String::from_utf8(output.stdout)
            .expect("text")
            .trim()
            .to_owned()
    }

    /// A property of the unit.
    pub fn property(&self, name: &str) -> String {
        self.output_of(&format!(
            "systemctl show udispatch --value --property {name}"
        ))
    }

    /// A property of the unit that is a number.
    pub fn number(&self, name: &str) -> u32 {
        self.property(name).parse().expect("a number")
    }

    /// Waits until a property of the unit has this value.
    pub fn wait_for(&self, property: &str, value: &str) {
        self.wait_until(property, |is| is == value);
    }

    /// Waits until a property of the unit has another value than this.
    pub fn wait_for_another(&self, property: &str, value: &str) {
        self.wait_until(property, |is| is != value);
    }

    fn wait_until(&self, property: &str, is_right: impl Fn(&str) -> bool) {
        eventually_within(BOOT_MAX, property, || {
            let is = self.property(property);
            if is_right(&is) {
                return Ok(());
            }
            Err(Lazy(move || {
                format!("it is still {is}\n{}", self.journal())
            }))
        });
    }

    /// The daemon's snapshot.
    pub fn status(&self) -> Snapshot {
        serde_json::from_str(&self.output_of("udispatch status --json")).expect("a snapshot")
    }

    /// The log of the unit so far.
    pub fn journal(&self) -> String {
        let output = self.run("journalctl --unit udispatch --output cat --no-pager");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The path of a file in the container, as seen from outside.
    pub fn file(&self, path: &str) -> PathBuf {
        self.directory.path().join("root").join(path)
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        // It shuts down all that runs in the container.
        let _ = kill_process(process(self.nspawn.id()), Signal::TERM);
        let deadline = Instant::now() + BOOT_MAX;
        while self.nspawn.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < deadline
        {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.nspawn.kill();
        let _ = self.nspawn.wait();
    }
}

/// Lays out a root with the files of the package. Its `/usr` will be that of this machine.
fn furnish(directory: &Path, config: &str, service: &str) -> std::io::Result<()> {
    let root = directory.join("root");
    let usr = directory.join("usr");
    for path in [
        "dev",
        "proc",
        "run",
        "sys",
        "tmp",
        "usr",
        "var",
        "etc/udispatch",
        "etc/systemd/system/udispatch.service.d",
    ] {
        fs::create_dir_all(root.join(path))?;
    }
    for path in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{path}"), root.join(path))?;
    }
    fs::write(root.join("etc/os-release"), "ID=test\n")?;
    // Without this file it would be the first boot, at which systemd enables every unit that is installed on this
    // machine.
    fs::write(root.join("etc/machine-id"), format!("{:032x}\n", 0x5eed))?;
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")?;
    fs::write(root.join("etc/udispatch/udispatch.toml"), config)?;
    fs::write(
        root.join("etc/systemd/system/udispatch.service.d/test.conf"),
        format!("[Service]\n{service}\n"),
    )?;
    for path in ["bin", "lib/systemd/system", "lib/sysusers.d"] {
        fs::create_dir_all(usr.join(path))?;
    }
    fs::copy(env!("CARGO_BIN_EXE_udispatch"), usr.join("bin/udispatch"))?;
    fs::copy(
        "packaging/systemd/udispatch.service",
        usr.join("lib/systemd/system/udispatch.service"),
    )?;
    fs::copy(
        "packaging/systemd/udispatch.socket.example",
        usr.join("lib/systemd/system/udispatch.socket"),
    )?;
    fs::copy(
        "packaging/sysusers.d/udispatch.conf",
        usr.join("lib/sysusers.d/udispatch.conf"),
    )?;
    Ok(())
}

/// The only child of a process.
fn child_of(pid: u32) -> Option<u32> {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .ok()?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// Runs a program in the namespaces of the first process of a container.
fn inside(init: u32, words: &[&str]) -> Output {
    let target = format!("--target={init}");
    let namespaces = [
        "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--",
    ];
    let mut command = Command::new("nsenter");
    command
        .arg(target)
        .args(namespaces)
        .args(words)
        .stdin(Stdio::null())
        .env_clear()
        .env("PATH", "/usr/bin:/usr/sbin");
    command.output().expect("`nsenter` (util-linux)")
}

/// Control groups of the container, below those of the test, one in each hierarchy that systemd uses. They keep two
/// containers on one machine apart in the groups that systemd-nspawn makes.
struct ControlGroups(Vec<PathBuf>);

impl ControlGroups {
    fn make() -> ControlGroups {
        let ours = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mut made = Vec::new();
        for line in ours.lines() {
            // The format is hierarchy:controllers:path (cgroups(7)).
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
                continue;
            };
            let roots: &[&str] = match controllers {
                "" => &["/sys/fs/cgroup", "/sys/fs/cgroup/unified"],
                "name=systemd" => &["/sys/fs/cgroup/systemd"],
                _ => continue,
            };
            let below = format!("udispatch-test-{}", std::process::id());
            made.extend(
                roots
                    .iter()
                    .map(|root| Path::new(root).join(path.trim_start_matches('/')))
                    .filter(|ours| ours.join("cgroup.procs").exists())
                    .map(|ours| ours.join(&below))
                    .filter(|group| fs::create_dir(group).is_ok()),
            );
        }
        ControlGroups(made)
    }

    /// A command that starts a program in these groups.
    fn command(&self, program: &str) -> Command {
        let script = "program=$1; shift; for group in $GROUPS_OF_TEST; do echo $$ > $group/cgroup.procs; done; exec $program \"$@\"";
        let groups: Vec<_> = self.0.iter().map(|group| group.to_string_lossy()).collect();
        let mut command = Command::new("sh");
        command
            .args(["-c", script, "sh", program])
            .env("GROUPS_OF_TEST", groups.join(" "));
        command
    }
}

impl Drop for ControlGroups {
    fn drop(&mut self) {
        // systemd-nspawn does not remove its own groups.
        for group in &self.0 {
            for below in ["payload/init.scope", "payload", "supervisor", ""] {
                let _ = fs::remove_dir(group.join(below));
            }
        }
    }
}
