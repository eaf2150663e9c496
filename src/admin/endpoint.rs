//! How an endpoint sends a request to the supervisor, and the errors if there is no response.

use std::time::Duration;

use hyper::StatusCode;
use tokio::sync::oneshot;
use tokio::time;

use super::response::{self, Response};
use crate::build::error::Refusal;
use crate::observe::snapshot::Snapshot;
use crate::supervisor::requests::{QueueError, Request, Requests};
use crate::supervisor::responder::Responder;

/// Longest wait for a response. The supervisor waits at most a second for a worker, and other requests may come first.
pub const RESPONSE_MAX: Duration = Duration::from_secs(10);

/// Why an endpoint has no response.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The request could not be queued.
    #[error("{0}")]
    Queue(#[from] QueueError),
    /// The supervisor did not respond in time.
    #[error("no response in time: the daemon is busy with a long operation; try again")]
    Late,
    /// The supervisor accepted the request and ended without a response.
    #[error("the daemon is stopping")]
    Gone,
    /// A parameter is invalid.
    #[error("{0}")]
    Parameter(String),
    /// The supervisor refused the request.
    #[error("{0}")]
    Refusal(#[from] Refusal),
    /// A snapshot could not be serialized, which is a defect.
    #[error("the response cannot be written as JSON: {0}. Please report this defect")]
    Json(#[from] serde_json::Error),
}

impl RequestError {
    /// Returns the error as one line of text.
    pub fn line(&self) -> String {
        self.to_string().replace('\n', " ")
    }

    /// Returns the response that reports the error.
    pub fn response(&self) -> Response {
        let status = match self {
            RequestError::Queue(_) | RequestError::Gone => StatusCode::SERVICE_UNAVAILABLE,
            RequestError::Parameter(_) => StatusCode::BAD_REQUEST,
            RequestError::Late => StatusCode::GATEWAY_TIMEOUT,
            RequestError::Refusal(Refusal::Unknown(_)) => StatusCode::NOT_FOUND,
            RequestError::Refusal(Refusal::Unable(_)) => StatusCode::CONFLICT,
            RequestError::Json(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        response::text(status, format!("{self}\n"))
    }
}

/// Sends a request to the supervisor and waits for the response.
///
/// # Errors
///
/// Returns [`RequestError::Queue`] if the request cannot be queued, [`RequestError::Gone`] if the supervisor ends
/// without a response, and [`RequestError::Late`] if the timeout expires.
pub async fn request<T: Send + 'static>(
    requests: &Requests,
    timeout: Duration,
    make: impl FnOnce(Responder<T>) -> Request,
) -> Result<T, RequestError> {
    let (sender, response) = oneshot::channel();
    // The receiver may have stopped waiting.
    requests.send(make(Responder::new(move |response| {
        _ = sender.send(response);
    })))?;
    match time::timeout(timeout, response).await {
        Ok(response) => response.map_err(|_| RequestError::Gone),
        Err(_) => Err(RequestError::Late),
    }
}

/// Returns all accounts and states.
///
/// # Errors
///
/// Returns an error as [`request`] does.
pub async fn snapshot(requests: &Requests) -> Result<Box<Snapshot>, RequestError> {
    request(requests, RESPONSE_MAX, Request::Snapshot).await
}

/// Returns all accounts and states as JSON.
///
/// # Errors
///
/// Returns an error as [`request`] does, or [`RequestError::Json`] if the snapshot cannot be serialized.
pub async fn status(requests: &Requests) -> Result<Vec<u8>, RequestError> {
    Ok(serde_json::to_vec(&snapshot(requests).await?)?)
}
