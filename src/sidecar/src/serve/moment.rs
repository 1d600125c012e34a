//! Times and spans as people write them: RFC 3339 and `24h`.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970, rounded down.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Milliseconds since 1970, rounded down.
pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

const DAY: u64 = 86_400;

/// Reads a time of RFC 3339 from 1970 on; what is less than a second is cut off.
pub(crate) fn read(text: &str) -> Option<u64> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = rest.split_at_checked(zone_at)?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    // A leap second counts as the one before it.
    let in_day = (hour < 24 && minute < 60 && second <= 60)
        .then(|| hour * 3600 + minute * 60 + second.min(59))?;
    if !(1..=12).contains(&month) || !(1..=days_in(year, month)).contains(&day) {
        return None;
    }
    let local = days_before(year, month, day)?.checked_mul(DAY)?.checked_add(in_day)?;
    let offset = zone.get(1..)?;
    match zone.chars().next()? {
        'Z' | 'z' => offset.is_empty().then_some(local),
        sign => {
            let [hours, minutes] = numbers(offset, ':', [2, 2])?;
            let offset = (hours < 24 && minutes < 60).then(|| hours * 3600 + minutes * 60)?;
            if sign == '+' { local.checked_sub(offset) } else { local.checked_add(offset) }
        }
    }
}

/// Prints a time as RFC 3339 in UTC.
pub(crate) fn print(secs: u64) -> String {
    let (days, in_day) = (secs / DAY, secs % DAY);
    // Days since 0000-03-01, in eras of 400 years: a leap day is then the last of its year.
    let days = days.saturating_add(719_468);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (in_day / 3600, in_day / 60 % 60, in_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Reads a span in whole seconds: `90s`, `30m`, `24h`, `7d`.
pub(crate) fn span(text: &str) -> Option<u64> {
    let unit = match text.chars().next_back()? {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => DAY,
        _ => return None,
    };
    let digits = text.get(..text.len().checked_sub(1)?)?;
    let plain = (1..=9).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse::<u64>().ok()?.checked_mul(unit)).flatten()
}

/// Reads a span in whole milliseconds: those of [`span`], and `250ms`.
pub(crate) fn span_ms(text: &str) -> Option<u64> {
    match text.strip_suffix("ms") {
        None => span(text)?.checked_mul(1000),
        Some(digits) => {
            let plain = (1..=12).contains(&digits.len());
            (plain && digits.bytes().all(|byte| byte.is_ascii_digit()))
                .then(|| digits.parse().ok())
                .flatten()
        }
    }
}

/// Prints a span as a policy has it, in the longest unit that fits it exactly.
pub(crate) fn show_span_ms(millis: u64) -> String {
    for (unit, span) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
        if millis > 0 && millis.is_multiple_of(span) {
            return format!("{}{unit}", millis / span);
        }
    }
    format!("{millis}ms")
}

fn numbers<const N: usize>(text: &str, between: char, digits: [usize; N]) -> Option<[u64; N]> {
    let mut parts = text.split(between);
    let mut out = [0; N];
    for (place, digits) in out.iter_mut().zip(digits) {
        let part = parts.next().filter(|part| part.len() == digits)?;
        if !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *place = part.parse().ok()?;
    }
    parts.next().is_none().then_some(out)
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

const fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a day that is not before it.
fn days_before(year: u64, month: u64, day: u64) -> Option<u64> {
    let before = year.checked_sub(1)?;
    let leap_days = before / 4 - before / 100 + before / 400;
    let in_year: u64 = (1..month).map(|month| days_in(year, month)).sum();
    (before * 365 + leap_days + in_year + day - 1).checked_sub(719_162)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_printed() {
        for (text, secs) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2026-11-23T23:50:01Z", 1_795_477_801),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
            ("2105-12-31T23:59:59Z", 4_291_747_199),
        ] {
            assert_eq!(read(text), Some(secs), "{text}");
            assert_eq!(print(secs), text);
        }
        for (text, secs) in [
            ("2026-11-24T00:50:01.999+01:00", 1_795_477_801),
            ("2026-11-23t18:20:01-05:30", 1_795_477_801),
            ("2016-12-31T23:59:60z", 1_483_228_799),
        ] {
            assert_eq!(read(text), Some(secs), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_not_read() {
        for text in [
            "",
            "2026-11-23",
            "2026-11-23T23:50:01",
            "2026-11-23T23:50Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-11-31T00:00:00Z",
            "2026-11-23T24:00:00Z",
            "2026-11-23T23:60:00Z",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+01:00",
            "2026-11-23T23:50:01.Z",
            "2026-11-23T23:50:01Zx",
            "2026-11-23T23:50:01+0100",
            "+026-11-23T23:50:01Z",
            "20261-11-23T23:50:01Z",
            "２026-11-23T23:50:01Z",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn spans_have_one_unit() {
        for (text, secs) in
            [("0s", Some(0)), ("90s", Some(90)), ("24h", Some(86_400)), ("30d", Some(2_592_000))]
        {
            assert_eq!(span(text), secs, "{text}");
        }
        for text in ["", "s", "1", "1ms", "-1s", "1.5h", "1h30m", "9999999999s", "1w", "1µ"] {
            assert_eq!(span(text), None, "{text}");
        }
    }

    #[test]
    fn spans_of_milliseconds_go_to_text_and_back() {
        for (text, millis) in
            [("250ms", 250), ("1s", 1000), ("90s", 90_000), ("2m", 120_000), ("1d", 86_400_000)]
        {
            assert_eq!(span_ms(text), Some(millis), "{text}");
            assert_eq!(show_span_ms(millis), text);
        }
        assert_eq!(show_span_ms(0), "0ms");
        for text in ["", "ms", "1.5ms", "-1ms", "1", "1msms", "1000000000000ms"] {
            assert_eq!(span_ms(text), None, "{text}");
        }
    }
}
