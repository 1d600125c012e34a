//! A client that reports what came back as it came, HTTP/1.1 or HTTP/2 (prior knowledge).

use crate::runtime::runtime;
use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Method};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Longest wait for a whole answer; a test that needs longer has hung.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// A request that is being put together. Mistakes in it come out at [`Self::send`].
#[derive(Debug)]
pub struct Request {
    to: SocketAddr,
    target: String,
    method: std::result::Result<Method, String>,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    body: Bytes,
    http2: bool,
    within: Duration,
}

impl Request {
    /// A request to `to`; `target` is path and query.
    #[must_use]
    pub fn new(to: SocketAddr, method: &str, target: &str) -> Self {
        Self {
            to,
            target: target.to_owned(),
            method: Method::from_bytes(method.as_bytes()).map_err(|e| format!("{method}: {e}")),
            headers: Vec::new(),
            body: Bytes::new(),
            http2: false,
            within: ANSWER_WITHIN,
        }
    }

    /// Adds a header; the same name may come again. Values are bytes.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.as_bytes().to_vec(), value.as_ref().to_vec()));
        self
    }

    /// `Authorization: Bearer <token>`.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    /// The body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// A JSON body, with its content type.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }

    /// Speaks HTTP/2.
    #[must_use]
    pub const fn http2(mut self) -> Self {
        self.http2 = true;
        self
    }

    /// Waits at most so long for the whole answer.
    #[must_use]
    pub const fn within(mut self, deadline: Duration) -> Self {
        self.within = deadline;
        self
    }

    /// Sends it on a connection of its own and waits for the whole answer.
    ///
    /// # Errors
    /// No whole answer came within the deadline, or the request cannot be written at all.
    pub fn send(self) -> Result<Response> {
        runtime()?.block_on(self.send_async())
    }

    /// [`Self::send`] for those who are on the runtime already.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_async(self) -> Result<Response> {
        let what = format!("{:?} {} at {}", self.method, self.target, self.to);
        let within = self.within;
        tokio::time::timeout(within, self.exchange())
            .await
            .with_context(|| format!("{what}: no whole answer within {within:?}"))?
            .with_context(|| what)
    }

    async fn exchange(self) -> Result<Response> {
        let start = Instant::now();
        let client = pool(self.http2);
        let answer = client.request(self.into_http()?).await?;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let status = parts.status.as_u16();
        let body = body.to_bytes();
        Ok(Response { status, headers: parts.headers, trailers, body, took: start.elapsed() })
    }

    /// The request as hyper wants it.
    ///
    /// # Errors
    /// Method, target or a header is not HTTP.
    pub fn into_http(self) -> Result<hyper::Request<Full<Bytes>>> {
        let mut request = hyper::Request::builder()
            .method(self.method.map_err(|e| anyhow!(e))?)
            .uri(format!("http://{}{}", self.to, self.target))
            .body(Full::new(self.body))?;
        for (name, value) in &self.headers {
            let name = HeaderName::from_bytes(name)?;
            request.headers_mut().append(name, HeaderValue::from_bytes(value)?);
        }
        Ok(request)
    }
}

/// A client with connections of its own.
#[must_use]
pub fn pool(http2: bool) -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).http2_only(http2).build(HttpConnector::new())
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The trailers; empty when there were none.
    pub trailers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// From the first byte sent to the last one read.
    pub took: Duration,
}

impl Response {
    /// A header's first value as text, empty when it is missing or no text.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    /// All values of a header.
    #[must_use]
    pub fn headers(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).collect()
    }

    /// The `grpc-status`, in the trailers or in the headers.
    #[must_use]
    pub fn grpc_status(&self) -> Option<u32> {
        let value = self.trailers.get("grpc-status").or_else(|| self.headers.get("grpc-status"))?;
        value.to_str().ok()?.parse().ok()
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Goes on when the status is this one.
    ///
    /// # Errors
    /// It is another; the error shows the whole answer.
    pub fn expect(self, status: u16) -> Result<Self> {
        if self.status == status {
            return Ok(self);
        }
        Err(anyhow!("expected {status}, got {}\n{:#?}\n{}", self.status, self.headers, self.text()))
    }

    /// Goes on when this is the gateway's refusal with this status and code.
    ///
    /// # Errors
    /// It is not; the error shows the whole answer.
    pub fn expect_refusal(self, status: u16, code: &str) -> Result<Self> {
        let answer = self.expect(status)?;
        let kind = answer.header("content-type");
        let body = answer.json();
        let said = body.get("code").and_then(Value::as_str).unwrap_or_default();
        if kind == "application/problem+json" && said == code {
            return Ok(answer);
        }
        let text = answer.text();
        Err(anyhow!("expected the refusal {code}, got {kind:?}\n{:#?}\n{text}", answer.headers))
    }
}
