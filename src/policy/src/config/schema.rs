//! The shape as a JSON Schema (draft 2020-12), for editors. It says all that one key can say about
//! itself; what holds between several keys only `read` checks.

use super::kind::{Absent, Choice, Field, Kind, LATER, OFF, Object};
use super::shape;
use super::text::{FRACTION_REGEX, Format, SPAN_REGEX, show_fraction};
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use serde_json::{Map, Value, json};

/// The schema of a whole policy.
pub(super) fn document() -> Value {
    let mut schema = kind(&shape::POLICY);
    insert(&mut schema, "$schema", json!("https://json-schema.org/draft/2020-12/schema"));
    insert(&mut schema, "title", json!("TracSeq Gateway policy, version 1"));
    schema
}

fn kind(kind: &Kind) -> Value {
    match kind {
        Kind::Text(format) => text(*format),
        Kind::Words { now, .. } if now.contains(&OFF) => {
            let words = now.iter().map(|word| json!(word)).chain([json!(false)]);
            json!({ "enum": words.collect::<Vec<Value>>(), "$comment": "false is off" })
        }
        Kind::Words { now, .. } => json!({ "type": "string", "enum": now }),
        Kind::Integer { min, max } if min == max => json!({ "const": min }),
        Kind::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Fraction { min, max } => {
            let number = |thousandths| {
                serde_json::from_str::<Value>(&show_fraction(thousandths)).unwrap_or_default()
            };
            json!({
                "type": ["number", "string"],
                "minimum": number(*min),
                "maximum": number(*max),
                "pattern": FRACTION_REGEX,
                "$comment": kind.allowed(),
            })
        }
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Span { .. } => {
            json!({ "type": "string", "pattern": SPAN_REGEX, "$comment": kind.allowed() })
        }
        Kind::List { of, min, max } => {
            json!({ "type": "array", "items": self::kind(of), "minItems": min, "maxItems": max })
        }
        Kind::Map { keys, of, max } => json!({
            "type": "object",
            "propertyNames": text(*keys),
            "additionalProperties": self::kind(of),
            "maxProperties": max,
        }),
        Kind::Object(of) => object(of),
        Kind::Foreign => json!({ "type": "object" }),
        Kind::Never { .. } => json!({ "not": {} }),
        Kind::Later => json!({ "type": ["object", "array"], "maxProperties": 0, "maxItems": 0 }),
    }
}

fn text(format: Format) -> Value {
    let mut schema =
        json!({ "type": "string", "maxLength": format.len_max(), "$comment": format.allowed() });
    if let Some(regex) = format.regex() {
        insert(&mut schema, "pattern", json!(regex));
    }
    schema
}

fn object(object: &Object) -> Value {
    let named = |field: &Field| (field.name.to_string(), property(field));
    let properties: Map<_, _> = object.fields.iter().map(named).collect();
    let mut schema =
        json!({ "type": "object", "properties": properties, "additionalProperties": false });
    let required = object.fields.iter().filter(|field| matches!(field.absent, Absent::Required));
    let required: Vec<&str> = required.map(|field| field.name).collect();
    if !required.is_empty() {
        insert(&mut schema, "required", json!(required));
    }
    let (keyword, names) = match object.choice {
        Choice::Free => return schema,
        Choice::One(names) => ("oneOf", names),
        Choice::Some(names) => ("anyOf", names),
    };
    let alternatives: Vec<Value> = names.iter().map(|name| json!({ "required": [name] })).collect();
    insert(&mut schema, keyword, json!(alternatives));
    schema
}

/// A key: its kind, its sentence and what happens without it.
fn property(field: &Field) -> Value {
    let mut schema = kind(&field.kind);
    let without = match field.absent {
        Absent::Required | Absent::Nothing => None,
        Absent::Is(default) => {
            let default: Value = serde_json::from_str(default).unwrap_or_default();
            insert(&mut schema, "default", default);
            None
        }
        Absent::As(words) => Some(format!(" Left out: {words}")),
    };
    let later = match field.kind {
        Kind::Later => format!(" Must be empty: {LATER}."),
        Kind::Never { why, .. } => format!(" Never: {why}."),
        _ => without.unwrap_or_default(),
    };
    insert(&mut schema, "description", json!(format!("{}{later}", field.doc)));
    schema
}

fn insert(schema: &mut Value, key: &str, value: Value) {
    if let Some(map) = schema.as_object_mut() {
        map.insert(key.to_string(), value);
    }
}
