//! The error messages for settings of `forward` that contradict each other: the place, the reason, and what to write
//! instead. No settings at all make the parser fail otherwise.

use std::path::Path;

use proptest::prelude::*;
use udispatch::config::{Config, Problems};
use udispatch::handlers::KINDS;

/// Lines of a `forward` table, the place of the only problem (the first line is line 1), and parts of the message.
type Case = (&'static str, &'static str, &'static [&'static str]);

const HEAD: &str =
    "[[route]]\ndestination = \"127.0.0.1:1\"\nhandler = \"a\"\n[handler.a]\nkind = \"forward\"\n";
const HEAD_LINES: usize = 5;

fn parse(settings: &str) -> Result<Config, Problems> {
    Config::parse(Path::new("u.toml"), &format!("{HEAD}{settings}"), KINDS)
}

fn places(problems: &Problems) -> Vec<String> {
    let position = |problem| problems.position(problem);
    let place = problems
        .iter()
        .map(position)
        .map(|at| format!("{}:{}", at.line - HEAD_LINES, at.column));
    place.collect()
}

fn check(cases: &[Case]) {
    for (settings, place, fragments) in cases {
        let Err(problems) = parse(settings) else {
            panic!("accepted:\n{settings}");
        };
        assert_eq!(places(&problems), [*place], "\n{settings}\n{problems}");
        for fragment in *fragments {
            assert!(
                problems.to_string().contains(fragment),
                "no {fragment:?} in\n{problems}"
            );
        }
    }
}

fn accept(settings: &[&str]) {
    for settings in settings {
        match parse(settings) {
            Ok(config) => assert!(
                config.warnings.is_empty(),
                "{settings}\n{}",
                config.warnings
            ),
            Err(problems) => panic!("{settings}\n{problems}"),
        }
    }
}

/// Keys of the tables, each with another mistake.
#[test]
fn values() {
    check(&[
        ("upstreams = []", "1:13", &["the list is empty"]),
        (
            "upstreams = [3]",
            "1:14",
            &["`upstreams`: expected an upstream", "found the number 3"],
        ),
        (
            "upstreams = {}",
            "1:13",
            &["`upstreams` of [handler.a] has no `address`"],
        ),
        (
            "upstreams = { adress = \"a:1\" }",
            "1:15",
            &["has no key \"adress\"", "did you mean \"address\"?"],
        ),
        (
            "upstreams = { address = \"a\" }",
            "1:25",
            &["`address`", "add the port"],
        ),
        (
            "upstreams = { address = \"a:1\", wieght = 2 }",
            "1:32",
            &[
                "`upstreams` of [handler.a] has no key \"wieght\"",
                "did you mean \"weight\"?",
            ],
        ),
        (
            "upstreams = { address = \"a:1\", weight = 0 }",
            "1:41",
            &["`weight`", "from 1 to 1000"],
        ),
        (
            "upstreams = { address = \"a:1\", sample = \"1/1\" }",
            "1:41",
            &["leave the key out to take all datagrams"],
        ),
        (
            "upstreams = { address = \"a:1\", sample = \"1/1000001\" }",
            "1:41",
            &["denominator above 1000000"],
        ),
        (
            "upstreams = { address = \"a:1\", max_rate = 5 }",
            "1:43",
            &["a number without a unit is not a rate"],
        ),
        (
            "upstreams = { address = \"a:1\", ttl = 256 }",
            "1:38",
            &["from 1 to 255"],
        ),
        (
            "upstreams = { address = \"a:1\", dscp = \"EF\" }",
            "1:39",
            &["did you mean \"ef\"?"],
        ),
        (
            "upstreams = { address = \"a:1\", proxy = \"v1\" }",
            "1:40",
            &["expected v2"],
        ),
        (
            "upstreams = { address = \"a:1\", source = \"kep\" }",
            "1:41",
            &["did you mean \"keep\"?"],
        ),
        (
            "upstreams = { address = \"a:1\", drain = 1 }",
            "1:40",
            &["expected true or false"],
        ),
        (
            "upstreams = \"a:1\"\npick = \"hsah\"",
            "2:8",
            &["did you mean \"hash\"?"],
        ),
        (
            "upstreams = \"a:1\"\nspread = \"sesion\"",
            "2:10",
            &["did you mean \"session\"?"],
        ),
        (
            "upstreams = \"a:1\"\nreplies = \"yes\"",
            "2:11",
            &["expected true, false, \"first\" or \"all\""],
        ),
        (
            "upstreams = \"a:1\"\nreplies = \"true\"",
            "2:11",
            &["write true, without quotes"],
        ),
        (
            "upstreams = \"a:1\"\nreplies = 1",
            "2:11",
            &["found the number 1"],
        ),
        (
            "upstreams = \"a:1\"\npick = \"hash\"\nhash_on = \"sorce\"",
            "3:11",
            &["did you mean \"source\"?"],
        ),
        (
            "upstreams = \"a:1\"\npick = \"hash\"\nhash_on = 4",
            "3:11",
            &["or a table { offset, length }"],
        ),
        (
            "upstreams = \"a:1\"\npick = \"hash\"\nhash_on = { offset = 65507 }",
            "3:22",
            &["from 0 to 65506"],
        ),
        (
            "upstreams = \"a:1\"\npick = \"hash\"\nhash_on = { length = 0 }",
            "3:22",
            &["from 1 to 1024"],
        ),
        (
            "upstreams = \"a:1\"\npick = \"hash\"\nhash_on = { from = 0 }",
            "3:13",
            &["the keys are offset and length"],
        ),
        (
            "upstreams = \"a:1\"\nsession_idle = \"0s\"",
            "2:16",
            &["must be at least 1s"],
        ),
        (
            "upstreams = \"a:1\"\nsession_idle = \"2d\"",
            "2:16",
            &["must be at most"],
        ),
        (
            "upstreams = \"a:1\"\nsession_max = 1048577",
            "2:15",
            &["from 1 to 1048576"],
        ),
        (
            "upstreams = \"a:1\"\nreplies_max = 0",
            "2:15",
            &["from 1 to 1000000"],
        ),
        (
            "upstreams = \"a:1\"\nresolve_interval = \"1ms\"",
            "2:20",
            &["at least 1s"],
        ),
        (
            "upstreams = \"a:1\"\nhealth = \"tcp\"",
            "2:10",
            &["`health`: expected a table"],
        ),
    ]);
}

