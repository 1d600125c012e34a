//! JSON as a token may hold it: one object, every member once at any depth, bounded nesting.
//! `serde_json` alone keeps the last of two members of one name; two readers of such a token could
//! then see different claims.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Deepest nesting of arrays and objects. Real claims nest three or four levels; every level costs
/// stack, of which a wasm module has little.
pub(crate) const DEPTH_MAX: u8 = 32;

/// Reads `bytes` as one strict JSON object with nothing but white space around it.
pub(crate) fn object(bytes: &[u8]) -> Option<Map<String, Value>> {
    let mut input = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { levels: DEPTH_MAX }.deserialize(&mut input).ok()?;
    input.end().ok()?;
    match value {
        Value::Object(members) => Some(members),
        _ => None,
    }
}

/// Reads one value that may open `levels` more arrays or objects.
#[derive(Clone, Copy)]
struct Strict {
    levels: u8,
}

impl Strict {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        let levels = self.levels.checked_sub(1);
        levels.map(|levels| Self { levels }).ok_or_else(|| E::custom("nested too deeply"))
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a number"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.into()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut input: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = input.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut input: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut members = Map::new();
        while let Some(name) = input.next_key::<String>()? {
            let value = input.next_value_seed(inner)?;
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("a member twice"));
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    /// A JSON-like text from a seed: mostly well-formed, with a bad spot here and there.
    fn text(state: &mut u64, levels: u8) -> String {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        let pick = *state % 23;
        let leaf = [
            "1",
            "-0",
            "1.5e3",
            "01",
            "1e400",
            "null",
            "true",
            "tru",
            "\"a\"",
            "\"\\u0061\"",
            "\"\\ud800\"",
            "\"\"",
            "[]",
            "{}",
            "\"\\n\"",
            "18446744073709551616",
            " 7 ",
            "",
        ];
        if let Some(leaf) = leaf.get(pick as usize).filter(|_| levels == 0 || pick < 9) {
            return String::from(*leaf);
        }
        let (one, two) = (text(state, levels.saturating_sub(1)), text(state, levels / 2));
        match pick % 4 {
            0 => format!("[{one},{two}]"),
            1 => format!("{{\"a\":{one},\"\\u0061\":{two}}}"),
            2 => format!("{{\"a\":{one},\"b\":{two}}}"),
            _ => format!("{{\"a\":{one},\"c\":[{two}]}}"),
        }
    }

    #[test]
    fn what_is_read_is_what_serde_json_reads_unless_a_member_comes_twice() {
        let (mut read, mut refused) = (0, 0);
        for seed in 1..20_000_u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let text = text(&mut state, 4);
            let lax: Option<Map<String, Value>> = serde_json::from_str(&text).ok();
            let twice = text.contains("\\u0061\":");
            match object(text.as_bytes()) {
                Some(members) => {
                    assert_eq!(Some(members), lax, "{text}");
                    assert!(!twice, "{text}");
                    read += 1;
                }
                None => {
                    assert!(lax.is_none() || twice, "{text}");
                    refused += 1;
                }
            }
        }
        assert!(read > 500 && refused > 500, "{read} read, {refused} refused");
    }

    #[test]
    fn nesting_ends_at_the_stated_depth() {
        let nested = |levels: usize| {
            format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1))
        };
        let deepest = usize::from(DEPTH_MAX);
        assert!(object(nested(deepest).as_bytes()).is_some());
        assert!(object(nested(deepest + 1).as_bytes()).is_none());
    }
}
