//! Waiting on a host that fails, lies and calls back at the wrong time.

use super::*;

/// Seeds of the hostile runs; a failure names its seed.
const SEEDS: u64 = 120;
/// Steps of one run.
const STEPS: u32 = 300;

/// One step; `next` is a context that was not there before.
fn step(worker: &Worker, next: u32, passed: &mut Vec<u32>) {
    let host = &worker.host;
    let earlier = 2 + u32::try_from(host.draw()).unwrap_or(0) % next;
    let earlier = earlier.max(next.saturating_sub(u32::try_from(host.draw() % 8).unwrap()));
    match host.draw() % 12 {
        0..=4 => {
            let kid = ["old", "new", "never"][host.draw() as usize % 3];
            if worker.send(next, &token(kid, &json!({}))) == Action::Continue {
                passed.push(next);
            }
        }
        5 | 6 => {
            let calls = worker.fetches();
            let sets = [set(&["old"]), set(&["old", "new"]), "{".into(), String::new()];
            let status: &[u8] = [&b"200"[..], b"200", b"503", b""][host.draw() as usize % 4];
            let body = &sets[host.draw() as usize % sets.len()];
            let at = host.draw() as usize % calls.len().max(1);
            // A token of a call that was made, or one of none.
            worker.answer(calls.get(at).copied().unwrap_or(99), status, body);
        }
        7 => worker.tick(),
        8 => host.pass(Nanos(host.draw() % 9_000_000_000)),
        9 => {
            worker.vm.on_log(earlier);
            worker.vm.on_response_headers(earlier);
        }
        10 => worker.vm.on_delete(earlier),
        _ => {
            worker.vm.on_response_headers(earlier);
            // One that was deleted is unknown and answered, which is another stream's life.
            host.vm.effective.set(None);
            worker.vm.on_request_headers(earlier, 3);
        }
    }
}

#[test]
fn no_stream_goes_on_twice_or_after_an_answer_and_all_is_well_afterwards() {
    for seed in 0..SEEDS {
        let workers = Worker::two(&json!({}));
        let process = Rc::clone(&workers[0].host.process);
        process.random_from(seed);
        process.hostility.set([0, 20, 150, 600][usize::try_from(seed % 4).unwrap()]);
        let mut passed = [Vec::new(), Vec::new()];
        for next in 2..2 + STEPS {
            let which = workers[0].host.draw() as usize % 2;
            step(&workers[which], next, &mut passed[which]);
        }
        process.hostility.set(0);
        for (worker, passed) in workers.iter().zip(&passed) {
            let answered = worker.host.vm.answered.borrow().clone();
            for context in 2..2 + STEPS {
                let times = worker.continued().iter().filter(|one| **one == context).count()
                    + passed.iter().filter(|one| **one == context).count()
                    + answered.iter().filter(|one| **one == Some(context)).count();
                assert!(times <= 1, "seed {seed}: stream {context} ended {times} times");
            }
        }
        well_again(&workers, seed);
    }
}

/// A host that has come to its senses, and an issuer that answers.
fn well_again(workers: &[Worker; 2], seed: u64) {
    for _ in 0..2 {
        workers[0].host.pass(Nanos::from_secs(700));
        for worker in workers {
            worker.tick();
            for fetch in worker.fetches() {
                worker.answer(fetch, b"200", &set(&["old", "new"]));
            }
        }
    }
    for worker in workers {
        let verdict = worker.send(5000, &token("new", &json!({})));
        assert_eq!(verdict, Action::Continue, "seed {seed}: {:?}", worker.details().last());
        worker.tick();
        assert!(worker.host.vm.period.get() >= 500, "seed {seed}: still in a hurry");
    }
}
