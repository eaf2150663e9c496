//! The sockets by which clients come: the control socket, and TCP where the file asks for it. Bound before the daemon binds
//! anything else, so that a second daemon is told who runs there and changes nothing.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::client::Client;
use crate::config::{ControlSocket, Daemon};
use crate::observe::snapshot::Snapshot;
use crate::supervisor::control_path::{NoControl, Places, control_path};

/// Who may connect to the control socket: its owner and its group.
const MODE: u32 = 0o660;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;
/// Longest wait for another daemon that is about to bind in the same directory.
const LOCK_MAX: Duration = Duration::from_secs(2);
/// Time between two tries.
const LOCK_STEP: Duration = Duration::from_millis(10);
/// Longest wait for who runs there to say its name.
const WHO_MAX: Duration = Duration::from_secs(2);

/// The sockets.
#[derive(Debug, Default)]
pub struct AdminListeners {
    /// The control socket.
    pub(super) control: Option<ControlListener>,
    /// The TCP socket.
    pub(super) http: Option<TcpListener>,
    /// Names by which the TCP socket may be asked, besides its address and localhost.
    pub(super) hosts: Vec<String>,
}

/// A control socket, and which file is its.
#[derive(Debug)]
pub(super) struct ControlListener {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// Device and inode.
    file: Option<(u64, u64)>,
    /// Whether the file goes when the socket does.
    is_ours: AtomicBool,
}

/// What became of binding: the sockets that there are, and what is to be known of the others.
#[derive(Debug, Default)]
pub struct BoundListeners {
    /// The sockets.
    pub listeners: AdminListeners,
    /// Why there is no control socket although there should be, as a sentence.
    pub control_problem: Option<String>,
    /// Why there is no TCP socket although there should be, as a sentence.
    pub http_problem: Option<String>,
}

/// Longest wait for the process that was taken over to leave an HTTP port, and the time between two tries.
const LEAVE_MAX: Duration = Duration::from_secs(1);
const LEAVE_STEP: Duration = Duration::from_millis(20);

impl BoundListeners {
    /// Tries the HTTP port again that could not be had: the process that was taken over may have had it, for another address,
    /// and leaves it now.
    pub fn try_http_again(&mut self, address: Option<SocketAddr>) {
        let deadline = Instant::now() + LEAVE_MAX;
        while let (Some(address), Some(_)) = (address, &self.http_problem) {
            match bind_http(address) {
                Ok(listener) => (self.listeners.http, self.http_problem) = (Some(listener), None),
                Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                    thread::sleep(LEAVE_STEP);
                }
                Err(_) => return,
            }
        }
    }
}

/// Another daemon runs there.
#[derive(Debug, thiserror::Error)]
#[error(
    "{who} serves the control socket {}. To take its sockets over without losing a datagram, add `--takeover`; to run beside \
     it, give this one a socket of its own: `control = \"/another/path\"` below [daemon] (or `control = false`)",
    path.display()
)]
pub struct Taken {
    /// Who, in words.
    pub who: String,
    /// The socket's path.
    pub path: PathBuf,
}

impl AdminListeners {
    /// Binds what the file asks for. Only another daemon at the same place is an error: without a control socket datagrams
    /// flow all the same.
    pub fn bind(daemon: &Daemon) -> Result<BoundListeners, Taken> {
        let mut bound = BoundListeners::default();
        match control_path(&daemon.control, &Places::this()) {
            Ok(path) => match bind_control(&path)? {
                Ok(control) => bound.listeners.control = Some(control),
                Err(error) => bound.control_problem = Some(explain_control(&path, &error)),
            },
            Err(NoControl::Off) => {}
            Err(error) => bound.control_problem = Some(error.to_string()),
        }
        bound.listeners.hosts = daemon.http_hosts.clone();
        if let Some(address) = daemon.http {
            match bind_http(address) {
                Ok(listener) => bound.listeners.http = Some(listener),
                Err(error) => bound.http_problem = Some(explain_http(address, &error)),
            }
        }
        Ok(bound)
    }

    /// The same around sockets that another process has bound and listens on; the control socket with its path. The TCP one
    /// is of use only where the file still asks for its address. The control socket's file stays the other's until
    /// [`Admin::start`](super::Admin::start).
    pub fn go_on(
        daemon: &Daemon,
        control: Option<(OwnedFd, PathBuf)>,
        http: Option<OwnedFd>,
    ) -> Result<BoundListeners, Taken> {
        let control = control.map(|(fd, path)| {
            let (listener, file) = (fd.into(), identity(&path).ok());
            ControlListener {
                listener,
                path,
                file,
                is_ours: AtomicBool::new(false),
            }
        });
        let http = http
            .map(TcpListener::from)
            .filter(|http| http.local_addr().ok() == daemon.http);
        let missing = Daemon {
            http: daemon.http.filter(|_| http.is_none()),
            ..daemon.clone()
        };
        let missing = if control.is_some() {
            Daemon {
                control: ControlSocket::Off,
                ..missing
            }
        } else {
            missing
        };
        let mut bound = AdminListeners::bind(&missing)?;
        bound.listeners.control = control.or(bound.listeners.control);
        bound.listeners.http = http.or(bound.listeners.http);
        Ok(bound)
    }

