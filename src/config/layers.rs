//! File, environment and flags, laid over each other: each key's checked value and where it came from.
//!
//! Every value is checked as it is laid, also one that a later layer covers, so a mistake is found where it
//! was made; and all mistakes are gathered, since a config is mended faster with the whole list.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::keys::{self, Found, MAX_DESTINATIONS, Place, explain_unknown, explain_unknown_variable, shown};
use super::kind::{Typed, type_of};
use crate::error::{Error, Kind, Result, fail};

/// Messages after this many are only counted.
const MAX_MISTAKES: usize = 20;

/// Variables of this start belong to the tests.
const TEST_VARIABLES: &str = "VSYNC_TEST_";

/// What is wrong with a config, one line each.
#[derive(Default)]
pub struct Mistakes {
    lines: Vec<String>,
    more: usize,
}

impl Mistakes {
    /// Adds one; `line` is only made where it will be shown.
    pub fn add(&mut self, line: impl FnOnce() -> String) {
        if self.lines.len() < MAX_MISTAKES {
            self.lines.push(line());
        } else {
            self.more += 1;
        }
    }

    /// Fails if there was any; `note` explains the end of the line.
    pub fn end(self, note: &str) -> Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let mut message = self.lines.join("; ");
        if self.more > 0 {
            message.push_str(&format!("; and {} more", self.more));
        }
        message.push_str(note);
        fail(Kind::Config, message)
    }
}

/// From which layer a value came; the later ones win.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    File,
    Environment,
    Flag,
}

struct Entry {
    typed: Typed,
    layer: Layer,
    label: String,
}

/// The checked values of all layers. No `Debug`: they hold secrets.
#[derive(Default)]
pub struct Layers {
    entries: BTreeMap<(Place, &'static str), Entry>,
    /// Places that are there, and by what name; also those without any key.
    places: BTreeMap<Place, String>,
    /// Secrets that the file holds.
    file_secrets: BTreeSet<String>,
    mistakes: Mistakes,
    warnings: Vec<String>,
}

impl Layers {
    /// Lays the config file's object.
    pub fn lay_file(&mut self, file: Value) {
        match file {
            Value::Object(object) => self.walk("", object),
            other => self.mistake(|| format!("the config must be an object, found {}", type_of(&other))),
        }
    }

    /// Lays the environment; what does not start with `VSYNC_` is not ours.
    pub fn lay_environment(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        for (name, text) in variables {
            if !name.starts_with("VSYNC_") || name.starts_with(TEST_VARIABLES) {
                continue;
            }
            match keys::find_variable(&name) {
                Some(found) => {
                    let label = format!("{} ({name})", found.dotted());
                    self.lay(found, &found.key.kind.read(&text), Layer::Environment, label);
                }
                None => match explain_unknown_variable(&name) {
                    (text, true) => self.warnings.push(text),
                    (text, false) => self.mistake(|| text),
                },
            }
        }
    }

    /// Lays the flags, by dotted name.
    pub fn lay_flags(&mut self, flags: &[(String, String)]) {
        for (name, text) in flags {
            match keys::find(name) {
                Some(found) => self.lay(found, &found.key.kind.read(text), Layer::Flag, format!("--{name}")),
                None => self.mistake(|| format!("--{}", explain_unknown(name))),
            }
        }
    }

    /// The values, if no layer had a mistake, and the warnings.
    pub fn end(mut self) -> Result<(Values, Vec<String>)> {
        let listed = self
            .places
            .iter()
            .find(|(place, _)| matches!(place, Place::Destination(Some(_))));
        if let (Some(single), Some((_, list))) = (self.places.get(&Place::Destination(None)), listed) {
            let line = format!("{single} and {list}: write either the object destination or the list destinations");
            self.mistake(|| line);
        }
        self.mistakes.end("")?;
        let values = Values {
            entries: self.entries,
            places: self.places,
            file_secrets: self.file_secrets,
        };
        Ok((values, self.warnings))
    }

    fn mistake(&mut self, line: impl FnOnce() -> String) {
        self.mistakes.add(line);
    }

