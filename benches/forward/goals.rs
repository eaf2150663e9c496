//! The targets of udispatch, and the table that users read: each kind of work, udispatch, by hand, and the best other
//! forwarder.

use crate::cell::{Cell, Load, Talk, Way};
use crate::row::{self, Row};
use crate::subject::Side;
use crate::table::aligned;

/// The cost that udispatch may have.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// This many times that of the forwarder written by hand.
    ByHand(f64),
    /// This many times that of the best other forwarder.
    BestPeer(f64),
}

/// A kind of work and its target.
pub(crate) struct Goal {
    pub(crate) work: &'static str,
    pub(crate) cell: Cell,
    pub(crate) load: Load,
    pub(crate) target: Target,
}

/// A row of the table.
pub(crate) struct Outcome {
    pub(crate) goal: Goal,
    pub(crate) ours: Option<f64>,
    pub(crate) by_hand: Option<f64>,
    /// The name and the cost of the best other forwarder.
    pub(crate) peer: Option<(&'static str, f64)>,
    /// The cost of udispatch, as a multiple of what the target refers to.
    pub(crate) ratio: Option<f64>,
}

/// All targets.
pub(crate) fn goals() -> Vec<Goal> {
    let goal = |work, cell, load, target| Goal {
        work,
        cell,
        load,
        target,
    };
    let forward =
        |work, way, load, most| goal(work, Cell::Forward(way), load, Target::ByHand(most));
    let talk = |work, clients| {
        goal(
            work,
            Cell::Exchange(Talk::of(clients)),
            Load::Loop,
            Target::ByHand(1.05),
        )
    };
    let long = Way {
        size: 1200,
        ..Way::PLAIN
    }
    .segmenting();
    vec![
        forward(
            "forward 1→1, 64 B, loopback, saturated",
            Way::PLAIN,
            Load::Backlog,
            1.10,
        ),
        forward(
            "the same to another host",
            Way::PLAIN.far(),
            Load::Backlog,
            1.10,
        ),
        forward(
            "1,200 B from a segmenting sender, to another host",
            long.far(),
            Load::Backlog,
            1.20,
        ),
        forward("64 B, 50,000/s paced", Way::PLAIN, Load::Paced, 1.10),
        talk("request and reply, 50 clients", 50),
        talk("request and reply, 1,000 clients", 1_000),
        talk("request and reply, 10,000 clients", 10_000),
        goal(
            "one-shot, 50 at once",
            Cell::Exchange(Talk::ONE_SHOT),
            Load::Loop,
            Target::BestPeer(0.5),
        ),
    ]
}

/// The outcome of each goal, as far as its rows were measured.
pub(crate) fn outcomes(rows: &[Row]) -> Vec<Outcome> {
    let measured = |goal: &Goal| {
        rows.iter()
            .any(|row| row.cell == goal.cell && row.has(goal.load))
    };
    goals()
        .into_iter()
        .filter(measured)
        .map(|goal| outcome(goal, rows))
        .collect()
}

fn outcome(goal: Goal, rows: &[Row]) -> Outcome {
    let cell = goal.cell;
    let load = goal.load;
    let ours = row::find(rows, Side::Ours, &cell);
    let by_hand = row::find(rows, Side::Yardstick, &cell);
    let peer = row::best_peer(rows, &cell, load);
    let base = match goal.target {
        Target::ByHand(_) => by_hand,
        Target::BestPeer(_) => peer,
    };
    let ratio = ours
        .zip(base)
        .and_then(|(ours, base)| Some(ours.ratio(base, load)?.median));
    Outcome {
        goal,
        ours: ours.and_then(|row| row.cpu_ns(load)),
        by_hand: by_hand.and_then(|row| row.cpu_ns(load)),
        peer: peer.and_then(|row| Some((row.subject().name, row.cpu_ns(load)?))),
        ratio,
    }
}

/// The table that users read.
pub(crate) fn table(outcomes: &[Outcome]) -> String {
    let head = [
        "work",
        "target",
        "udispatch",
        "by hand",
        "ratio",
        "met",
        "best other",
        "name",
    ];
    let mut table = vec![head.map(String::from).to_vec()];
    table.extend(outcomes.iter().map(line));
    format!("\n## Targets\n\n{}", aligned(&table, 2))
}

fn line(outcome: &Outcome) -> Vec<String> {
    let cost = |ns: Option<f64>| ns.map_or("absent".into(), |ns| format!("{ns:.0}"));
    let (target, most) = match outcome.goal.target {
        Target::ByHand(most) => (format!("≤ {most:.2} × by hand"), most),
        Target::BestPeer(most) => (format!("≤ {most:.2} × best other"), most),
    };
    // The comparison uses the printed number, so that the table never shows "1.10" and "no".
    let is_met = |ratio: f64| (ratio * 100.0).round() <= most * 100.0;
    vec![
        outcome.goal.work.into(),
        target,
        cost(outcome.ours),
        cost(outcome.by_hand),
        outcome
            .ratio
            .map_or(String::new(), |ratio| format!("{ratio:.2}")),
        outcome
            .ratio
            .map_or("", |ratio| if is_met(ratio) { "yes" } else { "no" })
            .into(),
        cost(outcome.peer.map(|(_, ns)| ns)),
        outcome.peer.map_or("", |(name, _)| name).into(),
    ]
}
