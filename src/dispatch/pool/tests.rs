//! Tests of `dispatch/pool.rs`.

use super::super::maglev::hash_bytes;
use super::*;

const PLAIN: Member = Member {
    name: 0,
    weight: 1,
    backup: false,
    drain: false,
    alive: true,
    resolved: true,
    shadow: false,
};

fn pool(members: &[Member], pick: Pick) -> Pool {
    let names: Vec<(String, u32)> = members
        .iter()
        .enumerate()
        .map(|(n, member)| (format!("10.0.0.{n}:53"), member.weight))
        .collect();
    let named = |(member, (name, _)): (&Member, &(String, u32))| Member {
        name: hash_bytes(name.as_bytes()),
        ..*member
    };
    let members: Vec<Member> = members.iter().zip(&names).map(named).collect();
    let rule = PickRule {
        pick,
        fail_open: true,
        maglev: Some(Arc::new(Maglev::new(&names))),
    };
    Pool::new(members, rule, 1)
}

fn picks(pool: &mut Pool, count: u64) -> Vec<u64> {
    let mut counts = vec![0; pool.members.len()];
    for key in 0..count {
        counts[pool.pick(|| mix(key), |_| 0).expect("a member is fit")] += 1;
    }
    counts
}

/// Weights are kept exactly by round robin, and approximately at random and by hash.
#[test]
fn weights() {
    let members = [
        Member { weight: 5, ..PLAIN },
        PLAIN,
        Member { weight: 2, ..PLAIN },
    ];
    assert_eq!(
        picks(&mut pool(&members, Pick::RoundRobin), 8_000),
        [5_000, 1_000, 2_000]
    );
    for pick in [Pick::Random, Pick::Hash] {
        let counts = picks(&mut pool(&members, pick), 8_000);
        assert!(
            counts[0].abs_diff(5_000) < 250 && counts[1].abs_diff(1_000) < 150,
            "{pick:?}: {counts:?}"
        );
    }
    let mut mixed = pool(&members, Pick::RoundRobin);
    let first: Vec<_> = (0..8).filter_map(|_| mixed.pick(|| 0, |_| 0)).collect();
    assert_eq!(first, [0, 2, 0, 0, 1, 0, 2, 0], "evenly spread");
}

/// A dead or draining member gets nothing, and a backup only when it is needed. If all are dead, every member is
/// picked.
#[test]
fn fitness() {
    let members = [
        PLAIN,
        PLAIN,
        Member {
            backup: true,
            ..PLAIN
        },
    ];
    for pick in [
        Pick::RoundRobin,
        Pick::Random,
        Pick::Hash,
        Pick::LeastSessions,
        Pick::FirstAlive,
    ] {
        let mut pool = pool(&members, pick);
        assert_eq!(picks(&mut pool, 100)[2], 0, "{pick:?}");
        pool.change(0, |member| member.alive = false);
        assert_eq!(picks(&mut pool, 100), [0, 100, 0], "{pick:?}");
        pool.change(1, |member| member.drain = true);
        assert_eq!(picks(&mut pool, 100), [0, 0, 100], "{pick:?}");
        pool.change(2, |member| member.alive = false);
        assert_eq!(
            picks(&mut pool, 100)[1],
            0,
            "{pick:?}: no member is alive, so all are picked except draining ones"
        );
        pool.rule.fail_open = false;
        pool.plan();
        assert_eq!(pool.pick(|| 1, |_| 0), None);
    }
}

/// The member with the fewest sessions in relation to its weight is picked.
#[test]
fn least_sessions() {
    let mut pool = pool(
        &[PLAIN, Member { weight: 3, ..PLAIN }, PLAIN],
        Pick::LeastSessions,
    );
    let sessions = [2, 5, 2];
    assert_eq!(
        pool.pick(|| 0, |member| sessions[member]),
        Some(1),
        "5 / 3 is less than 2"
    );
    let sessions = [2, 7, 1];
    assert_eq!(pool.pick(|| 0, |member| sessions[member]), Some(2));
}