/// Health checks that send nothing, or never wait for the reply.
#[test]
fn health() {
    accept(&[
        "upstreams = \"a:1\"\nhealth = { fail_open = false }",
        "upstreams = \"a:1\"\nhealth = { probe = \"tcp\" }",
        "upstreams = \"a:1\"\nhealth = { probe = \"tcp\", expect = \"SSH-\" }",
        "upstreams = \"a:1\"\nhealth = { probe = \"udp\", send_hex = \"00 01\", expect = \"\\u0000\" }",
        "upstreams = \"a:1\"\nhealth = { probe = \"udp\", send = \"?\", interval = \"1s\" }",
        "upstreams = \"a:1\"\n[handler.a.health]\nprobe = \"udp\"\nsend = \"?\"\nrise = 1\nfall = 100",
    ]);
    check(&[
        (
            "upstreams = \"a:1\"\nhealth = {}",
            "2:10",
            &["`health` of [handler.a] has no `probe`"],
        ),
        (
            "upstreams = \"a:1\"\nhealth = { rise = 1 }",
            "2:10",
            &["has no `probe`"],
        ),
        (
            "upstreams = \"a:1\"\nhealth = { probe = \"icmp\" }",
            "2:20",
            &["expected udp or tcp"],
        ),
        (
            "upstreams = \"a:1\"\nhealth = { probe = \"udp\" }",
            "2:10",
            &["`send`: a UDP probe needs a payload", "send_hex"],
        ),
        (
            "upstreams = \"a:1\"\nhealth = { probe = \"udp\", send = \"\" }",
            "2:34",
            &["is empty"],
        ),
        (
            "upstreams = \"a:1\"\nhealth = { probe = \"udp\", send_hex = \"0\" }",
            "2:38",
            &["pairs of hex digits"],
        ),
        (
            "upstreams = \"a:1\"\nhealth = { probe = \"udp\", send = \"a\", send_hex = \"00\" }",
            "2:39",
            &["`send` and `send_hex` exclude each other"],
        ),
        (
            "upstreams = \"a:1\"\nhealth = { probe = \"tcp\", timeout = \"6s\" }",
            "2:37",
            &["`timeout`: is longer than `interval`, 5s"],
        ),
        (
            "upstreams = \"a:1\"\nhealth = { probe = \"tcp\", interval = \"1ms\" }",
            "2:38",
            &["at least 100ms"],
        ),
        (
            "upstreams = \"a:1\"\nhealth = { probe = \"tcp\", fall = 101 }",
            "2:34",
            &["from 1 to 100"],
        ),
    ]);
    let long = format!(
        "upstreams = \"a:1\"\nhealth = {{ probe = \"udp\", send = \"{}\" }}",
        "x".repeat(1_025)
    );
    check(&[(long.leak(), "2:34", &["1025 bytes, more than 1024"])]);
}

