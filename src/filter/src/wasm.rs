//! The proxy-wasm ABI 0.2.1, by hand: the only `unsafe` of the project is here and in the two files
//! below.
//!
//! Why there is no SDK: `docs/decisions/0001-own-abi-shim.md`. This file turns the raw imports into
//! a [`Host`], `exports.rs` turns Envoy's callbacks into calls on the VM.

mod exports;
mod imports;

use crate::host::{Buffer, Call, Host, Kind, Level, LocalResponse, Map, Status};
use imports::*;
use policy::time::{Moment, Nanos};
use std::cell::Cell;
use std::ptr::null_mut;

/// WASI's monotonic clock.
const CLOCK_MONOTONIC: u32 = 1;
/// For so long the time of day is carried on by the monotonic clock, which saves a call for each
/// request. It decides about seconds, so it may learn this late that it was set.
const WALL_EVERY: Nanos = Nanos::from_millis(100);
/// The downstream half of a stream, for `proxy_continue_stream`.
const STREAM_REQUEST: u32 = 0;
/// What a reply to a request that is not gRPC passes for its gRPC status.
const GRPC_NONE: i32 = -1;

thread_local! {
    /// The moment at which the time of day was read last; zero before.
    static READ: Cell<Moment> =
        const { Cell::new(Moment { monotonic: Nanos::ZERO, wall: Nanos::ZERO }) };
}

/// The real host.
#[derive(Clone, Copy)]
struct Envoy;

