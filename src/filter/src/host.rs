//! What the filter asks of Envoy, as a trait: bytes in, bytes out, every status a `Result`.
//!
//! `wasm.rs` implements it on the real host, the tests on a hostile one. Nothing here decides.

use policy::time::{Moment, Nanos};

/// Why a host call did not do what it was asked (proxy-wasm ABI 0.2.1, `proxy_status_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// There is no such thing.
    NotFound,
    /// The argument is wrong, or the thing cannot be had in this phase.
    BadArgument,
    /// A value exists but cannot be written out (a null in metadata).
    SerializationFailure,
    /// An argument could not be read.
    ParseFailure,
    /// A queue is empty.
    Empty,
    /// A compare-and-set lost.
    CasMismatch,
    /// The host failed, or the call is forbidden here.
    InternalFailure,
    /// A status that the ABI does not list.
    Other(u32),
}

impl Status {
    /// Reads the number that every host call returns.
    ///
    /// # Errors
    /// Everything but 0 is an error.
    pub fn check(number: u32) -> Result<(), Self> {
        match number {
            0 => Ok(()),
            1 => Err(Self::NotFound),
            2 => Err(Self::BadArgument),
            3 => Err(Self::SerializationFailure),
            4 => Err(Self::ParseFailure),
            7 => Err(Self::Empty),
            8 => Err(Self::CasMismatch),
            10 => Err(Self::InternalFailure),
            other => Err(Self::Other(other)),
        }
    }
}

/// The header maps that the filter touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Map {
    /// The request's headers.
    Request,
    /// The response's headers.
    Response,
    /// The headers of an answer to the filter's own call.
    CallResponse,
}

impl Map {
    /// The number in the ABI.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Request => 0,
            Self::Response => 2,
            Self::CallResponse => 6,
        }
    }
}

/// The buffers that the filter reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buffer {
    /// The body of an answer to the filter's own call.
    CallResponseBody,
    /// The plugin configuration: the policy as JSON.
    PluginConfiguration,
}

impl Buffer {
    /// The number in the ABI.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::CallResponseBody => 4,
            Self::PluginConfiguration => 7,
        }
    }
}

/// The kinds of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Whole numbers, distributed.
    Histogram,
}

impl Kind {
    /// The number in the ABI.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Counter => 0,
            Self::Gauge => 1,
            Self::Histogram => 2,
        }
    }
}

/// How urgent a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Lifecycle.
    Info,
    /// The service is degraded.
    Warn,
    /// An operator must act.
    Error,
}

impl Level {
    /// The number in the ABI.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Info => 2,
            Self::Warn => 3,
            Self::Error => 4,
        }
    }

    /// The name in a log line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// Paths of Envoy's attributes, parts joined by NUL as the ABI wants them.
pub mod attribute {
    /// The client's address with port, after trusted hops.
    pub const SOURCE_ADDRESS: &[u8] = b"source\0address";
    /// The cluster that the route has selected.
    pub const CLUSTER_NAME: &[u8] = b"xds\0cluster_name";
    /// The status that the client got.
    pub const RESPONSE_CODE: &[u8] = b"response\0code";
    /// Envoy's response flags, as bits.
    pub const RESPONSE_FLAGS: &[u8] = b"response\0flags";
    /// Who made the response, and why.
    pub const RESPONSE_CODE_DETAILS: &[u8] = b"response\0code_details";
    /// From the first byte of the request to the end of the response.
    pub const REQUEST_DURATION: &[u8] = b"request\0duration";
    /// Which plugin of the module this is.
    pub const ROOT_ID: &[u8] = b"plugin_root_id";
}

/// A reply made by the filter, as the host wants it.
#[derive(Clone, Copy, Debug)]
pub struct LocalResponse<'a> {
    /// The HTTP status.
    pub status: u16,
    /// What the access log shows as `%RESPONSE_CODE_DETAILS%`.
    pub details: &'a str,
    /// Serialized headers ([`policy::headers::serialize`]).
    pub headers: &'a [u8],
    /// The body.
    pub body: &'a [u8],
    /// The `grpc-status`; `None` unless the request is gRPC.
    pub grpc_status: Option<u8>,
}

