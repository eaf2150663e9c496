//! The examples that use the library run as a reader would run them, and keep the ledger as the daemon itself does. A
//! plain `cargo test` builds the examples. Otherwise `cargo build --examples` has to come first.

use crate::common::client::Client;
use crate::common::daemon::Daemon;
use crate::common::namespace::netns_test;

/// Two sockets on one port each print their own datagrams.
#[test]
fn two_addresses() {
    netns_test!();
    let directory = tempfile::tempdir().unwrap();
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/two_addresses.toml");
    let mut daemon = Daemon::example("two_addresses", &["run", config], directory);
    let client = Client::bind("127.0.0.1:0");
    for (to, line) in [
        ("127.0.0.1:1234", "loopback: one\\n"),
        ("127.0.0.2:1234", "everywhere else: one\\n"),
        ("127.9.9.9:1234", "everywhere else: one\\n"),
    ] {
        client.send(b"one\n", to);
        assert_eq!(daemon.line(), line);
    }
    let ledger = daemon.stop();
    assert_eq!(
        (
            ledger.handler("loopback").handled,
            ledger.handler("everywhere").handled
        ),
        (1, 2)
    );
}

/// A handler of one's own is a kind like the others: it runs, is checked, explained and listed, and has the reply
/// policy.
#[test]
fn custom_handler() {
    netns_test!();
    let directory = tempfile::tempdir().unwrap();
    let config = "[[route]]\ndestination = \"0.0.0.0:1234\"\nhandler = \"caesar\"\n\
                  [handler.caesar]\nkind = \"rot13\"\nplaces = 3\n";
    std::fs::write(directory.path().join("caesar.toml"), config).unwrap();
    let mut daemon = Daemon::example("custom_handler", &["run", "caesar.toml"], directory);
    let (answer, from) = Client::bind("127.0.0.1:0").ask(b"Hello, xyz!", "127.0.0.2:1234");
    assert_eq!(
        (answer.as_slice(), from.to_string().as_str()),
        (b"Khoor, abc!".as_slice(), "127.0.0.2:1234")
    );
    Client::bind("127.0.0.1:53").send(b"refused", "127.0.0.1:1234");
    let ledger = daemon.ledger_when(|ledger| ledger.received() == 2);
    assert_eq!(ledger.handler("caesar").reason("low_source_port"), 1);
    daemon.stop();
}
