//! The table of endpoints. State is read with GET, and commands are sent with POST. Each endpoint sends a request to the
//! supervisor and formats the response. `docs/status.md` documents each endpoint.

use std::str::FromStr;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use serde::Serialize;
use tokio::sync::watch;

use super::endpoint::{RESPONSE_MAX, RequestError, ask, snapshot, status};
use super::events::{self, Broadcast};
use super::parameters::{Parameter, Parameters, only};
use super::{metrics, page, tap};
use crate::observe::snapshot::Snapshot;
use crate::observe::tap::TapQuery;
use crate::plan::explain::Imagined;
use crate::supervisor::log_level;
use crate::supervisor::requests::{Request, Requests};
use crate::supervisor::sessions::SessionQuery;

/// Longest wait for a reload, which may look names up.
const RELOAD_MAX: Duration = Duration::from_secs(120);

/// What every endpoint has.
#[derive(Debug, Clone)]
pub struct EndpointContext {
    /// The way to the supervisor.
    pub requests: Requests,
    /// The live view.
    pub broadcast: Broadcast,
    /// Becomes true at the end.
    stopped: watch::Receiver<bool>,
}

/// All endpoints.
pub fn router(requests: Requests, stopped: watch::Receiver<bool>) -> Router {
    let context = EndpointContext {
        requests,
        broadcast: Broadcast::new(),
        stopped,
    };
    let mut router = Router::new()
        .route("/status", get(get_status))
        .route(
            "/status/listeners",
            part(|snapshot| json(&snapshot.listeners)),
        )
        .route("/status/routes", part(|snapshot| json(&snapshot.routes)))
        .route(
            "/status/handlers",
            part(|snapshot| json(&snapshot.handlers)),
        )
        .route(
            "/status/upstreams",
            part(|snapshot| json(&snapshot.upstreams)),
        )
        .route("/status/workers", part(|snapshot| json(&snapshot.workers)))
        .route("/status/alarms", part(|snapshot| json(&snapshot.alarms)))
        .route("/sessions", get(sessions))
        .route("/explain", get(explain))
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/events", get(watch_events))
        .route(tap::PATH, get(look_on))
        .route("/page/drop_reasons.json", get(page::drop_reasons))
        .route("/reload", post(reload))
        .route("/drain", post(drain))
        .route("/undrain", post(undrain))
        .route("/log", post(log_level))
        .route("/stop", post(stop));
    for asset in page::ASSETS {
        router = router.route(
            asset.path,
            get(|| async { ([("content-type", asset.media_type)], asset.text) }),
        );
    }
    router
        .method_not_allowed_fallback(other_method)
        .fallback(unknown)
        .with_state(context)
}

async fn unknown() -> Response {
    (
        StatusCode::NOT_FOUND,
        "there is nothing here; try /status, /sessions, /metrics, /livez or /readyz\n",
    )
        .into_response()
}

async fn other_method() -> Response {
    (
        StatusCode::METHOD_NOT_ALLOWED,
        "nouns are read (GET), verbs are posted: reload, drain, undrain, log, stop\n",
    )
        .into_response()
}

fn json(value: &impl Serialize) -> Result<Response, RequestError> {
    Ok(as_json(serde_json::to_vec(value)?))
}

fn as_json(bytes: Vec<u8>) -> Response {
    ([("content-type", "application/json")], bytes).into_response()
}

fn part(of: fn(&Snapshot) -> Result<Response, RequestError>) -> MethodRouter<EndpointContext> {
    get(move |State(context): State<EndpointContext>| async move {
        of(&*snapshot(&context.requests).await?)
    })
}

async fn get_status(State(context): State<EndpointContext>) -> Result<Response, RequestError> {
    Ok(as_json(status(&context.requests).await?))
}

fn number<T: FromStr>(parameter: Parameter) -> Result<Option<T>, RequestError> {
    parameter.read("a whole number", |text| text.parse().ok())
}

async fn sessions(
    State(context): State<EndpointContext>,
    asked: Parameters,
) -> Result<Response, RequestError> {
    let [handler, client, limit] = only(["handler", "client", "limit"], asked)?;
    let query = SessionQuery {
        handler: handler.text(),
        client: client.text(),
        limit: number(limit)?,
    };
    json(
        &ask(&context.requests, RESPONSE_MAX, |responder| {
            Request::Sessions(query, responder)
        })
        .await??,
    )
}

