//! The `[[test]]` tables of a file. `check` runs them on this host, and reports each one that fails with its place,
//! what was expected and what would happen. It knows the upstream that the daemon would pick.

use crate::common::client::Client;
use crate::common::daemon::{Daemon, Outcome, on_file};
use crate::common::namespace::netns_test;

const ROUTES: &str = r#"
[[route]]
name = "exact"
destination = "127.0.0.1:1234"
handler = "echo"

[[route]]
name = "lab"
destination = "0.0.0.0:1234"
source = "10.0.0.0/8"
handler = ["pool", "fan", "drop"]

[[route]]
name = "local"
destination = "127.1.0.0/16:6000"
interface = "lo"
handler = "hashed"

[handler.pool]
kind = "forward"
upstreams = [
    "127.0.0.1:9001",
    "127.0.0.1:9002",
    { address = "127.0.0.1:9003", drain = true },
    { address = "127.0.0.1:9004", backup = true },
    { address = "127.0.0.1:9005", shadow = true },
]

[handler.fan]
kind = "forward"
pick = "all"
upstreams = [
    "127.0.0.1:9011",
    { address = "127.0.0.1:9012", drain = true },
    { address = "127.0.0.1:9013", shadow = true },
]

[handler.hashed]
kind = "forward"
pick = "hash"
hash_on = { offset = 0, length = 4 }
upstreams = ["127.0.0.1:9021", "127.0.0.1:9022", "127.0.0.1:9023"]

[[route]]
destination = "127.0.0.1:7000"
handler = "ordered"

[handler.ordered]
kind = "forward"
pick = "first_alive"
upstreams = [{ address = "127.0.0.1:9031", drain = true }, "127.0.0.1:9032", "127.0.0.1:9033"]
"#;

/// One test, which follows the routes.
fn test(source: &str, destination: &str, rest: &str) -> String {
    format!("[[test]]\nsource = \"{source}\"\ndestination = \"{destination}\"\n{rest}\n")
}

fn check(tests: &str) -> Outcome {
    on_file("check", &format!("{ROUTES}{tests}"), &[])
}

/// Tests that pass are counted, and nothing else is printed.
#[test]
fn what_comes_true() {
    netns_test!();
    let lab = |expect: &str| test("10.1.1.1", "127.0.0.2:1234", &format!("expect = {expect}"));
    let tests = [
        test(
            "10.1.1.1",
            "127.0.0.1:1234",
            "expect = { route = \"exact\", handler = \"echo\" }",
        ),
        lab("{ route = \"lab\" }"),
        lab("{ handler = \"fan\" }"),
        lab("{ handler = [\"drop\", \"pool\"] }"),
        lab("{ upstream = \"127.0.0.1:9001\" }"),
        lab("{ upstream = \"127.0.0.1:9002\" }"),
        lab("{ route = \"lab\", handler = \"fan\", upstream = \"127.0.0.1:9011\" }"),
        test("11.1.1.1:53", "127.0.0.2:1234", "expect = \"no_route\""),
        test("10.1.1.1", "127.0.0.1:1235", "expect = \"no_route\""),
        test("::1", "[::1]:1234", "expect = \"no_route\""),
        // The wildcard's route would match, but its socket gets no datagrams of groups.
        test("10.1.1.1", "239.9.9.9:1234", "expect = \"no_route\""),
        test(
            "127.0.0.1",
            "127.1.2.3:6000",
            "interface = \"lo\"\nexpect = { route = \"local\" }",
        ),
        test(
            "127.0.0.1",
            "127.0.0.1:7000",
            "expect = { route = \"127.0.0.1:7000\", upstream = \"127.0.0.1:9032\" }",
        ),
    ];
    let outcome = check(&tests.concat());
    assert_eq!((outcome.code, outcome.errors.as_str()), (0, ""));
    assert!(
        outcome
            .output
            .ends_with("ok, 4 routes, 6 handlers, 13 tests passed\n"),
        "{}",
        outcome.output
    );
}

