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

/// Noted for so long after a restart, so that what waited during it has arrived.
const AFTER: Duration = Duration::from_millis(50);
/// Time between two words about the progress.
const PROGRESS: Duration = Duration::from_secs(10);

/// What can be done to a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Restart {
    /// SIGHUP, with another file.
    Reload,
    /// SIGUSR2, every second time with another file.
    Takeover,
    /// A takeover that comes to nothing.
    FailedTakeover,
    /// SIGKILL, and a start.
    Kill,
}

impl Restart {
    /// All of them, with their names in the summary.
    pub const ALL: [(Restart, &str); 4] = [
        (Restart::Reload, "reloads"),
        (Restart::Takeover, "takeovers"),
        (Restart::FailedTakeover, "failed takeovers"),
        (Restart::Kill, "kills"),
    ];
}

/// One restart as it went.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    /// What was done.
    pub restart: Restart,
    /// How long the old one says that nobody took anything, in milliseconds.
    pub pause_ms: Option<f64>,
    /// From the wish to its fulfilment.
    pub took: Duration,
    /// What the traffic noted.
    pub window: Window,
}

/// Everything that happened.
#[derive(Default)]
pub struct Diary {
    /// By restart.
    pub events: Vec<Event>,
    /// The same measure while nothing was done: what the machine itself does.
    pub calm: Vec<Window>,
}

/// Who does it.
pub struct Driver<'a> {
    pub daemon: &'a mut Daemon,
    pub orders: &'a Sender<Order>,
    pub places: Places,
    pub receive_buffer: &'a str,
    /// The rest between two of them.
    pub interval: Duration,
    variant: usize,
    faults: usize,
    takeovers: usize,
}

impl<'a> Driver<'a> {
    /// This variant runs.
    pub fn new(
        daemon: &'a mut Daemon,
        orders: &'a Sender<Order>,
        places: Places,
        receive_buffer: &'a str,
        interval: Duration,
        variant: usize,
    ) -> Driver<'a> {
        Driver {
            daemon,
            orders,
            places,
            receive_buffer,
            interval,
            variant,
            faults: 0,
            takeovers: 0,
        }
    }

    /// Does so many of each, mixed evenly. What happened until something went wrong is in the diary as well.
    pub fn drive(&mut self, counts: &[(Restart, u64)], diary: &mut Diary) -> anyhow::Result<()> {
        let total: u64 = counts.iter().map(|(_, count)| count).sum();
        let (begun, mut told) = (Instant::now(), Instant::now());
        for (number, restart) in mix(counts).into_iter().enumerate() {
            self.order(Order::Begin)?;
            thread::sleep(self.interval);
            diary.calm.push(self.window()?);
            let event = self
                .restart(restart)
                .with_context(|| format!("restart {number}, {restart:?}"))?;
            diary.events.push(event);
            if told.elapsed() > PROGRESS {
                told = Instant::now();
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
                self.takeovers += 1;
                self.takeovers.is_multiple_of(2)
            }
            Restart::FailedTakeover | Restart::Kill => false,
        };
        let before = VARIANTS[self.variant];
        self.variant = (self.variant + usize::from(is_changed)) % VARIANTS.len();
        let after = VARIANTS[self.variant];
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
        let lines =
            self.daemon
                .wait_for_all(&["SIGUSR2: started", "has taken over after", "ready:"])?;
        let pid = lines[0]
            .split(" as process ")
            .nth(1)
            .and_then(|rest| rest.split(',').next()?.parse().ok());
        self.daemon
            .is_now(pid.with_context(|| format!("no process in `{}`", lines[0]))?);
        Ok(pause(&lines[1]))
    }

    fn fail(&mut self) -> anyhow::Result<Option<f64>> {
        let fault = FAULTS[self.faults % FAULTS.len()];
        self.faults += 1;
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

    fn send_to_extra(&self, is_wanted: bool) -> anyhow::Result<()> {
        let (reply, done) = channel();
        self.order(Order::Extra(is_wanted, reply))?;
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

/// Each as often as it should be, spread evenly over the whole.
fn mix(counts: &[(Restart, u64)]) -> Vec<Restart> {
    let mut places: Vec<(f64, Restart)> = Vec::new();
    for (restart, count) in counts {
        places.extend((0..*count).map(|place| ((place as f64 + 0.5) / *count as f64, *restart)));
    }
    places.sort_by(|one, other| one.0.total_cmp(&other.0));
    places.into_iter().map(|(_, restart)| restart).collect()
}

/// The pause that a line of the log tells of, in milliseconds.
fn pause(line: &str) -> Option<f64> {
    let (before, _) = line.rsplit_once(" ms")?;
    before.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the daemon writes it.
    #[test]
    fn pauses() {
        assert_eq!(
            pause("INFO process 7 has taken over after a pause of 3.4 ms"),
            Some(3.4)
        );
        assert_eq!(
            pause("INFO reloaded: 1 listener, 1 route, 1 worker; the workers paused for 0.2 ms"),
            Some(0.2)
        );
        assert_eq!(pause("INFO ready"), None);
    }

    /// Neither all of one kind first, nor one forgotten.
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
