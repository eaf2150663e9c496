//! The error messages for wrong files: the place, the words and the hint. Each row is one mistake.

use std::path::Path;

use crate::common::kinds::KINDS;
use udispatch::config::{Config, Problems};

/// A file, the place of its only problem, and parts of the message.
type Case = (&'static str, &'static str, &'static [&'static str]);

const HEAD: &str = "[[route]]\ndestination = \"127.0.0.1:1\"\nhandler = \"echo\"\n";

fn problems(text: &str) -> Problems {
    match Config::parse(Path::new("u.toml"), text, KINDS) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(problems) => problems,
    }
}

/// Checks cases that are each wrong in exactly one way.
fn check(cases: &[Case]) {
    for (text, place, fragments) in cases {
        let problems = problems(text);
        let told = problems.to_string();
        let places: Vec<String> = problems
            .iter()
            .map(|problem| problems.position(problem))
            .map(|position| format!("{}:{}", position.line, position.column))
            .collect();
        assert_eq!(places, [*place], "\n{text}\n{told}");
        assert!(told.contains(&format!("u.toml:{place}")), "{told}");
        for fragment in *fragments {
            assert!(told.contains(fragment), "no {fragment:?} in\n{told}");
        }
    }
}

/// Checks texts that follow a correct route.
fn check_below(cases: &[Case]) {
    for (text, place, fragments) in cases {
        let whole: &'static str = format!("{HEAD}{text}").leak();
        check(&[(whole, place, fragments)]);
    }
}

/// Checks values of a route's `destination`, which stand at line 2, column 15.
fn check_destinations(cases: &[(&str, &'static [&'static str])]) {
    for (value, fragments) in cases {
        let text = format!("[[route]]\ndestination = {value}\nhandler = \"echo\"\n");
        check(&[(text.leak(), "2:15", fragments)]);
    }
}

#[test]
fn files_that_are_not_toml() {
    check_below(&[
        ("oops\n", "4:5", &["not TOML"]),
        ("name =\n", "4:7", &["not TOML: the value is missing"]),
        (
            "name = yes\n",
            "4:8",
            &["not TOML", "put it between quotes"],
        ),
        (
            "handler = \"print\"\n",
            "4:1",
            &["not TOML: duplicate key", "written only once"],
        ),
        ("name = \"\u{1b}[31m\"\n", "4:9", &["not TOML"]),
        (
            "[handler.a]\nkind = \"print\"\n[handler.a]\n",
            "6:10",
            &["duplicate key"],
        ),
        // What a repeated table repeats is not another mistake.
        (
            "[daemon]\nworkers = 1\nlog = \"info\"\n[daemon]\nworkers = 2\nlog = \"warn\"\n",
            "7:2",
            &["duplicate key"],
        ),
        (
            "[handler.a]\nkind = \"print\"\n[handler.a]\nkind = \"echo\"\n",
            "6:10",
            &["duplicate key"],
        ),
        (
            "[daemon]\nworkers = 1\nworkers = 2\n",
            "6:1",
            &["duplicate key"],
        ),
    ]);
}

/// Several syntax errors are reported together.
#[test]
fn all_mistakes_of_syntax_are_told() {
    let told = problems("a = \nb = 1 2\n[c\n").to_string();
    for place in ["u.toml:1:5", "u.toml:2:5", "u.toml:3:3"] {
        assert!(told.contains(place), "{told}");
    }
}

/// Of a large file that is not TOML at all, only the first error is reported. More of them would fill the memory.
#[test]
fn large_files_that_are_not_toml() {
    assert_eq!(problems(&"=".repeat(2_000_000)).errors(), 1);
}

#[test]
fn files_that_do_nothing() {
    let hint: &[&str] = &[
        "no [[route]]: nothing to do",
        "destination = \"127.0.0.1:1234\"",
    ];
    check(&[
        ("", "1:1", hint),
        ("# only a comment\n", "1:1", hint),
        ("\u{feff}\r\n", "1:1", hint),
        ("[daemon]\n", "1:1", hint),
        ("route = []\n", "1:9", hint),
    ]);
}