/// Each failure has its place, says what was expected and what would happen, and names the command that tells more.
#[test]
fn what_fails() {
    netns_test!();
    let lab = |expect: &str| test("10.1.1.1", "127.0.0.2:1234", &format!("expect = {expect}"));
    let lines = ROUTES.lines().count();
    let cases = [
        (
            test(
                "10.1.1.1",
                "127.0.0.1:1234",
                "expect = { route = \"lab\", handler = \"pool\" }",
            ),
            (4, 20),
            vec![
                "`route`: 10.1.1.1:40000 > 127.0.0.1:1234 is taken by route \"exact\"",
                "^^^^^ expected this route",
                "test.toml:2:1",
                "this one takes it",
                "--to 127.0.0.1:1234 --from 10.1.1.1:40000",
            ],
        ),
        (
            lab("{ handler = [\"drop\", \"echo\"] }"),
            (4, 31),
            vec![
                "`handler`: 10.1.1.1:40000 > 127.0.0.2:1234 goes to `pool`, `fan` and `drop`",
                "expected this handler",
            ],
        ),
        (
            lab("{ upstream = \"127.0.0.1:9021\" }"),
            (4, 23),
            vec![
                "goes to 127.0.0.1:9001 (`pool`), 127.0.0.1:9002 (`pool`) or 127.0.0.1:9011 (`fan`)",
                "expected 127.0.0.1:9021",
            ],
        ),
        (
            lab("{ upstream = \"127.0.0.1:9003\" }"),
            (4, 23),
            vec!["127.0.0.1:9001 (`pool`)"],
        ),
        (
            lab("{ upstream = \"127.0.0.1:9004\" }"),
            (4, 23),
            vec!["127.0.0.1:9001 (`pool`)"],
        ),
        (
            lab("{ upstream = \"127.0.0.1:9005\" }"),
            (4, 23),
            vec!["127.0.0.1:9001 (`pool`)"],
        ),
        (
            lab("{ upstream = \"127.0.0.1:9012\" }"),
            (4, 23),
            vec!["127.0.0.1:9011 (`fan`)"],
        ),
        (
            lab("{ upstream = \"127.0.0.1:9013\" }"),
            (4, 23),
            vec!["127.0.0.1:9011 (`fan`)"],
        ),
        (
            test(
                "10.1.1.1",
                "127.0.0.1:1234",
                "expect = { upstream = \"127.0.0.1:9001\" }",
            ),
            (4, 23),
            vec!["`upstream`: 10.1.1.1:40000 > 127.0.0.1:1234 goes to no upstream"],
        ),
        (
            test(
                "127.0.0.1",
                "127.0.0.1:7000",
                "expect = { upstream = \"127.0.0.1:9031\" }",
            ),
            (4, 23),
            vec!["goes to 127.0.0.1:9032 (`ordered`)"],
        ),
        (
            lab("\"no_route\""),
            (4, 10),
            vec![
                "`expect`: route \"lab\" takes 10.1.1.1:40000",
                "expected no route",
            ],
        ),
        (
            test(
                "11.1.1.1:9",
                "127.0.0.2:1234",
                "expect = { handler = \"pool\" }",
            ),
            (4, 22),
            vec![
                "no route takes 11.1.1.1:9 > 127.0.0.2:1234: it is dropped as no_route",
                "expected this handler",
            ],
        ),
        (
            test(
                "11.1.1.1",
                "127.0.0.2:1",
                "expect = { upstream = \"127.0.0.1:9001\" }",
            ),
            (4, 23),
            vec!["no socket would receive it", "expected this upstream"],
        ),
        (
            test(
                "11.1.1.1",
                "127.0.0.1:1234",
                "interface = \"eth99\"\nexpect = { route = \"exact\" }",
            ),
            (4, 13),
            vec![
                "`interface`: this host has no interface \"eth99\"",
                "it has: lo",
            ],
        ),
    ];
    let mut all = String::new();
    for (text, (line, column), words) in &cases {
        let outcome = check(text);
        assert_eq!(outcome.code, 78, "{text}{}", outcome.errors);
        assert_eq!(outcome.output, "", "no verdict beside a failure");
        let place = format!("test.toml:{}:{column}", lines + line);
        for word in words
            .iter()
            .copied()
            .chain([place.as_str(), "test.toml: 1 error"])
        {
            assert!(
                outcome.errors.contains(word),
                "no {word:?} in\n{}",
                outcome.errors
            );
        }
        all.push_str(text);
    }
    let outcome = check(&all);
    assert!(
        outcome
            .errors
            .ends_with(&format!("test.toml: {} errors\n", cases.len())),
        "{}",
        outcome.errors
    );
}

