//! What the value of a key must be.
//!
//! A [`Kind`] turns the text of a flag or an environment variable into JSON, checks JSON, and gives the
//! value in the form in which the settings hold it. Its messages name the type that was found and never
//! the value: it may be a secret in the wrong place.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

use super::keys::shown;
use super::nearest::nearest;
use super::network::{EXPECTED_NETWORK, Network};
use super::replica::token_hash;
use super::settings::{MaxDeletes, Webhook};
use super::{json, text};
use crate::filter::compile;
use crate::secret::SecretString;
use crate::socket::{EXPECTED_LISTEN, Listen};
use crate::sync_info::Hash;
use crate::transform::Rule;

/// What a value must be.
pub enum Kind {
    /// A string that is not empty.
    Text,
    /// A label: a string without slashes.
    Name,
    /// A token or secret id.
    Secret,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Whole {
        /// The least that is allowed.
        min: u64,
        /// The most that is allowed.
        max: u64,
    },
    /// `90s`, `5m`, `1h30m`.
    Duration {
        /// The least that is allowed, in milliseconds.
        min: u64,
    },
    /// An address of a Vault.
    Address,
    /// An address of a Consul.
    ConsulAddress,
    /// A path; slashes at its ends do not matter.
    Segments,
    /// A path to which a missing final `/` is added.
    SyncPath,
    /// Data paths.
    Mounts,
    /// Regular expressions.
    Regexes,
    /// A share or a number.
    MaxDeletes,
    /// Transform rules.
    Transforms,
    /// A program and its arguments.
    Command,
    /// A URL that is posted to; secret, since its path or query may hold a token.
    Webhook,
    /// An address to listen at.
    Listen,
    /// IP addresses and networks.
    Networks,
    /// SHA-256 hashes.
    Hashes,
}

/// A value that is what its kind asks for.
#[derive(Clone)]
pub enum Typed {
    /// Text of whatever kind, in its canonical form.
    Text(String),
    /// Of [`Kind::Secret`].
    Secret(SecretString),
    /// Of [`Kind::Bool`].
    Bool(bool),
    /// Of [`Kind::Whole`].
    Whole(u64),
    /// Of [`Kind::Duration`].
    Duration(Duration),
    /// Of [`Kind::Mounts`], [`Kind::Regexes`] and [`Kind::Command`].
    List(Vec<String>),
    /// Of [`Kind::MaxDeletes`].
    MaxDeletes(MaxDeletes),
    /// Of [`Kind::Transforms`].
    Rules(Vec<Rule>),
    /// Of [`Kind::Webhook`].
    Webhook(Webhook),
    /// Of [`Kind::Listen`].
    Listen(Listen),
    /// Of [`Kind::Networks`].
    Networks(Vec<Network>),
    /// Of [`Kind::Hashes`].
    Hashes(Vec<Hash>),
}

/// What is wrong with a value.
#[derive(Debug, PartialEq, Eq)]
pub struct Flaw {
    /// The part of the value, as it follows the key's name: `.2` for an item of a list; empty: all of it.
    pub part: String,
    /// The rule that is broken.
    pub rule: String,
}

impl Flaw {
    fn whole(rule: impl Into<String>) -> Flaw {
        Flaw {
            part: String::new(),
            rule: rule.into(),
        }
    }

    fn item(index: usize, rule: impl Into<String>) -> Flaw {
        Flaw {
            part: format!(".{index}"),
            rule: rule.into(),
        }
    }
}

impl Kind {
    /// Whether the value is a secret.
    pub fn is_secret(&self) -> bool {
        matches!(self, Kind::Secret | Kind::Webhook)
    }