#[test]
fn tables_of_the_wrong_shape_or_name() {
    check(&[
        (
            "[route]\ndestination = \"127.0.0.1:1\"\n",
            "1:1",
            &["needs double brackets", "write [[route]]"],
        ),
        // It would have been a route, so the lack of routes is not another mistake.
        (
            "[[rout]]\ndestination = \"127.0.0.1:1\"\n",
            "1:3",
            &["did you mean [[route]]?"],
        ),
        (
            "[[routes]]\ndestination = \"127.0.0.1:1\"\n",
            "1:3",
            &["did you mean [[route]]?"],
        ),
        ("route = 3\n", "1:9", &["`route` is not a list of tables"]),
        ("route = [3]\n", "1:10", &["a route is a table"]),
    ]);
    check_below(&[
        (
            "[[daemon]]\n",
            "4:1",
            &["`daemon` is not a table", "write [daemon] once"],
        ),
        (
            "[demon]\n",
            "4:2",
            &["no table \"demon\"", "did you mean [daemon]?"],
        ),
        ("[handel.x]\n", "4:2", &["did you mean [handler.NAME]?"]),
        (
            "[[rout]]\n",
            "4:3",
            &["no table \"rout\"", "did you mean [[route]]?"],
        ),
        (
            "[handlers.x]\nkind = \"print\"\n",
            "4:2",
            &["did you mean [handler.NAME]?"],
        ),
        ("[[routes]]\n", "4:3", &["did you mean [[route]]?"]),
        (
            "[metrics]\n",
            "4:2",
            &["the tables are [daemon], [[route]], [handler.NAME] and [[test]]"],
        ),
        (
            "[[handler]]\nkind = \"print\"\n",
            "4:1",
            &["write a table [handler.NAME]"],
        ),
        (
            "[handler]\nkind = \"print\"\n",
            "5:1",
            &["write a table [handler.NAME]"],
        ),
    ]);
    let above = |text: &str| -> &'static str { format!("{text}\n{HEAD}").leak() };
    check(&[
        (
            above("workers = 4"),
            "1:1",
            &["in no table", "`workers` belongs below [daemon]"],
        ),
        (
            above("source = \"10.0.0.1\""),
            "1:1",
            &["`source` belongs below a [[route]]"],
        ),
    ]);
}

#[test]
fn unknown_keys() {
    check_below(&[
        (
            "destinaton = 1\n",
            "4:1",
            &[
                "[[route]] has no key \"destinaton\"",
                "did you mean \"destination\"?",
            ],
        ),
        (
            "color = 1\n",
            "4:1",
            &["the keys are name, destination, interface, source, share, handler and expect_every"],
        ),
        (
            "[daemon]\nworker = 1\n",
            "5:1",
            &[
                "[daemon] has no key \"worker\"",
                "did you mean \"workers\"?",
            ],
        ),
        (
            "\"\\u001b[31m\" = 1\n",
            "4:1",
            &["has no key \"\\u{1b}[31m\""],
        ),
    ]);
    check(&[(
        "[[route]]\ndestination = \"127.0.0.1:1\"\nhandler = \"a\"\n[handler.a]\nkind = \"reply\"\ntext = \"x\"\ntxt = \"y\"\n",
        "7:1",
        &[
            "[handler.a] has no key \"txt\"",
            "did you mean \"text\"?",
            "the keys are kind, text and hex",
        ],
    )]);
}

#[test]
fn values_of_the_daemon() {
    check_below(&[
        (
            "[daemon]\nworkers = 0\n",
            "5:11",
            &["`workers`: expected \"auto\" or a whole number from 1 to 64, found the number 0"],
        ),
        (
            "[daemon]\nworkers = 99999999999999999999\n",
            "5:11",
            &["`workers`"],
        ),
        (
            "[daemon]\nworkers = nan\n",
            "5:11",
            &["found the number nan"],
        ),
        (
            "[daemon]\nreceive_buffer = \"8MB\"\n",
            "5:18",
            &["`receive_buffer`: \"8MB\" is not a size", "write \"8MiB\""],
        ),
        (
            "[daemon]\nsend_buffer = 1\n",
            "5:15",
            &["must be from 128KiB to 1GiB, found 1B"],
        ),
        (
            "[daemon]\nlog = \"wran\"\n",
            "5:7",
            &[
                "expected off, error, warn, info, debug or trace",
                "did you mean \"warn\"?",
            ],
        ),
        (
            "[daemon]\nwatch = \"yes\"\n",
            "5:9",
            &[
                "`watch`: expected true or false",
                "write true, without quotes",
            ],
        ),
        (
            "[daemon]\nlatency = 1\n",
            "5:11",
            &["`latency`: expected true or false"],
        ),
    ]);
}

