//! The ledger as the daemon prints it, parsed and checked by a second implementation of the arithmetic: law 3 in every
//! row.

use std::collections::BTreeMap;
use std::fmt::Display;

/// The rows of the ledger, by label.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Listeners. Here `last` is the number of kernel drops.
    pub listeners: BTreeMap<String, Row>,
    /// Routes, by name.
    pub routes: BTreeMap<String, Row>,
    /// Handlers. Here `last` is the number of datagrams sent. The replies of a handler's upstreams are the row `NAME,
    /// replies`.
    pub handlers: BTreeMap<String, Row>,
    /// Upstreams, by `HANDLER → ADDRESS`. Only the notes below a row are parsed, and `last` is the number of datagrams
    /// sent.
    pub upstreams: BTreeMap<String, Row>,
    balance: String,
}

/// One row of the ledger.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Row {
    pub received: u64,
    pub handled: u64,
    pub dropped: u64,
    pub in_flight: u64,
    pub last: u64,
    /// Dropped datagrams, by reason.
    pub reasons: BTreeMap<String, u64>,
    /// Refused sends by errno.
    pub not_sent: BTreeMap<String, u64>,
    /// Errors that came back for what was sent, by errno.
    pub came_back: BTreeMap<String, u64>,
    /// Only for an upstream.
    pub upstream: Option<Upstream>,
    /// Only for a forwarder that has, or had, sessions.
    pub sessions: Sessions,
}

/// The session counters of a forwarder.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Sessions {
    pub open: u64,
    pub unreplied: u64,
    pub ports: u64,
    pub opened: u64,
    /// Sessions that moved here from another handler, or from here to another.
    pub inherited: u64,
    pub left: u64,
    /// Sessions that have ended, by cause.
    pub idle: u64,
    pub unanswered: u64,
    pub complete: u64,
    pub evicted: u64,
    pub broken: u64,
    /// Datagrams from senders that may not be replied to.
    pub one_way: u64,
}

/// The counters of an upstream.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Upstream {
    pub sent: u64,
    pub failed: u64,
    pub skipped: u64,
    pub answers: u64,
    pub sessions: u64,
    /// Replies of a shadow that were equal, different or missing.
    pub shadow: [u64; 3],
    /// Number of workers that consider the upstream dead.
    pub dead_in: u64,
}

impl Sessions {
    /// Reads `N LABEL, N LABEL; ended: N LABEL, …`. Labels that are not known here are for people.
    fn read(&mut self, line: &str) {
        let line = line.replace("ended:", "");
        for counted in line.split([',', ';']) {
            let (number, label) = counted
                .trim()
                .split_once(' ')
                .expect("a number and a label");
            let number: u64 = number.parse().expect("a number");
            match label {
                "sessions open" => self.open = number,
                "unreplied" => self.unreplied = number,
                "source ports" => self.ports = number,
                "opened" => self.opened = number,
                "inherited" => self.inherited = number,
                "left" => self.left = number,
                "idle" => self.idle = number,
                "unanswered" => self.unanswered = number,
                "complete" => self.complete = number,
                "evicted" => self.evicted = number,
                "broken" => self.broken = number,
                _ => {}
            }
        }
    }

    /// Every session that was opened or inherited is open, has ended, or has left.
    fn assert_balanced(&self, label: &str) {
        let ended = self.idle + self.unanswered + self.complete + self.evicted + self.broken;
        assert_eq!(
            self.opened + self.inherited,
            self.open + self.left + ended,
            "{label}: {self:?}"
        );
    }
}

impl Ledger {
    /// Parses the last ledger in the lines.
    pub fn parse(lines: &[String]) -> Ledger {
        let start = lines
            .iter()
            .rposition(|line| line.starts_with("listener "))
            .expect("a ledger was printed");
        let mut ledger = Ledger::default();
        let mut section = "";
        let mut label = String::new();
        for line in &lines[start..] {
            match line.split_whitespace().next() {
                Some(head @ ("listener" | "route" | "handler")) if line.contains("in flight") => {
                    section = head;
                }
                Some("upstream") if line.contains("not sent") => section = "upstream",
                Some("balance:") => {
                    ledger.balance = line.clone();
                    break;
                }
                Some(_) if line.starts_with("  ") => {
                    ledger.section(section).get_mut(&label).unwrap().note(line);
                }
                Some(_) => {
                    let (name, row) = match section {
                        "upstream" => Row::of_upstream(line),
                        "route" => Row::parse(line, 4),
                        _ if line.contains(", replies ") => Row::parse(line, 4),
                        _ => Row::parse(line, 5),
                    };
                    label = name;
                    let before = ledger.section(section).insert(label.clone(), row);
                    assert!(before.is_none(), "two rows are called {label}");
                }
                None => {}
            }
        }
        ledger
    }

    fn section(&mut self, name: &str) -> &mut BTreeMap<String, Row> {
        match name {
            "listener" => &mut self.listeners,
            "route" => &mut self.routes,
            "upstream" => &mut self.upstreams,
            _ => &mut self.handlers,
        }
    }