/// A call that the filter makes.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The Envoy cluster.
    pub cluster: &'a str,
    /// Serialized headers, the pseudo headers among them.
    pub headers: &'a [u8],
    /// The body.
    pub body: &'a [u8],
    /// After this the host answers with a 504 of its own.
    pub timeout: Nanos,
}

/// The host. Cheap to clone; every method is one host call, and none of them calls the filter back
/// but [`Host::send_local_response`], which may run the response callbacks before it returns.
///
/// # Errors
/// Every method gives the host's status when it is not `Ok`.
pub trait Host: Clone + 'static {
    /// Both clocks.
    fn moment(&self) -> Result<Moment, Status>;
    /// The monotonic clock alone.
    fn monotonic(&self) -> Result<Nanos, Status>;
    /// Fills `bytes` with randomness fit for secrets.
    fn random(&self, bytes: &mut [u8]) -> Result<(), Status>;
    /// A variable of the VM's environment.
    fn variable(&self, name: &str) -> Option<String>;
    /// Writes a log line.
    fn log(&self, level: Level, line: &str) -> Result<(), Status>;
    /// Has `on_tick` called for this root context again and again.
    fn tick_every(&self, period: Nanos) -> Result<(), Status>;
    /// Reads at most `max` bytes of a buffer.
    fn buffer(&self, buffer: Buffer, max: usize) -> Result<Vec<u8>, Status>;

    /// A whole header map in the host's serialization.
    fn headers(&self, map: Map) -> Result<Vec<u8>, Status>;
    /// Adds a header beside those of the same name.
    fn add_header(&self, map: Map, name: &str, value: &[u8]) -> Result<(), Status>;
    /// Sets a header in place of those of the same name.
    fn replace_header(&self, map: Map, name: &str, value: &[u8]) -> Result<(), Status>;
    /// Removes every header of that name.
    fn remove_header(&self, map: Map, name: &str) -> Result<(), Status>;
    /// An attribute ([`attribute`]).
    fn attribute(&self, path: &[u8]) -> Result<Vec<u8>, Status>;
    /// Answers the request instead of forwarding it.
    fn send_local_response(&self, response: &LocalResponse<'_>) -> Result<(), Status>;

    /// Makes what follows in this callback count for that context, a stream of another callback.
    fn enter(&self, context: u32) -> Result<(), Status>;
    /// Lets a request go on that was paused, after this callback has returned.
    fn continue_request(&self) -> Result<(), Status>;

    /// Reads a shared value with its version.
    fn shared(&self, key: &[u8]) -> Result<(Vec<u8>, u32), Status>;
    /// Writes a shared value if its version is still `cas`.
    fn set_shared(&self, key: &[u8], value: &[u8], cas: u32) -> Result<(), Status>;

    /// Finds or makes a metric and gives its number in this VM.
    fn define_metric(&self, kind: Kind, name: &str) -> Result<u32, Status>;
    /// Adds to a counter or gauge; only a gauge takes a negative number.
    fn increment_metric(&self, metric: u32, by: i64) -> Result<(), Status>;
    /// The value of a counter or gauge, over all workers.
    fn metric(&self, metric: u32) -> Result<u64, Status>;
    /// Sets a gauge, or records one value in a histogram.
    fn record_metric(&self, metric: u32, value: u64) -> Result<(), Status>;

    /// Starts a call; the answer comes by `on_http_call_response` with the number returned here.
    fn call(&self, call: &Call<'_>) -> Result<u32, Status>;
    /// Runs a function that Envoy offers beside the ABI.
    fn foreign(&self, name: &str, argument: &[u8]) -> Result<Vec<u8>, Status>;
}
