//! The program as its users see it: exit codes, the stream that each message goes to, and a reader that goes away.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn udispatch(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the program starts")
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_udispatch"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path of plain letters")
}

/// Help and version go to standard output, with exit code 0. The help tells a newcomer how to begin.
#[test]
fn help_and_version_are_answers() {
    let version = udispatch(&["--version"]);
    assert_eq!(version.status.code(), Some(0));
    assert_eq!(
        out(&version),
        format!("udispatch {}\n", env!("CARGO_PKG_VERSION"))
    );
    let help = udispatch(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    for word in [
        "udispatch check echo.toml",
        "[[route]]",
        "78",
        "explain",
        "handlers",
    ] {
        assert!(out(&help).contains(word), "{word}");
    }
}

/// `help`, which many people type first, prints the help.
#[test]
fn help_is_a_command_too() {
    let option = udispatch(&["--help"]);
    let command = udispatch(&["help"]);
    assert_eq!(
        (command.status.code(), out(&command)),
        (Some(0), out(&option))
    );
    assert_eq!(
        out(&udispatch(&["help", "run"])),
        out(&udispatch(&["run", "--help"]))
    );
}

/// An error of the command line says in words which numbers are allowed.
#[test]
fn workers_are_told_in_words() {
    for wrong in ["abc", "0", "65", "-1", "1.5", ""] {
        let output = udispatch(&["run", "f.toml", &format!("--workers={wrong}")]);
        assert_eq!(output.status.code(), Some(2), "{wrong}");
        assert!(
            err(&output).contains("write a whole number from 1 to 64"),
            "{wrong}: {}",
            err(&output)
        );
    }
}

/// A path that is not a file is refused at once. A named pipe without a writer would block the program forever. A pipe
/// that a shell passes as standard input is read.
#[test]
fn only_files_and_pipes_of_a_shell_are_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let pipe = dir.path().join("pipe.toml");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .expect("mkfifo starts")
            .success()
    );
    let socket = dir.path().join("socket.toml");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    for (file, word) in [
        (path(&pipe), "this is a named pipe"),
        (path(&socket), "this is a socket"),
        ("/dev/zero", "this is a device"),
        ("/dev/null", "this is a device"),
    ] {
        for command in [&["check"][..], &["run"], &["explain", "--to=127.0.0.1:1"]] {
            let this = env!("CARGO_BIN_EXE_udispatch");
            let output = Command::new("timeout")
                .arg("10")
                .arg(this)
                .args(command)
                .arg(file)
                .output()
                .expect("a result");
            assert_eq!(
                output.status.code(),
                Some(78),
                "{command:?} {file}: {}",
                err(&output)
            );
            assert!(err(&output).contains(word), "{file}: {}", err(&output));
        }
    }
    let right = dir.path().join("right.toml");
    fs::write(
        &right,
        "[[route]]\ndestination = \"127.0.0.1:1\"\nhandler = \"echo\"\n",
    )
    .expect("written");
    let this = env!("CARGO_BIN_EXE_udispatch");
    let right = path(&right);
    for script in [
        format!("cat {right} | {this} check /dev/stdin"),
        format!("{this} check /dev/stdin < {right}"),
        format!("{this} check <(sleep 0.2; cat {right})"),
        format!("{this} check /dev/fd/7 7< {right}"),
    ] {
        let output = Command::new("bash")
            .args(["-c", &script])
            .output()
            .expect("bash starts");
        assert_eq!(output.status.code(), Some(0), "{script}: {}", err(&output));
    }
}

/// A wrong command line has exit code 2, and prints nothing to standard output.
#[test]
fn a_wrong_command_line_is_2() {
    let wrong: &[&[&str]] = &[
        &[],
        &["chekc"],
        &["check"],
        &["run", "f.toml", "--workers", "0"],
        &["run", "f.toml", "--workers", "65"],
        &["explain", "f.toml"],
        &["explain", "f.toml", "--to", "localhost"],
        &["handlers", "no-such-kind"],
    ];
    for arguments in wrong {
        let output = udispatch(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

/// Each command that reads a file reports an unreadable or wrong one with exit code 78 and in the same words, without
/// colours if the output is not a terminal.
#[test]
fn a_wrong_file_is_78_in_the_same_words() {
    let dir = tempfile::tempdir().expect("a directory");
    let wrong = dir.path().join("wrong.toml");
    fs::write(&wrong, "[[route]]\ndestination = \"127.0.0.1\"\n").expect("written");
    let missing = dir.path().join("missing.toml");
    for (file, word) in [
        (&wrong, "wrong.toml:2:15"),
        (&missing, "there is no such file"),
    ] {
        let check = udispatch(&["check", path(file)]);
        assert_eq!(check.status.code(), Some(78));
        assert!(check.stdout.is_empty());
        assert!(err(&check).contains(word), "{}", err(&check));
        assert!(!err(&check).contains('\x1b'));
        let run = udispatch(&["run", path(file)]);
        let explain = udispatch(&["explain", path(file), "--to", "127.0.0.1:1"]);
        for other in [run, explain] {
            assert_eq!(other.status.code(), Some(78));
            assert_eq!(err(&other), err(&check));
        }
    }
}

/// The list of kinds goes to standard output in both forms.
#[test]
fn handlers_are_listed() {
    let text = udispatch(&["handlers"]);
    assert_eq!(text.status.code(), Some(0));
    assert!(
        out(&text).lines().all(|line| line.chars().count() <= 80),
        "{}",
        out(&text)
    );
    let markdown = udispatch(&["handlers", "--markdown"]);
    assert!(out(&markdown).starts_with("| handler |"));
}

/// The program ends quietly when the reader of its output has gone away.
#[test]
fn a_closed_pipe_is_no_failure() {
    for arguments in [&["handlers"], &["--help"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = command(arguments)
            .stdout(writer)
            .output()
            .expect("the program starts");
        assert_eq!(
            output.status.code(),
            Some(0),
            "{arguments:?}: {}",
            err(&output)
        );
        assert_eq!(err(&output), "");
    }
}

/// A configuration file where a command belongs is a usage error that shows how to serve the file.
#[test]
fn a_file_is_no_command() {
    let output = udispatch(&["dispatch.toml"]);
    assert_eq!(output.status.code(), Some(2));
    let words = "tip: to serve a configuration file, write 'udispatch run dispatch.toml'";
    assert!(err(&output).contains(words), "{}", err(&output));
}