    /// Asserts law 3 in every row and between listeners and routes, and that the daemon itself reports a balance.
    pub fn assert_balanced(&self) {
        for (label, row) in self
            .listeners
            .iter()
            .chain(&self.routes)
            .chain(&self.handlers)
        {
            assert_eq!(
                row.received,
                row.handled + row.dropped + row.in_flight,
                "{label}: {self:#?}"
            );
            assert_eq!(
                row.dropped,
                row.reasons.values().sum::<u64>(),
                "{label}: {self:#?}"
            );
            row.sessions.assert_balanced(label);
        }
        let unrouted = ["no_route", "duplicate_copy", "truncated", "control_lost"];
        let dropped: u64 = self
            .listeners
            .values()
            .flat_map(|row| unrouted.map(|reason| row.reason(reason)))
            .sum();
        let routed: u64 = self.routes.values().map(|row| row.received).sum();
        assert_eq!(
            self.received(),
            routed + dropped,
            "listeners against routes: {self:#?}"
        );
        assert!(self.balance.contains("exact"), "{}", self.balance);
    }

    /// The number of datagrams that all listeners received.
    pub fn received(&self) -> u64 {
        self.listeners.values().map(|row| row.received).sum()
    }

    /// The number of datagrams that the kernel dropped before all listeners.
    pub fn kernel_drops(&self) -> u64 {
        self.listeners.values().map(|row| row.last).sum()
    }

    /// The row of a listener.
    pub fn listener(&self, label: &str) -> &Row {
        self.listeners
            .get(label)
            .unwrap_or_else(|| panic!("no listener {label}: {self:#?}"))
    }

    /// The row of a route.
    pub fn route(&self, label: &str) -> &Row {
        self.routes
            .get(label)
            .unwrap_or_else(|| panic!("no route {label}: {self:#?}"))
    }

    /// The row of a handler.
    pub fn handler(&self, name: &str) -> &Row {
        self.handlers
            .get(name)
            .unwrap_or_else(|| panic!("no handler {name}: {self:#?}"))
    }
}

impl Ledger {
    /// The counters of an upstream.
    pub fn upstream(&self, label: &str) -> Upstream {
        let row = self
            .upstreams
            .get(label)
            .unwrap_or_else(|| panic!("no upstream {label}: {self:#?}"));
        row.upstream.unwrap_or_default()
    }
}

impl Row {
    /// Parses a label, which may have spaces, and the numbers that follow it.
    fn parse(line: &str, numbers: usize) -> (String, Row) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (label, numbers) = words.split_at(words.len() - numbers);
        let numbers: Vec<u64> = numbers
            .iter()
            .map(|word| word.parse().unwrap_or_else(|_| panic!("{line}")))
            .collect();
        let [received, handled, dropped, in_flight] = numbers[..4] else {
            panic!("{line}")
        };
        let last = numbers.get(4).copied().unwrap_or(0);
        (
            label.join(" "),
            Row {
                received,
                handled,
                dropped,
                in_flight,
                last,
                ..Row::default()
            },
        )
    }

    /// Parses the row of an upstream: datagrams sent, refused and skipped, replies, and sessions.
    fn of_upstream(line: &str) -> (String, Row) {
        let (label, row) = Row::parse(line, 5);
        let Row {
            received,
            handled,
            dropped,
            in_flight,
            last,
            ..
        } = row;
        let upstream = Upstream {
            sent: received,
            failed: handled,
            skipped: dropped,
            answers: in_flight,
            sessions: last,
            ..Upstream::default()
        };
        (
            label,
            Row {
                last: received,
                upstream: Some(upstream),
                ..Row::default()
            },
        )
    }

    /// Parses a note such as `  3 dropped no_route: …` or `  2 not sent EPERM: …`. Other notes are for people.
    fn note(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let numbers = line.split(|character: char| !character.is_ascii_digit());
        let numbers: Vec<u64> = numbers
            .filter(|digits| !digits.is_empty())
            .map(|digits| digits.parse().unwrap())
            .collect();
        match words[..] {
            [count, "dropped", reason, ..] if reason.ends_with(':') => {
                self.reasons.insert(
                    reason.trim_end_matches(':').to_owned(),
                    count.parse().unwrap(),
                );
            }
            [count, "not", "sent", errno, ..] => {
                self.not_sent.insert(
                    errno.trim_end_matches(':').to_owned(),
                    count.parse().unwrap(),
                );
            }
            [count, "reported", errno, ..] => {
                self.came_back.insert(
                    errno.trim_end_matches(':').to_owned(),
                    count.parse().unwrap(),
                );
            }
            [_, "sessions", "open,", ..] | [_, "opened,", ..] => self.sessions.read(line),
            [_, "forwarded", "without", ..] => self.sessions.one_way = numbers[0],
            ["shadow:", ..] => {
                let [same, different, missing] = numbers[..] else {
                    panic!("{line}")
                };
                self.upstream.get_or_insert_default().shadow = [same, different, missing];
            }
            ["dead", "in", ..] => self.upstream.get_or_insert_default().dead_in = numbers[0],
            _ => {}
        }
    }

    /// The number of datagrams that were dropped for a reason.
    pub fn reason(&self, label: &str) -> u64 {
        self.reasons.get(label).copied().unwrap_or(0)
    }
}

/// The numbers of an upstream of the handler `on`.
pub fn upstream(ledger: &Ledger, address: impl Display) -> Upstream {
    ledger.upstream(&format!("on → {address}"))
}

/// Number of datagrams of a row that the kernel refused to send, for any errno.
pub fn not_sent(row: &Row) -> u64 {
    row.not_sent.values().sum()
}
