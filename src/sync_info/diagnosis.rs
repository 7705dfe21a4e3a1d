//! Says what is wrong with stored JSON without quoting any of it.
//!
//! What is found under a sync path may be anything, a secret that somebody put there by mistake included, and
//! a parser's own message repeats what it stumbled over. So an error here is made of our words and a place:
//! enough to find the spot with `consul kv get`, nothing that could leak.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Map, Value};

use super::Hash;
use super::insight::SecretType;
use crate::error::{Error, Kind};

/// The JSON type of a value, for "found ... where ... belongs".
pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The error for bytes that the parser refused for their form.
pub(super) fn broken(bytes: &[u8], error: &serde_json::Error) -> Error {
    let place = format!("line {}, column {}", error.line(), error.column());
    let message = match error.classify() {
        Category::Eof if bytes.trim_ascii().is_empty() => "there is nothing".to_owned(),
        Category::Eof => format!("the JSON is cut off at {place}"),
        Category::Syntax | Category::Io => format!("not JSON from {place} on"),
        Category::Data => format!("not what belongs there at {place}"),
    };
    Error::new(Kind::Corrupt, message)
}

/// The error for bytes that the parser refused as a bucket: they are read a second time to find out why.
pub(super) fn not_a_bucket(bytes: &[u8], error: &serde_json::Error) -> Error {
    if error.classify() != Category::Data {
        return broken(bytes, error);
    }
    let reason = match kind_by_first_byte(bytes) {
        "an object" => first_problem(bytes),
        found => {
            return Error::new(
                Kind::Corrupt,
                format!("found {found} where a bucket, an object of insights, belongs"),
            );
        }
    };
    let place = format!("line {}, column {}", error.line(), error.column());
    Error::new(Kind::Corrupt, format!("{reason}, at {place}"))
}

/// As [`kind_of`], for bytes that may not be JSON to their end.
fn kind_by_first_byte(bytes: &[u8]) -> &'static str {
    match bytes.trim_ascii_start().first() {
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

fn first_problem(bytes: &[u8]) -> String {
    let mut problem = None;
    // What the second reading itself runs into comes after the problem, or is covered by the words below.
    let _ = serde_json::Deserializer::from_slice(bytes).deserialize_map(FirstProblem(&mut problem));
    problem.unwrap_or_else(|| "an insight can't be read or has a field twice".to_owned())
}

/// Notes the first entry, in the order of the bytes, that does not belong in a bucket.
struct FirstProblem<'a>(&'a mut Option<String>);

impl<'de> Visitor<'de> for FirstProblem<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a bucket")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut paths = HashSet::new();
        while let Some((path, entry)) = map.next_entry::<Box<str>, Value>()? {
            let problem = no_insight(&entry);
            let twice = || (!paths.insert(path)).then(|| "a path is listed twice".to_owned());
            if let Some(problem) = problem.or_else(twice) {
                self.0.get_or_insert(problem);
            }
        }
        Ok(())
    }
}

/// Why `value` is no insight, if it isn't one.
fn no_insight(value: &Value) -> Option<String> {
    let Value::Object(fields) = value else {
        return Some(format!("found {} where an insight belongs", kind_of(value)));
    };
    wrong_field(fields, "version", "a whole number", Value::is_u64)
        .or_else(|| wrong_field(fields, "updateTime", "a string", Value::is_string))
        .or_else(|| wrong_field(fields, "type", "a string", Value::is_string))
        .or_else(|| unknown_type(fields.get("type")?))
        .or_else(|| wrong_fingerprint(fields.get("fingerprint")?))
        .or_else(|| wrong_orphans(fields.get("orphans")?))
}

fn wrong_field(
    fields: &Map<String, Value>,
    name: &str,
    expected: &str,
    is_expected: fn(&Value) -> bool,
) -> Option<String> {
    match fields.get(name) {
        None => Some(format!("an insight lacks its {name}")),
        Some(found) if is_expected(found) => None,
        Some(found) => Some(format!("an insight's {name} is {}, not {expected}", kind_of(found))),
    }
}

fn unknown_type(found: &Value) -> Option<String> {
    let known = found.as_str().is_some_and(|name| SecretType::try_from(name).is_ok());
    (!known).then(|| "an insight has a type that this version of vsync does not know".to_owned())
}

fn wrong_fingerprint(found: &Value) -> Option<String> {
    let is_one = found.is_null() || found.as_str().is_some_and(|text| text.parse::<Hash>().is_ok());
    (!is_one).then(|| "an insight's fingerprint is not 64 lower-case hex digits".to_owned())
}

fn wrong_orphans(found: &Value) -> Option<String> {
    let Value::Array(items) = found else {
        return Some(format!("an insight's orphans are {}, not a list", kind_of(found)));
    };
    let stranger = items.iter().find(|item| !item.is_string())?;
    Some(format!(
        "an insight's orphans hold {}, not only strings",
        kind_of(stranger)
    ))
}
