//! The live view: server-sent events (WHATWG HTML, section 9.2), a snapshot each second. One snapshot is taken and
//! serialized once for all viewers of a listener, and none while there is no viewer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use hyper::body::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::endpoint::status;
use super::response::{self, Response};
use crate::observe::admin_stats::AdminStats;
use crate::supervisor::requests::Requests;

/// Largest number of viewers at each listener. Viewers over TCP do not take places from those at the control socket.
const VIEWERS_MAX: usize = 32;
/// Time between two snapshots.
const INTERVAL: Duration = Duration::from_secs(1);

/// The broadcast of snapshots that all viewers at a listener share.
#[derive(Debug, Clone)]
pub struct Broadcast {
    channel: Arc<Mutex<Option<watch::Receiver<Bytes>>>>,
    places: Arc<Semaphore>,
}

impl Broadcast {
    /// Returns a broadcast without viewers.
    pub fn new() -> Broadcast {
        Broadcast {
            channel: Arc::default(),
            places: Arc::new(Semaphore::new(VIEWERS_MAX)),
        }
    }

    /// Returns the channel of the running broadcast. If there is none, begins one.
    fn join(&self, requests: &Requests) -> watch::Receiver<Bytes> {
        let mut channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = channel
            .as_ref()
            .filter(|running| running.has_changed().is_ok())
        {
            return running.clone();
        }
        let (sender, receiver) = watch::channel(Bytes::new());
        *channel = Some(receiver.clone());
        tokio::spawn(run(requests.clone(), sender, self.clone()));
        receiver
    }

    /// Ends the broadcast if there is no viewer, so that the only receiver left is that of the broadcast itself. Returns
    /// whether it has ended.
    fn is_over(&self, sender: &watch::Sender<Bytes>) -> bool {
        let mut channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = sender.receiver_count() <= 1;
        if is_over {
            *channel = None;
        }
        is_over
    }
}

async fn run(requests: Requests, sender: watch::Sender<Bytes>, broadcast: Broadcast) {
    let mut tick = interval(INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if broadcast.is_over(&sender) {
            return;
        }
        let event = match status(&requests).await {
            Ok(json) => [b"event: snapshot\ndata: ", json.as_slice(), b"\n\n"].concat(),
            Err(refused) => format!("event: trouble\ndata: {}\n\n", refused.line()).into_bytes(),
        };
        // Without receivers, the next tick ends the broadcast.
        let _ = sender.send(event.into());
    }
}

/// Returns the response to `GET /events`: the stream of events, or a refusal if there are too many viewers.
pub async fn watch(
    requests: Requests,
    broadcast: &Broadcast,
    mut stopped: watch::Receiver<bool>,
) -> Response {
    let Some(viewer) = Viewer::begin(&requests, broadcast) else {
        requests.admin_stats.refused_viewers.more();
        let text = "the maximum number of viewers is connected; GET /status still responds\n";
        return response::text(StatusCode::SERVICE_UNAVAILABLE, text);
    };
    let mut events = broadcast.join(&requests);
    // At most one event waits for a slow reader, which then gets the latest one. A slow reader neither delays others nor
    // fills memory.
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let _viewer = viewer;
        let latest = events.borrow_and_update().clone();
        if !latest.is_empty() && sender.send(latest).await.is_err() {
            return;
        }
        loop {
            tokio::select! {
                changed = events.changed() => if changed.is_err() { return },
                () = sender.closed() => return,
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
            let event = events.borrow_and_update().clone();
            if sender.send(event).await.is_err() {
                return;
            }
        }
    });
    response::stream("text/event-stream", receiver)
}

/// A connected viewer. It is counted until this value is dropped.
struct Viewer {
    admin_stats: Arc<AdminStats>,
    _place: OwnedSemaphorePermit,
}

impl Viewer {
    fn begin(requests: &Requests, broadcast: &Broadcast) -> Option<Viewer> {
        let place = Arc::clone(&broadcast.places).try_acquire_owned().ok()?;
        let admin_stats = Arc::clone(&requests.admin_stats);
        admin_stats.viewers.more();
        Some(Viewer {
            admin_stats,
            _place: place,
        })
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.admin_stats.viewers.less();
    }
}
