//! The table of endpoints. State is read with GET, and commands are sent with POST. Each endpoint sends a request to the
//! supervisor and formats the response. `docs/status.md` documents each endpoint.

use std::str::FromStr;
use std::time::Duration;

use hyper::header::{ALLOW, HeaderValue};
use hyper::{Method, Request as HttpRequest, StatusCode};
use serde::Serialize;
use tokio::sync::watch;

use super::endpoint::{RESPONSE_MAX, RequestError, request, snapshot, status};
use super::events::{self, Broadcast};
use super::parameters::{Parameter, Parameters, only};
use super::response::{self, Response};
use super::{metrics, page, tap};
use crate::observe::snapshot::Snapshot;
use crate::observe::tap::TapQuery;
use crate::plan::explain::{Imagined, TTL};
use crate::supervisor::log_level;
use crate::supervisor::requests::{Request, Requests};
use crate::supervisor::sessions::SessionQuery;

/// Longest wait for a reload, which may resolve names.
const RELOAD_MAX: Duration = Duration::from_secs(120);

/// The parts of the daemon that an endpoint may use.
#[derive(Debug, Clone)]
pub struct EndpointContext {
    /// The queue of requests to the supervisor.
    pub requests: Requests,
    /// The live view.
    pub broadcast: Broadcast,
    /// Becomes true when the server stops.
    stopped: watch::Receiver<bool>,
}

/// The endpoints, one for each path.
#[derive(Clone, Copy)]
enum Endpoint {
    Status,
    /// One list of the snapshot.
    Part(fn(&Snapshot) -> Result<Response, RequestError>),
    Sessions,
    Explain,
    Metrics,
    Livez,
    Readyz,
    Events,
    Tap,
    DropReasons,
    Counters,
    Asset(&'static page::Asset),
    Reload,
    Drain,
    Undrain,
    Log,
    Stop,
}

impl Endpoint {
    /// Returns the endpoint of a path. This is the table of all endpoints.
    fn at(path: &str) -> Option<Endpoint> {
        Some(match path {
            "/status" => Endpoint::Status,
            "/status/listeners" => Endpoint::Part(|snapshot| json(&snapshot.listeners)),
            "/status/routes" => Endpoint::Part(|snapshot| json(&snapshot.routes)),
            "/status/handlers" => Endpoint::Part(|snapshot| json(&snapshot.handlers)),
            "/status/upstreams" => Endpoint::Part(|snapshot| json(&snapshot.upstreams)),
            "/status/workers" => Endpoint::Part(|snapshot| json(&snapshot.workers)),
            "/status/alarms" => Endpoint::Part(|snapshot| json(&snapshot.alarms)),
            "/sessions" => Endpoint::Sessions,
            "/explain" => Endpoint::Explain,
            "/metrics" => Endpoint::Metrics,
            "/livez" => Endpoint::Livez,
            "/readyz" => Endpoint::Readyz,
            "/events" => Endpoint::Events,
            tap::PATH => Endpoint::Tap,
            "/page/drop_reasons.json" => Endpoint::DropReasons,
            "/page/counters.json" => Endpoint::Counters,
            "/reload" => Endpoint::Reload,
            "/drain" => Endpoint::Drain,
            "/undrain" => Endpoint::Undrain,
            "/log" => Endpoint::Log,
            "/stop" => Endpoint::Stop,
            _ => {
                let asset = page::ASSETS.iter().find(|asset| asset.path == path)?;
                Endpoint::Asset(asset)
            }
        })
    }

    /// Returns whether the endpoint is a command, which takes POST instead of GET.
    fn is_command(self) -> bool {
        matches!(
            self,
            Endpoint::Reload | Endpoint::Drain | Endpoint::Undrain | Endpoint::Log | Endpoint::Stop
        )
    }

