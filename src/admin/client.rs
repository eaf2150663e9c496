//! The other end: HTTP/1.1 over a control socket, one request a connection, for the commands. Waits no longer than it is told.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Bytes of an answer; the largest status has a few thousand rows of some hundred bytes each.
const ANSWER_BYTES_MAX: usize = 512 * 1024 * 1024;

/// A way to a daemon.
#[derive(Debug, Clone)]
pub struct Client {
    path: PathBuf,
    patience: Duration,
}

/// What it answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code of HTTP.
    pub status: u16,
    /// What it said.
    pub body: Bytes,
}

impl Answer {
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
    /// To the daemon at this socket, with so much patience for each answer.
    pub fn new(path: PathBuf, patience: Duration) -> Client {
        Client { path, patience }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads a noun.
    pub fn get(&self, target: &str) -> io::Result<Answer> {
        self.ask(Method::GET, target)
    }

    /// Does a verb.
    pub fn post(&self, target: &str) -> io::Result<Answer> {
        self.ask(Method::POST, target)
    }

    fn ask(&self, method: Method, target: &str) -> io::Result<Answer> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let answer = runtime.block_on(async { timeout(self.patience, exchange(&self.path, method, target)).await });
        answer.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
    }
}

async fn exchange(path: &Path, method: Method, target: &str) -> io::Result<Answer> {
    let stream = UnixStream::connect(path).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // It ends with the runtime, or with the connection.
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(target).header("host", "localhost");
    let request = request.body(Empty::<Bytes>::new()).map_err(io::Error::other)?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(io::Error::other)?;
    Ok(Answer { status, body: body.to_bytes() })
}