    /// What the value must be, for people.
    pub fn expects(&self) -> String {
        match self {
            Kind::Text => "must be a string, not empty".to_owned(),
            Kind::Name => "must be a string, not empty, without slashes".to_owned(),
            Kind::Secret => "must be a string, not empty, without white space".to_owned(),
            Kind::Choice(words) => format!("must be one of {}", words.join(", ")),
            Kind::Bool => "must be true or false".to_owned(),
            Kind::Whole { min, max } => format!("must be a whole number from {min} to {max}"),
            Kind::Duration { min } => text::expected_duration(*min),
            Kind::Address => "must be a string, http(s)://host:port".to_owned(),
            Kind::ConsulAddress => "must be a string, http(s)://host:port or host:port".to_owned(),
            Kind::Segments => "must be a string, a path".to_owned(),
            Kind::SyncPath => "must be a string, a path that does not start with /".to_owned(),
            Kind::Mounts => "must be a list of strings, each ending with /".to_owned(),
            Kind::Regexes => "must be a list of strings".to_owned(),
            Kind::MaxDeletes => text::EXPECTED_MAX_DELETES.to_owned(),
            Kind::Transforms => "must be a list of objects {name, from, to}".to_owned(),
            Kind::Command => "must be a list of strings, a program and its arguments".to_owned(),
            Kind::Webhook => "must be a string, http(s)://host:port/path".to_owned(),
            Kind::Listen => format!("must be a string, {EXPECTED_LISTEN}"),
            Kind::Networks => "must be a list of strings, IP addresses or networks like 10.0.0.0/8".to_owned(),
            Kind::Hashes => "must be a list of strings, SHA-256 hashes in lower-case hex".to_owned(),
        }
    }

    /// The JSON that the text of a flag or variable means. Text that means none stays a string, which
    /// [`Kind::check`] then refuses.
    pub fn read(&self, text: &str) -> Value {
        let string = || Value::String(text.to_owned());
        match self {
            Kind::Bool => text.parse().map_or_else(|_| string(), Value::Bool),
            Kind::Whole { .. } => text.parse::<u64>().map_or_else(|_| string(), Value::from),
            Kind::Mounts | Kind::Regexes | Kind::Networks | Kind::Hashes if !is_json_list(text) => Value::Array(
                text.split(',')
                    .map(|item| Value::String(item.trim().to_owned()))
                    .collect(),
            ),
            // An argument may hold a comma.
            Kind::Mounts | Kind::Regexes | Kind::Networks | Kind::Hashes | Kind::Transforms | Kind::Command => {
                json::parse(text.as_bytes()).unwrap_or_else(|_| string())
            }
            _ => string(),
        }
    }

    /// The value in the form of the settings, or the first rule that it breaks.
    pub fn check(&self, value: &Value) -> Result<Typed, Flaw> {
        match (self, value) {
            (Kind::Bool, Value::Bool(value)) => Ok(Typed::Bool(*value)),
            (Kind::Whole { min, max }, Value::Number(number)) => match number.as_u64() {
                Some(number) if (*min..=*max).contains(&number) => Ok(Typed::Whole(number)),
                _ => Err(self.mismatch("another number")),
            },
            (Kind::MaxDeletes, Value::Number(number)) => match number.as_u64() {
                Some(number) => Ok(Typed::MaxDeletes(MaxDeletes::Count(number))),
                None => Err(self.mismatch("another number")),
            },
            (Kind::Mounts, Value::Array(items)) => mounts(items).map(Typed::List),
            (Kind::Regexes, Value::Array(items)) => regexes(items).map(Typed::List),
            (Kind::Transforms, Value::Array(items)) => rules(items).map(Typed::Rules),
            (Kind::Command, Value::Array(items)) => command(items).map(Typed::List),
            (Kind::Networks, Value::Array(items)) => networks(items).map(Typed::Networks),
            (Kind::Hashes, Value::Array(items)) => hashes(items).map(Typed::Hashes),
            (_, Value::String(text)) => self.check_text(text),
            (_, other) => Err(self.mismatch(type_of(other))),
        }
    }

    fn check_text(&self, value: &str) -> Result<Typed, Flaw> {
        let text_of = |checked: text::Checked<String>| checked.map(Typed::Text).map_err(Flaw::whole);
        match self {
            Kind::Text => text_of(plain(value)),
            Kind::Name if value.contains('/') => Err(Flaw::whole("must not hold a slash")),
            Kind::Name => text_of(plain(value)),
            Kind::Secret => secret(value).map(Typed::Secret).map_err(Flaw::whole),
            Kind::Choice(words) if words.contains(&value) => Ok(Typed::Text(value.to_owned())),
            Kind::Duration { min } => match text::duration(value, *min) {
                Ok(duration) => Ok(Typed::Duration(duration)),
                Err(_) => Err(self.mismatch("another string")),
            },
            Kind::Address => text_of(text::address(value)),
            Kind::ConsulAddress => text_of(text::consul_address(value)),
            Kind::Segments => text_of(text::segments(value)),
            Kind::SyncPath => text_of(text::sync_path(value)),
            Kind::Webhook => text::webhook(value).map(Typed::Webhook).map_err(Flaw::whole),
            Kind::MaxDeletes => match text::max_deletes(value) {
                Ok(limit) => Ok(Typed::MaxDeletes(limit)),
                Err(_) => Err(self.mismatch("another string")),
            },
            Kind::Choice(_) => Err(self.mismatch("another string")),
            Kind::Listen => Listen::parse(value).map(Typed::Listen).map_err(Flaw::whole),
            Kind::Bool | Kind::Whole { .. } => Err(self.mismatch("a string")),
            Kind::Mounts | Kind::Regexes | Kind::Networks | Kind::Hashes | Kind::Transforms | Kind::Command => {
                Err(self.mismatch("a string"))
            }
        }
    }

