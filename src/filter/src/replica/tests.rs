//! The gauge and the record, on a host in memory.

use super::*;
use crate::testing::FakeHost;
use policy::replica::{Bans, Seeded};

fn view(host: &FakeHost) -> View<FakeHost> {
    View::new(host, &Metrics::new(host.clone()))
}

fn write(host: &FakeHost, number: u64) -> State {
    let state = State { store: 7, number, keys: [1, 2], seeded: Seeded::Yes, bans: Bans::None };
    let (_, cas) = host.shared(STATE_KEY).unwrap_or((Vec::new(), u32::MAX));
    host.set_shared(STATE_KEY, &state.to_bytes(), cas).unwrap();
    state
}

#[test]
fn nothing_was_handed_over_at_first() {
    assert_eq!(view(&FakeHost::new(1)).look(), Seen { generation: 0, state: None });
}

#[test]
fn a_change_by_one_vm_is_seen_by_all_and_read_once() {
    let host = FakeHost::new(1);
    let (mine, other) = (view(&host), view(&host.sibling()));
    let before = other.look();
    let state = write(&host, 1);
    assert_eq!(other.look(), before);
    mine.changed();
    let after = other.look();
    assert_eq!(after.state, Some(state));
    assert_ne!(after.generation, before.generation);
    assert_eq!((other.look(), mine.look()), (after, after));
}

#[test]
fn without_a_gauge_every_look_reads_and_gives_another_number() {
    let host = FakeHost::new(1);
    let view = view(&host);
    host.vm.gaugeless.set(true);
    let first = view.look();
    let state = write(&host, 1);
    let second = view.look();
    assert_eq!((first.state, second.state), (None, Some(state)));
    assert_ne!(first.generation, second.generation);
    view.changed();
    host.vm.gaugeless.set(false);
    assert_eq!(view.look().state, Some(state));
}

#[test]
fn a_record_that_could_not_be_read_is_read_again() {
    let host = FakeHost::new(1);
    let view = view(&host);
    let state = write(&host, 1);
    host.vm.shareless.set(true);
    assert_eq!(view.look().state, None);
    host.vm.shareless.set(false);
    assert_eq!(view.look().state, Some(state));
}
