//! The listening sockets for clients: the control socket, and a TCP socket if the file requests one. They are bound
//! before the daemon binds anything else, so that a second daemon detects the first and changes nothing.

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

/// The mode of the control socket: its owner and its group may connect.
const MODE: u32 = 0o660;
/// Number of connections that may wait to be accepted.
const BACKLOG: i32 = 128;
/// Longest wait for another daemon that is about to bind in the same directory.
const LOCK_MAX: Duration = Duration::from_secs(2);
/// Time between two attempts to take the lock.
const LOCK_STEP: Duration = Duration::from_millis(10);
/// Longest wait for the response of a running daemon that identifies it.
const IDENTIFY_MAX: Duration = Duration::from_secs(2);

/// The listening sockets.
#[derive(Debug, Default)]
pub struct AdminListeners {
    /// The control socket.
    pub(super) control: Option<ControlListener>,
    /// The TCP socket.
    pub(super) http: Option<TcpListener>,
    /// Host names that clients may use for the TCP socket, besides its address and localhost.
    pub(super) hosts: Vec<String>,
}

/// A control socket, and the file that belongs to it.
#[derive(Debug)]
pub(super) struct ControlListener {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket's file.
    file: Option<(u64, u64)>,
    /// Whether the file is removed when this value is dropped.
    is_ours: AtomicBool,
}

/// The result of binding: the sockets, and the reasons for those that are missing.
#[derive(Debug, Default)]
pub struct BoundListeners {
    /// The sockets that are bound.
    pub listeners: AdminListeners,
    /// A sentence that says why the control socket is missing although it is configured.
    pub control_problem: Option<String>,
    /// A sentence that says why the TCP socket is missing although it is configured.
    pub http_problem: Option<String>,
}

/// Longest wait for the process that was taken over to release an HTTP port, and the time between two attempts.
const RELEASE_MAX: Duration = Duration::from_secs(1);
const RELEASE_STEP: Duration = Duration::from_millis(20);

impl BoundListeners {
    /// Tries again to bind an HTTP port that was in use. The process that was taken over may have used the port with another
    /// address, and releases it now.
    pub fn try_http_again(&mut self, address: Option<SocketAddr>) {
        let deadline = Instant::now() + RELEASE_MAX;
        while let (Some(address), Some(_)) = (address, &self.http_problem) {
            match bind_http(address) {
                Ok(listener) => (self.listeners.http, self.http_problem) = (Some(listener), None),
                Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                    thread::sleep(RELEASE_STEP);
                }
                Err(_) => return,
            }
        }
    }
}

/// Another daemon serves the control socket.
#[derive(Debug, thiserror::Error)]
#[error(
    "{daemon} serves the control socket {}. To take its sockets over without losing a datagram, add `--takeover`; to run beside \
     it, set another path for this one: `control = \"/another/path\"` below [daemon] (or `control = false`)",
    path.display()
)]
pub struct Taken {
    /// A description of the other daemon.
    pub daemon: String,
    /// The path of the socket.
    pub path: PathBuf,
}

impl AdminListeners {
    /// Binds the sockets that the file requests. Failures are only recorded in the result, since datagrams flow without a
    /// control socket; the exception is a control socket that another daemon serves.
    ///
    /// # Errors
    ///
    /// Returns [`Taken`] if another daemon serves the control socket.
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

