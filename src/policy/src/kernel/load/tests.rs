//! Up at once, down late and slowly, and gone when nobody tells.

use super::super::testing::{Dice, ms};
use super::*;

const fn held(permille: u32, at: Nanos) -> Held {
    Held { permille, at }
}

#[test]
fn it_rises_at_once_and_is_held_within_the_band() {
    let first = hear(None, 300, ms(0));
    assert_eq!(first, held(300, ms(0)));
    assert_eq!(hear(Some(first), 900, ms(1)), held(900, ms(1)));
    assert_eq!(hear(Some(held(900, ms(0))), 850, ms(1_000)), held(900, ms(1_000)));
    assert_eq!(hear(Some(held(900, ms(0))), 849, ms(1_000)), held(849, ms(1_000)));
    assert_eq!(hear(Some(first), 5_000, ms(1)).permille, 1_000);
}

#[test]
fn it_falls_by_a_hundred_thousandths_a_second_however_often_it_is_told() {
    for every in [1, 3, 10, 99, 900] {
        let mut load = hear(None, 1_000, ms(0));
        for at in (every..=4_500).step_by(usize::try_from(every).unwrap()) {
            load = hear(Some(load), 100, ms(at));
            assert_eq!(u64::from(load.permille), 1_000 - at / 10, "every {every} ms");
            assert_eq!(load.load(ms(at)), load.permille);
        }
    }
}

#[test]
fn noise_within_the_band_moves_it_no_further() {
    let mut dice = Dice(1);
    let mut load = hear(None, 740, ms(0));
    for second in 1..1_000 {
        load = hear(Some(load), 700 + dice.count(BAND.into()), ms(second * 1_000));
        assert!((740..750).contains(&load.permille));
    }
}

#[test]
fn a_load_that_nobody_tells_any_more_is_none() {
    let load = held(800, ms(10_000));
    assert_eq!(load.load(ms(10_000)), 800);
    assert_eq!(load.load(ms(15_000)), 800);
    assert_eq!(load.load(ms(15_000) + Nanos(1)), 0);
    // A worker whose clock was read a little earlier sees it too, and nobody sees the far future.
    assert_eq!(load.load(ms(9_999)), 800);
    assert_eq!(load.load(ms(4_999)), 0);
    // And what comes after the silence is taken as it is.
    assert_eq!(hear(Some(load), 100, ms(15_001)), held(100, ms(15_001)));
    assert_eq!(hear(Some(load), 100, ms(4_000)), held(100, ms(4_000)));
}

#[test]
fn it_stays_between_the_sample_and_what_it_was() {
    let mut dice = Dice(2);
    let mut load = hear(None, 0, ms(0));
    let mut now = ms(0);
    for _ in 0..20_000 {
        let old = load;
        now = now + Nanos(dice.below(2_000_000_000));
        let sample = dice.count(1_100);
        load = hear(Some(old), sample, now);
        let bounded = sample.min(1_000);
        assert!(load.permille >= bounded && load.permille <= bounded.max(old.permille));
        assert!(load.at <= now && now - load.at < STEP);
    }
}

#[test]
fn a_record_reads_as_it_was_written_and_nonsense_as_none() {
    let load = held(777, Nanos(u64::MAX - 5));
    let bytes = load.to_bytes();
    assert_eq!(Held::from_bytes(&bytes), Some(load));
    for length in 0..SIZE {
        assert_eq!(Held::from_bytes(&bytes[..length]), None);
    }
    let mut other = bytes;
    other[0] = VERSION + 1;
    assert_eq!(Held::from_bytes(&other), None);
    assert_eq!(Held::from_bytes(&held(1_001, Nanos::ZERO).to_bytes()), None);
    assert_eq!(Held::from_bytes(&[&bytes[..], &[0]].concat()), None);
}
