//! The JSON Schema says the same as the reader: its defaults are the reader's, its keys are known,
//! and it refuses nothing that the reader takes.

use crate::document::{good, minimal, read};
use policy::config;
use serde_json::{Map, Value};

/// What a schema has against a document, for the keywords that ours uses, patterns excepted.
pub(crate) fn faults(schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut expect = |fits: bool, keyword: &str| {
        if !fits {
            faults.push(format!("{at}: {keyword}"));
        }
    };
    let number = |keyword: &str| schema.get(keyword).and_then(Value::as_f64);
    let size = match value {
        Value::Array(entries) => Some((entries.len(), "Items")),
        Value::Object(map) => Some((map.len(), "Properties")),
        _ => None,
    };
    if let Some((size, what)) = size {
        let size = f64::from(u32::try_from(size).unwrap());
        expect(number(&format!("max{what}")).is_none_or(|max| size <= max), "max");
        expect(number(&format!("min{what}")).is_none_or(|min| size >= min), "min");
    }
    if let Some(n) = value.as_f64() {
        expect(number("minimum").is_none_or(|min| n >= min), "minimum");
        expect(number("maximum").is_none_or(|max| n <= max), "maximum");
        expect(number("const").is_none_or(|only| n == only), "const");
    }
    let words = schema.get("enum").and_then(Value::as_array);
    expect(words.is_none_or(|words| words.contains(value)), "enum");
    let types = schema.get("type").map(|t| t.as_array().cloned().unwrap_or(vec![t.clone()]));
    expect(types.is_none_or(|types| types.iter().any(|one| is_type(one, value))), "type");
    if let Some(map) = value.as_object() {
        faults.extend(object_faults(schema, map, at));
    }
    if let (Some(items), Some(entries)) = (schema.get("items"), value.as_array()) {
        faults.extend(entries.iter().flat_map(|entry| self::faults(items, entry, at)));
    }
    faults
}

fn is_type(name: &Value, value: &Value) -> bool {
    match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|n| n.fract() == 0.0),
        other => panic!("a type that this test does not know: {other}"),
    }
}

fn object_faults(schema: &Value, map: &Map<String, Value>, at: &str) -> Vec<String> {
    let required = |schema: &Value| {
        let names = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
        names.iter().all(|name| map.contains_key(name.as_str().unwrap()))
    };
    let mut faults = Vec::new();
    if !required(schema) {
        faults.push(format!("{at}: required"));
    }
    if let Some(branches) = schema.get("oneOf").and_then(Value::as_array)
        && branches.iter().filter(|branch| required(branch)).count() != 1
    {
        faults.push(format!("{at}: oneOf"));
    }
    if let Some(branches) = schema.get("anyOf").and_then(Value::as_array)
        && !branches.iter().any(required)
    {
        faults.push(format!("{at}: anyOf"));
    }
    for (key, entry) in map {
        let at = format!("{at}.{key}");
        let known = schema.get("properties").and_then(|properties| properties.get(key));
        match known.or(schema.get("additionalProperties")) {
            Some(Value::Bool(false)) => faults.push(format!("{at}: additionalProperties")),
            Some(schema) => faults.extend(self::faults(schema, entry, &at)),
            None => {}
        }
    }
    faults
}

/// Writes every default of the schema into a document.
fn fill(schema: &Value, value: &mut Value) {
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        let map = value.as_object_mut().unwrap();
        for (key, property) in properties {
            if let Some(default) = property.get("default") {
                map.entry(key.clone()).or_insert_with(|| default.clone());
            }
            if let Some(value) = map.get_mut(key) {
                fill(property, value);
            }
        }
    } else if let (Some(of), Some(map)) =
        (schema.get("additionalProperties"), value.as_object_mut())
    {
        map.values_mut().for_each(|entry| fill(of, entry));
    } else if let (Some(items), Some(entries)) = (schema.get("items"), value.as_array_mut()) {
        entries.iter_mut().for_each(|entry| fill(items, entry));
    }
}

#[test]
fn every_default_of_the_schema_is_what_the_reader_takes() {
    let mut filled = minimal();
    fill(&config::schema(), &mut filled);
    assert_ne!(filled, minimal());
    let shown = |document: &Value| {
        let mut policy = read(document).unwrap();
        policy.hash = 0;
        format!("{policy:#?}")
    };
    assert_eq!(shown(&filled), shown(&minimal()));
}

#[test]
fn the_schema_takes_what_the_reader_takes() {
    for document in [good(), minimal()] {
        assert_eq!(faults(&config::schema(), &document, ""), [""; 0]);
    }
    let schema = config::schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
}

/// Every key that the schema offers stands in the full example, so that none is left untried.
#[test]
fn the_full_example_uses_every_key() {
    let mut unused = Vec::new();
    unused_keys(&config::schema(), &[&good()], "", &mut unused);
    let dull = |path: &String| {
        // One of two alternatives, or a part that must stay empty.
        ![".inline_secret", ".file", ".failure_rate_threshold", ".minimum_calls"]
            .iter()
            .any(|end| path.ends_with(end))
            && !path.contains(".slow_call_")
            && !path.contains(".services.")
            && !path.ends_with("default.fallback")
            && !path.ends_with("api_keys.locations.cookie")
            && !path.ends_with("api_keys.locations.query")
    };
    unused.retain(dull);
    assert_eq!(unused, [""; 0]);
}

fn unused_keys(schema: &Value, values: &[&Value], at: &str, unused: &mut Vec<String>) {
    for (key, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten()
    {
        let at = format!("{at}.{key}");
        let given: Vec<&Value> = values.iter().filter_map(|value| value.get(key)).collect();
        if given.is_empty() {
            unused.push(at);
        } else {
            unused_keys(property, &given, &at, unused);
        }
    }
    if let Some(items) = schema.get("items") {
        let entries: Vec<&Value> =
            values.iter().filter_map(|value| value.as_array()).flatten().collect();
        unused_keys(items, &entries, at, unused);
    }
    if let Some(of) = schema.get("additionalProperties").filter(|of| of.is_object()) {
        let entries: Vec<&Value> =
            values.iter().filter_map(|value| value.as_object()).flat_map(Map::values).collect();
        unused_keys(of, &entries, at, unused);
    }
}