    /// The sockets, for a process that takes over: the control socket, and the TCP one.
    pub fn as_fds(&self) -> (Option<BorrowedFd<'_>>, Option<BorrowedFd<'_>>) {
        (
            self.control
                .as_ref()
                .map(|control| control.listener.as_fd()),
            self.http.as_ref().map(AsFd::as_fd),
        )
    }

    /// Where the control socket is.
    pub fn control_path(&self) -> Option<&Path> {
        self.control.as_ref().map(|control| control.path.as_path())
    }

    /// Where HTTP is served over TCP.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().and_then(|http| http.local_addr().ok())
    }

    /// Says whether the control socket's file goes when these do.
    pub(super) fn own(&self, is_ours: bool) {
        if let Some(control) = &self.control {
            control.is_ours.store(is_ours, Ordering::Relaxed);
        }
    }
}

impl Drop for ControlListener {
    /// Removes the file if it is still ours.
    fn drop(&mut self) {
        let is_ours = self.is_ours.load(Ordering::Relaxed) && self.file.is_some();
        if is_ours && identity(&self.path).ok() == self.file {
            // If it cannot be removed, the next daemon finds that nobody answers there.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Which file a path means: another one under the same path has another number.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

fn bind_control(path: &Path) -> Result<io::Result<ControlListener>, Taken> {
    // Two that start at once: one waits here, and then finds the other.
    let _lock = match lock(path) {
        Ok(lock) => lock,
        Err(error) => return Ok(Err(error)),
    };
    match UnixStream::connect(path) {
        Ok(_) => {
            return Err(Taken {
                who: who(path),
                path: path.to_owned(),
            });
        }
        // Nobody listens there: it was left over.
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            let is_socket =
                fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
            if !is_socket {
                return Ok(Err(io::Error::new(
                    ErrorKind::AlreadyExists,
                    "another file has this name",
                )));
            }
            if let Err(error) = fs::remove_file(path) {
                return Ok(Err(error));
            }
        }
        // A queue that is full is one that somebody should empty.
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            return Err(Taken {
                who: who(path),
                path: path.to_owned(),
            });
        }
        Err(_) => {}
    }
    Ok(listen(path))
}

/// Keeps others from binding in the same directory meanwhile, as long as it is held.
fn lock(path: &Path) -> io::Result<File> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let directory = File::open(directory)?;
    let deadline = Instant::now() + LOCK_MAX;
    loop {
        match directory.try_lock() {
            Ok(()) => return Ok(directory),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(LOCK_STEP),
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other(
                    "somebody else has locked its directory for a long time",
                ));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

fn listen(path: &Path) -> io::Result<ControlListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The file gets the socket's mode without what the umask takes (unix_bind_bsd in net/unix/af_unix.c): so there is no
    // moment at which others may connect.
    File::from(socket.as_fd().try_clone_to_owned()?)
        .set_permissions(Permissions::from_mode(MODE))?;
    socket.bind(&SockAddr::unix(path)?)?;
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    socket.listen(BACKLOG)?;
    let listener = UnixListener::from(OwnedFd::from(socket));
    Ok(ControlListener {
        listener,
        path: path.to_owned(),
        file: identity(path).ok(),
        is_ours: AtomicBool::new(true),
    })
}

/// Who serves a socket, in words.
fn who(path: &Path) -> String {
    let response = Client::new(path.to_owned(), WHO_MAX).get("/status");
    match response
        .ok()
        .and_then(|response| serde_json::from_slice::<Snapshot>(&response.body).ok())
    {
        Some(snapshot) => format!(
            "udispatch {} with process id {}, which runs {},",
            snapshot.version, snapshot.pid, snapshot.config_file
        ),
        None => "a process that does not say its name".to_owned(),
    }
}

fn explain_control(path: &Path, error: &io::Error) -> String {
    let what = format!("cannot make the control socket {}: {error}", path.display());
    let cure = match error.kind() {
        ErrorKind::NotFound => {
            "make its directory, or set `control` below [daemon] to another path"
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "let this user write to its directory, or set `control` below [daemon] to another path"
        }
        ErrorKind::AlreadyExists | ErrorKind::AddrInUse => {
            "remove that file, or set `control` below [daemon] to another path"
        }
        _ => "set `control` below [daemon] to another path",
    };
    format!("{what}; {cure}. Without it `udispatch status`, `reload` and the like do not work")
}

fn bind_http(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, None)?;
    // Connections of a daemon that has just ended do not keep the port.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn explain_http(address: SocketAddr, error: &io::Error) -> String {
    let cure = match error.kind() {
        ErrorKind::AddrInUse => "stop who has that port, or write another one",
        ErrorKind::AddrNotAvailable => "write an address of this host",
        ErrorKind::PermissionDenied => "write a port above 1023",
        _ => "write another address or port",
    };
    format!("cannot serve HTTP on {address}: {error}; {cure} as `http` below [daemon]")
}
