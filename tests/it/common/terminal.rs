//! A terminal of the test's own. A program runs in it as it does for a person, and the screen is parsed.
#![expect(unsafe_code, reason = "a controlling terminal for the child process")]

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use udispatch::net::wait;

use super::eventually;

/// A pseudo-terminal (pty(7)), and the program that runs in it.
pub struct Terminal {
    master: File,
    /// Held open, so that its modes can be read after the program has ended.
    slave: OwnedFd,
    child: Child,
    seen: Arc<Mutex<Seen>>,
}

/// The output of the program, and the screen that results from it.
struct Seen {
    parser: vt100::Parser,
    bytes: Vec<u8>,
    /// Whether the reader has to close its end of the terminal.
    is_closed: bool,
}

/// Time after which the reader notices that the terminal is closed.
const STEP: Duration = Duration::from_millis(50);

impl Terminal {
    /// Starts a program in a terminal of this size, which becomes its controlling terminal, as after a login.
    pub fn start(mut command: Command, columns: u16, lines: u16) -> Terminal {
        // SAFETY: between fork and exec only two system calls are made, which are safe there (signal-safety(7)).
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
                Ok(())
            });
        }
        Terminal::start_in_session(command, columns, lines)
    }

    /// Starts a program in a terminal of this size, in the session of the test. The program gets no SIGHUP when the
    /// terminal is closed, as under nohup(1).
    pub fn start_in_session(mut command: Command, columns: u16, lines: u16) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("a pseudo-terminal");
        grantpt(&master).expect("granted");
        unlockpt(&master).expect("unlocked");
        let name = ptsname(&master, Vec::new()).expect("a name");
        let path = name.to_str().expect("a path");
        let slave: OwnedFd = File::options()
            .read(true)
            .write(true)
            .open(path)
            .expect("the slave")
            .into();
        tcsetwinsize(&master, size(columns, lines)).expect("its size");
        let end = || Stdio::from(slave.try_clone().expect("a copy"));
        command
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .env("TERM", "xterm-256color");
        let child = command.spawn().expect("the program starts");
        let seen = Arc::new(Mutex::new(Seen {
            parser: vt100::Parser::new(count(lines), count(columns), 0),
            bytes: Vec::new(),
            is_closed: false,
        }));
        let master = File::from(master);
        let mut reader = master.try_clone().expect("a copy");
        let sink = Arc::clone(&seen);
        // Without `close`, the thread ends with the test, because the slave is held open.
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                if !wait::is_readable(&reader, STEP) {
                    if sink.lock().unwrap().is_closed {
                        return;
                    }
                    continue;
                }
                let Ok(length @ 1..) = reader.read(&mut buffer) else {
                    return;
                };
                let mut seen = sink.lock().unwrap();
                seen.parser.process(&buffer[..length]);
                seen.bytes.extend_from_slice(&buffer[..length]);
            }
        });
        Terminal {
            master,
            slave,
            child,
            seen,
        }
    }

    /// Types keys.
    pub fn press(&mut self, keys: &str) {
        self.master
            .write_all(keys.as_bytes())
            .expect("the terminal takes keys");
    }

    /// Changes the size of the window. The kernel notifies the program (SIGWINCH).
    pub fn resize(&self, columns: u16, lines: u16) {
        // The screen of the parser changes first, because output for the new size must find it.
        self.seen
            .lock()
            .unwrap()
            .parser
            .screen_mut()
            .set_size(count(lines), count(columns));
        tcsetwinsize(&self.master, size(columns, lines)).expect("its size");
    }

    /// The lines of the screen.
    pub fn lines(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let columns = seen.parser.screen().size().1;
        seen.parser.screen().rows(0, columns.into()).collect()
    }

    /// Waits until the screen satisfies a condition.
    pub fn wait_until(&self, what: &str, is_so: impl Fn(&[String]) -> bool) -> Vec<String> {
        eventually(what, || {
            let lines = self.lines();
            if is_so(&lines) {
                return Ok(lines);
            }
            Err(lines.join("\n"))
        })
    }

    /// Waits until these words are on the screen.
    pub fn wait_for(&self, words: &str) -> Vec<String> {
        self.wait_until(words, |lines| lines.iter().any(|line| line.contains(words)))
    }

    /// All that the program has written so far.
    pub fn written(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap().bytes).into_owned()
    }

    /// Whether the terminal shows the alternate screen.
    pub fn is_alternate(&self) -> bool {
        self.seen.lock().unwrap().parser.screen().alternate_screen()
    }

    /// Whether the terminal is in the state that a shell expects: lines and echo, a cursor, no alternate screen and no
    /// mouse.
    pub fn is_as_before(&self) -> bool {
        let modes = tcgetattr(&self.slave).expect("its modes").local_modes;
        let seen = self.seen.lock().unwrap();
        let screen = seen.parser.screen();
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
            && !screen.alternate_screen()
            && !screen.hide_cursor()
            && screen.mouse_protocol_mode() == vt100::MouseProtocolMode::None
    }

    /// Closes the terminal, as a dropped connection does, and waits until the program has ended.
    pub fn close(mut self) -> ExitStatus {
        let nothing = || File::open("/dev/null").expect("it opens");
        self.master = nothing();
        self.slave = nothing().into();
        self.seen.lock().unwrap().is_closed = true;
        eventually("the program's end", || {
            self.child.try_wait().expect("our child").ok_or("it runs")
        })
    }

    /// Sends a signal to the program.
    pub fn signal(&self, signal: i32) {
        // SAFETY: the process is our own child and not yet waited for, so the id is its.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// Waits until the program has ended, and until all that it wrote is on the screen.
    pub fn wait_for_end(&mut self) -> ExitStatus {
        let status = eventually("the program's end", || {
            let status = self.child.try_wait().expect("our child");
            status.ok_or_else(|| self.lines().join("\n"))
        });
        // Output is read in order, so this mark comes after all that the program wrote before its end.
        const MARK: &str = "\u{1b}]2;end\u{7}";
        rustix::io::write(&self.slave, MARK.as_bytes()).expect("the terminal takes it");
        eventually("the terminal is read", || self.written().ends_with(MARK));
        status
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn count(cells: u16) -> NonZero<u16> {
    NonZero::new(cells).expect("a screen has cells")
}

fn size(columns: u16, lines: u16) -> Winsize {
    Winsize {
        ws_col: columns,
        ws_row: lines,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}
