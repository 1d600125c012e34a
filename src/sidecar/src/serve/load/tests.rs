//! What the kernel says, read from fixtures.

use super::*;
use crate::render::tests::Directory;
use crate::serve::tests::{Needs, SYNC, app, expect, nobody, request, send, wants};
use serde_json::{Value, json};

const STAT: &str = "cpu  100 20 30 800 40 5 5 10 60 0\ncpu0 100 20 30 800 40 5 5 10 60 0\nintr 1\n";

fn look(at: Instant, processors: Option<(u64, u64)>, used: Option<u64>) -> Look {
    let group = |used| Group { path: "g".into(), used, quota: 500 };
    Look {
        at,
        processors: processors.map(|(busy, all)| Ticks { busy, all }),
        groups: used.map(group).into_iter().collect(),
        memory: None,
    }
}

#[test]
fn processors_are_busy_when_they_neither_idle_nor_wait() {
    assert_eq!(ticks(STAT), Some(Ticks { busy: 170, all: 1010 }));
    // Linux before 2.6 knew four numbers only; no Linux that runs Envoy does.
    for bad in ["", "cpu 1 2 3", "cpu a b c d e", "cpu0 1 2 3 4 5", "processes 7"] {
        assert_eq!(ticks(bad), None, "{bad}");
    }
}

#[test]
fn the_load_is_the_share_of_the_time_between_two_looks() {
    let start = Instant::now();
    let later = start + Duration::from_secs(1);
    for (before, after, expected) in [
        ((100, 1000), (150, 1200), Some(250)),
        ((100, 1000), (300, 1200), Some(1000)),
        ((100, 1000), (100, 1200), Some(0)),
        // No time has passed, or counters went back: nothing is known.
        ((100, 1000), (100, 1000), None),
        ((100, 1000), (90, 1100), None),
    ] {
        let (before, after) = (look(start, Some(before), None), look(later, Some(after), None));
        assert_eq!(load(&before, &after), expected);
    }
    let unknown = look(start, None, None);
    assert_eq!(load(&unknown, &unknown), None);
}

#[test]
fn a_quota_counts_where_it_is_tighter_than_the_machine() {
    let start = Instant::now();
    let later = start + Duration::from_secs(2);
    // Half a processor for two seconds is a second; three quarters of it were used.
    let before = look(start, Some((0, 0)), Some(1_000_000));
    let after = look(later, Some((100, 1000)), Some(1_750_000));
    assert_eq!(load(&before, &after), Some(750));
    let idle = look(later, Some((100, 1000)), Some(1_000_000));
    assert_eq!(load(&before, &idle), Some(100));
    // A group that came between the looks, or whose counter went back, says nothing.
    assert_eq!(load(&look(start, Some((0, 0)), None), &after), Some(100));
    assert_eq!(load(&before, &look(later, Some((100, 1000)), Some(5))), Some(100));
}

#[test]
fn memory_is_pressure_above_nine_tenths_only() {
    let start = Instant::now();
    for (used, expected) in
        [(0, 0), (899, 0), (900, 0), (901, 10), (950, 500), (1000, 1000), (1200, 1000)]
    {
        let look = Look { memory: Some(used), ..look(start, None, None) };
        assert_eq!(load(&look, &look), Some(expected), "{used}");
    }
    assert_eq!(
        machine_memory("MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable:   250 kB\n"),
        Some(750)
    );
    assert_eq!(machine_memory("MemTotal: 1000 kB\n"), None);
    assert_eq!(machine_memory("MemTotal: 0 kB\nMemAvailable: 0 kB\n"), None);
    assert_eq!(group_memory("1000\n", "900\n", "anon 1\ninactive_file 300\n"), Some(600));
    assert_eq!(group_memory("1000\n", "900\n", ""), Some(900));
    assert_eq!(group_memory("max\n", "900\n", ""), None);
    assert_eq!(group_memory("", "", ""), None);
}

#[test]
fn quotas_are_read_and_max_is_none() {
    for (text, expected) in [
        ("50000 100000\n", Some(500)),
        ("400000 100000\n", Some(4000)),
        ("max 100000\n", None),
        ("", None),
        ("1 0", None),
        ("0 100000", None),
        ("50000", None),
    ] {
        assert_eq!(quota(text), expected, "{text}");
    }
    assert_eq!(named("user_usec 1\nusage_usec 7\n", "usage_usec"), Some(7));
    assert_eq!(named("usage_usec_more 7\n", "usage_usec"), None);
}

