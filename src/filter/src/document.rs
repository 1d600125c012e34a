//! The plugin configuration as a document.
//!
//! JSON text comes as it was written (`StringValue`, or Istio's `WasmPlugin`). A
//! `google.protobuf.Struct`, which is what a policy written straight into Envoy's YAML becomes,
//! arrives as raw protobuf on Envoy 1.36 and 1.40, although Envoy's documentation says JSON.

use crate::protobuf::{Content, fields};
use serde_json::{Map, Number, Value};

/// Deepest nesting that is read; serde_json stops at the same depth.
const DEPTH_MAX: usize = 128;
/// Whole numbers up to here are exact in a double.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// Reads a configuration.
///
/// # Errors
/// The complaint of the JSON reader when it is neither JSON nor a Struct.
pub(crate) fn read(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice(bytes).or_else(|error| structure(bytes, 0).ok_or(error))
}

/// `Struct { map<string, Value> fields = 1 }`.
fn structure(bytes: &[u8], depth: usize) -> Option<Value> {
    let mut object = Map::new();
    for (number, content) in fields(bytes)? {
        let (1, Content::Bytes(entry)) = (number, content) else { return None };
        let (mut key, mut member) = (String::new(), Value::Null);
        for (number, content) in fields(entry)? {
            match (number, content) {
                (1, Content::Bytes(text)) => key = str::from_utf8(text).ok()?.into(),
                (2, Content::Bytes(bytes)) => member = value(bytes, depth + 1)?,
                _ => return None,
            }
        }
        object.insert(key, member);
    }
    Some(Value::Object(object))
}

/// `Value`, one of: null = 1, number = 2, string = 3, bool = 4, struct = 5, list = 6.
fn value(bytes: &[u8], depth: usize) -> Option<Value> {
    if depth > DEPTH_MAX {
        return None;
    }
    let fields = fields(bytes)?;
    let [(number, content)] = fields.as_slice() else { return None };
    Some(match (number, *content) {
        (1, Content::Number(_)) => Value::Null,
        (2, Content::Fixed64(eight)) => Value::Number(double(f64::from_le_bytes(eight))?),
        (3, Content::Bytes(text)) => Value::String(str::from_utf8(text).ok()?.into()),
        (4, Content::Number(truth)) => Value::Bool(truth != 0),
        (5, Content::Bytes(bytes)) => structure(bytes, depth)?,
        (6, Content::Bytes(bytes)) => list(bytes, depth)?,
        _ => return None,
    })
}

/// `ListValue { repeated Value values = 1 }`.
fn list(bytes: &[u8], depth: usize) -> Option<Value> {
    let item = |(number, content)| match (number, content) {
        (1, Content::Bytes(bytes)) => value(bytes, depth + 1),
        _ => None,
    };
    fields(bytes)?.into_iter().map(item).collect::<Option<Vec<_>>>().map(Value::Array)
}

/// A Struct has doubles only; those that are whole read as the integers that were written.
fn double(number: f64) -> Option<Number> {
    if number.fract() == 0.0 && number.abs() <= EXACT_MAX {
        return Some(Number::from(number as i64));
    }
    Number::from_f64(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// `{"a": 60, "b": ["x", true, null, 0.5], "c": {}}` as Envoy hands it over.
    const STRUCT: &[u8] = b"\x0a\x0e\x0a\x01a\x12\x09\x11\0\0\0\0\0\0\x4e\x40\
        \x0a\x1f\x0a\x01b\x12\x1a\x32\x18\x0a\x03\x1a\x01x\x0a\x02\x20\x01\x0a\x02\x08\0\
        \x0a\x09\x11\0\0\0\0\0\0\xe0\x3f\
        \x0a\x07\x0a\x01c\x12\x02\x2a\0";

    #[test]
    fn text_and_struct_read_alike() {
        let expected = json!({"a": 60, "b": ["x", true, null, 0.5], "c": {}});
        assert_eq!(read(expected.to_string().as_bytes()).unwrap(), expected);
        assert_eq!(read(STRUCT).unwrap(), expected);
    }

    #[test]
    fn what_is_neither_gives_the_complaint_of_the_json_reader() {
        for cut in 1..STRUCT.len() {
            if ![16, 49].contains(&cut) {
                assert!(read(&STRUCT[..cut]).is_err(), "{cut}");
            }
        }
        assert!(read(b"version: 1").unwrap_err().to_string().contains("expected value"));
    }

    #[test]
    fn nesting_has_an_end() {
        let mut deep = vec![0x2a, 0];
        for _ in 0..200 {
            deep = crate::protobuf::message(&[b"k", &deep]);
            deep = crate::protobuf::message(&[&deep]);
            let mut wrapped = vec![0x2a];
            let length = deep.len();
            assert!(length < 1 << 14);
            wrapped.extend_from_slice(&[(length & 0x7f) as u8 | 0x80, (length >> 7) as u8]);
            wrapped.extend_from_slice(&deep);
            deep = wrapped;
        }
        assert_eq!(value(&deep, 0), None);
    }
}
