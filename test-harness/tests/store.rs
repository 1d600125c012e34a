//! What the sidecar has answered survives: kills at any moment, restarts; and a store that cannot be
//! had is said clearly. The real sidecar, without an Envoy.

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use test_harness::artefacts::Artefacts;
use test_harness::sidecar::{Options, Sidecar};
use test_harness::wait::until_true;
use test_harness::{Request, port};

/// How often the sidecar is killed.
const KILLS: usize = 25;
/// Clients that change state at once.
const CLIENTS: usize = 4;
/// Most answers between two kills.
const ANSWERS_MAX: u64 = 30;
const SOON: Duration = Duration::from_secs(60);
const SYNC_TOKEN: &str = "sync-token-of-the-store-test";

fn options(dir: &Path) -> Result<Options> {
    let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, port::reserve()?));
    Ok(Options {
        executable: Artefacts::find()?.sidecar,
        dir: dir.to_owned(),
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        envoy_admin: nobody,
        admin_token_file: dir.join("admin-token"),
        data_dir: dir.join("data"),
        files_dir: dir.join("files"),
        environment: vec![("GATEWAY_SYNC_TOKEN".to_owned(), SYNC_TOKEN.to_owned())],
        arguments: Vec::new(),
    })
}

/// What was answered: names that must be there, and names that must not.
#[derive(Default)]
struct Answered {
    there: BTreeSet<String>,
    gone: BTreeSet<String>,
    count: AtomicUsize,
}

/// Makes revocations, a few at once or alone, and takes every third back, until it is told to stop
/// or the sidecar is gone. Only what was answered is noted.
fn change_state(
    address: SocketAddr,
    token: &str,
    client: &str,
    answered: &Mutex<Answered>,
    stop: &AtomicBool,
) -> Result<()> {
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let first = format!("{client}-{round}");
        let more = (0..round % 3).map(|index| format!("{first}-{index}"));
        let names: Vec<String> = std::iter::once(first.clone()).chain(more).collect();
        let list: Vec<Value> = names.iter().map(|name| json!({ "jti": name })).collect();
        let post = Request::new(address, "POST", "/gateway/revocations").bearer(token);
        // Without an answer nothing was promised.
        let Ok(answer) = post.json(&json!({ "revocations": list })).send() else { break };
        let body = answer.expect(202)?.json();
        note(answered, |answered| answered.there.extend(names));
        if round % 3 != 0 {
            continue;
        }
        let id = body.pointer("/ids/0").and_then(Value::as_str).context("no id")?;
        // From now on it may be gone or not, until the answer says so.
        note(answered, |answered| {
            answered.there.remove(&first);
        });
        let path = format!("/gateway/revocations/{id}");
        let delete = Request::new(address, "DELETE", &path).bearer(token);
        let Ok(answer) = delete.send() else { break };
        answer.expect(202)?;
        note(answered, |answered| {
            answered.gone.insert(first);
        });
    }
    Ok(())
}

fn note(answered: &Mutex<Answered>, change: impl FnOnce(&mut Answered)) {
    let mut answered = answered.lock().unwrap_or_else(PoisonError::into_inner);
    change(&mut answered);
    answered.count.fetch_add(1, Ordering::Relaxed);
}

/// Every name that the sidecar knows, page by page.
fn names(sidecar: &Sidecar) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    let mut path = "/gateway/revocations?limit=1000".to_owned();
    loop {
        let page = sidecar.read(&path)?.expect(200)?.json();
        let rows = page.get("revocations").and_then(Value::as_array).context("no rows")?;
        names.extend(rows.iter().filter_map(|row| Some(row.get("jti")?.as_str()?.to_owned())));
        match page.get("next").and_then(Value::as_str) {
            Some(next) => path = format!("/gateway/revocations?limit=1000&cursor={next}"),
            None => return Ok(names),
        }
    }
}

