//! Rules that turn an origin path into a destination path.
//!
//! A rule either applies completely or not at all: if one of its named groups found nothing, half a path would
//! come out, so the next rule has its turn. What no rule applies to keeps its path. Whether the result may be
//! written is not decided here, since only the destination knows its data paths.

use std::borrow::Cow;
use std::collections::HashSet;

use regex::{Captures, Regex};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Kind, Result, fail};
use crate::filter::compile;

/// One rule as the configuration and a destination's `meta` spell it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Tells rules apart in messages.
    pub name: String,
    /// A regular expression that is searched in the origin path.
    pub from: String,
    /// A path; its segments that equal a group's name are replaced by what the group matched.
    pub to: String,
}

/// Rules in order: the first that applies wins. The default has none and keeps every path.
#[derive(Clone, Debug, Default)]
pub struct Transforms {
    rules: Vec<Rule>,
    compiled: Vec<Compiled>,
}

impl Transforms {
    /// Checks and compiles `rules`.
    pub fn new(rules: Vec<Rule>) -> Result<Transforms> {
        let mut names = HashSet::new();
        let mut compiled = Vec::with_capacity(rules.len());
        for (n, rule) in rules.iter().enumerate() {
            if rule.name.trim().is_empty() {
                return fail(Kind::Config, format!("transforms.{n}: the name is empty"));
            }
            if !names.insert(&rule.name) {
                return fail(
                    Kind::Config,
                    format!("transforms.{n}: the name {:?} is used twice", rule.name),
                );
            }
            compiled.push(Compiled::new(rule).context(|| format!("transforms.{n} {:?}", rule.name))?);
        }
        Ok(Transforms { rules, compiled })
    }

    /// No rules: every path is kept.
    pub fn identity() -> Transforms {
        Transforms::default()
    }

    /// Whether every path is kept because there are no rules.
    pub fn is_identity(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rules as they were given.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The destination path of the origin path `path`.
    pub fn apply<'p>(&self, path: &'p str) -> Cow<'p, str> {
        match self.first_applying(path) {
            Some((n, captures)) => Cow::Owned(self.compiled[n].destination(&captures)),
            None => Cow::Borrowed(path),
        }
    }

    /// The rule that turns `path` into another, if it isn't kept.
    pub fn rule_for(&self, path: &str) -> Option<&Rule> {
        let (n, _) = self.first_applying(path)?;
        self.rules.get(n)
    }

    fn first_applying<'p>(&self, path: &'p str) -> Option<(usize, Captures<'p>)> {
        let mut numbered = self.compiled.iter().enumerate();
        numbered.find_map(|(n, rule)| Some((n, rule.captures(path)?)))
    }
}

impl PartialEq for Transforms {
    fn eq(&self, other: &Transforms) -> bool {
        self.rules == other.rules
    }
}

/// A rule, ready to be applied.
#[derive(Clone, Debug)]
struct Compiled {
    from: Regex,
    /// The numbers of the named groups.
    named: Vec<usize>,
    to: Vec<Segment>,
}

/// A part of `to` between slashes.
#[derive(Clone, Debug)]
enum Segment {
    Text(String),
    Group(usize),
}

impl Compiled {
    fn new(rule: &Rule) -> Result<Compiled> {
        let from = compile(&rule.from).context(|| "from")?;
        ensure_path(&rule.to)?;
        let groups: Vec<_> = from.capture_names().map(|name| name.map(str::to_owned)).collect();
        let segment = |text: &str| match groups.iter().position(|name| name.as_deref() == Some(text)) {
            Some(group) => Segment::Group(group),
            None => Segment::Text(text.to_owned()),
        };
        Ok(Compiled {
            named: (0..groups.len()).filter(|&n| groups[n].is_some()).collect(),
            to: rule.to.split('/').map(segment).collect(),
            from,
        })
    }

