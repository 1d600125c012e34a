//! Permissions: words between colons, such as `samples:7:read`.
//!
//! A `*` stands for any one word, and as the last word for one or more. A permission with a `*` is
//! the set of all that it stands for.

/// What a rule asks of one who holds `grant`: everything that `wanted` stands for, so that a grant
/// must be at least as wide.
#[must_use]
pub fn covers(grant: &str, wanted: &str) -> bool {
    let (mut grant, mut wanted) = (Words::of(grant), Words::of(wanted));
    loop {
        match (grant.next(), wanted.next()) {
            (None, None) => return true,
            (None, Some(_)) | (Some(_), None) => return false,
            (Some(Word::Rest), Some(_)) => return true,
            (Some(_), Some(Word::Rest)) => return false,
            (Some(Word::Any), Some(_)) => {}
            (Some(Word::Text(one)), Some(Word::Text(other))) if one == other => {}
            (Some(Word::Text(_)), Some(_)) => return false,
        }
    }
}

/// Whether `grant` and `wanted` have a permission in common: what `require_any` asks, where
/// `admin:*` means any permission of an administrator.
#[must_use]
pub fn meets(grant: &str, wanted: &str) -> bool {
    let (mut grant, mut wanted) = (Words::of(grant), Words::of(wanted));
    loop {
        match (grant.next(), wanted.next()) {
            (None, None) => return true,
            (None, Some(_)) | (Some(_), None) => return false,
            (Some(Word::Rest), Some(_)) | (Some(_), Some(Word::Rest)) => return true,
            (Some(Word::Text(one)), Some(Word::Text(other))) if one != other => return false,
            (Some(_), Some(_)) => {}
        }
    }
}

#[derive(Clone, Copy)]
enum Word<'a> {
    Text(&'a str),
    Any,
    Rest,
}

struct Words<'a>(Option<&'a str>);

impl<'a> Words<'a> {
    fn of(permission: &'a str) -> Self {
        Self(Some(permission))
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = Word<'a>;

    fn next(&mut self) -> Option<Word<'a>> {
        let rest = self.0.take()?;
        let (word, after) = match rest.split_once(':') {
            Some((word, after)) => (word, Some(after)),
            None => (rest, None),
        };
        self.0 = after;
        Some(match (word, after) {
            ("*", None) => Word::Rest,
            ("*", Some(_)) => Word::Any,
            _ => Word::Text(word),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(grant: &str, wanted: &str, covered: bool, met: bool) {
        assert_eq!(covers(grant, wanted), covered, "{grant} covers {wanted}");
        assert_eq!(meets(grant, wanted), met, "{grant} meets {wanted}");
        assert_eq!(meets(wanted, grant), met, "{wanted} meets {grant}");
    }

    #[test]
    fn a_permission_without_wildcards_is_itself_and_nothing_else() {
        check("samples:read", "samples:read", true, true);
        check("samples:read", "samples:write", false, false);
        check("samples", "samples:read", false, false);
        check("samples:read", "samples", false, false);
        check("samples:read", "Samples:read", false, false);
        check("samples:read", "samples:reader", false, false);
        check("", "samples:read", false, false);
        check("samples:read ", "samples:read", false, false);
    }

    #[test]
    fn a_star_in_a_grant_stands_for_one_word_and_at_the_end_for_one_or_more() {
        check("samples:*:read", "samples:7:read", true, true);
        check("samples:*:read", "samples:7:write", false, false);
        check("samples:*:read", "samples:7:x:read", false, false);
        check("samples:*:read", "samples:read", false, false);
        check("admin:*", "admin:users", true, true);
        check("admin:*", "admin:users:delete", true, true);
        check("admin:*", "admin", false, false);
        check("*", "anything", true, true);
        check("*", "any:thing", true, true);
        check("*:read", "samples:read", true, true);
        check("sam*", "samples", false, false);
    }

    #[test]
    fn a_star_in_a_rule_asks_for_a_grant_at_least_as_wide() {
        check("admin:*", "admin:*", true, true);
        check("*", "admin:*", true, true);
        check("admin:users", "admin:*", false, true);
        check("admin:users:*", "admin:*", false, true);
        check("admin:*:*", "admin:*", false, true);
        check("admin:*", "admin:*:read", true, true);
        check("admin:7:read", "admin:*:read", false, true);
        check("admin:7:*", "admin:*:read", false, true);
        check("admin:7:write", "admin:*:read", false, false);
        check("lab:*", "admin:*", false, false);
        check("*:*", "*", false, true);
    }
}
