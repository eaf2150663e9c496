//! The restarts: reloads, takeovers, takeovers that fail, and kills, one after the other, under traffic.

use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::Signal;

use crate::configuration::{Places, VARIANTS};
use crate::daemon::Daemon;
use crate::failing::FAULTS;
use crate::traffic::Order;
use crate::window::Window;

/// Time after a restart that is still measured, so that the datagrams that waited during it have arrived.
const AFTER: Duration = Duration::from_millis(50);
/// Time between two reports of the progress.
const PROGRESS: Duration = Duration::from_secs(10);

/// The kinds of restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Restart {
    /// SIGHUP, with another configuration.
    Reload,
    /// SIGUSR2, every second time with another configuration.
    Takeover,
    /// A takeover that fails.
    FailedTakeover,
    /// SIGKILL, and a start.
    Kill,
}

impl Restart {
    /// All kinds, with their names in the report.
    pub const ALL: [(Restart, &str); 4] = [
        (Restart::Reload, "reloads"),
        (Restart::Takeover, "takeovers"),
        (Restart::FailedTakeover, "failed takeovers"),
        (Restart::Kill, "kills"),
    ];
}

/// The measurements of one restart.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    /// The kind of the restart.
    pub restart: Restart,
    /// The time in which no worker received, as the old process reports it, in milliseconds.
    pub pause_ms: Option<f64>,
    /// Time from the request to its completion.
    pub took: Duration,
    /// The measurements of the traffic.
    pub window: Window,
}

/// All measurements of a soak.
#[derive(Default)]
pub struct Diary {
    /// The restarts, in order.
    pub events: Vec<Event>,
    /// The measurements between restarts: the gaps and delays that the machine itself causes.
    pub calm: Vec<Window>,
}

/// Performs the restarts.
pub struct Driver<'a> {
    pub daemon: &'a mut Daemon,
    pub orders: &'a Sender<Order>,
    pub places: Places,
    pub receive_buffer: &'a str,
    /// Time between two restarts.
    pub interval: Duration,
    pub progress: Progress,
}

/// The number of steps so far.
#[derive(Default)]
pub struct Progress {
    /// The index of the current configuration.
    pub variant: usize,
    /// Number of faults so far.
    pub faults: usize,
    /// Number of takeovers so far.
    pub takeovers: usize,
}

