//! `LIST detailed-metadata/`, which OpenBao has: a folder's names, and beside them the metadata of each (FACTS.md sections 3
//! and 21).
//!
//! It is read as it comes. What it says under the name of a folder is that of a secret of the same name without the slash
//! (T9), and is passed over; what it can't tell of one secret is left to that secret's own metadata.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::metadata;
use crate::engine::{Presence, Survey};
use crate::http::Reply;
use crate::vault::Body;

/// Reads an answer, which `reply` is the head of.
pub fn read(reply: &Reply, body: Body) -> serde_json::Result<Survey> {
    match body {
        Body::Whole(bytes) => {
            let mut json = serde_json::Deserializer::from_slice(bytes);
            let listed = Answer::<true>(reply).deserialize(&mut json)?;
            json.end().map(|()| listed.survey())
        }
        Body::Stream(stream) => {
            let mut json = serde_json::Deserializer::from_reader(stream);
            let listed = Answer::<false>(reply).deserialize(&mut json)?;
            json.end().map(|()| listed.survey())
        }
    }
}

/// What was read: names as the server sorts them, and what it says of some of them.
#[derive(Default)]
struct Listed {
    names: Option<Vec<Box<str>>>,
    told: Vec<(Box<str>, Option<Presence>)>,
}

impl Listed {
    /// The names are what counts: what is told of others is nothing.
    fn survey(mut self) -> Survey {
        let names = self.names.unwrap_or_default();
        self.told.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut survey = Survey {
            names: names.len(),
            secrets: Vec::with_capacity(self.told.len()),
            ..Survey::default()
        };
        for name in names {
            if name.ends_with('/') {
                survey.folders.push(name);
                continue;
            }
            let told = self.told.binary_search_by(|(told, _)| told.cmp(&name));
            match told.ok().and_then(|n| self.told[n].1.take()) {
                Some(presence) => survey.secrets.push((name, presence)),
                None => survey.untold.push(name),
            }
        }
        survey
    }
}

/// The whole answer; what counts is under `data`.
struct Answer<'a, const IS_WHOLE: bool>(&'a Reply);

/// `key_info` and `keys`, in either order.
struct Data<'a, const IS_WHOLE: bool>(&'a Reply);

/// Metadata by name. In a body that is in memory as a whole it need not be copied.
struct Told<'a, const IS_WHOLE: bool>(&'a Reply);

impl<'de, const IS_WHOLE: bool> DeserializeSeed<'de> for Answer<'_, IS_WHOLE> {
    type Value = Listed;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Listed, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de, const IS_WHOLE: bool> Visitor<'de> for Answer<'_, IS_WHOLE> {
    type Value = Listed;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an answer of Vault")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Listed, A::Error> {
        let mut listed = None;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "data" => listed = Some(map.next_value_seed(Data::<IS_WHOLE>(self.0))?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        listed.ok_or_else(|| serde::de::Error::missing_field("data"))
    }
}

impl<'de, const IS_WHOLE: bool> DeserializeSeed<'de> for Data<'_, IS_WHOLE> {
    type Value = Listed;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Listed, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de, const IS_WHOLE: bool> Visitor<'de> for Data<'_, IS_WHOLE> {
    type Value = Listed;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a listing with metadata")
    }

    /// Without names it is another answer; without `key_info` it is one of a server that knows no such listing.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Listed, A::Error> {
        let mut listed = Listed::default();
        let mut has_told = false;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "keys" => listed.names = Some(map.next_value()?),
                "key_info" => {
                    listed.told = map.next_value_seed(Told::<IS_WHOLE>(self.0))?;
                    has_told = true;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        match (&listed.names, has_told) {
            (Some(_), true) => Ok(listed),
            (Some(_), false) => Err(serde::de::Error::missing_field("key_info")),
            (None, _) => Err(serde::de::Error::missing_field("keys")),
        }
    }
}

impl<const IS_WHOLE: bool> Told<'_, IS_WHOLE> {
    /// What metadata tells of a secret, if it does.
    fn presence(&self, text: &RawValue) -> Option<Presence> {
        let fields = serde_json::from_str(text.get()).ok()?;
        metadata::presence(fields, self.0).ok()
    }
}