#[test]
fn nothing_that_was_answered_is_lost_when_the_sidecar_is_killed() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut sidecar = Sidecar::start(options(dir.path())?)?;
    let answered = Mutex::<Answered>::default();
    let mut seed = RandomState::new().build_hasher().finish();
    println!("seed {seed}");
    let mut number = 0;
    for kill in 0..KILLS {
        let (address, token) = (sidecar.address(), sidecar.admin_token()?);
        let stop = AtomicBool::new(false);
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let answers = usize::try_from((seed >> 33) % ANSWERS_MAX)?;
        let count = || {
            answered.lock().unwrap_or_else(PoisonError::into_inner).count.load(Ordering::Relaxed)
        };
        let enough = count() + answers;
        let stop = &stop;
        std::thread::scope(|scope| {
            let clients = (0..CLIENTS).map(|client| {
                let (name, token) = (format!("{kill}-{client}"), token.as_str());
                let answered = &answered;
                scope.spawn(move || change_state(address, token, &name, answered, stop))
            });
            let clients: Vec<_> = clients.collect();
            let waited = until_true("answers", SOON, || Ok(count() >= enough));
            let killed = sidecar.kill9();
            stop.store(true, Ordering::Relaxed);
            for client in clients {
                client.join().map_err(|_| anyhow!("a client broke off"))??;
            }
            waited.and(killed)
        })?;
        sidecar.restart()?;
        let names = names(&sidecar)?;
        let answered = answered.lock().unwrap_or_else(PoisonError::into_inner);
        let lost: Vec<_> = answered.there.difference(&names).collect();
        ensure!(lost.is_empty(), "lost after kill {kill}: {lost:?}");
        let back: Vec<_> = answered.gone.intersection(&names).collect();
        ensure!(back.is_empty(), "back after kill {kill}: {back:?}");
        let now = State::fetch(&sidecar)?.number;
        ensure!(now >= number, "the number went back from {number} to {now}");
        number = now;
    }
    let answered = answered.lock().unwrap_or_else(PoisonError::into_inner);
    println!("{KILLS} kills, {} there, {} taken back", answered.there.len(), answered.gone.len());
    ensure!(answered.there.len() > KILLS && answered.gone.len() > 1, "too little was answered");
    Ok(())
}

/// What a filter is handed: the format of a batch is read by hand, as whoever wrote another filter
/// would from its description.
#[derive(Debug, PartialEq)]
struct State {
    store: u64,
    number: u64,
    keys: [u64; 2],
    /// By table and index.
    buckets: BTreeMap<(u8, u32), Vec<u8>>,
}

impl State {
    fn fetch(sidecar: &Sidecar) -> Result<Self> {
        let mut has = json!({"store": "", "number": 0});
        let mut state = Self { store: 0, number: 0, keys: [0; 2], buckets: BTreeMap::new() };
        loop {
            let body = json!({"protocol": 3, "instance": "store-test", "state": has});
            let request = Request::new(sidecar.address(), "POST", "/sync/state");
            let batch = request.bearer(SYNC_TOKEN).json(&body).send()?.expect(200)?;
            ensure!(batch.header("x-tracseq-sync") == "3");
            let bytes = batch.body.to_vec();
            let number = |at: usize| -> Result<u64> {
                Ok(u64::from_le_bytes(bytes.get(at..at + 8).context("too short")?.try_into()?))
            };
            (state.store, state.number) = (number(2)?, number(10)?);
            state.keys = [number(18)?, number(26)?];
            let mut rest = bytes.get(34..).context("too short")?;
            while let [table, i0, i1, i2, i3, l0, l1, l2, l3, tail @ ..] = rest {
                let length = usize::try_from(u32::from_le_bytes([*l0, *l1, *l2, *l3]))?;
                let (held, next) = tail.split_at_checked(length).context("a length lies")?;
                let index = u32::from_le_bytes([*i0, *i1, *i2, *i3]);
                state.buckets.insert((*table, index), held.to_vec());
                rest = next;
            }
            ensure!(rest.is_empty());
            if bytes.get(1).context("too short")? & 1 == 1 {
                return Ok(state);
            }
            has = json!({"store": format!("{:016x}", state.store), "number": state.number});
        }
    }
}

#[test]
fn a_restarted_sidecar_hands_over_the_same() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut sidecar = Sidecar::start(options(dir.path())?)?;
    let list: Vec<Value> = (0..500).map(|i| json!({"sub": format!("u-{i}")})).collect();
    let body = json!({ "revocations": list });
    sidecar.post_json("/gateway/revocations", &body)?.expect(202)?;
    let key = json!({"id": "lab-robot", "permissions": ["samples:*:read"]});
    let made = sidecar.post_json("/gateway/api-keys", &key)?.expect(202)?.json();
    let rotated = sidecar.post("/gateway/api-keys/lab-robot/rotate")?.expect(202)?.json();
    let before = State::fetch(&sidecar)?;
    assert!(before.buckets.len() > 490, "{}", before.buckets.len());
    assert_eq!(before.buckets.keys().filter(|(table, _)| *table == 2).count(), 2);
    sidecar.restart()?;
    assert_eq!(State::fetch(&sidecar)?, before);
    assert!(sidecar.stop(SOON)?.success());
    sidecar.restart()?;
    assert_eq!(State::fetch(&sidecar)?, before);
    let keys = sidecar.read("/gateway/api-keys")?.expect(200)?.json();
    assert_eq!(keys["api_keys"][0]["id"], "lab-robot");
    // Secrets are nowhere: not in the store, not in the log.
    let store = std::fs::read(dir.path().join("data/state.redb"))?;
    for secret in [&made["secret"], &rotated["secret"]] {
        let secret = secret.as_str().context("no secret")?;
        assert!(!store.windows(secret.len()).any(|part| part == secret.as_bytes()));
        assert!(!sidecar.process().stderr()?.contains(secret));
    }
    Ok(())
}

