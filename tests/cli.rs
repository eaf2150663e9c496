//! The program from outside: exit codes, which stream says what, and a reader that goes away.

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

/// Help and version are answers: standard output and 0. The help tells a newcomer how to begin.
#[test]
fn help_and_version_are_answers() {
    let version = udispatch(&["--version"]);
    assert_eq!(version.status.code(), Some(0));
    assert_eq!(out(&version), format!("udispatch {}\n", env!("CARGO_PKG_VERSION")));
    let help = udispatch(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    for word in ["udispatch check echo.toml", "[[route]]", "78", "explain", "handlers"] {
        assert!(out(&help).contains(word), "{word}");
    }
}

/// A wrong command line is 2, and nothing on standard output.
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

/// A file that cannot be read or is wrong is 78 for each command that reads one, in the same words,
/// without colours where nobody sees them.
#[test]
fn a_wrong_file_is_78_in_the_same_words() {
    let dir = tempfile::tempdir().expect("a directory");
    let wrong = dir.path().join("wrong.toml");
    fs::write(&wrong, "[[route]]\ndestination = \"127.0.0.1\"\n").expect("written");
    let missing = dir.path().join("missing.toml");
    for (file, word) in [(&wrong, "wrong.toml:2:15"), (&missing, "there is no such file")] {
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

/// The list of kinds is an answer in both forms.
#[test]
fn handlers_are_listed() {
    let text = udispatch(&["handlers"]);
    assert_eq!(text.status.code(), Some(0));
    assert!(out(&text).lines().all(|line| line.chars().count() <= 80), "{}", out(&text));
    let markdown = udispatch(&["handlers", "--markdown"]);
    assert!(out(&markdown).starts_with("| handler |"));
}

/// A reader that went away ends the program quietly.
#[test]
fn a_closed_pipe_is_no_failure() {
    for arguments in [&["handlers"], &["--help"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = command(arguments).stdout(writer).output().expect("the program starts");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", err(&output));
        assert_eq!(err(&output), "");
    }
}