/// An upstream may not be listed twice. Two ways to one address are two upstreams.
#[test]
fn repeated_upstreams() {
    accept(&[
        "upstreams = [\"a:1\", { address = \"a:1\", interface = \"eth1\" }]",
        "upstreams = [{ address = \"10.0.0.1:1\", source = \"10.0.0.2\" }, { address = \"10.0.0.1:1\", source = \"10.0.0.3\" }]",
        "upstreams = [\"a:1\", { address = \"a:1\", dscp = \"ef\" }]",
    ]);
    check(&[
        (
            "upstreams = [\"a:1\", \"b:1\", \"a:1\"]",
            "1:28",
            &["`upstreams`: a:1 is listed twice", "first here"],
        ),
        (
            "upstreams = [\"a:1\", { address = \"a:1\" }]",
            "1:33",
            &["a:1 is listed twice"],
        ),
        (
            "upstreams = [\"a:1\", { address = \"a:1\", weight = 2 }]",
            "1:33",
            &["a:1 is listed twice"],
        ),
        (
            "upstreams = [\"a:1\", { address = \"a:1\", dscp = \"cs0\" }, { address = \"a:1\", dscp = 0 }]",
            "1:68",
            &["twice"],
        ),
    ]);
}

/// Keys that have no meaning with another `pick`.
#[test]
fn picks() {
    accept(&[
        "upstreams = \"a:1\"\npick = \"least_sessions\"",
        "upstreams = \"a:1\"\npick = \"least_sessions\"\nreplies = false\nspread = \"session\"",
        "upstreams = \"a:1\"\npick = \"least_sessions\"\nspread = \"datagram\"",
        "upstreams = \"a:1\"\npick = \"hash\"\nhash_on = {}",
        "upstreams = \"a:1\"\npick = \"all\"\nreplies = \"all\"",
        "upstreams = [{ address = \"a:1\", backup = true }, { address = \"b:1\" }]\npick = \"first_alive\"",
    ]);
    check(&[
        (
            "upstreams = \"a:1\"\nhash_on = \"source\"",
            "2:11",
            &["`hash_on`: has an effect only with pick = \"hash\""],
        ),
        (
            "upstreams = \"a:1\"\nhash_on = { offset = 2 }",
            "2:11",
            &["has an effect only with pick = \"hash\""],
        ),
        (
            "upstreams = \"a:1\"\npick = \"all\"\nspread = \"session\"",
            "3:10",
            &["every upstream gets every datagram"],
        ),
        (
            "upstreams = \"a:1\"\npick = \"least_sessions\"\nreplies = false",
            "2:8",
            &["there are no sessions to count", "add spread = \"session\""],
        ),
        (
            "upstreams = \"a:1\"\nreplies = \"first\"",
            "2:11",
            &["only with pick = \"all\"", "write true"],
        ),
        (
            "upstreams = \"a:1\"\npick = \"hash\"\nreplies = \"all\"",
            "3:11",
            &["only with pick = \"all\"", "write true"],
        ),
        (
            "upstreams = [{ address = \"a:1\", weight = 2 }]\npick = \"all\"",
            "1:42",
            &["`weight`: has no effect with pick = \"all\""],
        ),
        (
            "upstreams = [{ address = \"a:1\", weight = 2 }, \"b:1\"]\npick = \"first_alive\"",
            "1:42",
            &["the order in the file decides"],
        ),
        (
            "upstreams = [{ address = \"a:1\", backup = true }, \"b:1\"]\npick = \"all\"",
            "1:42",
            &["`backup`: has no effect with pick = \"all\""],
        ),
    ]);
}