    fn mismatch(&self, found: &str) -> Flaw {
        Flaw::whole(format!("{}, found {found}", self.expects()))
    }
}

/// A regular expression may start with `[` too, but hardly ever with `["`.
fn is_json_list(text: &str) -> bool {
    text.trim()
        .strip_prefix('[')
        .is_some_and(|rest| rest.trim_start().starts_with(['"', ']']))
}

/// The name of a value's type.
pub fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn plain(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("must not be empty".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("must not hold control characters".to_owned());
    }
    Ok(text.to_owned())
}

/// What can be sent in a header; a line end that came along from a file is a frequent slip.
fn secret(text: &str) -> Result<SecretString, String> {
    match text {
        "" => Err("must not be empty".to_owned()),
        _ if text.chars().all(|c| c.is_ascii_graphic()) => Ok(SecretString::new(text)),
        _ => Err("must not hold white space or characters beyond ASCII".to_owned()),
    }
}

fn strings(items: &[Value]) -> Result<Vec<String>, Flaw> {
    let text = |(index, item): (usize, &Value)| match item {
        Value::String(text) if text.is_empty() => Err(Flaw::item(index, "must not be empty")),
        Value::String(text) => Ok(text.clone()),
        other => Err(Flaw::item(index, format!("must be a string, found {}", type_of(other)))),
    };
    items.iter().enumerate().map(text).collect()
}

fn mounts(items: &[Value]) -> Result<Vec<String>, Flaw> {
    let mounts = strings(items)?;
    for (index, mount) in mounts.iter().enumerate() {
        text::mount(mount).map_err(|rule| Flaw::item(index, rule))?;
        for (earlier, other) in mounts[..index].iter().enumerate() {
            // All end with a slash, so a common start is a common folder.
            if mount.starts_with(other) || other.starts_with(mount) {
                let rule = format!("lies in, equals or holds the data path at index {earlier}, keep one of the two");
                return Err(Flaw::item(index, rule));
            }
        }
    }
    Ok(mounts)
}

fn regexes(items: &[Value]) -> Result<Vec<String>, Flaw> {
    let regexes = strings(items)?;
    for (index, regex) in regexes.iter().enumerate() {
        compile(regex).map_err(|error| Flaw::item(index, error.to_string()))?;
    }
    Ok(regexes)
}

fn networks(items: &[Value]) -> Result<Vec<Network>, Flaw> {
    let network = |(index, text): (usize, &String)| {
        Network::parse(text).ok_or_else(|| Flaw::item(index, format!("must be {EXPECTED_NETWORK}")))
    };
    strings(items)?.iter().enumerate().map(network).collect()
}

/// The message shows nothing of what stands there: it may be a token by mistake.
fn hashes(items: &[Value]) -> Result<Vec<Hash>, Flaw> {
    let hash = |(index, text): (usize, &String)| {
        token_hash(text).ok_or_else(|| Flaw::item(index, "must be 64 lower-case hex digits, a token's SHA-256 hash"))
    };
    strings(items)?.iter().enumerate().map(hash).collect()
}

/// Arguments may be empty; a NUL would end one for the system.
fn command(items: &[Value]) -> Result<Vec<String>, Flaw> {
    let word = |(index, item): (usize, &Value)| match item {
        Value::String(text) if text.contains('\0') => Err(Flaw::item(index, "must not hold a NUL")),
        Value::String(text) => Ok(text.clone()),
        other => Err(Flaw::item(index, format!("must be a string, found {}", type_of(other)))),
    };
    let words = items.iter().enumerate().map(word).collect::<Result<Vec<_>, Flaw>>()?;
    match words.first() {
        None => Err(Flaw::whole("must name a program")),
        Some(program) => plain(program).map_err(|rule| Flaw::item(0, rule)).map(|_| words),
    }
}

