//! The forwarders that are compared, each as a process of its own, pinned to one processor and ended with the value that holds it.

use crate::cell::Cell;
use crate::sys;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Every subject, the yardstick first; the others as they are fastest. nginx appears twice: `proxy_responses 0` is how one tells it
/// that nobody answers, and makes a session of every datagram. udispatch too: with `ttl = 64` it need not ask for the TTL of
/// each datagram, and loops are not damped.
pub(crate) const SUBJECTS: [Subject; 6] = [
    Subject { name: "by hand", fans_out: true, command: by_hand },
    Subject { name: "udispatch", fans_out: true, command: |setup| udispatch(setup, "") },
    Subject { name: "udispatch, ttl = 64", fans_out: true, command: |setup| udispatch(setup, "ttl = 64\n") },
    Subject { name: "socat", fans_out: false, command: socat },
    Subject { name: "nginx", fans_out: false, command: |setup| nginx(setup, "") },
    Subject { name: "nginx, responses 0", fans_out: false, command: |setup| nginx(setup, "proxy_responses 0;") },
];

/// How long a subject may take to end after SIGTERM.
const END_LIMIT: Duration = Duration::from_secs(2);

/// One forwarder: its name in the report, whether it can forward to several upstreams, and the command that starts it.
#[derive(Clone, Copy)]
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    fans_out: bool,
    command: fn(&Setup) -> io::Result<Command>,
}

/// What a forwarder is to do.
struct Setup<'a> {
    listen: SocketAddr,
    upstreams: &'a [SocketAddr],
    /// An empty folder for its configuration.
    folder: &'a Path,
    /// The largest receive buffer that setsockopt grants without privilege, in bytes.
    receive_buffer: usize,
}

impl Subject {
    pub(crate) fn suits(&self, cell: &Cell) -> bool {
        self.fans_out || cell.fanout == 1
    }

    /// Starts the forwarder on `cpu`; the error is the reason why it is absent.
    pub(crate) fn start(&self, upstreams: &[SocketAddr], cpu: usize) -> io::Result<Running> {
        let folder = tempfile::tempdir()?;
        let listen = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let rmem_max = fs::read_to_string("/proc/sys/net/core/rmem_max")?;
        let receive_buffer = rmem_max.trim().parse().map_err(io::Error::other)?;
        let mut command = (self.command)(&Setup { listen, upstreams, folder: folder.path(), receive_buffer })?;
        let log = File::create(folder.path().join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        sys::pinned_child(&mut command, cpu);
        let child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => io::Error::other("not installed"),
            _ => error,
        })?;
        Ok(Running { child, listen, folder })
    }
}

/// A forwarder's process.
pub(crate) struct Running {
    child: Child,
    pub(crate) listen: SocketAddr,
    folder: tempfile::TempDir,
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error, with the last thing it said, if the forwarder has ended by itself.
    pub(crate) fn check_alive(&mut self) -> io::Result<()> {
        let Some(status) = self.child.try_wait()? else {
            return Ok(());
        };
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let last = log.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        Err(io::Error::other(format!("ended with {status}: {last}")))
    }
}

impl Drop for Running {
    /// SIGTERM, so that the forwarder ends as it does in service; SIGKILL if it does not.
    fn drop(&mut self) {
        // SIGCONT too: an error may have left it stopped.
        let _ = sys::signal(self.pid(), libc::SIGTERM);
        let _ = sys::signal(self.pid(), libc::SIGCONT);
        let limit = Instant::now() + END_LIMIT;
        while Instant::now() < limit {
            match self.child.try_wait() {
                Ok(None) => thread::sleep(Duration::from_millis(2)),
                _ => return,
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn by_hand(setup: &Setup) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("by-hand").arg(setup.listen.to_string()).args(setup.upstreams.iter().map(ToString::to_string));
    Ok(command)
}

fn udispatch(setup: &Setup, settings: &str) -> io::Result<Command> {
    let upstreams: Vec<_> = setup.upstreams.iter().map(|upstream| format!("\"{upstream}\"")).collect();
    let config = format!(
        "[[route]]\ndestination = \"{}\"\nhandler = \"out\"\n[handler.out]\nkind = \"forward\"\nupstreams = [{}]\npick = \"all\"\n{settings}",
        setup.listen,
        upstreams.join(", ")
    );
    let file = setup.folder.join("udispatch.toml");
    fs::write(&file, config)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_udispatch"));
    command.arg("run").arg(file).args(["--workers", "1"]);
    Ok(command)
}

fn socat(setup: &Setup) -> io::Result<Command> {
    let mut command = Command::new("socat");
    let (listen, buffer) = (setup.listen, setup.receive_buffer);
    command.args(["-u", "-b65536"]);
    command.arg(format!("UDP4-RECV:{},bind={},rcvbuf={buffer}", listen.port(), listen.ip()));
    command.arg(format!("UDP4:{}", setup.upstreams[0]));
    Ok(command)
}

fn nginx(setup: &Setup, session: &str) -> io::Result<Command> {
    const MODULES: [&str; 3] = [
        "/usr/lib/nginx/modules/ngx_stream_module.so",
        "/usr/lib64/nginx/modules/ngx_stream_module.so",
        "/usr/libexec/nginx/ngx_stream_module.so",
    ];
    // Where no such file lies, the module is built in, or nginx says that it is not.
    let load = MODULES
        .iter()
        .find(|path| Path::new(path).exists())
        .map(|path| format!("load_module {path};"))
        .unwrap_or_default();
    let (folder, listen, upstream, buffer) =
        (setup.folder.display(), setup.listen, setup.upstreams[0], setup.receive_buffer);
    let config = format!(
        "{load}\ndaemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log {folder}/log error;\n\
         events {{ worker_connections 4096; multi_accept on; }}\n\
         stream {{ server {{ listen {listen} udp rcvbuf={buffer}; proxy_pass {upstream}; {session} }} }}\n"
    );
    let file = setup.folder.join("nginx.conf");
    fs::write(&file, config)?;
    let mut command = Command::new("nginx");
    command.arg("-e").arg(setup.folder.join("log")).arg("-p").arg(setup.folder).arg("-c").arg(file);
    Ok(command)
}