    fn walk(&mut self, path: &str, object: Map<String, Value>) {
        for (name, value) in object {
            let dotted = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            if name.contains('.') {
                let shown = shown(&dotted);
                self.mistake(|| format!("{shown}: a key with a dot, write nested objects instead"));
                continue;
            }
            match value {
                Value::Array(items) if dotted == "destinations" => self.walk_list(items),
                other if dotted == "destinations" => {
                    self.mistake(|| format!("destinations: must be a list of objects, found {}", type_of(&other)));
                }
                Value::Object(object) if keys::is_group(&dotted) => {
                    self.note_place(keys::split(&format!("{dotted}.")).0, &dotted);
                    self.walk(&dotted, object);
                }
                other if keys::is_group(&dotted) => {
                    self.mistake(|| format!("{dotted}: must be an object, found {}", type_of(&other)));
                }
                other => match keys::find(&dotted) {
                    Some(found) => self.lay(found, &other, Layer::File, dotted),
                    None => self.mistake(|| explain_unknown(&dotted)),
                },
            }
        }
    }

    fn walk_list(&mut self, items: Vec<Value>) {
        if items.len() > MAX_DESTINATIONS {
            return self.mistake(|| format!("destinations: must be at most {MAX_DESTINATIONS}"));
        }
        for (index, item) in items.into_iter().enumerate() {
            let dotted = format!("destinations.{index}");
            self.note_place(Place::Destination(Some(index)), &dotted);
            match item {
                Value::Object(object) => self.walk(&dotted, object),
                other => self.mistake(|| format!("{dotted}: must be an object, found {}", type_of(&other))),
            }
        }
    }

    fn note_place(&mut self, place: Place, label: &str) {
        self.places.entry(place).or_insert_with(|| label.to_owned());
    }

    fn lay(&mut self, found: Found, value: &Value, layer: Layer, label: String) {
        let slot = (found.place, found.key.name);
        self.note_place(found.place, &label);
        if layer == Layer::File && found.key.kind.is_secret() {
            self.file_secrets.insert(label.clone());
        }
        if let Some(earlier) = self.entries.get(&slot).filter(|earlier| earlier.layer == layer) {
            let earlier = earlier.label.clone();
            return self.mistake(|| format!("{earlier} and {label}: two names of one key, keep one"));
        }
        match found.key.kind.check(value) {
            Ok(typed) => {
                self.entries.insert(slot, Entry { typed, layer, label });
            }
            Err(flaw) => {
                // The part belongs to the name, in front of the variable that it came from.
                let label = match label.split_once(' ') {
                    Some((name, origin)) => format!("{name}{} {origin}", flaw.part),
                    None => format!("{label}{}", flaw.part),
                };
                self.mistake(|| format!("{label}: {}", flaw.rule));
            }
        }
    }
}

/// What all layers together say. No `Debug`: it holds secrets.
pub struct Values {
    entries: BTreeMap<(Place, &'static str), Entry>,
    places: BTreeMap<Place, String>,
    file_secrets: BTreeSet<String>,
}

impl Values {
    /// The value given for a key.
    pub fn given(&self, place: Place, key: &'static str) -> Option<&Typed> {
        self.entries.get(&(place, key)).map(|entry| &entry.typed)
    }

    /// The value given for a key, or its default.
    pub fn get(&self, place: Place, key: &'static str) -> Option<Typed> {
        let default = || {
            let kind = &keys::row(place, key).filter(|row| !row.default.is_empty())?.kind;
            kind.check(&kind.read(keys::row(place, key)?.default)).ok()
        };
        self.given(place, key).cloned().or_else(default)
    }

    /// How the user named a key that was given; its dotted name otherwise.
    pub fn label(&self, place: Place, key: &'static str) -> String {
        self.entries
            .get(&(place, key))
            .map_or_else(|| place.dotted(key), |entry| entry.label.clone())
    }

    /// The destinations, in order; fails where the list has a gap.
    pub fn destinations(&self) -> Result<Vec<Place>> {
        let places = self
            .places
            .keys()
            .filter(|place| matches!(place, Place::Destination(_)));
        let places: Vec<Place> = places.copied().collect();
        for (expected, place) in places.iter().enumerate() {
            if let Place::Destination(Some(index)) = place
                && *index != expected
            {
                let label = &self.places[place];
                let message = format!("{label}: there is no destinations.{expected}, the list must have no gap");
                return Err(Error::new(Kind::Config, message));
            }
        }
        Ok(places)
    }

    /// The first secret that the file itself holds.
    pub fn file_secret(&self) -> Option<&str> {
        self.file_secrets.first().map(String::as_str)
    }
}