#[test]
fn where_the_daemon_is_reached() {
    check_below(&[
        (
            "[daemon]\ncontrol = true\n",
            "5:11",
            &[
                "or false for none, found `true`",
                "leave the key out to get a control socket at the default path",
            ],
        ),
        (
            "[daemon]\ncontrol = 1\n",
            "5:11",
            &["`control`: expected the path of a unix socket between quotes"],
        ),
        (
            "[daemon]\ncontrol = \"\"\n",
            "5:11",
            &["`control`: the name of the file is empty"],
        ),
        (
            "[daemon]\ncontrol = \"/run/\"\n",
            "5:11",
            &["this is a directory", "\"/run/control.sock\""],
        ),
        (
            "[daemon]\nhttp = 9253\n",
            "5:8",
            &["`http`: expected an address", "\"127.0.0.1:9253\""],
        ),
        (
            "[daemon]\nhttp = \":70000\"\n",
            "5:8",
            &["\"70000\" is not a port"],
        ),
        (
            "[daemon]\nhttp = \"localhost:80\"\n",
            "5:8",
            &["is not an address with a port"],
        ),
        (
            "[daemon]\nhttp_hosts = \"a.example\"\n",
            "5:14",
            &["has an effect only with `http`", "add http ="],
        ),
        (
            "[daemon]\nhttp = \":1\"\nhttp_hosts = [\"a:1\"]\n",
            "6:15",
            &["`http_hosts`", "without the port: \"a\""],
        ),
        (
            "[daemon]\nhttp = \":1\"\nhttp_hosts = []\n",
            "6:14",
            &["the list is empty"],
        ),
    ]);
    let hosts: Vec<String> = (0..65).map(|n| format!("\"h{n}\"")).collect();
    let text = format!(
        "[daemon]\nhttp = \":1\"\nhttp_hosts = [{}]\n",
        hosts.join(", ")
    );
    check_below(&[(text.leak(), "6:14", &["`http_hosts`: more than 64 names"])]);
    let text = format!("[daemon]\ncontrol = \"/{}\"\n", "x".repeat(107));
    check_below(&[(
        text.leak(),
        "5:11",
        &["`control`: the path has 108 bytes", "at most 107"],
    )]);
}

/// The expectations of a route accept only what the route can receive.
#[test]
fn expectations() {
    check_below(&[
        (
            "expect_every = 60\n",
            "4:16",
            &["`expect_every`: a number without a unit", "\"60s\""],
        ),
        (
            "expect_every = \"500ms\"\n",
            "4:16",
            &["must be at least 1s"],
        ),
        (
            "expect_every = \"366d\"\n",
            "4:16",
            &["must be at most 365d"],
        ),
        (
            "expect_every = [\"5s\"]\n",
            "4:16",
            &["`expect_every`: expected a duration", "found a list"],
        ),
        (
            "expect_every = {}\n",
            "4:16",
            &["the table is empty", "{ \"10.0.0.0/8\" = \"60s\" }"],
        ),
        (
            "expect_every = { \"10.0.0.0/8\" = 5 }\n",
            "4:33",
            &["`expect_every`: a number without a unit"],
        ),
        (
            "expect_every = { \"10.0.0.1/8\" = \"5s\" }\n",
            "4:18",
            &["`expect_every`:", "did you mean \"10.0.0.0/8\"?"],
        ),
        (
            "expect_every = { \"239.1.1.1\" = \"5s\" }\n",
            "4:18",
            &["a group cannot be the source of a datagram"],
        ),
        (
            "expect_every = { \"10.0.0.1\" = \"5s\", \"10.0.0.1/32\" = \"6s\" }\n",
            "4:37",
            &["the same source twice", "first here"],
        ),
        (
            "expect_every = { \"::1\" = \"5s\" }\n",
            "4:18",
            &["no `destination` is IPv6, so no datagram from \"::1/128\" can match"],
        ),
        (
            "source = \"10.0.0.0/8\"\nexpect_every = { \"10.1.0.0/16\" = \"5s\", \"11.0.0.1\" = \"5s\" }\n",
            "5:40",
            &[
                "\"11.0.0.1/32\" does not lie within the route's `source`",
                "only these sources match",
            ],
        ),
        (
            "source = \"10.0.0.0/8\"\nexpect_every = { \"10.0.0.0/7\" = \"5s\" }\n",
            "5:18",
            &["does not lie within the route's `source`"],
        ),
    ]);
    let prefixes: Vec<String> = (0..65)
        .map(|n| format!("\"10.0.0.{n}\" = \"5s\""))
        .collect();
    let text = format!("expect_every = {{ {} }}\n", prefixes.join(", "));
    check_below(&[(text.leak(), "4:16", &["more than 64 prefixes on one route"])]);
}