/// A lost upstream moves only its own clients, and they return to it when it is back.
#[test]
fn a_lost_upstream_moves_its_own_clients() {
    let mut pool = pool(&[PLAIN; 10], Pick::Hash);
    let before: Vec<_> = (0..50_000)
        .map(|key| pool.pick(|| mix(key), |_| 0))
        .collect();
    pool.change(3, |member| member.alive = false);
    let during: Vec<_> = (0..50_000)
        .map(|key| pool.pick(|| mix(key), |_| 0))
        .collect();
    let moved = before
        .iter()
        .zip(&during)
        .filter(|(before, during)| before != during);
    assert!(moved.clone().all(|(before, _)| *before == Some(3)) && moved.count() > 4_000);
    let mut counts = [0_u32; 10];
    before
        .iter()
        .zip(&during)
        .filter(|(b, _)| **b == Some(3))
        .for_each(|(_, d)| counts[d.unwrap()] += 1);
    assert!(
        counts
            .iter()
            .enumerate()
            .all(|(n, count)| n == 3 || *count > 300),
        "spread over all: {counts:?}"
    );
    pool.change(3, |member| member.alive = true);
    assert_eq!(
        before,
        (0..50_000)
            .map(|key| pool.pick(|| mix(key), |_| 0))
            .collect::<Vec<_>>()
    );
}

/// For any weights and any changes, only fit members are picked. Round robin picks each in proportion to its weight. By
/// hash, no key moves while its own member is fit.
#[test]
fn any_weights_and_changes() {
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let weight = |random: &mut Random| [1, 1, 2, 3, 10, 100, 1_000][random.below(7)];
        let member = |random: &mut Random| Member {
            weight: weight(random),
            backup: random.below(5) == 0,
            ..PLAIN
        };
        let members: Vec<Member> = (0..2 + random.below(9))
            .map(|_| member(&mut random))
            .collect();
        let mut turns = pool(&members, Pick::RoundRobin);
        let mut hash = pool(&members, Pick::Hash);
        let keys: Vec<u64> = (0..300).map(mix).collect();
        let mut before: Option<(Vec<bool>, Vec<usize>)> = None;
        for _ in 0..12 {
            let place = random.below(members.len());
            let part = random.below(3);
            let to = random.below(2) == 0;
            for pool in [&mut turns, &mut hash] {
                pool.change(place, |member| match part {
                    0 => member.alive = to,
                    1 => member.drain = to,
                    _ => member.resolved = to,
                });
            }
            let fit: Vec<usize> = (0..members.len())
                .filter(|place| turns.is_fit(*place))
                .collect();
            if fit.is_empty() {
                assert_eq!(
                    (turns.pick(|| 0, |_| 0), hash.pick(|| 0, |_| 0)),
                    (None, None)
                );
                before = None;
                continue;
            }
            let divisor = fit
                .iter()
                .map(|place| u64::from(members[*place].weight))
                .fold(0, gcd);
            let length = fit
                .iter()
                .map(|place| u64::from(members[*place].weight))
                .sum::<u64>()
                / divisor;
            let counts = picks(&mut turns, length);
            for (place, count) in counts.into_iter().enumerate() {
                let expected = if turns.is_fit(place) {
                    u64::from(members[place].weight) / divisor
                } else {
                    0
                };
                assert_eq!(count, expected, "seed {seed}: {place} of {fit:?}");
            }
            let chosen: Vec<usize> = keys
                .iter()
                .map(|key| hash.pick(|| *key, |_| 0).unwrap())
                .collect();
            assert!(chosen.iter().all(|place| fit.contains(place)));
            if let Some((others, old)) = before {
                let shrank = fit.iter().all(|place| others[*place]);
                let moved = old
                    .iter()
                    .zip(&chosen)
                    .filter(|(old, new)| shrank && old != new);
                assert!(
                    moved.clone().all(|(old, _)| !hash.is_fit(*old)),
                    "seed {seed}: a key moved although its own member is fit"
                );
            }
            before = Some((hash.fit.clone(), chosen));
        }
    }
}

/// A thousand upstreams with many weights die and return at once. This takes no longer than reading each of them.
#[test]
fn many_changes_at_once() {
    let members: Vec<Member> = (1..=1_000)
        .map(|weight| Member { weight, ..PLAIN })
        .collect();
    let mut pool = pool(&members, Pick::RoundRobin);
    let begun = std::time::Instant::now();
    for alive in [false, true] {
        (0..members.len()).for_each(|member| pool.change(member, |member| member.alive = alive));
    }
    assert!(
        begun.elapsed() < std::time::Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(picks(&mut pool, 10).iter().sum::<u64>(), 10);
}
