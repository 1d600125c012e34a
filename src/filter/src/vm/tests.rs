//! Whole lives of requests, in order and out of order, on a good host and on a hostile one.

mod answers;
mod bans;
mod overrides;
mod pause;

use super::*;
use crate::testing::FakeHost;
use policy::headers::serialize;
use policy::time::Nanos;
use std::collections::HashMap as Map;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn strict() -> String {
    r#"{
        "version": 1,
        "ip": {"deny": ["203.0.113.0/24"]},
        "authentication": {
            "mode": "required",
            "public": ["/open/**"],
            "jwt": {"providers": [{
                "name": "p", "issuer": "i", "audiences": ["a"], "algorithms": ["HS256"],
                "keys": {"secret": {"env": "S"}},
                "forward": {"claims": {"sub": "x-user-id"}}
            }]}
        },
        "security_headers": {"preset": "seed"},
        "rate_limits": [
            {"name": "ip", "key": ["ip"], "algorithm": "token_bucket", "requests": 3, "per": "1m"}
        ],
        "circuit_breakers": {"default": {"failure_threshold": 3, "timeout": "1s"}},
        "sidecar": {"cluster": "side", "token": {"env": "S"}}
    }"#
    .into()
}

const ROOT: u32 = 1;

fn host(configuration: &str) -> FakeHost {
    let host = FakeHost::new(1);
    host.vm.variables.borrow_mut().insert("S".into(), SECRET.into());
    host.configure("gateway", configuration);
    attribute(&host, b"source\0address", b"8.8.8.8:0");
    attribute(&host, b"xds\0cluster_name", b"samples");
    *host.vm.request.borrow_mut() =
        serialize(&[(b":method", b"GET"), (b":path", b"/open/a"), (b":scheme", b"https")]);
    *host.vm.response.borrow_mut() = serialize(&[(b":status", b"200")]);
    host
}

fn attribute(host: &FakeHost, path: &[u8], value: &[u8]) {
    host.vm.attributes.borrow_mut().insert(path.into(), value.into());
}

fn configured(host: &FakeHost) -> Rc<Vm<FakeHost>> {
    let vm = Rc::new(Vm::new(host.clone()));
    vm.on_context_create(ROOT, 0);
    let size = host.vm.configuration.borrow().len();
    assert!(vm.on_configure(ROOT, size), "{:?}", host.process.log.borrow());
    vm
}

fn details(host: &FakeHost) -> Vec<String> {
    host.vm.replies.borrow().iter().map(|(_, details)| details.clone()).collect()
}

#[test]
fn a_request_passes_gets_headers_and_is_counted() {
    let host = host(&strict());
    let vm = configured(&host);
    vm.on_context_create(2, ROOT);
    assert_eq!(vm.on_request_headers(2, 3), Action::Continue);
    *host.vm.response.borrow_mut() = serialize(&[(b":status", b"200"), (b"x-frame-options", b"X")]);
    vm.on_response_headers(2);
    let added = host.vm.added.borrow().clone();
    assert!(added.contains(&"x-content-type-options".into()), "{added:?}");
    assert!(added.contains(&"ratelimit".into()), "{added:?}");
    assert!(!added.contains(&"x-frame-options".into()), "{added:?}");
    attribute(&host, b"response\0code", &200_u64.to_le_bytes());
    attribute(&host, b"response\0code_details", b"via_upstream");
    host.pass(Nanos::from_millis(30));
    vm.on_log(2);
    vm.on_log(2);
    vm.on_delete(2);
    let requests = "gateway_requests_total;service=samples;decision=allowed;reason=none";
    assert_eq!(host.metric(requests), 1);
    assert_eq!(host.metric("gateway_upstream_responses_total;service=samples;class=2xx"), 1);
    assert_eq!(host.metric("gateway_request_duration_milliseconds;service=samples"), 30);
    assert_eq!(host.metric("gateway_rate_limit_total;limit=ip;outcome=ok"), 1);
}

