//! The path of the control socket. The daemon makes its socket at one path; commands try several paths in turn. Nothing
//! is bound here.

use std::ffi::OsString;
use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::config::ControlSocket;
use crate::config::limits::SOCKET_PATH_BYTES_MAX;

/// The name of the socket in its directory.
pub const FILE_NAME: &str = "control.sock";

/// The directory of the system's daemon, which root creates.
const SYSTEM_DIRECTORY: &str = "/run/udispatch";

/// The environment that determines the path.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// `$RUNTIME_DIRECTORY`, which systemd sets for a unit with RuntimeDirectory= (systemd.exec(5)): absolute paths,
    /// separated by colons.
    pub runtime: Option<OsString>,
    /// The directory of the system's daemon.
    pub system: PathBuf,
    /// `$XDG_RUNTIME_DIR`, the directory of the user.
    pub user: Option<OsString>,
}

/// Why there is no control socket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoControl {
    /// The file says `control = false`.
    #[error("the configuration says `control = false`")]
    Off,
    /// No default place can be used.
    #[error(
        "cannot create the control socket: {0}. Set `control` below [daemon], or $RUNTIME_DIRECTORY"
    )]
    NoPlace(String),
}

impl Places {
    /// Returns the places of this process's environment.
    pub fn this() -> Places {
        Places {
            runtime: std::env::var_os("RUNTIME_DIRECTORY"),
            system: SYSTEM_DIRECTORY.into(),
            user: std::env::var_os("XDG_RUNTIME_DIR"),
        }
    }

    /// Returns the first path of `$RUNTIME_DIRECTORY`.
    fn runtime(&self) -> Option<PathBuf> {
        let first = std::env::split_paths(self.runtime.as_ref()?).next()?;
        first.is_absolute().then_some(first)
    }

    /// Returns the program's directory below `$XDG_RUNTIME_DIR`.
    fn user(&self) -> Option<PathBuf> {
        let user = PathBuf::from(self.user.as_ref()?);
        user.is_absolute().then(|| user.join("udispatch"))
    }
}

/// Returns the path at which the daemon makes its control socket. The directory of a default place is created if it is
/// missing. The result does not guarantee that the socket can be bound there.
///
/// # Errors
///
/// Returns [`NoControl::Off`] if the configuration turns the control socket off, and [`NoControl::NoPlace`] if no
/// default place can be used.
pub fn control_path(setting: &ControlSocket, places: &Places) -> Result<PathBuf, NoControl> {
    match setting {
        ControlSocket::Off => Err(NoControl::Off),
        ControlSocket::Path(path) => Ok(path.clone()),
        ControlSocket::Default => default_path(places),
    }
}

/// Returns the paths at which commands search for a daemon by default, the most likely one first.
pub fn default_places(places: &Places) -> Vec<PathBuf> {
    let directories = [places.runtime(), Some(places.system.clone()), places.user()];
    directories
        .into_iter()
        .flatten()
        .map(|directory| directory.join(FILE_NAME))
        .collect()
}

fn default_path(places: &Places) -> Result<PathBuf, NoControl> {
    // A daemon with $RUNTIME_DIRECTORY uses no other place, since the unit decides who may access that directory.
    if let Some(directory) = places.runtime() {
        return usable(&directory, 0o755).map_err(NoControl::NoPlace);
    }
    let system = match usable(&places.system, 0o755) {
        Ok(path) => return Ok(path),
        Err(why) => why,
    };
    match places.user() {
        // Directories below $XDG_RUNTIME_DIR belong to the user alone (XDG Base Directory Specification).
        Some(directory) => usable(&directory, 0o700)
            .map_err(|user| NoControl::NoPlace(format!("{system}; {user}"))),
        None => Err(NoControl::NoPlace(format!(
            "{system}; $XDG_RUNTIME_DIR is not set"
        ))),
    }
}

