//! How an endpoint asks the supervisor, and what it says where there is no answer.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::build::error::Refusal;
use crate::observe::snapshot::Snapshot;
use crate::supervisor::reply::Reply;
use crate::supervisor::requests::{Request, Requests, Unasked};

/// Longest wait for an answer; the supervisor waits at most a second for a worker, and others may be first.
pub const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It could not be asked.
    #[error("{0}")]
    Unasked(#[from] Unasked),
    /// Nobody answered in time.
    #[error("no answer in time: the daemon is busy with something that takes long; try again")]
    Late,
    /// It was asked, and ended without an answer.
    #[error("the daemon is stopping")]
    Gone,
    /// A parameter is not what it has to be.
    #[error("{0}")]
    Parameter(String),
    /// It answered that it will not.
    #[error("{0}")]
    Refusal(#[from] Refusal),
    /// A snapshot that cannot be written down: a defect.
    #[error("the answer cannot be written as JSON: {0}. Please report it")]
    Json(#[from] serde_json::Error),
}

impl Refused {
    /// In a line.
    pub fn words(&self) -> String {
        self.to_string().replace('\n', " ")
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = match &self {
            Refused::Unasked(_) | Refused::Gone => StatusCode::SERVICE_UNAVAILABLE,
            Refused::Parameter(_) => StatusCode::BAD_REQUEST,
            Refused::Late => StatusCode::GATEWAY_TIMEOUT,
            Refused::Refusal(Refusal::Unknown(_)) => StatusCode::NOT_FOUND,
            Refused::Refusal(Refusal::Unable(_)) => StatusCode::CONFLICT,
            Refused::Json(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, format!("{self}\n")).into_response()
    }
}

/// Asks, and waits for the answer.
pub async fn ask<T: Send + 'static>(
    requests: &Requests,
    patience: Duration,
    make: impl FnOnce(Reply<T>) -> Request,
) -> Result<T, Refused> {
    let (sender, answer) = oneshot::channel();
    // Who asked may have given up waiting.
    requests.ask(make(Reply::new(move |answer| _ = sender.send(answer))))?;
    match timeout(patience, answer).await {
        Ok(answer) => answer.map_err(|_| Refused::Gone),
        Err(_) => Err(Refused::Late),
    }
}

/// All accounts and states.
pub async fn snapshot(requests: &Requests) -> Result<Box<Snapshot>, Refused> {
    ask(requests, ANSWER_MAX, Request::Snapshot).await
}

/// All accounts and states, as JSON.
pub async fn status(requests: &Requests) -> Result<Vec<u8>, Refused> {
    Ok(serde_json::to_vec(&snapshot(requests).await?)?)
}