/// Calls an import that returns a buffer and takes that buffer over.
fn filled(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<Vec<u8>, Status> {
    let mut data = null_mut();
    let mut size = 0;
    let status = call(&raw mut data, &raw mut size);
    let bytes = if data.is_null() || size == 0 {
        Vec::new()
    } else {
        // SAFETY: the host fills these only with a block of `size` bytes that it got from
        // `proxy_on_memory_allocate(size)` and has given away.
        unsafe { Vec::from_raw_parts(data, size, size) }
    };
    Status::check(status).map(|()| bytes)
}

impl Host for Envoy {
    fn moment(&self) -> Result<Moment, Status> {
        let monotonic = self.monotonic()?;
        let read = READ.get();
        let since = monotonic - read.monotonic;
        if read.wall > Nanos::ZERO && since < WALL_EVERY {
            return Ok(Moment { monotonic, wall: read.wall + since });
        }
        let mut wall = 0;
        // SAFETY: it writes one u64 where it is told to.
        Status::check(unsafe { proxy_get_current_time_nanoseconds(&raw mut wall) })?;
        let now = Moment { monotonic, wall: Nanos(wall) };
        READ.set(now);
        Ok(now)
    }

    fn monotonic(&self) -> Result<Nanos, Status> {
        let mut monotonic = 0;
        // SAFETY: it writes one u64 where it is told to.
        Status::check(unsafe { clock_time_get(CLOCK_MONOTONIC, 1, &raw mut monotonic) })?;
        Ok(Nanos(monotonic))
    }

    fn random(&self, bytes: &mut [u8]) -> Result<(), Status> {
        // SAFETY: the host writes exactly the slice.
        Status::check(unsafe { random_get(bytes.as_mut_ptr(), bytes.len()) })
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn log(&self, level: Level, line: &str) -> Result<(), Status> {
        // SAFETY: the host reads the slice during the call; so for every `as_ptr` below.
        Status::check(unsafe { proxy_log(level.number(), line.as_ptr(), line.len()) })
    }

    fn tick_every(&self, period: Nanos) -> Result<(), Status> {
        let millis = u32::try_from(period.as_millis()).map_err(|_| Status::BadArgument)?;
        // SAFETY: numbers only.
        Status::check(unsafe { proxy_set_tick_period_milliseconds(millis) })
    }

    fn buffer(&self, buffer: Buffer, max: usize) -> Result<Vec<u8>, Status> {
        // SAFETY: the host writes a pointer and a size; so for every `filled` below.
        filled(|data, size| unsafe { proxy_get_buffer_bytes(buffer.number(), 0, max, data, size) })
    }

    fn headers(&self, map: Map) -> Result<Vec<u8>, Status> {
        // SAFETY: as above.
        filled(|data, size| unsafe { proxy_get_header_map_pairs(map.number(), data, size) })
    }

    fn add_header(&self, map: Map, name: &str, value: &[u8]) -> Result<(), Status> {
        // SAFETY: as above.
        Status::check(unsafe {
            proxy_add_header_map_value(
                map.number(),
                name.as_ptr(),
                name.len(),
                value.as_ptr(),
                value.len(),
            )
        })
    }

    fn replace_header(&self, map: Map, name: &str, value: &[u8]) -> Result<(), Status> {
        // SAFETY: as above.
        Status::check(unsafe {
            proxy_replace_header_map_value(
                map.number(),
                name.as_ptr(),
                name.len(),
                value.as_ptr(),
                value.len(),
            )
        })
    }

    fn remove_header(&self, map: Map, name: &str) -> Result<(), Status> {
        // SAFETY: as above.
        Status::check(unsafe {
            proxy_remove_header_map_value(map.number(), name.as_ptr(), name.len())
        })
    }

    fn attribute(&self, path: &[u8]) -> Result<Vec<u8>, Status> {
        // SAFETY: as above.
        filled(|data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) })
    }

    fn send_local_response(&self, response: &LocalResponse<'_>) -> Result<(), Status> {
        // SAFETY: as above. The response callbacks may run before this returns: callers hold no
        // borrow across it.
        Status::check(unsafe {
            proxy_send_local_response(
                u32::from(response.status),
                response.details.as_ptr(),
                response.details.len(),
                response.body.as_ptr(),
                response.body.len(),
                response.headers.as_ptr(),
                response.headers.len(),
                response.grpc_status.map_or(GRPC_NONE, i32::from),
            )
        })
    }

    fn enter(&self, context: u32) -> Result<(), Status> {
        // SAFETY: numbers only.
        Status::check(unsafe { proxy_set_effective_context(context) })
    }

    fn continue_request(&self) -> Result<(), Status> {
        // SAFETY: numbers only. Envoy goes on with the stream after the callback has returned.
        Status::check(unsafe { proxy_continue_stream(STREAM_REQUEST) })
    }

    fn shared(&self, key: &[u8]) -> Result<(Vec<u8>, u32), Status> {
        let mut cas = 0;
        // SAFETY: as above, and one u32 for the version.
        let bytes = filled(|data, size| unsafe {
            proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &raw mut cas)
        })?;
        Ok((bytes, cas))
    }

    fn set_shared(&self, key: &[u8], value: &[u8], cas: u32) -> Result<(), Status> {
        // SAFETY: as above.
        Status::check(unsafe {
            proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), cas)
        })
    }

    fn define_metric(&self, kind: Kind, name: &str) -> Result<u32, Status> {
        let mut id = 0;
        // SAFETY: as above, and one u32 for the number.
        let status =
            unsafe { proxy_define_metric(kind.number(), name.as_ptr(), name.len(), &raw mut id) };
        Status::check(status).map(|()| id)
    }

    fn increment_metric(&self, metric: u32, by: i64) -> Result<(), Status> {
        // SAFETY: numbers only.
        Status::check(unsafe { proxy_increment_metric(metric, by) })
    }

    fn metric(&self, metric: u32) -> Result<u64, Status> {
        let mut value = 0;
        // SAFETY: the host writes one u64.
        Status::check(unsafe { proxy_get_metric(metric, &raw mut value) }).map(|()| value)
    }

    fn record_metric(&self, metric: u32, value: u64) -> Result<(), Status> {
        // SAFETY: numbers only.
        Status::check(unsafe { proxy_record_metric(metric, value) })
    }

    fn call(&self, call: &Call<'_>) -> Result<u32, Status> {
        let timeout = u32::try_from(call.timeout.as_millis()).map_err(|_| Status::BadArgument)?;
        let trailers = 0_u32.to_le_bytes();
        let mut token = 0;
        // SAFETY: as above, and one u32 for the token.
        let status = unsafe {
            proxy_http_call(
                call.cluster.as_ptr(),
                call.cluster.len(),
                call.headers.as_ptr(),
                call.headers.len(),
                call.body.as_ptr(),
                call.body.len(),
                trailers.as_ptr(),
                trailers.len(),
                timeout,
                &raw mut token,
            )
        };
        Status::check(status).map(|()| token)
    }

    fn foreign(&self, name: &str, argument: &[u8]) -> Result<Vec<u8>, Status> {
        // SAFETY: as above.
        filled(|data, size| unsafe {
            proxy_call_foreign_function(
                name.as_ptr(),
                name.len(),
                argument.as_ptr(),
                argument.len(),
                data,
                size,
            )
        })
    }
}