#[test]
fn our_own_group_and_those_above_it_are_found() {
    let paths = |cgroup: &str| -> Vec<String> {
        groups(cgroup).iter().map(|path| path.display().to_string()).collect()
    };
    let own = ["sys/fs/cgroup/a/b", "sys/fs/cgroup/a", "sys/fs/cgroup"];
    assert_eq!(paths("1:cpu:/old\n0::/a/b\n"), own);
    assert_eq!(paths("0::/\n"), ["sys/fs/cgroup"]);
    assert_eq!(paths("0::/../../x\n"), ["sys/fs/cgroup"]);
    assert_eq!(paths("1:cpu:/old\n"), [""; 0]);
    assert_eq!(paths(&format!("0::{}\n", "/x".repeat(100))).len(), DEPTH_MAX);
}

#[test]
fn a_look_reads_what_is_there_and_does_without_the_rest() {
    let directory = Directory::new();
    let put = |name: &str, text: &str| {
        let file = directory.0.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    };
    let nothing = Look::at(&directory.0);
    assert_eq!((nothing.processors, nothing.memory), (None, None));
    assert_eq!(nothing.groups, []);
    put("proc/stat", STAT);
    put("proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 500 kB\n");
    put("proc/self/cgroup", "0::/a/b\n");
    put("sys/fs/cgroup/a/cpu.max", "200000 100000\n");
    put("sys/fs/cgroup/a/cpu.stat", "usage_usec 77\n");
    put("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    put("sys/fs/cgroup/a/b/memory.max", "1000\n");
    put("sys/fs/cgroup/a/b/memory.current", "930\n");
    let look = Look::at(&directory.0);
    assert_eq!(look.processors, Some(Ticks { busy: 170, all: 1010 }));
    assert_eq!(look.memory, Some(930), "the group has less left than the machine");
    let group = Group { path: "sys/fs/cgroup/a".into(), used: 77, quota: 2000 };
    assert_eq!(look.groups, [group]);
}

#[test]
fn the_load_is_taken_over_a_second() {
    let start = Instant::now();
    let mut looks = Looks::default();
    let half = |halves: u32| start + EVERY * halves;
    assert_eq!(looks.add(look(half(0), Some((0, 0)), None)), None);
    assert_eq!(looks.add(look(half(1), Some((100, 100)), None)), Some(1000));
    assert_eq!(looks.add(look(half(2), Some((100, 200)), None)), Some(500));
    assert_eq!(looks.add(look(half(3), Some((100, 300)), None)), Some(0));
    assert!(looks.0.len() <= OVER);
}

#[test]
fn this_machine_can_be_looked_at() {
    let look = Look::at(Path::new("/"));
    assert!(look.processors.is_some() && look.memory.is_some(), "{look:?}");
}

#[test]
fn a_load_that_nobody_has_looked_at_for_long_is_not_told() {
    let (load, start) = (Load::default(), Instant::now());
    assert_eq!(load.at(start), None);
    load.set(Some((700, start)));
    assert_eq!(load.at(start), Some(700));
    assert_eq!(load.at(start + FRESH), Some(700));
    assert_eq!(load.at(start + FRESH + Duration::from_millis(1)), None);
    assert!(FRESH > EVERY * 2, "one slow look is no silence");
    load.set(None);
    assert_eq!(load.at(start), None);
}

/// Polls once, without being held.
async fn poll(app: &Arc<App>, load: bool) -> Value {
    let needs = Needs { load, ..Needs::default() };
    let poll = json!({"protocol": policy::sync::PROTOCOL, "instance": "ab", "wait_ms": 0,
        "done": [], "state": {"store": "00000000000000ab", "number": 0}, "wants": wants(&needs),
        "policy": {"name": "p", "hash": "1", "generation": 7}});
    expect(send(app, request("POST /sync", Some(SYNC), &poll.to_string())).await, 200, None)
}

async fn metrics(app: &Arc<App>) -> String {
    send(app, request("GET /metrics", None, "")).await.2
}

#[tokio::test]
async fn the_load_is_told_to_a_filter_that_wants_it_and_only_then() {
    let app = app("127.0.0.1:9902", nobody().await);
    start(&app);
    assert_eq!(poll(&app, false).await["load"], Value::Null);
    let told = async {
        loop {
            if let Some(load) = poll(&app, true).await["load"].as_u64() {
                return load;
            }
            tokio::task::yield_now().await;
        }
    };
    let load = tokio::time::timeout(Duration::from_secs(20), told).await.unwrap();
    assert!(load <= 1000, "{load}");
    assert!(metrics(&app).await.contains("\ngateway_load_ratio "));
    // The next policy has no adaptive limit.
    let silent = async {
        while poll(&app, false).await["load"].is_u64() || app.load.now().is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), silent).await.unwrap();
    assert!(!metrics(&app).await.contains("gateway_load_ratio"));
}
