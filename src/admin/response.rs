//! Responses and their bodies. A body is either complete, or a stream of chunks that ends with the connection.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::{Either, Full};
use hyper::StatusCode;
use hyper::body::{Body as HttpBody, Bytes, Frame};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use tokio::sync::mpsc;

/// A response of any endpoint.
pub type Response = hyper::Response<Body>;
/// The body of a response, complete or a stream. Reading it never fails.
pub type Body = Either<Full<Bytes>, Chunks>;

/// The media type of text for people.
const TEXT: &str = "text/plain; charset=utf-8";
/// The media type of JSON (RFC 8259).
const JSON: &str = "application/json";

/// A body of unknown length, which ends when the sender of its channel is dropped.
pub struct Chunks(mpsc::Receiver<Bytes>);

impl HttpBody for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(cx)
            .map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }
}

/// Returns a response with this status and a text for people.
pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Response {
    let mut response = typed(TEXT, text);
    *response.status_mut() = status;
    response
}

/// Returns a successful response with JSON, given as serialized.
pub fn json(bytes: Vec<u8>) -> Response {
    typed(JSON, bytes)
}

/// Returns a successful response with this media type and content.
pub fn typed(media_type: &'static str, content: impl Into<Bytes>) -> Response {
    with_type(media_type, Either::Left(Full::new(content.into())))
}

/// Returns a successful response with this media type, and with the chunks of the channel as its body.
pub fn stream(media_type: &'static str, chunks: mpsc::Receiver<Bytes>) -> Response {
    with_type(media_type, Either::Right(Chunks(chunks)))
}

fn with_type(media_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    let value = HeaderValue::from_static(media_type);
    response.headers_mut().insert(CONTENT_TYPE, value);
    response
}