/// Tests that cannot be run, or that name something that the file does not have, are errors.
#[test]
fn tests_of_the_file() {
    const FILE: &str = "name = \"main\"\n[handler.pool]\nkind = \"forward\"\nupstreams = \"10.0.0.9:53\"\n\
        [[route]]\ndestination = \"127.0.0.1:2\"\nhandler = \"pool\"\n";
    // The text begins at line 11.
    let check = |cases: &[Case]| {
        for (test, place, fragments) in cases {
            check_below(&[(format!("{FILE}{test}").leak(), place, fragments)]);
        }
    };
    let good = "source = \"10.0.0.1\"\ndestination = \"127.0.0.1:1\"\n";
    let expect =
        |expect: &str| -> &'static str { format!("[[test]]\n{good}expect = {expect}\n").leak() };
    check(&[
        (
            "[test]\n",
            "11:1",
            &["it needs double brackets", "write [[test]]"],
        ),
        (
            "[[tets]]\n",
            "11:3",
            &["no table \"tets\"", "did you mean [[test]]?"],
        ),
        (
            expect("{}"),
            "14:10",
            &[
                "nothing is expected",
                "name at least one of route, handler and upstream",
            ],
        ),
        (
            expect("\"noroute\""),
            "14:10",
            &["or \"no_route\"", "did you mean \"no_route\"?"],
        ),
        (expect("7"), "14:10", &["`expect`: expected a table"]),
        (
            expect("{ rute = \"main\", handler = \"echo\" }"),
            "14:12",
            &["has no key \"rute\"", "did you mean \"route\"?"],
        ),
        (
            expect("{ route = \"mian\" }"),
            "14:20",
            &[
                "`route`: there is no route \"mian\"",
                "did you mean \"main\"?",
            ],
        ),
        (
            expect("{ route = \"127.0.0.1:1\" }"),
            "14:20",
            &["there is no route", "did you mean \"127.0.0.1:2\"?"],
        ),
        (
            expect("{ handler = \"ecko\" }"),
            "14:22",
            &["there is no handler \"ecko\"", "did you mean \"echo\"?"],
        ),
        (
            expect("{ handler = [\"echo\", \"print\"] }"),
            "14:31",
            &["there is no handler \"print\"", "pool and echo"],
        ),
        (
            expect("{ upstream = \"10.0.0.8:53\" }"),
            "14:23",
            &[
                "there is no upstream \"10.0.0.8:53\"",
                "did you mean \"10.0.0.9:53\"?",
            ],
        ),
        (
            expect("{ upstream = \"10.0.0.9\" }"),
            "14:23",
            &["`upstream`:", "add the port"],
        ),
    ]);
    let with = |source: &str, destination: &str| -> &'static str {
        format!("[[test]]\nexpect = \"no_route\"\nsource = {source}\ndestination = {destination}\n")
            .leak()
    };
    check(&[
        (
            "[[test]]\nexpect = \"no_route\"\nsource = \"10.0.0.1\"\n",
            "11:1",
            &["[[test]] has no `destination`"],
        ),
        (
            "[[test]]\nexpect = \"no_route\"\ndestination = \"10.0.0.1:1\"\n",
            "11:1",
            &["[[test]] has no `source`"],
        ),
        (
            format!("[[test]]\n{good}").leak(),
            "11:1",
            &["[[test]] has no `expect`"],
        ),
        (
            with("\"10.0.0.0/8\"", "\"127.0.0.1:1\""),
            "13:10",
            &["is not an address", "a test is one datagram"],
        ),
        (
            with("\"0.0.0.0\"", "\"127.0.0.1:1\""),
            "13:10",
            &["cannot be the source of a datagram"],
        ),
        (
            with("\"239.1.1.1:5\"", "\"127.0.0.1:1\""),
            "13:10",
            &["cannot be the source of a datagram"],
        ),
        (
            with("\"::1\"", "\"127.0.0.1:1\""),
            "13:10",
            &["`source`: is IPv6, but the destination is not"],
        ),
        (
            with("\"10.0.0.1\"", "\"0.0.0.0:1\""),
            "14:15",
            &["no datagram is sent to 0.0.0.0"],
        ),
        (
            with("\"10.0.0.1\"", "\"127.0.0.1\""),
            "14:15",
            &["add the port"],
        ),
        (
            with("\"::ffff:10.0.0.1\"", "\"[::1]:1\""),
            "13:10",
            &["IPv4-mapped IPv6 address"],
        ),
        (
            format!("{}payload = 5\n", with("\"10.0.0.1\"", "\"127.0.0.1:1\"")).leak(),
            "15:11",
            &["`payload`: expected text"],
        ),
        (
            format!(
                "{}payload = \"{}\"\n",
                with("\"10.0.0.1\"", "\"127.0.0.1:1\""),
                "x".repeat(65_508)
            )
            .leak(),
            "15:11",
            &["65508 bytes do not fit a datagram"],
        ),
    ]);
    let many = expect("\"no_route\"").repeat(1_001);
    check(&[(many.leak(), "4011:1", &["more than 1000 tests"])]);
}

