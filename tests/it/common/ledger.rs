//! The ledger as the daemon prints it, read back and checked by a second arithmetic: law 3 in every row.

use std::collections::BTreeMap;

/// The accounts, by label.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Listeners; `last` is kernel drops.
    pub listeners: BTreeMap<String, Row>,
    /// Routes.
    pub routes: BTreeMap<String, Row>,
    /// Handlers; `last` is datagrams sent. What upstreams answered a handler is the row `NAME, replies`.
    pub handlers: BTreeMap<String, Row>,
    /// Upstreams, `HANDLER → ADDRESS`; of their accounts only notes, and `last` is datagrams sent.
    pub upstreams: BTreeMap<String, Row>,
    balance: String,
}

/// One account.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Row {
    pub received: u64,
    pub handled: u64,
    pub dropped: u64,
    pub in_flight: u64,
    pub last: u64,
    /// Drops by reason.
    pub reasons: BTreeMap<String, u64>,
    /// Refused sends by errno.
    pub not_sent: BTreeMap<String, u64>,
    /// Errors that came back for what was sent, by errno.
    pub came_back: BTreeMap<String, u64>,
    /// Of an upstream.
    pub upstream: Option<Upstream>,
    /// Of a forwarder that has, or had, sessions.
    pub sessions: Sessions,
}

/// A forwarder's sessions.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Sessions {
    pub open: u64,
    pub unreplied: u64,
    pub ports: u64,
    pub opened: u64,
    /// Moved here from another handler, or from here to another.
    pub inherited: u64,
    pub left: u64,
    /// Ended, by cause.
    pub idle: u64,
    pub unanswered: u64,
    pub complete: u64,
    pub evicted: u64,
    pub broken: u64,
    /// Datagrams of those that may not be answered.
    pub one_way: u64,
}

/// An upstream's numbers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Upstream {
    pub sent: u64,
    pub failed: u64,
    pub skipped: u64,
    pub answers: u64,
    pub sessions: u64,
    /// Answers of a shadow: the same, different, missing.
    pub shadow: [u64; 3],
    /// Workers that think it dead.
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
    /// Reads the last table in the lines.
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
                    section = head
                }
                Some("upstream") if line.contains("not sent") => section = "upstream",
                Some("balance:") => {
                    ledger.balance = line.clone();
                    break;
                }
                Some(_) if line.starts_with("  ") => {
                    ledger.section(section).get_mut(&label).unwrap().note(line)
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

    /// Law 3 in every row, between listeners and routes, and by the daemon's own word.
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

    /// What all listeners received.
    pub fn received(&self) -> u64 {
        self.listeners.values().map(|row| row.received).sum()
    }

    /// What the kernel dropped before all listeners.
    pub fn kernel_drops(&self) -> u64 {
        self.listeners.values().map(|row| row.last).sum()
    }

    /// A listener's account.
    pub fn listener(&self, label: &str) -> &Row {
        self.listeners
            .get(label)
            .unwrap_or_else(|| panic!("no listener {label}: {self:#?}"))
    }

    /// A route's account.
    pub fn route(&self, label: &str) -> &Row {
        self.routes
            .get(label)
            .unwrap_or_else(|| panic!("no route {label}: {self:#?}"))
    }

    /// A handler's account.
    pub fn handler(&self, name: &str) -> &Row {
        self.handlers
            .get(name)
            .unwrap_or_else(|| panic!("no handler {name}: {self:#?}"))
    }
}

impl Ledger {
    /// An upstream's numbers.
    pub fn upstream(&self, label: &str) -> Upstream {
        let row = self
            .upstreams
            .get(label)
            .unwrap_or_else(|| panic!("no upstream {label}: {self:#?}"));
        row.upstream.unwrap_or_default()
    }
}

impl Row {
    /// A label, which may have spaces, and numbers at the end.
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

    /// What an upstream was sent, was refused, did not get, answered, and how many sessions it has.
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

    /// `  3 dropped no_route: …`, `  2 not sent EPERM: …` and so on; others are for people.
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

    /// Drops for a reason.
    pub fn reason(&self, label: &str) -> u64 {
        self.reasons.get(label).copied().unwrap_or(0)
    }
}