    /// What the groups matched, if the rule applies: it is found and no named group is without a match.
    fn captures<'p>(&self, path: &'p str) -> Option<Captures<'p>> {
        let captures = self.from.captures(path)?;
        let matched = |&n: &usize| captures.get(n).is_some_and(|found| !found.is_empty());
        self.named.iter().all(matched).then_some(captures)
    }

    /// A group may have matched slashes at its ends or nothing else, so doubled ones are folded, and none is
    /// left at either end: no path of Vault has one there.
    fn destination(&self, captures: &Captures<'_>) -> String {
        let texts = self.to.iter().map(|segment| match segment {
            Segment::Text(text) => text,
            Segment::Group(n) => captures.get(*n).map_or("", |found| found.as_str()),
        });
        let segments: Vec<&str> = texts
            .flat_map(|text| text.split('/'))
            .filter(|part| !part.is_empty())
            .collect();
        segments.join("/")
    }
}

/// Refuses a `to` that can't become the path of a secret. The dots matter most: what is checked against the
/// destination's data paths must be where the write goes, and `..` may be resolved on the way.
fn ensure_path(to: &str) -> Result<()> {
    let problem = if to.is_empty() {
        "is empty"
    } else if to.starts_with('/') {
        "begins with /, but paths have none in front of the mount"
    } else if to.ends_with('/') {
        "ends with /, but a secret's path is needed and not a folder's"
    } else if to.split('/').any(|segment| matches!(segment, "." | "..")) {
        "holds . or .. as a segment"
    } else {
        return Ok(());
    };
    fail(Kind::Config, format!("to: {to:?} {problem}"))
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::fuzz::mutated_text;

    const FROM: &str = r"(?P<mount>secret)/(?P<meta>((meta)?data))?/(?P<platform>runner)/(?P<env>(dev|test|stage|prod))?/?(?P<app>\w+)?/?";

    fn rule(name: &str, from: &str, to: &str) -> Rule {
        Rule {
            name: name.into(),
            from: from.into(),
            to: to.into(),
        }
    }

    fn transforms(rules: &[(&str, &str, &str)]) -> Result<Transforms> {
        Transforms::new(rules.iter().map(|&(name, from, to)| rule(name, from, to)).collect())
    }

    #[test]
    fn the_example_of_the_design() {
        let example = transforms(&[("v1->v2", FROM, "runner2/meta/env/app/secrets")]).unwrap();
        for (path, expected) in [
            ("secret/data/runner/stage/app1", "runner2/data/stage/app1/secrets"),
            (
                "secret/metadata/runner/prod/app_2",
                "runner2/metadata/prod/app_2/secrets",
            ),
            ("secret/data/runner/dev/app1/", "runner2/data/dev/app1/secrets"),
            // The expression has no anchors: what stands before and after the match is dropped.
            (
                "my/secret/data/runner/stage/app1/more",
                "runner2/data/stage/app1/secrets",
            ),
            // `/?` lets a longer word be taken apart.
            ("secret/data/runner/development", "runner2/data/dev/elopment/secrets"),
            // No env, no app, no meta, no match at all: the path is kept.
            ("secret/data/runner/app1", "secret/data/runner/app1"),
            ("secret/data/runner/stage", "secret/data/runner/stage"),
            ("secret/data/runner/stage/", "secret/data/runner/stage/"),
            ("secret/data/runner/", "secret/data/runner/"),
            ("secret//runner/stage/app1", "secret//runner/stage/app1"),
            ("secret/runner/stage/app1", "secret/runner/stage/app1"),
            ("secret/data/stage/app1", "secret/data/stage/app1"),
            ("", ""),
        ] {
            assert_eq!(example.apply(path), expected, "{path}");
            assert_eq!(example.rule_for(path).is_some(), path != expected, "{path}");
        }
    }

    #[test]
    fn results() {
        for (from, to, path, expected) in [
            ("^old/(?P<rest>.+)$", "new/rest", "old/data/a/b", "new/data/a/b"),
            ("^old/(?P<rest>.+)$", "new/rest/rest", "old/a", "new/a/a"),
            // Only whole segments are names.
            (
                "^old/(?P<rest>.+)$",
                "new/rests/rest-1/Rest/rest",
                "old/a",
                "new/rests/rest-1/Rest/a",
            ),
            ("^(?P<a>[^/]+/)(?P<b>.+)$", "a/b", "x/y", "x/y"),
            ("^(?P<a>[^/]+/)(?P<b>.+)$", "n//a/b", "x/y", "n/x/y"),
            ("^x(?P<a>/+)(?P<b>.+)$", "a/b", "x//y", "y"),
            ("^(?P<a>[^/]+)(?P<b>/.*)$", "n/b/a", "x/y/z/", "n/y/z/x"),
            ("^(?P<a>[^/]+/)", "n/a", "x/y", "n/x"),
            // Groups without a name are not part of it, whether they match or not.
            ("^(old)?/?(?P<app>[a-z]+)$", "1/app", "b", "1/b"),
            // A rule without a named group applies wherever it is found.
            ("^old/a$", "new/b", "old/a", "new/b"),
            ("^old/a$", "new/b", "old/ab", "old/ab"),
            // A group that matches the empty string found nothing.
            ("^old/(?P<rest>.*)$", "new/rest", "old/", "old/"),
            ("(?P<a>x)|(?P<b>y)", "a/b", "x", "x"),
            // Angle brackets do without the P, too; case can be ignored; what matched is not read again.
            ("(?i)^OLD/(?<rest>.+)$", "new/rest", "old/rest", "new/rest"),
            (r"^(?P<ключ>\p{Cyrillic}+)/(?P<v>.+)$", "v/ключ", "тест/鍵", "鍵/тест"),
        ] {
            assert_eq!(
                transforms(&[("r", from, to)]).unwrap().apply(path),
                expected,
                "{from} {to} {path}"
            );
        }
    }

    #[test]
    fn the_first_rule_that_applies_wins() {
        let rules = transforms(&[
            ("with app", "^old/(?P<env>dev|prod)/(?P<app>[a-z]+)?", "one/env/app"),
            ("with env", "^old/(?P<env>dev|prod)/", "two/env/all"),
            ("any", "^old/(?P<rest>.+)", "three/rest"),
        ])
        .unwrap();
        for (path, expected, name) in [
            ("old/dev/app", "one/dev/app", Some("with app")),
            ("old/dev/1", "two/dev/all", Some("with env")),
            ("old/test/app", "three/test/app", Some("any")),
            ("other/test/app", "other/test/app", None),
        ] {
            assert_eq!(rules.apply(path), expected);
            assert_eq!(rules.rule_for(path).map(|rule| rule.name.as_str()), name);
        }
    }

    #[test]
    fn no_rules_keep_every_path_as_it_is() {
        assert!(Transforms::identity().is_identity() && Transforms::new(Vec::new()).unwrap().is_identity());
        assert!(matches!(
            Transforms::identity().apply("/a//b/"),
            Cow::Borrowed("/a//b/")
        ));
        assert!(!transforms(&[("a", "b", "c")]).unwrap().is_identity());
    }

    /// An engine that backtracks would try 2^20,000 ways.
    #[test]
    fn an_expression_that_would_never_end_elsewhere_ends() {
        let rules = transforms(&[("a", "^(?P<x>(a+)+)$", "x")]).unwrap();
        let path = "a".repeat(20_000) + "!";
        assert!(matches!(rules.apply(&path), Cow::Borrowed(_)));
        let path = "a".repeat(20_000);
        assert_eq!(rules.apply(&path), path.as_str());
    }

    #[test]
    fn errors_name_the_rule_on_one_line() {
        let twice: &[(&str, &str, &str)] = &[("a", "x", "y"), ("a", "z", "y")];
        for (rules, message) in [
            (&[("", "x", "y")][..], "transforms.0: the name is empty"),
            (&[("a", "x", "y"), (" ", "x", "y")], "transforms.1: the name is empty"),
            (twice, r#"transforms.1: the name "a" is used twice"#),
            (
                &[("a", "", "y")],
                r#"transforms.0 "a": from: the regular expression is empty"#,
            ),
            (
                &[("a", "(?P<x", "y")],
                r#"transforms.0 "a": from: not a regular expression: unclosed capture group name"#,
            ),
            (
                &[("a", "(?P<x>a)(?P<x>b)", "y")],
                r#"transforms.0 "a": from: not a regular expression: duplicate capture group name"#,
            ),
            (
                &[("a", "(?=x)", "y")],
                r#"transforms.0 "a": from: not a regular expression: look-around, including look-ahead and look-behind, is not supported"#,
            ),
            (
                &[("a\nb", r"(\w{100}){100}", "y")],
                r#"transforms.0 "a\nb": from: the regular expression is too big, it needs more than 10485760 bytes compiled"#,
            ),
            (&[("a", "x", "")], r#"transforms.0 "a": to: "" is empty"#),
            (
                &[("a", "x", "/y")],
                r#"transforms.0 "a": to: "/y" begins with /, but paths have none in front of the mount"#,
            ),
            (
                &[("a", "x", "y/")],
                r#"transforms.0 "a": to: "y/" ends with /, but a secret's path is needed and not a folder's"#,
            ),
            (
                &[("a", "x", "y/../z")],
                r#"transforms.0 "a": to: "y/../z" holds . or .. as a segment"#,
            ),
        ] {
            let error = transforms(rules).unwrap_err();
            assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Config, message));
        }
    }

    #[test]
    fn rules_are_stored_as_they_were_given() {
        let given = rule("v1->v2", FROM, "runner2/meta/env/app/secrets");
        let text = serde_json::to_string(&given).unwrap();
        assert!(text.starts_with(r#"{"name":"v1->v2","from":"#), "{text}");
        assert_eq!(serde_json::from_str::<Rule>(&text).unwrap(), given);
        assert!(serde_json::from_str::<Rule>(r#"{"name":"a","from":"b","to":"c","too":"d"}"#).is_err());
        assert!(serde_json::from_str::<Rule>(r#"{"name":"a","from":"b"}"#).is_err());
        let one = Transforms::new(vec![given.clone()]).unwrap();
        assert_eq!(one.rules(), std::slice::from_ref(&given));
        assert_eq!(one, Transforms::new(vec![given]).unwrap());
        assert_ne!(one, Transforms::identity());
    }

    proptest! {
        #[test]
        fn any_path_comes_out_folded_or_untouched(path in "[a-c/]{0,10}|(secret/data/runner/(dev|x)?/?[a-z/]{0,5})") {
            let rules = transforms(&[
                ("example", FROM, "runner2/meta/env/app/secrets"),
                ("slashes", "(?P<a>a/*)(?P<b>[b/]+)", "n/b/a"),
            ]).unwrap();
            let result = rules.apply(&path);
            if rules.rule_for(&path).is_some() {
                prop_assert!(result.split('/').all(|segment| !segment.is_empty()), "{}", result);
            } else {
                prop_assert_eq!(&*result, &*path);
            }
        }

        #[test]
        fn any_path_at_all_is_led_to_a_bounded_place(path in mutated_text(&[
            "secret/data/runner/stage/app1", "secret/data/runner/dev/a_b/", "a//b/../c", "secret/metadata/runner/x",
        ])) {
            static RULES: LazyLock<Transforms> = LazyLock::new(|| {
                transforms(&[
                    ("example", FROM, "runner2/meta/env/app/secrets"),
                    ("all", "^(?P<first>[^/]*)/(?P<rest>.+)$", "n/rest/first/rest"),
                ]).unwrap()
            });
            let rules = &*RULES;
            let place = rules.apply(&path).into_owned();
            prop_assert!(place.len() <= 3 * path.len() + 40, "{}", place);
            prop_assert_eq!(rules.apply(&path), place.as_str());
            if rules.rule_for(&path).is_some() {
                prop_assert!(!place.contains("//") && !place.starts_with('/') && !place.ends_with('/'), "{}", place);
            }
        }

        #[test]
        fn any_rule_is_taken_or_refused_on_one_line(from in any::<String>(), to in any::<String>(), path in any::<String>()) {
            match transforms(&[("r", &from, &to)]) {
                Ok(rules) => drop(rules.apply(&path)),
                Err(error) => prop_assert!(!error.to_string().contains('\n')),
            }
        }
    }
}