/// An error in an object that a test names is reported at the object, and not at the test.
#[test]
fn a_test_of_what_is_wrong_is_not_wrong_too() {
    let test = "[[test]]\nsource = \"10.0.0.1\"\ndestination = \"127.0.0.1:1\"\n";
    let expect = "expect = { route = \"a\", handler = \"pool\", upstream = \"10.0.0.9:53\" }\n";
    let route = "[[route]]\nname = \"a\"\ndestination = \"127.0.0.1\"\nhandler = \"pool\"\n";
    let handler = "[handler.pool]\nkind = \"forward\"\nupstreams = \"10.0.0.9\"\n";
    let told = problems(&format!("{route}{handler}{test}{expect}"));
    let messages: Vec<_> = told
        .iter()
        .map(|problem| problem.message.as_str())
        .collect();
    assert_eq!(messages.len(), 2, "{told}");
}

#[test]
fn destinations() {
    check_destinations(&[
        (
            "\"127.0.0.1\"",
            &["`destination`: \"127.0.0.1\" has no port"],
        ),
        ("\"127.0.0.1:0\"", &["nothing can be sent to port 0"]),
        ("\"127.0.0.1:70000\"", &["port \"70000\" is above 65535"]),
        (
            "\"127.0.0.1:20-10\"",
            &["run backwards", "did you mean 10-20?"],
        ),
        (
            "\"192.0.2.7/24:5\"",
            &[
                "bits after its prefix length",
                "did you mean \"192.0.2.0/24\"?",
            ],
        ),
        (
            "\"192.0.2.0/33:5\"",
            &["\"33\" is not a prefix length", "at most 32"],
        ),
        ("\"::1:53\"", &["no brackets", "write \"[::1]:53\""]),
        (
            "\"localhost:53\"",
            &["destinations are addresses", "write \"127.0.0.1:53\""],
        ),
        (
            "\"[::ffff:10.0.0.1]:53\"",
            &["IPv4-mapped IPv6 address", "write \"10.0.0.1:53\""],
        ),
        (
            "\"239.0.0.0/8:5000\"",
            &["a prefix of groups cannot be joined", "name each group"],
        ),
        (
            "\"[ff00::/8]:5000\"",
            &["a prefix of groups cannot be joined"],
        ),
        (
            "\"[fe80::1]:53\"",
            &["is link-local, so it needs an interface", "add interface ="],
        ),
        (
            "\"10.0.0.1:53, 10.0.0.2:53\"",
            &["contains a blank", "write several as a list"],
        ),
        (
            "\"10.0.0.1:53,10.0.0.2:53\"",
            &["contains a comma", "write several as a list"],
        ),
        (
            "\"127.0.0.1: 5000\"",
            &["contains a blank", "write \"127.0.0.1:5000\""],
        ),
        (
            "\" [::1]:5000\"",
            &["contains a blank", "write \"[::1]:5000\""],
        ),
        (
            "\"127.0.0.256:5\"",
            &[
                "is not an IP address",
                "IPv4 is four numbers from 0 to 255, as in \"127.0.0.1\"",
            ],
        ),
        (
            "\"127.1:5\"",
            &["is not an IP address", "IPv4 is four numbers from 0 to 255"],
        ),
        (
            "\"010.0.0.1:5\"",
            &["is not an IP address", "without leading zeros"],
        ),
        (
            "\"127.1/16:5\"",
            &["\"127.1\" is not an IP address", "IPv4 is four numbers"],
        ),
        (
            "\"[::12345]:5\"",
            &[
                "is not an IP address",
                "IPv6 is groups of up to four hexadecimal digits",
            ],
        ),
        ("\"\\u001b[31m:5\"", &["\"\\u{1b}[31m\" is a name"]),
        (
            "1234",
            &["expected a destination such as \"127.0.0.1:1234\", found the number 1234"],
        ),
        ("true", &["found `true`"]),
        ("{}", &["found a table"]),
        ("[]", &["the list is empty"]),
        (
            "\"10.0.0.1:1-5000\"",
            &["more than 4096 sockets are needed", "5000 ports here"],
        ),
        (
            "\"10.0.0.0/8:1-5000\"",
            &["more than 4096 sockets are needed"],
        ),
    ]);
    check(&[
        (
            "[[route]]\nhandler = \"echo\"\ndestination = [\n  \"127.0.0.1:1\",\n  \"127.0.0.1\",\n]\n",
            "5:3",
            &["`destination`: \"127.0.0.1\" has no port"],
        ),
        (
            "[[route]]\nhandler = \"echo\"\n",
            "1:1",
            &["[[route]] has no `destination`"],
        ),
        (
            "[[route]]\ndestination = [\"10.0.0.1:1\", \"10.0.0.1:1\"]\nhandler = \"echo\"\n",
            "2:30",
            &["routed twice", "first here", "again here"],
        ),
    ]);
}

