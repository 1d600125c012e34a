//! Log lines: one JSON object each, the message a fixed sentence. Nothing per request.

use crate::host::{Host, Level};
use serde_json::{Map, Value};

/// Writes one line. A host that will not log cannot be told so; the line is lost.
pub(crate) fn line<H: Host>(host: &H, level: Level, message: &str, fields: &[(&str, Value)]) {
    let mut object = Map::new();
    object.insert("level".into(), level.name().into());
    object.insert("message".into(), message.into());
    for (name, value) in fields {
        object.insert((*name).into(), value.clone());
    }
    let _lost = host.log(level, &Value::Object(object).to_string());
}
