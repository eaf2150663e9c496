//! How an endpoint asks the supervisor, and what it says where there is no answer.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::sync::oneshot;
use tokio::time;

use crate::build::error::Refusal;
use crate::observe::snapshot::Snapshot;
use crate::supervisor::requests::{QueueError, Request, Requests};
use crate::supervisor::responder::Responder;

/// Longest wait for an answer; the supervisor waits at most a second for a worker, and others may be first.
pub const RESPONSE_MAX: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// It could not be asked.
    #[error("{0}")]
    Queue(#[from] QueueError),
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

impl RequestError {
    /// In a line.
    pub fn words(&self) -> String {
        self.to_string().replace('\n', " ")
    }
}

impl IntoResponse for RequestError {
    fn into_response(self) -> Response {
        let status = match &self {
            RequestError::Queue(_) | RequestError::Gone => StatusCode::SERVICE_UNAVAILABLE,
            RequestError::Parameter(_) => StatusCode::BAD_REQUEST,
            RequestError::Late => StatusCode::GATEWAY_TIMEOUT,
            RequestError::Refusal(Refusal::Unknown(_)) => StatusCode::NOT_FOUND,
            RequestError::Refusal(Refusal::Unable(_)) => StatusCode::CONFLICT,
            RequestError::Json(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, format!("{self}\n")).into_response()
    }
}

/// Asks, and waits for the answer.
pub async fn ask<T: Send + 'static>(
    requests: &Requests,
    timeout: Duration,
    make: impl FnOnce(Responder<T>) -> Request,
) -> Result<T, RequestError> {
    let (sender, response) = oneshot::channel();
    // Who asked may have given up waiting.
    requests.ask(make(Responder::new(move |response| {
        _ = sender.send(response)
    })))?;
    match time::timeout(timeout, response).await {
        Ok(response) => response.map_err(|_| RequestError::Gone),
        Err(_) => Err(RequestError::Late),
    }
}

/// All accounts and states.
pub async fn snapshot(requests: &Requests) -> Result<Box<Snapshot>, RequestError> {
    ask(requests, RESPONSE_MAX, Request::Snapshot).await
}

/// All accounts and states, as JSON.
pub async fn status(requests: &Requests) -> Result<Vec<u8>, RequestError> {
    Ok(serde_json::to_vec(&snapshot(requests).await?)?)
}