impl Driver<'_> {
    /// Performs the given number of each kind, mixed evenly. Restarts before an error are in the diary as well.
    pub fn drive(&mut self, counts: &[(Restart, u64)], diary: &mut Diary) -> anyhow::Result<()> {
        let total: u64 = counts.iter().map(|(_, count)| count).sum();
        let begun = Instant::now();
        let mut reported = Instant::now();
        for (number, restart) in mix(counts).into_iter().enumerate() {
            self.order(Order::Begin)?;
            thread::sleep(self.interval);
            diary.calm.push(self.window()?);
            let event = self
                .restart(restart)
                .with_context(|| format!("restart {number}, {restart:?}"))?;
            diary.events.push(event);
            if reported.elapsed() > PROGRESS {
                reported = Instant::now();
                eprintln!(
                    "{} of {total} restarts in {} s",
                    number + 1,
                    begun.elapsed().as_secs()
                );
            }
        }
        thread::sleep(self.interval);
        Ok(())
    }

    fn restart(&mut self, restart: Restart) -> anyhow::Result<Event> {
        let is_changed = match restart {
            Restart::Reload => true,
            Restart::Takeover => {
                self.progress.takeovers += 1;
                self.progress.takeovers.is_multiple_of(2)
            }
            Restart::FailedTakeover | Restart::Kill => false,
        };
        let before = VARIANTS[self.progress.variant];
        self.progress.variant = (self.progress.variant + usize::from(is_changed)) % VARIANTS.len();
        let after = VARIANTS[self.progress.variant];
        self.daemon
            .write(&after.text(&self.places, self.receive_buffer))?;
        if before.has_extra && !after.has_extra {
            self.send_to_extra(false)?;
        }
        self.order(Order::Begin)?;
        let begun = Instant::now();
        let pause_ms = match restart {
            Restart::Reload => self.reload()?,
            Restart::Takeover => self.take_over()?,
            Restart::FailedTakeover => self.fail()?,
            Restart::Kill => self.kill()?,
        };
        let took = begun.elapsed();
        thread::sleep(AFTER);
        let window = self.window()?;
        if after.has_extra && !before.has_extra {
            self.send_to_extra(true)?;
        }
        Ok(Event {
            restart,
            pause_ms,
            took,
            window,
        })
    }

    fn reload(&mut self) -> anyhow::Result<Option<f64>> {
        self.daemon.signal(Signal::HUP)?;
        let line = self.daemon.wait_for("reloaded:")?;
        Ok(pause(&line))
    }

    fn take_over(&mut self) -> anyhow::Result<Option<f64>> {
        self.daemon.signal(Signal::USR2)?;
        let lines = self
            .daemon
            .wait_for_all(&["SIGUSR2: started", "has taken over;", "ready:"])?;
        let pid = lines[0]
            .split(" as process ")
            .nth(1)
            .and_then(|rest| rest.split([' ', ',']).next()?.parse().ok());
        self.daemon
            .set_pid(pid.with_context(|| format!("no process in `{}`", lines[0]))?);
        Ok(pause(&lines[1]))
    }

    fn fail(&mut self) -> anyhow::Result<Option<f64>> {
        let fault = FAULTS[self.progress.faults % FAULTS.len()];
        self.progress.faults += 1;
        fault.happen(self.daemon)?;
        Ok(None)
    }

    fn kill(&mut self) -> anyhow::Result<Option<f64>> {
        let (reply, begun) = channel();
        self.order(Order::BeginOutage(reply))?;
        begun.recv().context("the traffic has ended")?;
        self.daemon.kill()?;
        self.daemon.start_again()?;
        self.order(Order::EndOutage)?;
        Ok(None)
    }

    fn send_to_extra(&self, is_sending: bool) -> anyhow::Result<()> {
        let (reply, done) = channel();
        self.order(Order::Extra(is_sending, reply))?;
        done.recv().context("the traffic has ended")
    }

    fn window(&self) -> anyhow::Result<Window> {
        let (reply, window) = channel();
        self.order(Order::End(reply))?;
        window.recv().context("the traffic has ended")
    }

    fn order(&self, order: Order) -> anyhow::Result<()> {
        self.orders
            .send(order)
            .ok()
            .context("the traffic has ended")
    }
}

/// Returns the given number of each kind, distributed evenly.
fn mix(counts: &[(Restart, u64)]) -> Vec<Restart> {
    let mut places: Vec<(f64, Restart)> = Vec::new();
    for (restart, count) in counts {
        places.extend((0..*count).map(|place| ((place as f64 + 0.5) / *count as f64, *restart)));
    }
    places.sort_by(|one, other| one.0.total_cmp(&other.0));
    places.into_iter().map(|(_, restart)| restart).collect()
}

/// Returns the pause that a line of the log reports, in milliseconds.
fn pause(line: &str) -> Option<f64> {
    let (before, _) = line.rsplit_once(" ms")?;
    before.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pause is read in the form in which the daemon writes it.
    #[test]
    fn pauses() {
        assert_eq!(
            pause("INFO process 7 has taken over; the workers paused for 3.4 ms"),
            Some(3.4)
        );
        assert_eq!(
            pause("INFO reloaded: 1 listener, 1 route, 1 worker; the workers paused for 0.2 ms"),
            Some(0.2)
        );
        assert_eq!(pause("INFO ready"), None);
    }

    /// The kinds alternate, and none is forgotten.
    #[test]
    fn mixed() {
        let mixed = mix(&[
            (Restart::Reload, 4),
            (Restart::Kill, 0),
            (Restart::Takeover, 2),
        ]);
        use Restart::{Reload, Takeover};
        assert_eq!(mixed, [Reload, Takeover, Reload, Reload, Takeover, Reload]);
    }
}