#[test]
fn sources_interfaces_and_the_rest_of_a_route() {
    check_below(&[
        (
            "source = \"10.0.0.1/8\"\n",
            "4:10",
            &[
                "`source`",
                "did you mean \"10.0.0.0/8\"? or, for this host alone, \"10.0.0.1\"",
            ],
        ),
        (
            "source = [\"10.0.0.1\", \"elsewhere\"]\n",
            "4:23",
            &["\"elsewhere\" is not an IP address"],
        ),
        (
            "source = \"::1\"\n",
            "4:10",
            &["`source`: no `destination` is IPv6"],
        ),
        (
            "source = \"239.1.1.1\"\n",
            "4:10",
            &["a group cannot be the source of a datagram"],
        ),
        (
            "source = \"::ffff:10.0.0.1\"\n",
            "4:10",
            &["write \"10.0.0.1\""],
        ),
        ("source = []\n", "4:10", &["the list is empty"]),
        (
            "source = [\"10.0.0.1\", \"10.0.0.1\"]\n",
            "4:23",
            &["the same source twice", "first here"],
        ),
        (
            "interface = \"\"\n",
            "4:13",
            &["the name of the interface is empty"],
        ),
        (
            "interface = \"a-very-long-name\"\n",
            "4:13",
            &["more than 15 bytes", "`ip link` lists them"],
        ),
        (
            "interface = \"eth/0\"\n",
            "4:13",
            &["cannot be the name of an interface"],
        ),
        (
            "interface = 2\n",
            "4:13",
            &["`interface`: expected the name or an address"],
        ),
        (
            "share = \"yes\"\n",
            "4:9",
            &[
                "`share`: expected true or false",
                "write true, without quotes",
            ],
        ),
        (
            "name = \"a\\nb\"\n",
            "4:8",
            &["`name`: cannot be \"a\\u{a}b\""],
        ),
        (
            "interface = \"e\\nf\"\n",
            "4:13",
            &["`interface`: \"e\\u{a}f\" cannot be"],
        ),
        (
            "name = \"a b\"\n",
            "4:8",
            &["`name`: cannot be \"a b\"", "letters, digits"],
        ),
        ("name = \"\"\n", "4:8", &["`name`: is empty"]),
    ]);
    check(&[(
        "[[route]]\ndestination = [\"10.0.0.1:1\", \"[::1]:1\"]\nsource = \"10.0.0.0/8\"\nhandler = \"echo\"\n",
        "2:30",
        &[
            "no `source` is IPv6, so no datagram can match it",
            "IPv4 only",
        ],
    )]);
}

