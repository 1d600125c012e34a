//! The load of this machine as the sidecar tells it: one record in shared data, written by the VM
//! that talks to the sidecar, read by all, and not for each request.

use crate::host::Host;
use crate::store::SharedData;
use policy::kernel::load::{Held, hear as fold};
use policy::store::{Change, Store, StoreError, update};
use policy::time::Nanos;
use std::cell::Cell;

/// Where it is. The version is in the key, as everywhere.
const KEY: &[u8] = b"load/1";
/// The record is read again when the last look is older than this: the sidecar tells a load about
/// once a second.
const LOOK_EVERY: Nanos = Nanos::from_millis(100);

/// Takes over what the sidecar said, in thousandths; more than 1000 is full load.
///
/// # Errors
/// When shared data cannot be had.
pub(crate) fn hear<H: Host>(host: &H, sample: u32, now: Nanos) -> Result<(), StoreError> {
    update(&mut SharedData(host.clone()), KEY, |present| {
        let held = fold(present.and_then(Held::from_bytes), sample, now);
        Change::Write(held.to_bytes().to_vec(), ())
    })
}

/// The load as one VM knows it.
pub(crate) struct Reader<H: Host> {
    host: H,
    last: Cell<Option<Look>>,
}

/// What was there, and when.
#[derive(Clone, Copy)]
struct Look {
    at: Nanos,
    held: Option<Held>,
}

impl<H: Host> Reader<H> {
    /// A reader that has seen nothing.
    pub(crate) fn new(host: &H) -> Self {
        Self { host: host.clone(), last: Cell::new(None) }
    }

    /// The load in thousandths; 0 while nobody tells, and when the last word is too old.
    pub(crate) fn look(&self, now: Nanos) -> u32 {
        let known = self.last.get().filter(|look| now - look.at < LOOK_EVERY);
        let held = known.map_or_else(|| self.read(now), |look| look.held);
        held.map_or(0, |held| held.load(now))
    }

    fn read(&self, now: Nanos) -> Option<Held> {
        let held = match SharedData(self.host.clone()).read(KEY) {
            Ok(value) => value.and_then(|value| Held::from_bytes(&value.bytes)),
            // What was known grows old by itself.
            Err(_) => self.last.get().and_then(|look| look.held),
        };
        self.last.set(Some(Look { at: now, held }));
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeHost;

    const START: Nanos = Nanos::from_secs(1_000);

    #[test]
    fn nobody_has_told_a_load_yet() {
        assert_eq!(Reader::new(&FakeHost::new(1)).look(START), 0);
    }

    #[test]
    fn what_one_vm_hears_all_see_within_the_time_of_a_look() {
        let host = FakeHost::new(1);
        let other = Reader::new(&host.sibling());
        assert_eq!(other.look(START), 0);
        hear(&host, 900, START).unwrap();
        assert_eq!(other.look(START + LOOK_EVERY - Nanos(1)), 0);
        assert_eq!(other.look(START + LOOK_EVERY), 900);
    }

    #[test]
    fn a_thousand_requests_read_the_record_once() {
        let host = FakeHost::new(1);
        hear(&host, 900, START).unwrap();
        host.process.shared_calls.set(0);
        let reader = Reader::new(&host);
        for request in 0..1_000 {
            assert_eq!(reader.look(START + Nanos(request)), 900);
        }
        assert_eq!(host.process.shared_calls.get(), 1);
    }

    #[test]
    fn an_old_word_is_none() {
        let host = FakeHost::new(1);
        hear(&host, 900, START).unwrap();
        let reader = Reader::new(&host);
        assert_eq!(reader.look(START + Nanos::from_secs(4)), 900);
        assert_eq!(reader.look(START + Nanos::from_secs(6)), 0);
    }

    #[test]
    fn without_shared_data_the_last_word_holds_until_it_is_old() {
        let host = FakeHost::new(1);
        hear(&host, 900, START).unwrap();
        let reader = Reader::new(&host);
        assert_eq!(reader.look(START), 900);
        host.vm.shareless.set(true);
        assert_eq!(hear(&host, 100, START), Err(StoreError::Unavailable));
        assert_eq!(reader.look(START + Nanos::SECOND), 900);
        assert_eq!(reader.look(START + Nanos::from_secs(6)), 0);
    }

    #[test]
    fn more_than_full_load_is_full_load() {
        let host = FakeHost::new(1);
        hear(&host, u32::MAX, START).unwrap();
        assert_eq!(Reader::new(&host).look(START), 1000);
    }

    #[test]
    fn a_record_that_cannot_be_read_is_none_and_is_replaced() {
        for garbage in [&b""[..], b"\0", b"\x01short", &[0xff; 13], &[0xff; 64]] {
            let host = FakeHost::new(1);
            update(&mut SharedData(host.clone()), KEY, |_| Change::Write(garbage.to_vec(), ()))
                .unwrap();
            assert_eq!(Reader::new(&host).look(START), 0, "{garbage:?}");
            hear(&host, 300, START).unwrap();
            assert_eq!(Reader::new(&host).look(START), 300, "{garbage:?}");
        }
    }
}