/// A daemon starts although a test of its file fails on this host: it must serve.
#[test]
fn run_starts_all_the_same() {
    netns_test!();
    let failing = test("10.1.1.1", "127.0.0.1:1234", "expect = \"no_route\"");
    let daemon = Daemon::start(&format!("{ROUTES}{failing}"));
    let (answer, _) = Client::bind("127.0.0.1:0").ask(b"here", "127.0.0.1:1234");
    assert_eq!(answer, b"here");
    daemon.stop();
}

/// With a hash exactly one upstream passes, whatever the payload, and it is the one that `explain` names.
#[test]
fn a_hash_has_one_answer() {
    netns_test!();
    let mut seen = std::collections::BTreeSet::new();
    for payload in [
        "alfa", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel",
    ] {
        let options = [
            "--to",
            "127.1.2.3:6000",
            "--from",
            "127.0.0.1:40000",
            "--payload",
            payload,
        ];
        let told = on_file("explain", ROUTES, &options).output;
        let passing: Vec<&str> = ["127.0.0.1:9021", "127.0.0.1:9022", "127.0.0.1:9023"]
            .into_iter()
            .filter(|upstream| {
                let rest =
                    format!("payload = \"{payload}\"\nexpect = {{ upstream = \"{upstream}\" }}");
                check(&test("127.0.0.1", "127.1.2.3:6000", &rest)).code == 0
            })
            .collect();
        assert_eq!(passing.len(), 1, "{payload}: {passing:?}");
        assert!(
            told.contains(&format!("bytes to {},", passing[0])),
            "{payload}: {passing:?} in\n{told}"
        );
        assert!(
            !told.contains("another time"),
            "always the same one:\n{told}"
        );
        seen.insert(passing[0]);
    }
    assert!(seen.len() > 1, "eight payloads, and one upstream: no hash");
}

/// `explain` names the upstream that the next datagram could go to, where the pick may change, and only there.
#[test]
fn explain_tells_the_others() {
    netns_test!();
    let told = on_file(
        "explain",
        ROUTES,
        &["--to", "127.0.0.2:1234", "--from", "10.0.0.1:5000"],
    )
    .output;
    let pool = told
        .split("handler   ")
        .find(|part| part.starts_with("pool:"))
        .expect("the pool");
    let (first, second) = if pool.contains("bytes to 127.0.0.1:9001,") {
        ("127.0.0.1:9001", "127.0.0.1:9002")
    } else {
        ("127.0.0.1:9002", "127.0.0.1:9001")
    };
    assert!(pool.contains(&format!("bytes to {first},")), "{told}");
    assert!(
        pool.contains(&format!("other datagrams may go to {second}\n")),
        "{told}"
    );
    assert_eq!(
        told.matches("other datagrams may go to").count(),
        1,
        "all of a fan get it each time:\n{told}"
    );
}

/// A thousand tests over a thousand ports and many routes are run, each one at its own port. One more is too many.
#[test]
fn a_thousand_tests() {
    netns_test!();
    let route = |n: u32| {
        format!(
            "[[route]]\ndestination = \"10.{}.{}.0/24:1000-2999\"\nhandler = \"drop\"\n",
            n / 250,
            n % 250
        )
    };
    let routes: String = (0..1_000).map(route).collect();
    let one = |n: u32| {
        test(
            "10.9.9.9",
            &format!("10.0.{}.7:{}", n % 200, 1000 + n),
            "expect = { handler = \"drop\" }",
        )
    };
    let tests: String = (0..1_000).map(one).collect();
    let outcome = on_file("check", &format!("{routes}{tests}"), &[]);
    assert_eq!(outcome.code, 0, "{}", outcome.errors);
    assert!(
        outcome.output.contains("1000 tests passed"),
        "{}",
        outcome.output
    );
    let outcome = on_file("check", &format!("{routes}{tests}{}", one(0)), &[]);
    assert!(
        outcome.errors.contains("more than 1000 tests"),
        "{}",
        outcome.errors
    );
}