#[test]
fn routes_that_contradict_each_other() {
    check_below(&[
        (
            "[[route]]\ndestination = \"127.0.0.1:1-1\"\nhandler = \"print\"\n",
            "5:15",
            &[
                "127.0.0.1:1 is routed twice",
                "2 | destination = \"127.0.0.1:1\"",
                "first here",
                "again here",
            ],
        ),
        (
            "name = \"x\"\n[[route]]\nname = \"x\"\ndestination = \"127.0.0.1:2\"\nhandler = \"print\"\n",
            "6:8",
            &["`name`: \"x\" is taken", "first here"],
        ),
    ]);
}

#[test]
fn names_of_handlers() {
    let route = |handler: &str, rest: &str| -> &'static str {
        format!("[[route]]\ndestination = \"127.0.0.1:1\"\nhandler = {handler}\n{rest}").leak()
    };
    check(&[
        (
            route("\"ehco\"", ""),
            "3:11",
            &["no handler and no kind \"ehco\"", "did you mean \"echo\"?"],
        ),
        (
            route("\"kafka\"", ""),
            "3:11",
            &["the kinds are echo, print, forward and reply"],
        ),
        (
            route("[\"echo\", \"echo\"]", ""),
            "3:20",
            &["the same handler twice", "first here"],
        ),
        (route("[]", ""), "3:11", &["the list is empty"]),
        (
            route("3", ""),
            "3:11",
            &["`handler`: expected text between quotes, found the number 3"],
        ),
        (
            route("\"forward\"", ""),
            "3:11",
            &[
                "\"forward\" needs settings: upstreams",
                "[handler.collectors]",
                "kind = \"forward\"",
                "upstreams = [",
            ],
        ),
        (
            route("\"reply\"", ""),
            "3:11",
            &["\"reply\" needs one of text or hex", "[handler.hello]"],
        ),
        (
            "[[route]]\ndestination = \"127.0.0.1:1\"\n",
            "1:1",
            &["[[route]] has no `handler`"],
        ),
    ]);
    let long = "x".repeat(65);
    let long: &'static str = route(
        &format!("\"{long}\""),
        &format!("[handler.{long}]\nkind = \"print\"\n"),
    );
    check(&[
        (
            route("\"a\"", "[handler.a]\n"),
            "4:1",
            &["[handler.a] has no `kind`", "the kinds are echo, print"],
        ),
        (
            route("\"a\"", "[handler.a]\nkind = \"fwd\"\n"),
            "5:8",
            &["`kind`: there is no kind \"fwd\"", "the kinds are"],
        ),
        (
            route("\"a\"", "[handler.a]\nkind = \"forwrad\"\n"),
            "5:8",
            &["did you mean \"forward\"?"],
        ),
        (
            route("\"a\"", "[handler.a]\nkind = 3\n"),
            "5:8",
            &["`kind`: expected text", "the kinds are"],
        ),
        (
            route("\"echo\"", "[handler.echo]\nkind = \"echo\"\n"),
            "4:10",
            &["\"echo\" is the name of a kind", "[handler.my_echo]"],
        ),
        (
            route("\"a b\"", "[handler.\"a b\"]\nkind = \"print\"\n"),
            "4:10",
            &["the name of a handler cannot be \"a b\""],
        ),
        (
            route("\"\"", "[handler.\"\"]\nkind = \"print\"\n"),
            "4:10",
            &["the name of a handler is empty"],
        ),
        (
            long,
            "4:10",
            &["the name of a handler is too long", "1 to 64 letters"],
        ),
    ]);
}

