//! The proxy-wasm ABI 0.2.1, by hand: the imports, the exports, and the only `unsafe` of the project.
//!
//! Why there is no SDK: `docs/decisions/0001-own-abi-shim.md`. Imports return plain numbers, so a
//! status that nobody has listed is a value and not undefined behaviour. Exports are only those that
//! the filter needs, because Envoy pays for each one that it finds.

use crate::host::{Buffer, Call, Host, Kind, Level, LocalResponse, Map, Status};
use crate::vm::Vm;
use policy::time::{Moment, Nanos};
use std::ptr::null_mut;

thread_local! {
    static VM: Vm<Envoy> = Vm::new(Envoy);
}

/// Runs `action` on the VM; `missed` is for a host that calls back while the VM is torn down.
fn with<T>(missed: T, action: impl FnOnce(&Vm<Envoy>) -> T) -> T {
    VM.try_with(action).unwrap_or(missed)
}

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, data: *const u8, size: usize) -> u32;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_get_buffer_bytes(
        buffer: u32,
        start: usize,
        max: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_get_header_map_value(
        map: u32,
        key: *const u8,
        key_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_add_header_map_value(
        map: u32,
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_replace_header_map_value(
        map: u32,
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(map: u32, key: *const u8, key_size: usize) -> u32;
    fn proxy_get_property(
        path: *const u8,
        path_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
    fn proxy_get_shared_data(
        key: *const u8,
        key_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
        cas: *mut u32,
    ) -> u32;
    fn proxy_set_shared_data(
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
        cas: u32,
    ) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, by: i64) -> u32;
    fn proxy_get_metric(id: u32, value: *mut u64) -> u32;
    fn proxy_record_metric(id: u32, value: u64) -> u32;
    fn proxy_http_call(
        cluster: *const u8,
        cluster_size: usize,
        headers: *const u8,
        headers_size: usize,
        body: *const u8,
        body_size: usize,
        trailers: *const u8,
        trailers_size: usize,
        timeout_ms: u32,
        token: *mut u32,
    ) -> u32;
    fn proxy_call_foreign_function(
        name: *const u8,
        name_size: usize,
        argument: *const u8,
        argument_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
}

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn clock_time_get(clock: u32, precision: u64, time: *mut u64) -> u32;
    fn random_get(data: *mut u8, size: usize) -> u32;
}

unsafe extern "C" {
    fn __wasm_call_ctors();
}

/// WASI's monotonic clock.
const CLOCK_MONOTONIC: u32 = 1;
/// What a reply to a request that is not gRPC passes for its gRPC status.
const GRPC_NONE: i32 = -1;

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
        let (mut wall, mut monotonic) = (0, 0);
        // SAFETY: both write one u64 where they are told to.
        let (first, second) = unsafe {
            (
                proxy_get_current_time_nanoseconds(&raw mut wall),
                clock_time_get(CLOCK_MONOTONIC, 1, &raw mut monotonic),
            )
        };
        Status::check(first)?;
        Status::check(second)?;
        Ok(Moment { monotonic: Nanos(monotonic), wall: Nanos(wall) })
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

    fn header(&self, map: Map, name: &str) -> Result<Vec<u8>, Status> {
        // SAFETY: as above.
        filled(|data, size| unsafe {
            proxy_get_header_map_value(map.number(), name.as_ptr(), name.len(), data, size)
        })
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

/// Marks the module as ABI 0.2.1; Envoy looks for the name and never calls it.
#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

/// Runs the constructors that the C library of the target brings (its environment among them).
#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    // SAFETY: the linker makes this function; the host calls `_initialize` once and first.
    unsafe { __wasm_call_ctors() }
}

/// Gives the host a block to write into; null when there is no memory, which the host handles.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    let mut block = Vec::new();
    if size == 0 || block.try_reserve_exact(size).is_err() {
        return null_mut();
    }
    block.resize(size, 0);
    Box::into_raw(Vec::into_boxed_slice(block)).cast()
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(context: u32, root: u32) {
    with((), |vm| vm.on_context_create(context, root));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(root: u32, size: usize) -> u32 {
    with(0, |vm| u32::from(vm.on_configure(root, size)))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_tick(root: u32) {
    with((), |vm| vm.on_tick(root));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(context: u32, headers: usize, _end: u32) -> u32 {
    with(PAUSE, |vm| vm.on_request_headers(context, headers).number())
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_headers(context: u32, _headers: usize, _end: u32) -> u32 {
    with((), |vm| vm.on_response_headers(context));
    CONTINUE
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_http_call_response(
    root: u32,
    token: u32,
    _headers: usize,
    body: usize,
    _trailers: usize,
) {
    with((), |vm| vm.on_call_response(root, token, body));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_log(context: u32) {
    with((), |vm| vm.on_log(context));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(context: u32) {
    with((), |vm| vm.on_delete(context));
}

/// The stream goes on.
const CONTINUE: u32 = 0;
/// The stream stops here: it was answered.
const PAUSE: u32 = 1;
