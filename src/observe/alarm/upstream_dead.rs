//! `upstream_dead`: an upstream does not reply.

use std::collections::HashMap;

use super::input::{Alarm, AlarmInput};
use crate::dispatch::passive_health;
use crate::observe::snapshot::rows::{PASSIVELY_DEAD, UpstreamRow};

/// The time since which each upstream is dead, by its name. The workers' passive health check records no time.
#[derive(Debug, Default)]
pub struct UpstreamDead(HashMap<String, u64>);

impl UpstreamDead {
    /// Returns the current alarms, in the order of the names.
    pub fn alarms(&mut self, input: &AlarmInput<'_>) -> Vec<Alarm> {
        let about = |row: &UpstreamRow| format!("{}/{}", row.handler, row.upstream);
        let dead: HashMap<String, &UpstreamRow> = input
            .upstreams
            .iter()
            .filter(|row| !row.alive)
            .map(|row| (about(row), row))
            .collect();
        self.0.retain(|known, _| dead.contains_key(known));
        let mut alarms = Vec::new();
        for (about, row) in dead {
            let since = *self.0.entry(about.clone()).or_insert(input.now_unix);
            let (why, cure) = match &row.last_failure {
                Some(failure) if row.dead_in_workers == 0 => {
                    (failure.text.clone(), failure.cure.clone())
                }
                _ => (
                    PASSIVELY_DEAD.to_owned(),
                    format!(
                        "check that it runs, and the port; it is tried again every {} s",
                        passive_health::PAUSE.as_secs()
                    ),
                ),
            };
            let text = format!(
                "upstream {} of handler {} is dead: {why}",
                row.upstream, row.handler
            );
            alarms.push(Alarm {
                name: "upstream_dead".to_owned(),
                about,
                since,
                text,
                cure,
            });
        }
        alarms.sort_by(|one, other| one.about.cmp(&other.about));
        alarms
    }
}
