//! JSON text to a value, more strictly than `serde_json` reads it.
//!
//! A key given twice in one object would silently count once, the last; here it is a mistake, since one of
//! the two lines does not do what its writer thinks. And what the parser says of a mistake is not passed
//! on: it quotes the text, which may be a secret.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::keys::shown;

/// Far deeper than any config.
const MAX_DEPTH: usize = 32;

/// The key under which `serde_json` hands out what is no 64-bit whole number, with all its digits.
const NUMBER: &str = "$serde_json::private::Number";

/// Reads one JSON value, or says in a few words why the text is none.
pub fn parse(text: &[u8]) -> Result<Value, String> {
    let trace = RefCell::new(Trace::default());
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let parsed = Node { trace: &trace }.deserialize(&mut deserializer).and_then(|value| {
        deserializer.end()?;
        Ok(value)
    });
    let trace = trace.into_inner();
    if trace.too_deep {
        return Err(format!("is nested more than {MAX_DEPTH} levels deep"));
    }
    let value = parsed.map_err(|error| {
        format!(
            "is not JSON: the mistake is at line {}, column {}",
            error.line(),
            error.column()
        )
    })?;
    match trace.duplicate {
        Some(key) => Err(format!("has the key {} twice", shown(&key))),
        None => Ok(value),
    }
}

/// Where the parser is, and what it has met.
#[derive(Default)]
struct Trace {
    path: Vec<String>,
    duplicate: Option<String>,
    too_deep: bool,
}

/// One value to be read.
#[derive(Clone, Copy)]
struct Node<'a> {
    trace: &'a RefCell<Trace>,
}

impl Node<'_> {
    fn enter<E: serde::de::Error>(&self, step: String) -> Result<(), E> {
        let mut trace = self.trace.borrow_mut();
        trace.path.push(step);
        trace.too_deep = trace.path.len() > MAX_DEPTH;
        if trace.too_deep {
            Err(E::custom("too deep"))
        } else {
            Ok(())
        }
    }

    fn leave(&self) {
        self.trace.borrow_mut().path.pop();
    }

    fn note_duplicate(&self) {
        let mut trace = self.trace.borrow_mut();
        if trace.duplicate.is_none() {
            trace.duplicate = Some(trace.path.join("."));
        }
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            self.enter(list.len().to_string())?;
            let item = items.next_element_seed(self)?;
            self.leave();
            match item {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if key == NUMBER {
                let digits: String = entries.next_value()?;
                let number: Number = digits.parse().map_err(A::Error::custom)?;
                return Ok(Value::Number(number));
            }
            self.enter(key.clone())?;
            if object.contains_key(&key) {
                self.note_duplicate();
            }
            let value = entries.next_value_seed(self)?;
            self.leave();
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_serde_json_reads_them() {
        let text = r#"{"a": [1, -2.50, 1e3, true, null, "x\u00e9"], "b": {"c": {}}, "n": 18446744073709551616}"#;
        let expected: Value = serde_json::from_str(text).unwrap();
        assert_eq!(parse(text.as_bytes()), Ok(expected));
    }

    #[test]
    fn mistakes_are_placed_and_not_quoted() {
        let deep = format!("{}{}", "[".repeat(40), "]".repeat(40));
        for (text, message) in [
            ("", "is not JSON: the mistake is at line 1, column 0"),
            ("{\n \"a\": hvs.X}", "is not JSON: the mistake is at line 2, column 7"),
            ("{} x", "is not JSON: the mistake is at line 1, column 4"),
            (r#"{"a": 1, "a": 2}"#, "has the key a twice"),
            (
                r#"{"o": [0, {"v": {"t": 1, "t": "hvs.X"}}]}"#,
                "has the key o.1.v.t twice",
            ),
            (
                r#"{"$serde_json::private::Number": "hvs.X"}"#,
                "is not JSON: the mistake is at line 1, column 1",
            ),
            (deep.as_str(), "is nested more than 32 levels deep"),
            ("{\"a\": \"\u{1}\"}", "is not JSON: the mistake is at line 1, column 8"),
        ] {
            assert_eq!(parse(text.as_bytes()), Err(message.to_owned()), "{text}");
        }
        assert!(parse(b"{\"a\": \"\xff\"}").is_err());
    }
}