/// Settings of sessions and replies are errors that say why there are no sessions or replies.
#[test]
fn sessions() {
    accept(&[
        "upstreams = \"a:1\"\nsession_idle = \"2s\"",
        "upstreams = \"a:1\"\nsession_max = 1",
        "upstreams = \"a:1\"\nreplies = false\nspread = \"session\"\nsession_idle = \"1d\"\nrequests_max = 1",
        "upstreams = \"a:1\"\npick = \"all\"\nreplies = true\nreplies_max = 1\nsession_share = 65536",
        "upstreams = \"a:1\"\nspread = \"datagram\"\nsession_max = 5",
    ]);
    check(&[
        (
            "upstreams = [\"a:1\", \"b:1\", \"c:1\", \"d:1\", \"e:1\", \"f:1\", \"g:1\", \"h:1\", \"i:1\", \"j:1\", \
             \"k:1\", \"l:1\", \"m:1\", \"n:1\", \"o:1\", \"p:1\", \"q:1\"]\npick = \"all\"\nreplies = true\n\
             session_max = 1048576",
            "4:15",
            &[
                "1048576 sessions with 17 upstreams each",
                "smaller session_max",
            ],
        ),
        (
            "upstreams = \"a:1\"\nreplies = false\nsession_max = 5",
            "3:15",
            &[
                "`session_max`: there are no sessions if no replies are sent back",
                "spread = \"session\"",
            ],
        ),
        (
            "upstreams = \"a:1\"\npick = \"all\"\nsession_idle = \"5s\"",
            "3:16",
            &["every upstream gets every datagram", "add replies = true"],
        ),
        (
            "upstreams = { address = \"a:1\", source = \"keep\" }\nrequests_max = 5",
            "2:16",
            &["add spread = \"session\", or leave it out"],
        ),
        (
            "upstreams = \"239.1.1.1:1\"\npick = \"all\"\nsession_share = 5",
            "3:17",
            &["leave it out"],
        ),
        (
            "upstreams = \"a:1\"\nreplies = false\nspread = \"session\"\nsession_probation = \"5s\"",
            "4:21",
            &[
                "has an effect only if replies are sent back",
                "add replies = true",
            ],
        ),
        (
            "upstreams = \"a:1\"\npick = \"all\"\nreplies_max = 1",
            "3:15",
            &["only if replies are sent back"],
        ),
        (
            "upstreams = \"a:1\"\nreplies = false\nallow_low_ports = true",
            "3:19",
            &["only if replies are sent back"],
        ),
        (
            "upstreams = \"239.1.1.1:1\"\nanswer_groups = true",
            "2:17",
            &["only if replies are sent back", "leave it out"],
        ),
        (
            "upstreams = \"a:1\"\nsession_idle = \"2s\"\nsession_probation = \"3s\"",
            "3:21",
            &["`session_unreplied`: is longer than `session_idle`, 2s"],
        ),
        (
            "upstreams = \"a:1\"\nsession_max = 8\nsession_share = 9",
            "3:17",
            &["is more than `session_max`, 8"],
        ),
    ]);
}

/// Groups receive, and do not reply.
#[test]
fn groups() {
    accept(&[
        "upstreams = \"239.1.1.1:1\"",
        "upstreams = \"[ff02::fb%eth0]:5353\"",
        "upstreams = { address = \"239.1.1.1:1\", loop = false, ttl = 4, interface = \"eth0\" }",
        "upstreams = [\"239.1.1.1:1\", \"10.0.0.1:1\"]\npick = \"all\"",
        "upstreams = [\"10.0.0.1:1\", { address = \"239.1.1.1:1\", shadow = true }]\nreplies = false",
        "upstreams = [\"239.1.1.1:1\", \"10.0.0.1:1\"]\npick = \"all\"\nhealth = { probe = \"tcp\" }",
    ]);
    check(&[
        (
            "upstreams = \"239.1.1.1:1\"\nreplies = true",
            "1:13",
            &["which sends no replies", "replies = false"],
        ),
        (
            "upstreams = [\"239.1.1.1:1\", \"10.0.0.1:1\"]\npick = \"all\"\nreplies = true",
            "1:14",
            &[
                "239.1.1.1:1 is a multicast group, which sends no replies",
                "a handler of its own",
            ],
        ),
        (
            "upstreams = [\"10.0.0.1:1\", { address = \"239.1.1.1:1\", shadow = true }]",
            "1:40",
            &["which sends no replies"],
        ),
        (
            "upstreams = [\"10.0.0.1:1\", \"239.1.1.1:1\"]",
            "1:28",
            &[
                "cannot be one of several to pick from",
                "add pick = \"all\"",
            ],
        ),
        (
            "upstreams = { address = \"10.0.0.1:1\", loop = true }",
            "1:46",
            &[
                "`loop`: 10.0.0.1:1 is not a multicast group",
                "leave it out",
            ],
        ),
        (
            "upstreams = { address = \"a:1\", loop = false }",
            "1:39",
            &["is not a multicast group"],
        ),
        (
            "upstreams = \"239.1.1.1:1\"\nhealth = { probe = \"tcp\" }",
            "2:10",
            &["cannot be probed"],
        ),
    ]);
}

