//! Which origin paths are synced, and the regular expressions of the configuration.
//!
//! Filters see origin paths only, before any transform, so that one rule means the same for every destination.
//! Patterns are not secret and are named in errors; a pattern that would let nothing or everything through by
//! being empty is refused, since that is a slip and not a wish.

use regex::Regex;

use crate::error::{Context, Error, Kind, Result, fail};

/// Compiles a regular expression of the configuration; the error is one line and says what is wrong with it.
pub fn compile(pattern: &str) -> Result<Regex> {
    if pattern.is_empty() {
        return fail(Kind::Config, "the regular expression is empty");
    }
    Regex::new(pattern).map_err(|error| Error::new(Kind::Config, explain(&error)))
}

/// The regex crate draws a picture of several lines; its last one is the reason.
fn explain(error: &regex::Error) -> String {
    if let regex::Error::CompiledTooBig(limit) = error {
        return format!("the regular expression is too big, it needs more than {limit} bytes compiled");
    }
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    let reason = last.trim_start_matches("error: ").trim();
    format!("not a regular expression: {reason}")
}

/// Include and exclude rules. The default lets every path through.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    include: Patterns,
    exclude: Patterns,
}

impl Filter {
    /// Rules of these regular expressions.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Filter> {
        Ok(Filter {
            include: Patterns::new("include", include)?,
            exclude: Patterns::new("exclude", exclude)?,
        })
    }

    /// Whether the origin path `path` is synced: some include is found in it, or there is none, and no
    /// exclude is.
    pub fn allows(&self, path: &str) -> bool {
        (self.include.texts.is_empty() || self.include.found_in(path)) && !self.exclude.found_in(path)
    }

    /// The include rules as they were given.
    pub fn include(&self) -> &[String] {
        &self.include.texts
    }

    /// The exclude rules as they were given.
    pub fn exclude(&self) -> &[String] {
        &self.exclude.texts
    }
}

/// Regular expressions with the texts they were made of, which alone make two lists equal.
#[derive(Clone, Debug, Default)]
struct Patterns {
    texts: Vec<String>,
    compiled: Vec<Regex>,
}

impl Patterns {
    fn new(key: &str, texts: &[String]) -> Result<Patterns> {
        let numbered = texts.iter().enumerate();
        let compiled = numbered.map(|(n, text)| compile(text).context(|| format!("{key}.{n} {text:?}")));
        Ok(Patterns {
            compiled: compiled.collect::<Result<_>>()?,
            texts: texts.to_vec(),
        })
    }

    fn found_in(&self, path: &str) -> bool {
        self.compiled.iter().any(|regex| regex.is_match(path))
    }
}

impl PartialEq for Patterns {
    fn eq(&self, other: &Patterns) -> bool {
        self.texts == other.texts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    fn filter(include: &[&str], exclude: &[&str]) -> Result<Filter> {
        Filter::new(&strings(include), &strings(exclude))
    }

    #[test]
    fn what_is_allowed() {
        let table: [(&[&str], &[&str], &str, bool); 12] = [
            (&[], &[], "secret/data/a", true),
            (&[], &[], "", true),
            (&["team1"], &[], "secret/data/team1/a", true),
            (&["team1"], &[], "secret/data/team2/a", false),
            (&["team1", "team2"], &[], "secret/data/team2/a", true),
            (&["^team1"], &[], "secret/data/team1/a", false),
            (&["^secret/data/team1/"], &[], "secret/data/team1/a", true),
            (&[], &["/private/"], "secret/data/private/a", false),
            (&[], &["/private/"], "secret/data/privateer", true),
            (&["team1"], &["private"], "secret/data/team1/private", false),
            (&["team1"], &["private", "a$"], "secret/data/team1/a", false),
            (&[r"^\w+/data/ключ$"], &[], "secret/data/ключ", true),
        ];
        for (include, exclude, path, allowed) in table {
            let filter = filter(include, exclude).unwrap();
            assert_eq!(filter.allows(path), allowed, "{include:?} {exclude:?} {path}");
        }
    }

    #[test]
    fn errors_name_the_rule_on_one_line() {
        for (include, exclude, message) in [
            (
                &["a", "("][..],
                &[][..],
                r#"include.1 "(": not a regular expression: unclosed group"#,
            ),
            (
                &[],
                &["[z-a]"],
                r#"exclude.0 "[z-a]": not a regular expression: invalid character class range, the start must be <= the end"#,
            ),
            (
                &["a\n("],
                &[],
                r#"include.0 "a\n(": not a regular expression: unclosed group"#,
            ),
            (&[], &["a", ""], r#"exclude.1 "": the regular expression is empty"#),
            (
                &[r"(\w{100}){100}"],
                &[],
                r#"include.0 "(\\w{100}){100}": the regular expression is too big, it needs more than 10485760 bytes compiled"#,
            ),
        ] {
            let error = filter(include, exclude).unwrap_err();
            assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Config, message));
        }
    }

    #[test]
    fn filters_are_equal_by_their_patterns() {
        assert_eq!(filter(&["a"], &["b"]).unwrap(), filter(&["a"], &["b"]).unwrap());
        assert_ne!(filter(&["a"], &["b"]).unwrap(), filter(&["b"], &["a"]).unwrap());
        assert_eq!(filter(&[], &[]).unwrap(), Filter::default());
        let both = filter(&["a", "b"], &["c"]).unwrap();
        assert_eq!(
            (both.include(), both.exclude()),
            (&strings(&["a", "b"])[..], &strings(&["c"])[..])
        );
    }

    proptest! {
        #[test]
        fn any_pattern_is_taken_or_refused_on_one_line(pattern in any::<String>(), path in any::<String>()) {
            match filter(&[], &[&pattern]) {
                Ok(filter) => drop(filter.allows(&path)),
                Err(error) => prop_assert!(!error.to_string().contains('\n')),
            }
        }

        #[test]
        fn exclude_wins(path in "[a-c/]{0,8}", word in "[a-c]{1,2}") {
            prop_assert_eq!(filter(&[&word], &[]).unwrap().allows(&path), path.contains(&word));
            prop_assert_eq!(filter(&[], &[&word]).unwrap().allows(&path), !path.contains(&word));
            prop_assert!(!filter(&[&word], &[&word]).unwrap().allows(&path));
        }
    }
}