fn rules(items: &[Value]) -> Result<Vec<Rule>, Flaw> {
    let rules = items.iter().enumerate().map(|(index, item)| rule(index, item));
    let rules = rules.collect::<Result<Vec<Rule>, Flaw>>()?;
    for (index, rule) in rules.iter().enumerate() {
        let flaw = |field: &str, rule: String| Flaw {
            part: format!(".{index}.{field}"),
            rule,
        };
        if rules[..index].iter().any(|earlier| earlier.name == rule.name) {
            return Err(flaw("name", "is the name of an earlier rule too".to_owned()));
        }
        compile(&rule.from).map_err(|error| flaw("from", error.to_string()))?;
        text::transform_target(&rule.to).map_err(|rule| flaw("to", rule))?;
    }
    Ok(rules)
}

fn rule(index: usize, item: &Value) -> Result<Rule, Flaw> {
    let Value::Object(fields) = item else {
        let rule = format!("must be an object {{name, from, to}}, found {}", type_of(item));
        return Err(Flaw::item(index, rule));
    };
    let flaw = |field: &dyn fmt::Display, rule: String| Flaw {
        part: format!(".{index}.{field}"),
        rule,
    };
    for name in fields.keys() {
        const KNOWN: [&str; 3] = ["name", "from", "to"];
        if !KNOWN.contains(&name.as_str()) {
            let hint = nearest(name, KNOWN.map(str::to_owned));
            let hint = hint.map(|known| format!("did you mean {known}?"));
            let hint = hint.unwrap_or_else(|| "a rule has name, from and to".to_owned());
            return Err(flaw(&shown(name), format!("unknown key, {hint}")));
        }
    }
    let field = |name: &str| match fields.get(name) {
        Some(Value::String(text)) => plain(text).map(Some).map_err(|rule| flaw(&name, rule)),
        Some(other) => Err(flaw(&name, format!("must be a string, found {}", type_of(other)))),
        None => Ok(None),
    };
    let needed = |name: &str| field(name)?.ok_or_else(|| flaw(&name, "is missing".to_owned()));
    Ok(Rule {
        name: field("name")?.unwrap_or_else(|| format!("transforms.{index}")),
        from: needed("from")?,
        to: needed("to")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn flaw(kind: &Kind, value: &Value) -> String {
        kind.check(value)
            .map_or_else(|flaw| format!("{}: {}", flaw.part, flaw.rule), |_| "fine".to_owned())
    }

    #[test]
    fn the_type_found_is_named() {
        let workers = Kind::Whole { min: 1, max: 256 };
        let level = Kind::Choice(&["debug", "info"]);
        for (kind, value, text) in [
            (&workers, json!(256), "fine"),
            (
                &workers,
                json!("5"),
                ": must be a whole number from 1 to 256, found a string",
            ),
            (
                &workers,
                json!(257),
                ": must be a whole number from 1 to 256, found another number",
            ),
            (
                &workers,
                json!(1.5),
                ": must be a whole number from 1 to 256, found another number",
            ),
            (
                &workers,
                json!(-1),
                ": must be a whole number from 1 to 256, found another number",
            ),
            (
                &workers,
                json!(null),
                ": must be a whole number from 1 to 256, found null",
            ),
            (&Kind::Bool, json!("true"), ": must be true or false, found a string"),
            (&level, json!("info"), "fine"),
            (
                &level,
                json!("trace"),
                ": must be one of debug, info, found another string",
            ),
            (&Kind::Text, json!({}), ": must be a string, not empty, found an object"),
            (&Kind::Text, json!(" "), ": must not be empty"),
            (&Kind::Text, json!("a\u{7}"), ": must not hold control characters"),
            (&Kind::Name, json!("a/b"), ": must not hold a slash"),
            (&Kind::Secret, json!(""), ": must not be empty"),
            (
                &Kind::Secret,
                json!("hvs.X\n"),
                ": must not hold white space or characters beyond ASCII",
            ),
            (&Kind::MaxDeletes, json!(12), "fine"),
            (
                &Kind::MaxDeletes,
                json!(1.5),
                ": must be a share like \"50%\", from 0% to 100%, or a whole number, found another number",
            ),
            (
                &Kind::Duration { min: 1 },
                json!(10),
                ": must be a duration from 1ms to 8760h, written like 90s, 5m or 1h30m, found a number",
            ),
        ] {
            assert_eq!(flaw(kind, &value), text, "{value}");
        }
    }

    #[test]
    fn lists_and_rules() {
        let twice = "lies in, equals or holds the data path at index 0, keep one of the two";
        for (kind, value, text) in [
            (&Kind::Mounts, json!(["a/", "b/c/", "ab/"]), "fine".to_owned()),
            (&Kind::Mounts, json!([]), "fine".to_owned()),
            (
                &Kind::Mounts,
                json!("a/"),
                ": must be a list of strings, each ending with /, found a string".to_owned(),
            ),
            (
                &Kind::Mounts,
                json!(["a/", 1]),
                ".1: must be a string, found a number".to_owned(),
            ),
            (&Kind::Mounts, json!(["a/", "b"]), ".1: must end with /".to_owned()),
            (&Kind::Mounts, json!(["a/", "b/", "a/"]), format!(".2: {twice}")),
            (&Kind::Mounts, json!(["a/", "a/b/"]), format!(".1: {twice}")),
            (&Kind::Mounts, json!(["a/b/", "a/"]), format!(".1: {twice}")),
            (&Kind::Regexes, json!(["a", ""]), ".1: must not be empty".to_owned()),
            (
                &Kind::Regexes,
                json!(["a", "hvs.X("]),
                ".1: not a regular expression: unclosed group".to_owned(),
            ),
            (
                &Kind::Transforms,
                json!([{"from": "hvs.X(", "to": "b"}]),
                ".0.from: not a regular expression: unclosed group".to_owned(),
            ),
            (
                &Kind::Transforms,
                json!([{"from": "a", "to": "b/"}]),
                ".0.to: must be the path of a secret, without a slash at its ends".to_owned(),
            ),
            (
                &Kind::Transforms,
                json!([{"from": "a", "to": "a/../b"}]),
                ".0.to: must not have a segment that is . or ..".to_owned(),
            ),
            (
                &Kind::Transforms,
                json!([{"name": "a", "from": "a", "to": "b"}, {"name": "a", "from": "a", "to": "b"}]),
                ".1.name: is the name of an earlier rule too".to_owned(),
            ),
            (&Kind::Transforms, json!([{"from": "a", "to": "b"}]), "fine".to_owned()),
            (
                &Kind::Transforms,
                json!(["a"]),
                ".0: must be an object {name, from, to}, found a string".to_owned(),
            ),
            (
                &Kind::Transforms,
                json!([{"name": "x", "from": "a"}]),
                ".0.to: is missing".to_owned(),
            ),
            (
                &Kind::Transforms,
                json!([{"from": 1, "to": "b"}]),
                ".0.from: must be a string, found a number".to_owned(),
            ),
            (
                &Kind::Transforms,
                json!([{"form": "a", "to": "b"}]),
                ".0.form: unknown key, did you mean from?".to_owned(),
            ),
            (
                &Kind::Transforms,
                json!([{"regex": "a", "to": "b"}]),
                ".0.regex: unknown key, a rule has name, from and to".to_owned(),
            ),
        ] {
            assert_eq!(flaw(kind, &value), text, "{value}");
        }
    }

    #[test]
    fn text_of_flags_and_variables() {
        for (kind, text, value) in [
            (&Kind::Bool, "true", json!(true)),
            (&Kind::Bool, "yes", json!("yes")),
            (&Kind::Whole { min: 1, max: 2 }, "19", json!(19)),
            (&Kind::Whole { min: 1, max: 2 }, "x", json!("x")),
            (&Kind::Mounts, "a/, b/", json!(["a/", "b/"])),
            (&Kind::Mounts, r#" [ "a/", "b,c/" ]"#, json!(["a/", "b,c/"])),
            (&Kind::Mounts, "[]", json!([])),
            (&Kind::Mounts, r#"["a/""#, json!(r#"["a/""#)),
            (&Kind::Regexes, "[ab]/.*,c", json!(["[ab]/.*", "c"])),
            (
                &Kind::Transforms,
                r#"[{"from":"a","to":"b"}]"#,
                json!([{"from": "a", "to": "b"}]),
            ),
            (&Kind::Transforms, "a", json!("a")),
            (&Kind::MaxDeletes, "10", json!("10")),
            (&Kind::Secret, "12", json!("12")),
        ] {
            assert_eq!(kind.read(text), value, "{text}");
        }
    }
}