/// Sources to which no reply can come back, or from which no datagram can be sent.
#[test]
fn sources() {
    accept(&[
        "upstreams = { address = \"10.0.0.1:1\", source = \"keep\" }",
        "upstreams = { address = \"10.0.0.1:1\", source = \"10.0.0.2\" }",
        "upstreams = { address = \"10.0.0.1:1\", source = \"10.0.0.2:53\" }\nreplies = false",
        "upstreams = { address = \"a:1\", source = \"2001:db8::1\", proxy = \"v2\" }",
        "upstreams = { address = \"[fe80::1%eth0]:1\", source = \"fe80::2\", interface = \"eth0\" }",
    ]);
    check(&[
        (
            "upstreams = { address = \"a:1\", source = \"keep\" }\nreplies = true",
            "1:41",
            &[
                "`source`: replies would go to the sender directly",
                "write \"own\"",
            ],
        ),
        (
            "upstreams = { address = \"a:1\", source = \"10.0.0.2:53\" }",
            "1:41",
            &[
                "each session needs a port of its own",
                "\"10.0.0.2\"",
                "replies = false",
            ],
        ),
        (
            "upstreams = { address = \"10.0.0.1:1\", source = \"2001:db8::1\" }",
            "1:48",
            &[
                "2001:db8::1 is IPv6, but 10.0.0.1:1 is IPv4",
                "write an IPv4 address",
            ],
        ),
        (
            "upstreams = { address = \"[fe80::1%eth0]:1\", source = \"10.0.0.1\" }",
            "1:54",
            &["is IPv4, but"],
        ),
        (
            "upstreams = { address = \"[2001:db8::1]:1\", source = \"fe80::2\" }",
            "1:53",
            &["is link-local, so it needs an interface", "add interface ="],
        ),
        (
            "upstreams = { address = \"[fe80::1%eth0]:1\", interface = \"eth1\" }",
            "1:57",
            &["names another interface, eth0"],
        ),
    ]);
}

/// Shadows and backups need another upstream beside them.
#[test]
fn roles() {
    accept(&[
        "upstreams = [\"a:1\", { address = \"b:1\", shadow = true }]",
        "upstreams = [\"a:1\", { address = \"b:1\", shadow = true, sample = \"1/10\" }]\nreplies = false",
        "upstreams = [\"a:1\", { address = \"b:1\", backup = true, weight = 3 }]",
        "upstreams = [\"a:1\", { address = \"b:1\", drain = true }]",
        "upstreams = [\"a:1\", { address = \"b:1\", drain = false, backup = false, shadow = false }]",
    ]);
    check(&[
        (
            "upstreams = { address = \"a:1\", shadow = true }",
            "1:41",
            &["the only upstream is a shadow, so there is nothing to copy"],
        ),
        (
            "upstreams = [{ address = \"a:1\", shadow = true }, { address = \"b:1\", shadow = true }]",
            "1:42",
            &["every upstream is a shadow"],
        ),
        (
            "upstreams = [\"a:1\", { address = \"b:1\", backup = true, shadow = true }]",
            "1:49",
            &["`backup`: a shadow gets copies", "leave one of the two out"],
        ),
        (
            "upstreams = [\"a:1\", { address = \"b:1\", weight = 3, shadow = true }]",
            "1:49",
            &["`weight`: a shadow gets copies", "it is never picked"],
        ),
        (
            "upstreams = [{ address = \"a:1\", backup = true }, { address = \"b:1\", shadow = true }]",
            "1:42",
            &["every upstream is a backup"],
        ),
    ]);
}

/// It is odd that all upstreams drain, but it may be intended for some time.
#[test]
fn draining_all_is_a_warning() {
    let config = parse(
        "upstreams = [{ address = \"a:1\", drain = true }, { address = \"b:1\", drain = true }]",
    )
    .unwrap();
    assert_eq!(places(&config.warnings), ["1:41"]);
    assert!(
        config
            .warnings
            .to_string()
            .contains("every upstream drains"),
        "{}",
        config.warnings
    );
}

