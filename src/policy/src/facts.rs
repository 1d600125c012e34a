//! What is known about one request when it is judged. Gathered once by the shell.

use crate::headers::Headers;
use core::net::IpAddr;

/// The service label of a request that Envoy routes nowhere (or answers itself).
pub const NO_SERVICE: &str = "none";

/// Everything a stage may look at. Bytes as they came; only `client` and `service` are parsed.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// All request headers, pseudo headers included.
    pub headers: Headers<'a>,
    /// Envoy's `source.address` without the port; `None` when it could not be read.
    pub client: Option<IpAddr>,
    /// The cluster that the route has selected (`xds.cluster_name`); `None` when there is none.
    pub service: Option<&'a str>,
}

impl<'a> Facts<'a> {
    /// `:method`, empty when missing.
    #[must_use]
    pub fn method(&self) -> &'a [u8] {
        self.headers.first(":method").unwrap_or_default()
    }

    /// `:path` up to the query, as Envoy has normalised it; empty when missing.
    #[must_use]
    pub fn path(&self) -> &'a [u8] {
        let whole = self.headers.first(":path").unwrap_or_default();
        let end = whole.iter().position(|byte| *byte == b'?').unwrap_or(whole.len());
        whole.get(..end).unwrap_or_default()
    }

    /// Whether the path can be read in one way only: no dot or empty segments, no backslash, no
    /// escaped `.`, `/` or `\\`, and no parameter (`;`), which some servers cut off.
    #[must_use]
    pub fn is_path_canonical(&self) -> bool {
        let path = self.path();
        let escaped = |three: &[u8]| {
            let three = [b"%2e", b"%2f", b"%5c"].map(|code| three.eq_ignore_ascii_case(code));
            three.contains(&true)
        };
        let Some(inner) = path.strip_prefix(b"/") else { return false };
        let mut segments = inner.strip_suffix(b"/").unwrap_or(inner).split(|byte| *byte == b'/');
        let plain = |segment: &[u8]| !matches!(segment, b"" | b"." | b"..");
        (inner.is_empty() || segments.all(plain))
            && !path.contains(&b'\\')
            && !path.contains(&b';')
            && !path.windows(3).any(escaped)
    }

    /// `x-request-id`, empty when missing or not plain (it is echoed in replies).
    #[must_use]
    pub fn request_id(&self) -> &'a str {
        let id = self.headers.first("x-request-id").unwrap_or_default();
        let plain = id.len() <= 128 && id.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-');
        if plain { core::str::from_utf8(id).unwrap_or_default() } else { "" }
    }

    /// The service's name for labels and records.
    #[must_use]
    pub fn service_name(&self) -> &'a str {
        self.service.unwrap_or(NO_SERVICE)
    }

    /// Whether this is a gRPC request, which must be answered by `grpc-status`.
    #[must_use]
    pub fn is_grpc(&self) -> bool {
        self.headers.first("content-type").is_some_and(|value| {
            value
                .strip_prefix(b"application/grpc")
                .is_some_and(|rest| rest.is_empty() || matches!(rest.first(), Some(b'+' | b';')))
        })
    }

    /// Whether the client's connection was encrypted, as Envoy tells it: `x-forwarded-proto`
    /// (which Envoy overwrites unless the hop is trusted), else `:scheme`.
    #[must_use]
    pub fn is_https(&self) -> bool {
        let scheme = self
            .headers
            .first("x-forwarded-proto")
            .or_else(|| self.headers.first(":scheme"))
            .unwrap_or_default();
        scheme.eq_ignore_ascii_case(b"https")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::serialize;

    #[track_caller]
    fn check(path: &str, expected: bool) {
        let bytes = serialize(&[(b":path", path.as_bytes())]);
        let facts = Facts { headers: Headers::new(&bytes), client: None, service: None };
        assert_eq!(facts.is_path_canonical(), expected, "{path}");
    }

    #[test]
    fn a_path_that_two_servers_may_read_differently_is_not_canonical() {
        for path in ["/", "/a", "/a/", "/a/b.c/..d?x=/../%2f", "/%41"] {
            check(path, true);
        }
        for path in [
            "",
            "*",
            "//a",
            "/a//b",
            "/a/./b",
            "/docs/../api",
            "/docs/..",
            "/docs/%2e%2E/api",
            "/docs/..%2Fapi",
            "/docs/..%5capi",
            "/docs/..\\api",
            "/docs;x/../api",
            "/docs;x",
        ] {
            check(path, false);
        }
    }
}