    /// Returns whether a request may have this method. Hyper sends no body in a response to HEAD.
    fn allows(self, method: &Method) -> bool {
        if self.is_command() {
            return *method == Method::POST;
        }
        matches!(*method, Method::GET | Method::HEAD)
    }
}

impl EndpointContext {
    /// Creates the context that all requests at one listener share. `stopped` becomes true at the end.
    pub fn new(requests: Requests, stopped: watch::Receiver<bool>) -> EndpointContext {
        EndpointContext {
            requests,
            broadcast: Broadcast::new(),
            stopped,
        }
    }

    /// Returns the response to a request, whose body is not read.
    pub async fn respond<B>(&self, request: &HttpRequest<B>) -> Response {
        let Some(endpoint) = Endpoint::at(request.uri().path()) else {
            let text =
                "there is no such endpoint; try /status, /sessions, /metrics, /livez or /readyz\n";
            return response::text(StatusCode::NOT_FOUND, text);
        };
        if !endpoint.allows(request.method()) {
            return other_method(endpoint);
        }
        let parameters = Parameters::parse(request.uri().query().unwrap_or_default());
        let responded = self.respond_at(endpoint, parameters).await;
        responded.unwrap_or_else(|error| error.response())
    }

    async fn respond_at(
        &self,
        endpoint: Endpoint,
        parameters: Parameters,
    ) -> Result<Response, RequestError> {
        match endpoint {
            Endpoint::Status => Ok(response::json(status(&self.requests).await?)),
            Endpoint::Part(part) => part(&*snapshot(&self.requests).await?),
            Endpoint::Sessions => sessions(self, parameters).await,
            Endpoint::Explain => explain(self, parameters).await.map(text),
            Endpoint::Metrics => metrics(self).await,
            Endpoint::Livez => livez(self).await,
            Endpoint::Readyz => readyz(self).await,
            Endpoint::Events => Ok(watch_events(self).await),
            Endpoint::Tap => tap_datagrams(self, parameters).await,
            Endpoint::DropReasons => Ok(page::drop_reasons()),
            Endpoint::Counters => Ok(page::counters()),
            Endpoint::Asset(asset) => Ok(response::typed(asset.media_type, asset.text)),
            Endpoint::Reload => reload(self, parameters).await,
            Endpoint::Drain => change_drain(self, parameters, true).await.map(text),
            Endpoint::Undrain => change_drain(self, parameters, false).await.map(text),
            Endpoint::Log => log_level(self, parameters).await.map(text),
            Endpoint::Stop => stop(self).await.map(text),
        }
    }
}

fn other_method(endpoint: Endpoint) -> Response {
    let text = "use GET to read, and POST for the commands: reload, drain, undrain, log, stop\n";
    let mut response = response::text(StatusCode::METHOD_NOT_ALLOWED, text);
    let allowed = if endpoint.is_command() {
        "POST"
    } else {
        "GET,HEAD"
    };
    let allowed = HeaderValue::from_static(allowed);
    response.headers_mut().insert(ALLOW, allowed);
    response
}

fn text(text: String) -> Response {
    response::text(StatusCode::OK, text)
}

fn json(value: &impl Serialize) -> Result<Response, RequestError> {
    Ok(response::json(serde_json::to_vec(value)?))
}

fn number<T: FromStr>(parameter: Parameter) -> Result<Option<T>, RequestError> {
    parameter.read("a whole number", |text| text.parse().ok())
}

async fn sessions(
    context: &EndpointContext,
    parameters: Parameters,
) -> Result<Response, RequestError> {
    let [handler, client, limit] = only(["handler", "client", "limit"], parameters)?;
    let query = SessionQuery {
        handler: handler.text(),
        client: client.text(),
        limit: number(limit)?,
    };
    json(
        &request(&context.requests, RESPONSE_MAX, |responder| {
            Request::Sessions(query, responder)
        })
        .await??,
    )
}

async fn explain(
    context: &EndpointContext,
    parameters: Parameters,
) -> Result<String, RequestError> {
    let keys = ["to", "from", "interface", "ttl", "payload"];
    let [to, from, interface, ttl, payload] = only(keys, parameters)?;
    let example = "an address and a port, such as 192.0.2.1:53 or [2001:db8::1]:53";
    let imagined = Imagined {
        to: to.required_as(example, |text| text.parse().ok())?,
        from: from.read(example, |text| text.parse().ok())?,
        interface: interface.text(),
        ttl: ttl
            .read("a number from 1 to 255", |text| {
                text.parse().ok().filter(|ttl| *ttl > 0)
            })?
            .unwrap_or(TTL),
        payload: payload.text().unwrap_or_default().into_bytes(),
    };
    Ok(request(&context.requests, RESPONSE_MAX, |responder| {
        Request::Explain(imagined, responder)
    })
    .await??)
}

async fn metrics(context: &EndpointContext) -> Result<Response, RequestError> {
    let text = metrics::render(&*snapshot(&context.requests).await?);
    Ok(response::typed(metrics::MEDIA_TYPE, text))
}

/// Responds that the process is alive if all workers respond.
async fn livez(context: &EndpointContext) -> Result<Response, RequestError> {
    let snapshot = snapshot(&context.requests).await?;
    let silent = snapshot.workers.iter().find(|worker| !worker.responsive);
    Ok(match silent {
        None => response::text(StatusCode::OK, "alive\n"),
        Some(worker) => response::text(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("worker {} does not respond\n", worker.worker),
        ),
    })
}

/// Responds that the daemon is ready. The control socket is served only after every listener is bound, and a daemon that
/// is stopping does not accept the request.
async fn readyz(context: &EndpointContext) -> Result<Response, RequestError> {
    snapshot(&context.requests).await?;
    Ok(response::text(StatusCode::OK, "ready\n"))
}

async fn watch_events(context: &EndpointContext) -> Response {
    let stopped = context.stopped.clone();
    events::watch(context.requests.clone(), &context.broadcast, stopped).await
}

async fn tap_datagrams(
    context: &EndpointContext,
    parameters: Parameters,
) -> Result<Response, RequestError> {
    let [to, from, handler, limit, snap] =
        only(["to", "from", "handler", "limit", "snap"], parameters)?;
    let limit = number(limit)?;
    let snap = number(snap)?;
    let query = TapQuery {
        to: to.text(),
        from: from.text(),
        handler: handler.text(),
        limit,
        snap,
    };
    Ok(tap::respond(
        request(&context.requests, RESPONSE_MAX, |responder| {
            Request::Tap(query, responder)
        })
        .await??,
    ))
}

async fn reload(
    context: &EndpointContext,
    parameters: Parameters,
) -> Result<Response, RequestError> {
    let [dry_run] = only(["dry_run"], parameters)?;
    let yes_or_no = |text: &str| match text {
        // A name without a value means yes.
        "1" | "true" | "" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    };
    let is_dry_run = dry_run
        .read("1, 0, true or false", yes_or_no)?
        .unwrap_or(false);
    let report = request(&context.requests, RELOAD_MAX, |responder| Request::Reload {
        is_dry_run,
        responder,
    })
    .await?;
    let status = if report.problems.is_some() {
        StatusCode::UNPROCESSABLE_ENTITY
    } else {
        StatusCode::OK
    };
    let mut response = json(&report)?;
    *response.status_mut() = status;
    Ok(response)
}

async fn change_drain(
    context: &EndpointContext,
    parameters: Parameters,
    drain: bool,
) -> Result<String, RequestError> {
    let [upstream] = only(["upstream"], parameters)?;
    let upstream = upstream.required("HANDLER/ADDRESS, or the address alone")?;
    let done = request(&context.requests, RESPONSE_MAX, |responder| {
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
    context: &EndpointContext,
    parameters: Parameters,
) -> Result<String, RequestError> {
    let [level] = only(["level"], parameters)?;
    let level =
        log_level::parse(&level.required(log_level::LEVELS)?).map_err(RequestError::Parameter)?;
    Ok(request(&context.requests, RESPONSE_MAX, |responder| {
        Request::Log(level, responder)
    })
    .await?
        + "\n")
}

async fn stop(context: &EndpointContext) -> Result<String, RequestError> {
    Ok(request(&context.requests, RESPONSE_MAX, Request::Stop).await? + "\n")
}
