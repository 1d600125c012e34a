//! Whether requests have to be looked up among the banned.

use super::*;

const BANNED: Bucket = Bucket { table: Table::Bans, index: 9 };

#[test]
fn nobody_is_looked_up_before_the_first_ban_and_everybody_after_it() {
    let (node, mut sidecar) = started();
    sidecar.serve(&node);
    assert!(!node.view.look().may_ban());
    sidecar.set(BANNED, b"a ban");
    sidecar.serve(&node);
    sidecar.check(&node.host);
    assert!(node.view.look().may_ban());
    // It is over, and the next change is about something else: the flag is no count.
    sidecar.set(BANNED, b"");
    sidecar.serve(&node);
    sidecar.set(FILE, b"three");
    sidecar.serve(&node);
    assert!(node.view.look().may_ban());
}

#[test]
fn another_store_without_bans_lets_the_flag_go() {
    let (node, mut sidecar) = started();
    sidecar.set(BANNED, b"a ban");
    sidecar.serve(&node);
    let mut other = Sidecar::new(8);
    other.set(FILE, b"new");
    other.serve(&node);
    other.check(&node.host);
    assert!(!node.view.look().may_ban());
}
