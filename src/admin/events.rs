//! The live view: server-sent events (WHATWG HTML, section 9.2), a snapshot each second. One snapshot is taken and put into
//! words once for all who watch by the same door, and none while nobody does.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use hyper::body::{Body as HttpBody, Frame};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::endpoint::status;
use crate::observe::admin_stats::Visits;
use crate::supervisor::requests::Requests;

/// Who may watch at a time, by each door: viewers over TCP do not keep anybody at the control socket from it.
const VIEWERS_MAX: usize = 32;
/// Time between two snapshots.
const INTERVAL: Duration = Duration::from_secs(1);

/// What all viewers by a door share.
#[derive(Debug, Clone)]
pub struct Stage {
    show: Arc<Mutex<Option<watch::Receiver<Bytes>>>>,
    places: Arc<Semaphore>,
}

impl Stage {
    /// An empty one.
    pub fn new() -> Stage {
        Stage {
            show: Arc::default(),
            places: Arc::new(Semaphore::new(VIEWERS_MAX)),
        }
    }

    /// The channel of the running show; begins one if there is none.
    fn join(&self, requests: &Requests) -> watch::Receiver<Bytes> {
        let mut show = self.show.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = show
            .as_ref()
            .filter(|running| running.has_changed().is_ok())
        {
            return running.clone();
        }
        let (sender, receiver) = watch::channel(Bytes::new());
        *show = Some(receiver.clone());
        tokio::spawn(play(requests.clone(), sender, self.clone()));
        receiver
    }

    /// Ends the show if nobody watches: the stage's own receiver is the last.
    fn is_over(&self, sender: &watch::Sender<Bytes>) -> bool {
        let mut show = self.show.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = sender.receiver_count() <= 1;
        if is_over {
            *show = None;
        }
        is_over
    }
}

async fn play(requests: Requests, sender: watch::Sender<Bytes>, stage: Stage) {
    let mut tick = interval(INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if stage.is_over(&sender) {
            return;
        }
        let event = match status(&requests).await {
            Ok(json) => [b"event: snapshot\ndata: ", json.as_slice(), b"\n\n"].concat(),
            Err(refused) => format!("event: trouble\ndata: {}\n\n", refused.words()).into_bytes(),
        };
        // Without receivers the next tick ends it.
        let _ = sender.send(event.into());
    }
}

/// Answers `GET /events`.
pub async fn watch(
    requests: Requests,
    stage: &Stage,
    mut stopped: watch::Receiver<bool>,
) -> Response {
    let Some(viewer) = Viewer::begin(&requests, stage) else {
        requests.visits.refused_viewers.more();
        let words = "as many watch already as may; GET /status still answers\n";
        return (StatusCode::SERVICE_UNAVAILABLE, words).into_response();
    };
    let mut events = stage.join(&requests);
    // One event waits for a slow reader, who then gets the latest one: it never holds up the others, nor fills memory.
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
    (
        [("content-type", "text/event-stream")],
        Body::new(Events(receiver)),
    )
        .into_response()
}

/// A viewer, counted as long as it is there.
struct Viewer {
    visits: Arc<Visits>,
    _place: OwnedSemaphorePermit,
}

impl Viewer {
    fn begin(requests: &Requests, stage: &Stage) -> Option<Viewer> {
        let place = Arc::clone(&stage.places).try_acquire_owned().ok()?;
        let visits = Arc::clone(&requests.visits);
        visits.viewers.more();
        Some(Viewer {
            visits,
            _place: place,
        })
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.visits.viewers.less();
    }
}

/// Chunks as a body without an end.
pub(super) struct Events(pub(super) mpsc::Receiver<Bytes>);

impl HttpBody for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(cx)
            .map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}
