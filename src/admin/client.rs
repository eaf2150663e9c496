//! The HTTP/1.1 client for a control socket, which the commands use. Each request has its own connection and a time
//! limit.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::time;

/// Largest response in bytes. The largest status has a few thousand rows of some hundred bytes each.
const RESPONSE_BYTES_MAX: usize = 512 * 1024 * 1024;

/// A client of one daemon.
#[derive(Debug, Clone)]
pub struct Client {
    path: PathBuf,
    timeout: Duration,
}

/// A complete response.
#[derive(Debug, Clone)]
pub struct HttpResponse {
    /// The HTTP status code.
    pub status: u16,
    /// The body of the response.
    pub body: Bytes,
}

impl HttpResponse {
    /// Returns whether the daemon did what was requested.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    /// Returns a client of the daemon at this socket, with this time limit for each response.
    pub fn new(path: PathBuf, timeout: Duration) -> Client {
        Client { path, timeout }
    }

    /// Returns the path of the control socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sends a GET request.
    ///
    /// # Errors
    ///
    /// Returns the error of the connection, [`ErrorKind::TimedOut`] if the response is not complete in time, or an
    /// error if it is not valid HTTP or too large.
    pub fn get(&self, target: &str) -> io::Result<HttpResponse> {
        self.send(Method::GET, target)
    }

    /// Sends a POST request.
    ///
    /// # Errors
    ///
    /// Returns an error as [`Client::get`] does.
    pub fn post(&self, target: &str) -> io::Result<HttpResponse> {
        self.send(Method::POST, target)
    }

    fn send(&self, method: Method, target: &str) -> io::Result<HttpResponse> {
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
    read_all(request(path, method, target).await?).await
}

/// Sends a request and waits for the head of the response.
async fn request(path: &Path, method: Method, target: &str) -> io::Result<Response<Incoming>> {
    let stream = UnixStream::connect(path).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    // The task ends with the runtime, or with the connection.
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

/// Reads the body of the response.
async fn read_all(response: Response<Incoming>) -> io::Result<HttpResponse> {
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

/// A response that arrives in parts.
pub struct ResponseStream {
    runtime: Runtime,
    body: Incoming,
}

/// The next part of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextChunk {
    /// These bytes.
    Bytes(Bytes),
    /// No part arrived in time.
    Nothing,
    /// The response has ended.
    End,
}

impl Client {
    /// Sends a GET request whose response does not end. A refusal is returned as a complete response.
    ///
    /// # Errors
    ///
    /// Returns the error of the connection, or [`ErrorKind::TimedOut`] if the head of the response does not arrive in
    /// time.
    pub fn stream(&self, target: &str) -> io::Result<Result<ResponseStream, HttpResponse>> {
        let runtime = runtime()?;
        let begin = async {
            let response = request(&self.path, Method::GET, target).await?;
            if response.status().is_success() {
                Ok(Ok(response.into_body()))
            } else {
                read_all(response).await.map(Err)
            }
        };
        let begun = runtime.block_on(async { time::timeout(self.timeout, begin).await });
        let begun = begun.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))?;
        Ok(begun.map(|body| ResponseStream { runtime, body }))
    }
}

impl ResponseStream {
    /// Waits at most `timeout` for the next part.
    ///
    /// # Errors
    ///
    /// Returns the error of the connection.
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
