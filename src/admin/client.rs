//! The other end: HTTP/1.1 over a control socket, one request a connection, for the commands. Waits no longer than it is told.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::time;

/// Bytes of an answer; the largest status has a few thousand rows of some hundred bytes each.
const RESPONSE_BYTES_MAX: usize = 512 * 1024 * 1024;

/// A way to a daemon.
#[derive(Debug, Clone)]
pub struct Client {
    path: PathBuf,
    timeout: Duration,
}

/// What it answered.
#[derive(Debug, Clone)]
pub struct HttpResponse {
    /// The status code of HTTP.
    pub status: u16,
    /// What it said.
    pub body: Bytes,
}

impl HttpResponse {
    /// Whether it did what was asked.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// What it said, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    /// To the daemon at this socket, with this time limit for each response.
    pub fn new(path: PathBuf, timeout: Duration) -> Client {
        Client { path, timeout }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads a noun.
    pub fn get(&self, target: &str) -> io::Result<HttpResponse> {
        self.ask(Method::GET, target)
    }

    /// Does a verb.
    pub fn post(&self, target: &str) -> io::Result<HttpResponse> {
        self.ask(Method::POST, target)
    }

    fn ask(&self, method: Method, target: &str) -> io::Result<HttpResponse> {
        let response = runtime()?.block_on(async {
            time::timeout(self.timeout, exchange(&self.path, method, target)).await
        });
        response.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
    }
}

fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
}

async fn exchange(path: &Path, method: Method, target: &str) -> io::Result<HttpResponse> {
    whole(request(path, method, target).await?).await
}

/// Asks, and waits for the head of the answer.
async fn request(path: &Path, method: Method, target: &str) -> io::Result<Response<Incoming>> {
    let stream = UnixStream::connect(path).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    // It ends with the runtime, or with the connection.
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header("host", "localhost");
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    sender.send_request(request).await.map_err(io::Error::other)
}

/// Waits for the rest.
async fn whole(response: Response<Incoming>) -> io::Result<HttpResponse> {
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), RESPONSE_BYTES_MAX)
        .collect()
        .await
        .map_err(io::Error::other)?;
    Ok(HttpResponse {
        status,
        body: body.to_bytes(),
    })
}

/// An answer that comes bit by bit.
pub struct ResponseStream {
    runtime: Runtime,
    body: Incoming,
}

/// What the next bit of an answer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextChunk {
    /// This.
    Bytes(Bytes),
    /// Nothing yet.
    Nothing,
    /// It was the last one.
    End,
}

impl Client {
    /// Reads a noun that goes on and on; a refusal is a whole answer.
    pub fn stream(&self, target: &str) -> io::Result<Result<ResponseStream, HttpResponse>> {
        let runtime = runtime()?;
        let begin = async {
            let response = request(&self.path, Method::GET, target).await?;
            match response.status().is_success() {
                true => Ok(Ok(response.into_body())),
                false => whole(response).await.map(Err),
            }
        };
        let begun = runtime.block_on(async { time::timeout(self.timeout, begin).await });
        let begun = begun.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))?;
        Ok(begun.map(|body| ResponseStream { runtime, body }))
    }
}

impl ResponseStream {
    /// Waits no longer than this for the next bit.
    pub fn next(&mut self, timeout: Duration) -> io::Result<NextChunk> {
        let ResponseStream { runtime, body } = self;
        match runtime.block_on(async { time::timeout(timeout, body.frame()).await }) {
            Err(_) => Ok(NextChunk::Nothing),
            Ok(None) => Ok(NextChunk::End),
            Ok(Some(frame)) => Ok(NextChunk::Bytes(
                frame
                    .map_err(io::Error::other)?
                    .into_data()
                    .unwrap_or_default(),
            )),
        }
    }
}
