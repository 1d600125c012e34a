//! Path patterns: literal segments, `{name}` or `*` for one segment, `**` at the end for the rest.

use crate::path::{self, Case, Reading};
use alloc::string::String;
use alloc::vec::Vec;

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    segments: Vec<Segment>,
    /// The segments as a loose reading of a path has them; `None` when they are the same.
    folded: Option<Vec<Segment>>,
    rest: Rest,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Any,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    Nothing,
    Anything,
}

/// Why a pattern is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatternError {
    /// It does not begin with `/`.
    NoLeadingSlash,
    /// `**` stands somewhere else than at the end.
    RestNotLast,
    /// A segment mixes literal text with `*` or braces, or a brace is not closed.
    MixedSegment,
    /// It has a query, a fragment, an empty or a dot segment, or an escape that is broken or hides
    /// one of these: Envoy never routes by such a path.
    NotNormal,
}

impl PathPattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// A [`PatternError`] that says which rule is broken.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let path = text.strip_prefix('/').ok_or(PatternError::NoLeadingSlash)?;
        if text.contains(['?', '#']) {
            return Err(PatternError::NotNormal);
        }
        let mut pattern = Self { segments: Vec::new(), folded: None, rest: Rest::Nothing };
        if path.is_empty() {
            return Ok(pattern);
        }
        for part in path.split('/') {
            if pattern.rest == Rest::Anything {
                return Err(PatternError::RestNotLast);
            }
            match part {
                "**" => pattern.rest = Rest::Anything,
                "" | "." | ".." => return Err(PatternError::NotNormal),
                _ => pattern.segments.push(segment(part)?),
            }
        }
        pattern.folded = fold(&pattern.segments)?;
        Ok(pattern)
    }

    /// Whether a reading of a path matches, as [`PathPattern::matches`] does for the bytes.
    #[must_use]
    pub fn fits(&self, reading: Reading<'_>) -> bool {
        let folded = self.folded.as_ref().unwrap_or(&self.segments);
        match reading.case {
            Case::Counts => self.matches(reading.path),
            Case::CountsDecoded => self.walk(folded, reading.path, |one, other| one == other),
            Case::Ignored => self.walk(folded, reading.path, <[u8]>::eq_ignore_ascii_case),
        }
    }

    /// Whether a path (without its query) matches. `/a/**` also matches `/a`; one trailing slash
    /// makes no difference, so that `/admin/` cannot slip past a rule for `/admin`.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        self.walk(&self.segments, path, |one, other| one == other)
    }

    fn walk(&self, segments: &[Segment], path: &[u8], same: impl Fn(&[u8], &[u8]) -> bool) -> bool {
        let Some(path) = path.strip_prefix(b"/") else { return false };
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let mut parts = path.split(|byte| *byte == b'/').filter(|_| !path.is_empty());
        for wanted in segments {
            match (wanted, parts.next()) {
                (Segment::Literal(text), Some(part)) if same(text.as_bytes(), part) => {}
                (Segment::Any, Some(part)) if !part.is_empty() => {}
                _ => return false,
            }
        }
        self.rest == Rest::Anything || parts.next().is_none()
    }
}

fn segment(part: &str) -> Result<Segment, PatternError> {
    if part == "*" {
        return Ok(Segment::Any);
    }
    if let Some(name) = part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        let named = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        return if named { Ok(Segment::Any) } else { Err(PatternError::MixedSegment) };
    }
    if part.contains(['*', '{', '}']) {
        return Err(PatternError::MixedSegment);
    }
    Ok(Segment::Literal(String::from(part)))
}

/// What a loose reading makes of the literals; `None` when it changes nothing.
fn fold(segments: &[Segment]) -> Result<Option<Vec<Segment>>, PatternError> {
    let mut folded = Vec::with_capacity(segments.len());
    for segment in segments {
        let Segment::Literal(text) = segment else {
            folded.push(segment.clone());
            continue;
        };
        let loose = path::fold(text.as_bytes()).and_then(|bytes| String::from_utf8(bytes).ok());
        for part in loose.ok_or(PatternError::NotNormal)?.split('/') {
            match part {
                "" | "." | ".." => return Err(PatternError::NotNormal),
                _ => folded.push(Segment::Literal(String::from(part))),
            }
        }
    }
    Ok((folded != segments).then_some(folded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_with_escapes_fits_what_they_stand_for_when_read_loosely() {
        let loose = |path| Reading { path, case: Case::Ignored };
        let pattern = PathPattern::parse("/Week%20plans/{id}").unwrap();
        assert!(pattern.matches(b"/Week%20plans/7"));
        assert!(!pattern.matches(b"/week%20plans/7"));
        assert!(pattern.fits(loose(b"/week plans/7")));
        assert!(pattern.fits(loose(b"/WEEK PLANS/7/")));
        assert!(!pattern.fits(loose(b"/week%20plans/7")));
        let pattern = PathPattern::parse("/a%2Fb").unwrap();
        assert!(pattern.matches(b"/a%2Fb"));
        assert!(pattern.fits(loose(b"/a/b")));
    }

    #[test]
    fn a_decoded_path_is_also_read_by_those_to_whom_case_counts() {
        // Found by fuzzing: `//public` was seen by the open rule for `/Public` and by no other.
        let open = PathPattern::parse("/Public").unwrap();
        let restricted = PathPattern::parse("/*").unwrap();
        let read = path::read(b"//public");
        let denied = |reading| !open.fits(reading) && restricted.fits(reading);
        assert!(read.readings().any(denied));
    }

    #[track_caller]
    fn check(pattern: &str, path: &str, expected: bool) {
        let compiled = PathPattern::parse(pattern).unwrap();
        assert_eq!(compiled.matches(path.as_bytes()), expected, "{pattern} on {path}");
    }

    #[test]
    fn a_pattern_matches_whole_paths() {
        check("/", "/", true);
        check("/", "/a", false);
        check("/health", "/health", true);
        check("/health", "/health/", true);
        check("/health", "/healthy", false);
        check("/health", "/health/x", false);
        check("/api/samples/{id}", "/api/samples/7", true);
        check("/api/samples/{id}", "/api/samples", false);
        check("/api/samples/{id}", "/api/samples/7/x", false);
        check("/docs/**", "/docs", true);
        check("/docs/**", "/docs/a/b", true);
        check("/docs/**", "/docsx", false);
        check("/**", "/", true);
        check("/**", "/a/b", true);
        check("/*/x", "//x", false);
        check("/a", "a", false);
        check("/a", "", false);
    }

    #[test]
    fn a_pattern_that_envoy_could_never_route_by_is_refused() {
        for (text, error) in [
            ("health", PatternError::NoLeadingSlash),
            ("", PatternError::NoLeadingSlash),
            ("/a/**/b", PatternError::RestNotLast),
            ("/a*", PatternError::MixedSegment),
            ("/{a", PatternError::MixedSegment),
            ("/{}", PatternError::MixedSegment),
            ("/a?b", PatternError::NotNormal),
            ("/a//b", PatternError::NotNormal),
            ("/a/", PatternError::NotNormal),
            ("/a/../b", PatternError::NotNormal),
            ("/a/%2e%2e/b", PatternError::NotNormal),
            ("/a/%zz", PatternError::NotNormal),
            ("/a/%00", PatternError::NotNormal),
        ] {
            assert_eq!(PathPattern::parse(text), Err(error), "{text}");
        }
    }
}
