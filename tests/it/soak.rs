//! The soak of examples/soak, shorter: what it shows in an hour must hold for some seconds.
//!
//! A plain `cargo test` builds the examples. With `--test it` it does not, and `cargo build --example soak` must come
//! first.

use std::env;
use std::process::Command;

use serde_json::Value;

use crate::common::heavy::Permit;

/// Runs the soak, and returns its report and its output.
fn soak(arguments: &[&str]) -> (Value, String) {
    let _permit = Permit::take();
    let test = env::current_exe().expect("the path of this test");
    let profile = test.ancestors().nth(2).expect("target/PROFILE/deps");
    let program = profile.join("examples").join("soak");
    assert!(
        program.exists(),
        "{} is missing: `cargo build --example soak` makes it",
        program.display()
    );
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("soak.json");
    let output = Command::new(program)
        .args(["--rate", "10000", "--sessions", "200", "--interval", "50ms"])
        .args(["--binary", env!("CARGO_BIN_EXE_udispatch"), "--json"])
        .arg(&file)
        .args(arguments)
        .output()
        .expect("the soak runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let json = std::fs::read(&file).unwrap_or_else(|error| panic!("{error}: {said}"));
    let report: Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!(report["ended_early"], Value::Null, "{said}");
    (report, said)
}

/// The soak includes reloads, takeovers, every fault of a takeover, and a kill. Nothing is lost except in the kill,
/// nothing arrives twice, and no reply reaches another client.
#[test]
fn nothing_is_lost() {
    let (report, said) = soak(&["--restarts", "14", "--failed", "9", "--kills", "1"]);
    for fault in [
        "lost",
        "answers_lost",
        "twice",
        "answers_twice",
        "to_wrong_client",
        "foreign",
    ] {
        assert_eq!(report["faults"][fault], 0, "{fault}: {said}");
    }
    for (restart, count) in [
        ("reloads", 14),
        ("takeovers", 14),
        ("failed takeovers", 9),
        ("kills", 1),
    ] {
        assert_eq!(
            report["restarts"][restart]["count"], count,
            "{restart}: {said}"
        );
    }
    assert!(report["sent"].as_u64() > Some(10_000), "{said}");
}

/// If an address gets more sockets, the kernel distributes its flows anew. A client that comes to another worker has a
/// new session there: once, however often workers are added and removed after that.
#[test]
fn sessions_begin_anew_once() {
    let (report, said) = soak(&[
        "--restarts",
        "21",
        "--takeovers",
        "7",
        "--failed",
        "0",
        "--grow",
    ]);
    assert_eq!(
        (&report["faults"]["lost"], &report["faults"]["twice"]),
        (&Value::from(0), &Value::from(0)),
        "{said}"
    );
    assert!(
        report["port_changes"].as_u64() > Some(0),
        "no flow came to another worker: {said}"
    );
    assert_eq!(report["port_changes_most"], 1, "{said}");
}
