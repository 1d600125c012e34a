//! What Envoy calls: each export finds the VM and hands the callback on. Only those that the filter
//! needs, because Envoy pays for each one that it finds.

use super::Envoy;
use super::imports::__wasm_call_ctors;
use crate::vm::Vm;
use std::alloc::{Layout, alloc};
use std::ptr::null_mut;

thread_local! {
    static VM: Vm<Envoy> = Vm::new(Envoy);
}

/// Runs `action` on the VM; `missed` is for a host that calls back while the VM is torn down.
fn with<T>(missed: T, action: impl FnOnce(&Vm<Envoy>) -> T) -> T {
    VM.try_with(action).unwrap_or(missed)
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
    match Layout::array::<u8>(size) {
        // SAFETY: the size is not zero. The host fills the whole block before anybody reads it, and
        // whoever takes it over frees it as a vector of that capacity, which has this layout.
        Ok(layout) if size > 0 => unsafe { alloc(layout) },
        _ => null_mut(),
    }
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