#[test]
fn settings_of_kinds() {
    let table = |rest: &str| -> &'static str {
        format!("[[route]]\ndestination = \"127.0.0.1:1\"\nhandler = \"a\"\n[handler.a]\n{rest}")
            .leak()
    };
    check(&[
        (
            table("kind = \"forward\"\n"),
            "4:1",
            &["[handler.a] has no `upstreams`"],
        ),
        (
            table("kind = \"forward\"\nupstreams = []\n"),
            "6:13",
            &["the list is empty"],
        ),
        (
            table("kind = \"forward\"\nupstreams = \"10.0.0.1\"\n"),
            "6:13",
            &["`upstreams`", "add the port"],
        ),
        (
            table("kind = \"forward\"\nupstreams = [\"10.0.0.1:1\", 7]\n"),
            "6:28",
            &["`upstreams`: expected an upstream", "found the number 7"],
        ),
        (
            table("kind = \"forward\"\nupstreams = \"a:1\"\npick = \"al\"\n"),
            "7:8",
            &["did you mean \"all\"?"],
        ),
        (
            table("kind = \"forward\"\nupstreams = \"10.0.0.1: 1\"\n"),
            "6:13",
            &["\" 1\" is not a port", "without the blank"],
        ),
        (
            table("kind = \"echo\"\nttl = 0\n"),
            "6:7",
            &["`ttl`: expected a whole number from 1 to 255"],
        ),
        (
            table("kind = \"reply\"\nhex = \"00\"\ntext = \"x\"\n"),
            "7:1",
            &["`hex` and `text` exclude each other", "also given here"],
        ),
    ]);
}

/// All errors of a file are reported at once, in the order of the file, and nothing else is.
#[test]
fn all_at_once() {
    let problems = problems(
        "[daemon]\nworkers = 0\nlgo = 1\n\n[[route]]\ndestination = \"127.0.0.1\"\nhandler = \"ehco\"\nsahre = true\n\n\
         [[route]]\nsource = \"10.0.0.1/8\"\n\n[handler.b]\nkind = \"forward\"\nupstreams = [\"x\", \"10.0.0.1:0\"]\n",
    );
    let lines: Vec<usize> = problems
        .iter()
        .map(|one| problems.position(one).line)
        .collect();
    // Line 10 lacks two keys. No route names handler b (a warning), which has two bad upstreams.
    assert_eq!(lines, [2, 3, 6, 7, 8, 10, 10, 11, 13, 15, 15], "{problems}");
    assert!(
        problems
            .to_string()
            .ends_with("u.toml: 10 errors, 1 warning"),
        "{problems}"
    );
}

/// The complete output that a user sees.
#[test]
fn the_picture() {
    let text = format!(
        "{HEAD}\n[[route]]\ndestination = [\"10.0.0.1:1\", \"127.0.0.1:1\"]\nhandler = \"print\"\n"
    );
    let expected = r#"error: `destination`: 127.0.0.1:1 is routed twice, for the same sources
 --> u.toml:6:30
  |
6 | destination = ["10.0.0.1:1", "127.0.0.1:1"]
  |                              ^^^^^^^^^^^^^ again here
  |
 ::: u.toml:2:15
  |
2 | destination = "127.0.0.1:1"
  |               ------------- first here
  |
  = help: one route can name several handlers: handler = ["...", "..."];
          to tell the routes apart, add `interface` or `source`

u.toml: 1 error"#;
    assert_eq!(problems(&text).to_string(), expected);
}

/// The limits hold as documented, and each one is reported as one problem.
#[test]
fn limits() {
    let routes = |count: usize| {
        let route = "[[route]]\ndestination = \"0.0.0.0:1\"\nhandler = \"echo\"\n";
        problems(&route.repeat(count)).to_string()
    };
    assert!(routes(65_537).contains("more than 65536 routes"));

    let sources: Vec<String> = (0..65_536_u32)
        .map(|n| format!("\"10.{}.{}.1\"", n >> 8, n & 255))
        .collect();
    let sources = sources.join(",");
    let route = |port: u32| {
        format!(
            "[[route]]\ndestination = \"0.0.0.0:{port}\"\nhandler = \"echo\"\nsource = [{sources}]\n"
        )
    };
    let text: String = (1..=5).map(route).collect();
    let told = problems(&text).to_string();
    assert!(
        told.contains("more than 262144 pairs of destination and source"),
        "{}",
        told.len()
    );
    assert!(told.contains("u.toml:17:1"), "{told}");

    let handlers: String = (0..4_097)
        .map(|n| format!("[handler.h{n}]\nkind = \"print\"\n"))
        .collect();
    assert!(
        problems(&format!("{HEAD}{handlers}"))
            .to_string()
            .contains("more than 4096 handlers")
    );
}