#[test]
fn a_refused_request_is_answered_once_with_its_details() {
    let host = host(&strict());
    let vm = configured(&host);
    *host.vm.request.borrow_mut() = serialize(&[(b":method", b"GET"), (b":path", b"/closed")]);
    vm.on_context_create(2, ROOT);
    assert_eq!(vm.on_request_headers(2, 2), Action::Pause);
    assert_eq!(vm.on_request_headers(2, 2), Action::Pause);
    vm.on_log(2);
    assert_eq!(*host.vm.replies.borrow(), [(401, "gateway.credentials-missing".to_owned())]);
    let refused =
        "gateway_requests_total;service=samples;decision=refused;reason=credentials-missing";
    assert_eq!(host.metric(refused), 1);
    let outcome = "gateway_authentication_total;method=none;outcome=credentials-missing";
    assert_eq!(host.metric(outcome), 1);
}

#[test]
fn the_host_may_call_back_inside_a_reply() {
    let host = host(&strict());
    let vm = configured(&host);
    *host.vm.request.borrow_mut() = serialize(&[(b":method", b"GET"), (b":path", b"/closed")]);
    let inner = Rc::downgrade(&vm);
    *host.vm.inside_reply.borrow_mut() = Some(Rc::new(move || {
        let vm = inner.upgrade().unwrap();
        assert_eq!(vm.on_request_headers(2, 2), Action::Pause);
        vm.on_response_headers(2);
        vm.on_log(2);
        vm.on_delete(2);
    }));
    vm.on_context_create(2, ROOT);
    assert_eq!(vm.on_request_headers(2, 2), Action::Pause);
    assert_eq!(details(&host), ["gateway.credentials-missing"]);
    assert!(host.vm.added.borrow().contains(&"x-content-type-options".into()));
}

#[test]
fn a_request_that_was_never_shown_is_counted_at_its_log_entry() {
    let host = host(&strict());
    let vm = configured(&host);
    vm.on_context_create(2, ROOT);
    host.vm.attributes.borrow_mut().remove(&b"xds\0cluster_name"[..]);
    attribute(&host, b"request\0duration", &7_000_000_u64.to_le_bytes());
    vm.on_log(2);
    assert_eq!(host.metric("gateway_request_duration_milliseconds;service=none"), 7);
}

#[test]
fn what_cannot_be_judged_or_edited_does_not_pass() {
    let unreadable = host(&strict());
    let vm = configured(&unreadable);
    vm.on_context_create(2, ROOT);
    unreadable.process.hostility.set(1000);
    assert_eq!(vm.on_request_headers(2, 3), Action::Pause);
    unreadable.process.hostility.set(0);
    assert_eq!(details(&unreadable), ["gateway.state-unavailable"]);

    let crowded = host(&strict());
    let vm = configured(&crowded);
    vm.on_context_create(2, ROOT);
    assert_eq!(vm.on_request_headers(2, 1025), Action::Pause);
    assert_eq!(vm.on_request_headers(3, 3), Action::Pause);
    assert_eq!(vm.on_request_headers(3, 3), Action::Pause);
    assert_eq!(details(&crowded), ["gateway.state-unavailable"; 2]);

    let stuck = host(&strict());
    let vm = configured(&stuck);
    stuck.vm.editless.set(true);
    *stuck.vm.request.borrow_mut() =
        serialize(&[(b":method", b"GET"), (b":path", b"/open/a"), (b"x-user-id", b"root")]);
    vm.on_context_create(2, ROOT);
    assert_eq!(vm.on_request_headers(2, 3), Action::Pause);
    assert_eq!(details(&stuck), ["gateway.state-unavailable"]);
}

#[test]
fn identity_headers_from_outside_are_removed_before_it_goes_on() {
    let host = host(&strict());
    let vm = configured(&host);
    *host.vm.request.borrow_mut() =
        serialize(&[(b":method", b"GET"), (b":path", b"/open/a"), (b"x-user-id", b"root")]);
    vm.on_context_create(2, ROOT);
    assert_eq!(vm.on_request_headers(2, 3), Action::Continue);
    assert_eq!(*host.vm.edits.borrow(), ["-x-user-id"]);
}