/// Returns the socket's path in a directory, if the directory exists or can be created, and this process can create
/// files in it.
fn usable(directory: &Path, mode: u32) -> Result<PathBuf, String> {
    let path = directory.join(FILE_NAME);
    if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        return Err(format!(
            "{} has more than {SOCKET_PATH_BYTES_MAX} bytes",
            path.display()
        ));
    }
    if !directory.is_dir() {
        let made = DirBuilder::new().mode(mode).create(directory);
        made.map_err(|error| format!("cannot create {}: {error}", directory.display()))?;
    }
    match is_writable(directory) {
        Ok(()) => Ok(path),
        Err(error) => Err(format!(
            "cannot create files in {}: {error}",
            directory.display()
        )),
    }
}

/// Checks whether this process can create files, by creating a file without a name. Unlike access(2), this also
/// includes the checks of the file system.
fn is_writable(directory: &Path) -> std::io::Result<()> {
    let made = OpenOptions::new()
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_TMPFILE)
        .open(directory);
    match made {
        Ok(_) => Ok(()),
        // A file system without O_TMPFILE has checked the permission before (vfs_tmpfile in fs/namei.c).
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn places(base: &Path) -> Places {
        Places {
            runtime: None,
            system: base.join("run/udispatch"),
            user: None,
        }
    }

    /// A path in the file is used as it is, and needs no directory.
    #[test]
    fn a_path_in_the_file_is_used() {
        let nowhere = Places {
            system: "/proc/no/such/place".into(),
            ..Places::default()
        };
        let path = PathBuf::from("/tmp/u.sock");
        assert_eq!(
            control_path(&ControlSocket::Path(path.clone()), &nowhere),
            Ok(path)
        );
        assert_eq!(
            control_path(&ControlSocket::Off, &nowhere),
            Err(NoControl::Off)
        );
    }

    /// $RUNTIME_DIRECTORY comes first, then the system's directory if it exists or can be created, then that of the
    /// user.
    #[test]
    fn the_first_place_that_can_be_used() {
        let base = tempfile::tempdir().expect("a directory");
        let base = base.path();
        let of = |places: &Places| control_path(&ControlSocket::Default, places);
        let mut places = places(base);
        let refused = of(&places)
            .expect_err("the directory above is missing")
            .to_string();
        assert!(
            refused.contains("run/udispatch") && refused.contains("$XDG_RUNTIME_DIR is not set"),
            "{refused}"
        );

        places.user = Some(base.as_os_str().to_owned());
        assert_eq!(of(&places), Ok(base.join("udispatch/control.sock")));
        assert!(base.join("udispatch").is_dir(), "it was created");

        fs::create_dir(base.join("run")).expect("made");
        assert_eq!(of(&places), Ok(base.join("run/udispatch/control.sock")));

        let (first, second) = (base.join("a"), base.join("b"));
        places.runtime = Some(std::env::join_paths([&first, &second]).expect("paths"));
        assert_eq!(of(&places), Ok(first.join("control.sock")));
        let all = [first, base.join("run/udispatch"), base.join("udispatch")]
            .map(|place| place.join("control.sock"));
        assert_eq!(
            default_places(&places),
            all,
            "commands try all of them, in the same order"
        );
    }

    /// A directory is skipped if no file can be created in it, or if its path is too long for a socket.
    #[test]
    fn places_that_cannot_be_used() {
        let base = tempfile::tempdir().expect("a directory");
        let user = Some(base.path().as_os_str().to_owned());
        let expected = base.path().join("udispatch/control.sock");
        let file = base.path().join("file");
        fs::write(&file, "").expect("written");
        let places = Places {
            system: file.clone(),
            user,
            runtime: None,
        };
        assert_eq!(
            control_path(&ControlSocket::Default, &places),
            Ok(expected.clone())
        );
        let long = base.path().join("x".repeat(100));
        let places = Places {
            system: long.clone(),
            ..places
        };
        assert_eq!(control_path(&ControlSocket::Default, &places), Ok(expected));
        assert!(
            !long.exists(),
            "a directory that cannot be used is not created"
        );
        let places = Places {
            runtime: Some(long.into()),
            ..places
        };
        let refused = control_path(&ControlSocket::Default, &places)
            .expect_err("too long")
            .to_string();
        assert!(refused.contains("more than 107 bytes"), "{refused}");
        let places = Places {
            runtime: Some("relative".into()),
            system: file,
            user: None,
        };
        assert!(matches!(
            control_path(&ControlSocket::Default, &places),
            Err(NoControl::NoPlace(_))
        ));
    }
}