impl<'de, const IS_WHOLE: bool> DeserializeSeed<'de> for Told<'_, IS_WHOLE> {
    type Value = Vec<(Box<str>, Option<Presence>)>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de, const IS_WHOLE: bool> Visitor<'de> for Told<'_, IS_WHOLE> {
    type Value = Vec<(Box<str>, Option<Presence>)>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("metadata by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut told = Vec::new();
        while let Some(name) = map.next_key::<Box<str>>()? {
            if name.ends_with('/') {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let presence = match IS_WHOLE {
                true => self.presence(map.next_value::<&RawValue>()?),
                false => self.presence(&map.next_value::<Box<RawValue>>()?),
            };
            told.push((name, presence));
        }
        Ok(told)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::fuzz::mutated;

    /// By both ways, which must agree.
    fn both(reply: &Reply, body: &[u8]) -> serde_json::Result<Survey> {
        let mut rest: &[u8] = body;
        let stream = std::io::Cursor::new(Vec::new()).chain(&mut rest as &mut dyn Read);
        let streamed = read(reply, Body::Stream(std::io::BufReader::new(stream)));
        let whole = read(reply, Body::Whole(body));
        let told = |survey: &serde_json::Result<Survey>| {
            let survey = survey.as_ref().ok()?;
            Some((
                format!("{:?}", survey.secrets),
                survey.untold.clone(),
                survey.folders.clone(),
            ))
        };
        assert_eq!(told(&streamed), told(&whole));
        whole
    }

    fn surveyed(body: &Value) -> serde_json::Result<Survey> {
        let date = [("date", "Sat, 21 Nov 2026 10:00:05 GMT")];
        both(&Reply::new(200, Vec::new(), &date), body.to_string().as_bytes())
    }

    fn metadata(version: u64, deletion_time: &str) -> Value {
        json!({"current_version": version, "updated_time": "2026-11-21T10:00:00Z",
            "versions": {version.to_string(): {"deletion_time": deletion_time, "destroyed": false}}})
    }

    #[test]
    fn each_name_has_what_is_told_of_it() {
        let survey = surveyed(&json!({"request_id": "r", "data": {
            "key_info": {
                "a": metadata(1, ""), "a/": metadata(1, ""), "b": metadata(2, "2026-11-21T09:00:00Z"),
                "c": metadata(3, "2026-11-21T11:00:00Z"), "broken": {"current_version": 1}, "stray": metadata(9, "")
            },
            "keys": ["a", "a/", "b", "broken", "c", "untold"]
        }, "warnings": null}))
        .unwrap();
        let told: Vec<_> = survey
            .secrets
            .iter()
            .map(|(name, presence)| match presence {
                Presence::Present(insight) => format!("{name} {}", insight.version),
                other => format!("{name} {other:?}"),
            })
            .collect();
        assert_eq!(told, ["a 1", "b Deleted", "c 3"]);
        assert_eq!(survey.untold, ["broken".into(), "untold".into()]);
        assert_eq!(survey.folders, ["a/".into()]);
        assert_eq!(survey.names, 6);
    }

    #[test]
    fn the_answer_to_a_plain_listing_is_none() {
        for body in [
            json!({"data": {"keys": ["a"]}}),
            json!({"data": {"key_info": {}}}),
            json!({"data": {}}),
            json!({"data": null}),
            json!({"errors": []}),
            json!([]),
        ] {
            assert!(surveyed(&body).is_err(), "{body}");
        }
    }

    proptest! {
        /// Whatever is answered: no secret is made up, and none is told of under another's name.
        #[test]
        fn no_secret_is_made_up(body in mutated(&[
            r#"{"data":{"key_info":{"alpha":{"current_version":1,"updated_time":"2026-11-21T10:00:00Z","versions":{"1":{"deletion_time":"","destroyed":false}}},"beta/":{}},"keys":["alpha","beta/"]}}"#,
        ])) {
            if let Ok(survey) = both(&Reply::new(200, Vec::new(), &[]), &body) {
                prop_assert_eq!(survey.secrets.len() + survey.untold.len() + survey.folders.len(), survey.names);
                for (_, presence) in &survey.secrets {
                    prop_assert!(!matches!(presence, Presence::Absent));
                }
            }
        }
    }
}