#[track_caller]
fn refused(root_id: &str, configuration: &str, said: &[&str]) {
    let host = host(configuration);
    host.configure(root_id, configuration);
    let vm = Vm::new(host.clone());
    vm.on_context_create(ROOT, 0);
    assert!(!vm.on_configure(ROOT, configuration.len()));
    for text in said {
        assert_eq!(host.logged(text), 1, "{text}: {:?}", host.process.log.borrow());
    }
    for line in host.process.log.borrow().iter() {
        assert!(serde_json::from_str::<serde_json::Value>(line).unwrap().is_object());
        assert!(!line.contains(SECRET));
    }
}

#[test]
fn a_policy_with_mistakes_is_refused_with_all_of_them() {
    refused("gateway", "", &["the configuration is empty"]);
    refused("gateway", "{", &["not JSON"]);
    refused("gateway", "\u{1}\u{2}", &["not JSON"]);
    refused("gateway", r#"{"version": 1, "nonsense": 1, "https": 2}"#, &["nonsense", "\"https\""]);
    refused("something", r#"{"version": 1}"#, &["unknown root_id"]);
    let weak = strict().replace(r#""env": "S""#, r#""env": "MISSING""#);
    refused("gateway", &weak, &["authentication.jwt.providers[0].keys"]);
}

#[test]
fn a_refused_policy_is_counted_and_the_old_one_serves_on() {
    let host = host(&strict());
    let vm = configured(&host);
    vm.on_tick(ROOT);
    vm.on_context_create(7, 0);
    *host.vm.configuration.borrow_mut() = b"{}".to_vec();
    assert!(!vm.on_configure(7, 2));
    vm.on_context_create(2, ROOT);
    assert_eq!(vm.on_request_headers(2, 3), Action::Continue);
    assert_eq!(host.metric("gateway_policy_reload_total;outcome=refused"), 1);
    assert_eq!(host.metric("gateway_policy_reload_total;outcome=ok"), 1);
    assert_eq!(host.metric("gateway_policy_generation"), 1);
}

#[test]
fn the_pin_takes_anything_and_does_nothing() {
    let host = host("");
    host.configure("pin", "");
    let vm = configured(&host);
    vm.on_tick(ROOT);
    vm.on_context_create(2, ROOT);
    assert_eq!(vm.on_request_headers(2, 3), Action::Continue);
    vm.on_response_headers(2);
    vm.on_log(2);
    vm.on_delete(2);
    vm.on_delete(ROOT);
    assert!(host.vm.added.borrow().is_empty() && host.vm.replies.borrow().is_empty());
}

/// A request as an attacker may send it.
fn request(host: &FakeHost) -> Vec<u8> {
    let junk: Vec<u8> = (0..host.draw() % 40).map(|_| host.draw() as u8).collect();
    let token: &[u8] = b"Bearer eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJpIiwiYXVkIjoiYSJ9.AAAA";
    let paths: [&[u8]; 4] = [b"/open/a", b"/closed?x=\xff", b"", &junk];
    let path = paths[host.draw() as usize % paths.len()];
    let values = [token, &junk, b"", b"application/grpc", b"root"];
    let names: [&[u8]; 5] =
        [b"authorization", b"x-user-id", b"content-type", b"x-request-id", &junk];
    let mut entries = vec![(&b":method"[..], &b"GET"[..]), (b":path", path)];
    for _ in 0..host.draw() % 6 {
        let name = names[host.draw() as usize % names.len()];
        entries.push((name, values[host.draw() as usize % values.len()]));
    }
    serialize(&entries)
}

/// One step of a host that has lost its mind.
fn step(vm: &Vm<FakeHost>, host: &FakeHost, history: &mut Map<u32, (Action, usize)>) {
    let context = 2 + u32::try_from(host.draw() % 5).unwrap();
    match host.draw() % 12 {
        0 | 1 => {
            vm.on_delete(context);
            history.remove(&context);
            let parents = [ROOT, ROOT, 0, 99];
            vm.on_context_create(context, parents[host.draw() as usize % parents.len()]);
        }
        2..=4 => {
            *host.vm.request.borrow_mut() = request(host);
            let before = host.vm.replies.borrow().len();
            let action = vm.on_request_headers(context, host.draw() as usize % 1100);
            let replies = host.vm.replies.borrow().len() - before;
            let (earlier, sum) = history.get(&context).copied().unwrap_or((action, 0));
            assert!(sum + replies <= 1, "two replies");
            assert!(earlier == action || action == Action::Pause, "forwarded after a reply");
            history.insert(context, (action, sum + replies));
        }
        5 => {
            let cluster: &[u8] = if host.draw().is_multiple_of(3) { b"\xff" } else { b"samples" };
            attribute(host, b"xds\0cluster_name", cluster);
            attribute(host, b"response\0code", &(host.draw() % 700).to_le_bytes());
            vm.on_response_headers(context);
        }
        6 | 7 => {
            vm.on_log(context);
            vm.on_response_headers(context);
        }
        8 => vm.on_tick(if host.draw().is_multiple_of(4) { context } else { ROOT }),
        9 => {
            let token = host.vm.calls.borrow().last().map_or(4, |call| call.token);
            let body = br#"{"protocol":1,"commands":[{"id":1,"action":{"reset_breaker":{"service":"samples"}}}]}"#;
            let headers = serialize(&[(b":status", b"200"), (b"x-tracseq-sync", b"1")]);
            *host.vm.call_response.borrow_mut() = Some((headers, body.to_vec()));
            vm.on_call_response(ROOT, token, body.len());
            *host.vm.call_response.borrow_mut() = None;
        }
        10 => host.pass(Nanos(host.draw() % 3_000_000_000)),
        _ => {
            vm.on_delete(context);
            vm.on_delete(context);
            history.remove(&context);
        }
    }
}

/// Seeds of the hostile runs; a failure names its seed.
const SEEDS: u64 = 150;

#[test]
fn no_host_makes_it_panic_or_reply_twice() {
    for seed in 0..SEEDS {
        let first = host(&strict());
        first.process.random_from(seed);
        let vms: Vec<_> =
            [first.clone(), first.sibling()].map(|host| (configured(&host), host)).into();
        let mut histories = [Map::new(), Map::new()];
        first.process.hostility.set([30, 200, 700][usize::try_from(seed % 3).unwrap()]);
        for _ in 0..400 {
            let which = first.draw() as usize % 2;
            let (vm, host) = &vms[which];
            step(vm, host, &mut histories[which]);
        }
        // Whatever happened, a sane host is served again.
        first.process.hostility.set(0);
        first.pass(Nanos::from_secs(1000));
        let (vm, host) = &vms[0];
        attribute(host, b"xds\0cluster_name", b"samples");
        *host.vm.request.borrow_mut() = serialize(&[(b":method", b"GET"), (b":path", b"/open/a")]);
        vm.on_context_create(50, ROOT);
        assert_eq!(vm.on_request_headers(50, 2), Action::Continue, "seed {seed}");
    }
}

#[test]
fn configuring_on_a_hostile_host_refuses_or_works() {
    for seed in 0..SEEDS {
        let host = host(&strict());
        host.process.random_from(seed);
        host.process.hostility.set(100);
        let vm = Vm::new(host.clone());
        vm.on_context_create(ROOT, 0);
        let size = host.vm.configuration.borrow().len();
        if vm.on_configure(ROOT, size) {
            vm.on_context_create(2, ROOT);
            vm.on_request_headers(2, 3);
        }
        vm.on_tick(ROOT);
        vm.on_delete(ROOT);
        vm.on_delete(ROOT);
    }
}
