//! The contents of packages: manual pages and completions describe the command line, and the configuration of the
//! package is right.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn udispatch(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_udispatch"))
        .args(arguments)
        .output()
        .expect("run")
}

/// The commands that `--help` lists.
fn commands() -> Vec<String> {
    let help = String::from_utf8(udispatch(&["--help"]).stdout).expect("text");
    let (_, list) = help.split_once("Commands:\n").expect("a list of commands");
    let (list, _) = list.split_once("\n\n").expect("something behind it");
    let names = list
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names
        .filter(|name| !name.is_empty() && *name != "help")
        .map(str::to_owned)
        .collect()
}

/// There is a page for the program and for each command that its help lists, and for no other. A directory that cannot
/// be written is an error.
#[test]
fn a_manual_page_for_each_command() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = udispatch(&["man", "--dir", directory.path().to_str().expect("text")]);
    assert!(output.status.success(), "{output:?}");
    let mut pages: Vec<String> = fs::read_dir(directory.path())
        .expect("a directory")
        .map(|page| {
            page.expect("a page")
                .file_name()
                .into_string()
                .expect("text")
        })
        .collect();
    pages.sort();
    let mut expected: Vec<String> = commands()
        .iter()
        .map(|name| format!("udispatch-{name}.1"))
        .collect();
    assert!(expected.len() >= 5, "{expected:?}");
    expected.push("udispatch.1".to_owned());
    expected.sort();
    assert_eq!(pages, expected);
    let run = fs::read_to_string(directory.path().join("udispatch-run.1")).expect("a page");
    assert!(
        run.starts_with(".ie") && run.contains("\\-\\-workers"),
        "{run}"
    );

    let nowhere = udispatch(&["man", "--dir", "/proc/no/such/place"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&nowhere.stderr)
            .contains("cannot write manual pages to /proc/no/such/place")
    );
}

/// The completions of each shell know each command.
#[test]
fn completions_know_each_command() {
    for shell in ["bash", "fish", "zsh"] {
        let output = udispatch(&["completions", shell]);
        assert!(output.status.success(), "{shell}: {output:?}");
        let script = String::from_utf8(output.stdout).expect("text");
        for command in commands() {
            assert!(script.contains(&command), "{shell}: {command}");
        }
    }
    assert_eq!(
        udispatch(&["completions", "nonsense"]).status.code(),
        Some(2)
    );
}

/// The configuration of the package is right and serves only this host.
#[test]
fn the_first_configuration_is_harmless() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/udispatch.toml");
    let output = udispatch(&["check", path.to_str().expect("text")]);
    assert!(output.status.success(), "{output:?}");
    let text = fs::read_to_string(path).expect("the file");
    let destinations: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("destination"))
        .collect();
    assert_eq!(destinations, ["destination = \"127.0.0.1:1234\""]);
}
