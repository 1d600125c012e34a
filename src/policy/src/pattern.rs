//! Path patterns: literal segments, `{name}` or `*` for one segment, `**` at the end for the rest.

use alloc::string::String;
use alloc::vec::Vec;

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    segments: Vec<Segment>,
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
    /// It has a query, a fragment, an empty or a dot segment: Envoy never routes by such a path.
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
        let mut pattern = Self { segments: Vec::new(), rest: Rest::Nothing };
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
        Ok(pattern)
    }

    /// Whether a path (without its query) matches. `/a/**` also matches `/a`; one trailing slash
    /// makes no difference, so that `/admin/` cannot slip past a rule for `/admin`.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        let Some(path) = path.strip_prefix(b"/") else { return false };
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let mut parts = path.split(|byte| *byte == b'/').filter(|_| !path.is_empty());
        for wanted in &self.segments {
            match (wanted, parts.next()) {
                (Segment::Literal(text), Some(part)) if text.as_bytes() == part => {}
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

#[cfg(test)]
mod tests {
    use super::*;

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
        ] {
            assert_eq!(PathPattern::parse(text), Err(error), "{text}");
        }
    }
}
