//! Penalties: refusals that repeat lead to a ban, bans that repeat get longer, and good conduct is
//! forgiven.

use crate::model::Penalty;
use crate::time::Nanos;

/// The highest level. Doubling 64 times exceeds every span there is, so more would say nothing; it
/// bounds how long forgiving can take.
const LEVEL_MAX: u32 = 64;

/// How somebody has behaved. The default has done nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conduct {
    /// When the first of the counted violations was.
    pub since: Nanos,
    /// Violations since then.
    pub count: u32,
    /// Bans that are not forgiven yet: the exponent of the next one.
    pub level: u32,
    /// When the last ban ends or ended; moved on by each span that was forgiven.
    pub ban_end: Nanos,
}

/// Counts a violation. The second part is the ban that it leads to, counted from now.
///
/// Counting starts anew with each ban, and when `within` has passed since the first violation.
/// Violations during a ban count as well: an administrator may have lifted it.
#[must_use]
pub fn violate(old: Conduct, penalty: &Penalty, now: Nanos) -> (Conduct, Option<Nanos>) {
    let mut conduct = forgive(old, penalty, now);
    if conduct.count == 0 || now - conduct.since >= penalty.within {
        conduct = Conduct { since: now, count: 0, ..conduct };
    }
    conduct.count = conduct.count.saturating_add(1);
    if conduct.count < penalty.violations {
        return (conduct, None);
    }
    let times = u64::from(penalty.escalate.max(1)).saturating_pow(conduct.level);
    let span = penalty.ban.times(times).min(penalty.max_ban);
    let level = conduct.level.saturating_add(1).min(LEVEL_MAX);
    (Conduct { since: now, count: 0, level, ban_end: now + span }, Some(span))
}

/// One level less for each whole `max_ban` since the last ban ended.
fn forgive(old: Conduct, penalty: &Penalty, now: Nanos) -> Conduct {
    let max_ban = penalty.max_ban.0.max(1);
    let spans = (now - old.ban_end).0 / max_ban;
    let level = old.level.saturating_sub(u32::try_from(spans).unwrap_or(u32::MAX));
    Conduct { level, ban_end: old.ban_end + Nanos(max_ban).times(spans), ..old }
}

#[cfg(test)]
mod tests;