/// A value that cannot be parsed contradicts nothing: one mistake is reported once.
#[test]
fn one_mistake_is_one_problem() {
    check(&[
        (
            "upstreams = \"a\"\npick = \"all\"\nsession_max = 5",
            "1:13",
            &["add the port"],
        ),
        (
            "upstreams = \"a:1\"\nreplies = \"no\"\nsession_max = 5",
            "2:11",
            &["expected true"],
        ),
        (
            "upstreams = \"a:1\"\npick = \"al\"\nreplies = \"all\"",
            "2:8",
            &["did you mean \"all\"?"],
        ),
        (
            "upstreams = { address = \"10.0.0.1:1\", source = \"::\", weight = 1 }",
            "1:48",
            &["stands for every address"],
        ),
    ]);
}

/// All mistakes are reported at once.
#[test]
fn several_mistakes_are_told_together() {
    let problems = parse(
        "upstreams = [{ address = \"a:1\", weight = 0, ttl = 0 }, \"b\"]\npick = 1\nsession_max = 0\nhealth = { probe = 1 }\nttl = 0",
    );
    assert_eq!(
        places(&problems.unwrap_err()),
        ["1:42", "1:51", "1:56", "2:8", "3:15", "4:20", "5:7"]
    );
}

fn line() -> impl Strategy<Value = String> {
    let keys = [
        "pick",
        "hash_on",
        "spread",
        "replies",
        "session_idle",
        "session_unreplied",
        "session_max",
        "session_share",
        "replies_max",
        "requests_max",
        "health",
        "resolve_interval",
        "resolve_optional",
        "allow_low_ports",
        "reply_to_groups",
        "ttl",
        "kind",
        "upstreams",
        "upstreams.weight",
        "health.probe",
    ];
    (prop::sample::select(keys.to_vec()), value())
        .prop_map(|(key, value)| format!("{key} = {value}\n"))
}

fn value() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "true",
        "false",
        "0",
        "1",
        "255",
        "65537",
        "-1",
        "nan",
        "\"all\"",
        "\"first\"",
        "\"hash\"",
        "\"random\"",
        "\"least_sessions\"",
        "\"first_alive\"",
        "\"session\"",
        "\"datagram\"",
        "\"source\"",
        "\"1s\"",
        "\"2d\"",
        "\"0s\"",
        "{}",
        "[]",
        "{ offset = 1 }",
        "{ length = 2, offset = 9 }",
        "{ fail_open = false }",
        "{ probe = \"tcp\" }",
        "{ probe = \"udp\", send = \"?\" }",
        "\"a:1\"",
        "\"\\u0000\"",
        "1979-05-27",
    ]);
    prop_oneof![9 => known.prop_map(str::to_owned), 1 => "\"\\PC{0,8}\""]
}

fn upstream() -> impl Strategy<Value = String> {
    let address = prop::sample::select(vec![
        "a:1",
        "b:1",
        "10.0.0.1:1",
        "239.1.1.1:1",
        "[ff02::1%eth0]:1",
        "[fe80::1%2]:1",
        "[2001:db8::1]:1",
        "x",
        "",
    ]);
    let more = prop::sample::select(vec![
        "weight = 2",
        "sample = \"1/2\"",
        "ttl = 3",
        "dscp = \"ef\"",
        "dscp = 46",
        "source = \"keep\"",
        "source = \"10.0.0.2\"",
        "source = \"[::1]:5\"",
        "source = \"fe80::1\"",
        "proxy = \"v2\"",
        "max_rate = \"1/s\"",
        "interface = \"eth0\"",
        "loop = true",
        "drain = true",
        "backup = true",
        "shadow = true",
        "shadow = false",
        "x = 1",
    ]);
    let table =
        (address.clone(), prop::collection::btree_set(more, 0..4)).prop_map(|(address, more)| {
            let more: String = more.iter().map(|more| format!(", {more}")).collect();
            format!("{{ address = \"{address}\"{more} }}")
        });
    prop_oneof![1 => address.prop_map(|address| format!("\"{address}\"")), 2 => table, 1 => value()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// No settings make the parser panic or fail without a message, and each error has a place in the file.
    #[test]
    fn any_settings(upstreams in prop::collection::vec(upstream(), 0..4), lines in prop::collection::vec(line(), 0..6)) {
        let settings = format!("upstreams = [{}]\n{}", upstreams.join(", "), lines.concat());
        match parse(&settings) {
            Ok(config) => prop_assert!(!config.handlers[0].spec.describe().is_empty()),
            Err(problems) => {
                prop_assert!(problems.errors() > 0);
                prop_assert!(problems.iter().all(|problem| problem.at.end <= HEAD.len() + settings.len()));
            }
        }
    }
}