async fn explain(
    State(context): State<EndpointContext>,
    asked: Parameters,
) -> Result<String, RequestError> {
    let [to, from, interface, payload] = only(["to", "from", "interface", "payload"], asked)?;
    let example = "an address and a port, such as 192.0.2.1:53 or [2001:db8::1]:53";
    let imagined = Imagined {
        to: to.required_as(example, |text| text.parse().ok())?,
        from: from.read(example, |text| text.parse().ok())?,
        interface: interface.text(),
        payload: payload.text().unwrap_or_default().into_bytes(),
    };
    Ok(ask(&context.requests, RESPONSE_MAX, |responder| {
        Request::Explain(imagined, responder)
    })
    .await??)
}

async fn metrics(State(context): State<EndpointContext>) -> Result<Response, RequestError> {
    let text = metrics::render(&*snapshot(&context.requests).await?);
    Ok(([("content-type", metrics::MEDIA_TYPE)], text).into_response())
}

/// The process and all workers respond.
async fn livez(State(context): State<EndpointContext>) -> Result<Response, RequestError> {
    let snapshot = snapshot(&context.requests).await?;
    let silent = snapshot.workers.iter().find(|worker| !worker.responsive);
    Ok(match silent {
        None => "alive\n".into_response(),
        Some(worker) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("worker {} does not answer\n", worker.worker),
        )
            .into_response(),
    })
}

/// Every listener is bound, since the control socket is served only then, and the daemon is not stopping, since it
/// would not accept the request.
async fn readyz(State(context): State<EndpointContext>) -> Result<&'static str, RequestError> {
    snapshot(&context.requests).await?;
    Ok("ready\n")
}

async fn watch_events(State(context): State<EndpointContext>) -> Response {
    let stopped = context.stopped.clone();
    events::watch(context.requests, &context.broadcast, stopped).await
}

async fn look_on(
    State(context): State<EndpointContext>,
    asked: Parameters,
) -> Result<Response, RequestError> {
    let [to, from, handler, limit, snap] = only(["to", "from", "handler", "limit", "snap"], asked)?;
    let (limit, snap) = (number(limit)?, number(snap)?);
    let query = TapQuery {
        to: to.text(),
        from: from.text(),
        handler: handler.text(),
        limit,
        snap,
    };
    Ok(tap::respond(
        ask(&context.requests, RESPONSE_MAX, |responder| {
            Request::Tap(query, responder)
        })
        .await??,
    ))
}

async fn reload(
    State(context): State<EndpointContext>,
    asked: Parameters,
) -> Result<Response, RequestError> {
    let [dry_run] = only(["dry_run"], asked)?;
    let yes_or_no = |text: &str| match text {
        // A name without a value means yes.
        "1" | "true" | "" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    };
    let is_dry_run = dry_run
        .read("1, 0, true or false", yes_or_no)?
        .unwrap_or(false);
    let report = ask(&context.requests, RELOAD_MAX, |responder| Request::Reload {
        is_dry_run,
        responder,
    })
    .await?;
    let status = if report.problems.is_some() {
        StatusCode::UNPROCESSABLE_ENTITY
    } else {
        StatusCode::OK
    };
    Ok((status, json(&report)?).into_response())
}

async fn drain(
    State(context): State<EndpointContext>,
    asked: Parameters,
) -> Result<String, RequestError> {
    change_drain(&context, asked, true).await
}

async fn undrain(
    State(context): State<EndpointContext>,
    asked: Parameters,
) -> Result<String, RequestError> {
    change_drain(&context, asked, false).await
}

async fn change_drain(
    context: &EndpointContext,
    asked: Parameters,
    drain: bool,
) -> Result<String, RequestError> {
    let [upstream] = only(["upstream"], asked)?;
    let upstream = upstream.required("HANDLER/ADDRESS, or the address alone")?;
    let done = ask(&context.requests, RESPONSE_MAX, |responder| {
        Request::Drain {
            upstream,
            drain,
            responder,
        }
    })
    .await??;
    Ok(done + "\n")
}

async fn log_level(
    State(context): State<EndpointContext>,
    asked: Parameters,
) -> Result<String, RequestError> {
    let [level] = only(["level"], asked)?;
    let level =
        log_level::parse(&level.required(log_level::LEVELS)?).map_err(RequestError::Parameter)?;
    Ok(ask(&context.requests, RESPONSE_MAX, |responder| {
        Request::Log(level, responder)
    })
    .await?
        + "\n")
}

async fn stop(State(context): State<EndpointContext>) -> Result<String, RequestError> {
    Ok(ask(&context.requests, RESPONSE_MAX, Request::Stop).await? + "\n")
}