#[test]
fn a_filter_that_is_ahead_of_a_restored_backup_is_handed_everything_anew() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut sidecar = Sidecar::start(options(dir.path())?)?;
    let revoke = |sidecar: &Sidecar, id: &str| -> Result<()> {
        sidecar.post_json("/gateway/revocations", &json!({ "jti": id }))?.expect(202).map(|_| ())
    };
    revoke(&sidecar, "kept")?;
    assert!(sidecar.stop(SOON)?.success());
    let file = dir.path().join("data/state.redb");
    let backup = std::fs::read(&file)?;
    sidecar.restart()?;
    revoke(&sidecar, "lost-1")?;
    revoke(&sidecar, "lost-2")?;
    let before = State::fetch(&sidecar)?;
    assert!(sidecar.stop(SOON)?.success());
    std::fs::write(&file, backup)?;
    sidecar.restart()?;
    // Other changes bring the backup to the number that the filter has.
    revoke(&sidecar, "later-1")?;
    revoke(&sidecar, "later-2")?;
    let after = State::fetch(&sidecar)?;
    assert_eq!((after.store, after.number), (before.store, before.number));
    let has = json!({"store": format!("{:016x}", before.store), "number": before.number});
    let poll = json!({"protocol": 3, "instance": "ahead", "wait_ms": 20_000, "done": [],
        "state": has, "policy": {"name": "p", "hash": "1", "generation": 1},
        "wants": {"files": [], "revocations_max": null, "api_keys": false, "load": false,
            "limits": [], "providers": [], "exempt": []}});
    let ask = |path: &str, body: &Value| {
        let request = Request::new(sidecar.address(), "POST", path);
        request.bearer(SYNC_TOKEN).json(body).send()?.expect(200)
    };
    // At once: what it has is not what there is.
    let answer = ask("/sync", &poll)?.json();
    assert_ne!(answer["state"]["store"], has["store"]);
    let fetch = json!({"protocol": 3, "instance": "ahead", "state": has});
    let flags = ask("/sync/state", &fetch)?.body.get(1).copied();
    assert_eq!(flags, Some(0b11), "complete, and in the place of everything");
    assert_eq!(State::fetch(&sidecar)?.buckets, after.buckets);
    Ok(())
}

/// Starts a sidecar that must refuse to, and gives what it said.
fn refused(options: Options) -> Result<String> {
    match Sidecar::start(options) {
        Ok(_) => bail!("it started"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

#[test]
fn a_store_that_cannot_be_had_ends_the_sidecar_with_a_word() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut sidecar = Sidecar::start(options(dir.path())?)?;
    sidecar.post_json("/gateway/revocations", &json!({"jti": "a"}))?.expect(202)?;

    // Logs elsewhere: an address is looked for in them.
    let second = tempfile::tempdir()?;
    let again = || -> Result<Options> {
        Ok(Options { data_dir: dir.path().join("data"), ..options(second.path())? })
    };
    let said = refused(again()?)?;
    assert!(said.contains("in use by another process"), "{said}");

    sidecar.kill9()?;
    let file = dir.path().join("data/state.redb");
    let good = std::fs::read(&file)?;
    for (bad, what) in [(Vec::new(), "empty"), (good[..good.len() / 2].to_vec(), "half")] {
        std::fs::write(&file, &bad)?;
        let said = refused(again()?)?;
        assert!(said.contains("--data-dir: ") && said.contains("backup"), "{what}: {said}");
        assert_eq!(std::fs::metadata(&file)?.len(), u64::try_from(bad.len())?, "{what}");
    }
    std::fs::write(&file, &good)?;
    let sidecar = Sidecar::start(again()?)?;
    assert_eq!(names(&sidecar)?, BTreeSet::from(["a".to_owned()]));

    let third = tempfile::tempdir()?;
    let nowhere = Options { data_dir: "/proc/nowhere".into(), ..options(third.path())? };
    let said = refused(nowhere)?;
    assert!(said.contains("--data-dir: /proc/nowhere: cannot be made"), "{said}");
    Ok(())
}