    /// Uses sockets that another process has bound and listens on. `control` is the control socket with its path. The TCP
    /// socket is used only if the file still requests its address. The control socket's file belongs to the other
    /// process until [`Admin::start`](super::Admin::start).
    ///
    /// # Errors
    ///
    /// Returns [`Taken`] if a control socket must be bound and another daemon serves it.
    pub fn inherit(
        daemon: &Daemon,
        control: Option<(OwnedFd, PathBuf)>,
        http: Option<OwnedFd>,
    ) -> Result<BoundListeners, Taken> {
        let control = control.map(|(fd, path)| {
            let listener = fd.into();
            let file = identity(&path).ok();
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

    /// Returns the sockets, for a process that takes over: the control socket, and the TCP socket.
    pub fn as_fds(&self) -> (Option<BorrowedFd<'_>>, Option<BorrowedFd<'_>>) {
        (
            self.control
                .as_ref()
                .map(|control| control.listener.as_fd()),
            self.http.as_ref().map(AsFd::as_fd),
        )
    }

    /// Returns the path of the control socket.
    pub fn control_path(&self) -> Option<&Path> {
        self.control.as_ref().map(|control| control.path.as_path())
    }

    /// Returns the address at which HTTP is served over TCP.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().and_then(|http| http.local_addr().ok())
    }

    /// Sets whether the control socket's file is removed when this value is dropped.
    pub(super) fn own(&self, is_ours: bool) {
        if let Some(control) = &self.control {
            control.is_ours.store(is_ours, Ordering::Relaxed);
        }
    }
}

impl Drop for ControlListener {
    /// Removes the file if it is still that of this socket.
    fn drop(&mut self) {
        let is_ours = self.is_ours.load(Ordering::Relaxed) && self.file.is_some();
        if is_ours && identity(&self.path).ok() == self.file {
            // If the file cannot be removed, the next daemon finds that no process listens there.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Returns device and inode of a file. Another file at the same path has another inode.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

fn bind_control(path: &Path) -> Result<io::Result<ControlListener>, Taken> {
    // If two daemons start at once, one waits here and then finds the other.
    let _lock = match lock(path) {
        Ok(lock) => lock,
        Err(error) => return Ok(Err(error)),
    };
    match UnixStream::connect(path) {
        Ok(_) => {
            return Err(Taken {
                daemon: describe_daemon(path),
                path: path.to_owned(),
            });
        }
        // No process listens on the socket, so its file was left over.
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
        // A full queue means that a process owns the socket.
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            return Err(Taken {
                daemon: describe_daemon(path),
                path: path.to_owned(),
            });
        }
        Err(_) => {}
    }
    Ok(listen(path))
}

/// Takes a lock that keeps other daemons from binding in the same directory while it is held.
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
                    "another process has locked its directory for a long time",
                ));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

fn listen(path: &Path) -> io::Result<ControlListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The file gets the mode of the socket, less the umask (unix_bind_bsd in net/unix/af_unix.c). There is therefore no
    // moment at which other users may connect.
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

/// Describes the daemon that serves a socket.
fn describe_daemon(path: &Path) -> String {
    let response = Client::new(path.to_owned(), IDENTIFY_MAX).get("/status");
    match response
        .ok()
        .and_then(|response| serde_json::from_slice::<Snapshot>(&response.body).ok())
    {
        Some(snapshot) => format!(
            "udispatch {} with process id {}, which runs {},",
            snapshot.version, snapshot.pid, snapshot.config_file
        ),
        None => "a process that does not identify itself".to_owned(),
    }
}

fn explain_control(path: &Path, error: &io::Error) -> String {
    let what = format!(
        "cannot create the control socket {}: {error}",
        path.display()
    );
    let cure = match error.kind() {
        ErrorKind::NotFound => {
            "create its directory, or set `control` below [daemon] to another path"
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "give this user write permission for its directory, or set `control` below [daemon] to another path"
        }
        ErrorKind::AlreadyExists | ErrorKind::AddrInUse => {
            "remove that file, or set `control` below [daemon] to another path"
        }
        _ => "set `control` below [daemon] to another path",
    };
    format!(
        "{what}; {cure}. Without it `udispatch status`, `reload` and similar commands do not work"
    )
}

fn bind_http(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, None)?;
    // Connections of a daemon that has just ended do not block the port.
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
        ErrorKind::AddrInUse => "stop the program that uses the port, or write another one",
        ErrorKind::AddrNotAvailable => "write an address of this host",
        ErrorKind::PermissionDenied => "write a port above 1023",
        _ => "write another address or port",
    };
    format!("cannot serve HTTP on {address}: {error}; {cure} as `http` below [daemon]")
}
