//! Which origin paths are synced, and the regular expressions of the configuration.
//!
//! Policies and roles are named, where secrets lie in data paths: a list of regular expressions says which, and the places
//! where they lie become data paths of their own, which only these names get through.
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

/// The data path of ACL policies.
pub const POLICIES: &str = "sys/policies/acl/";
/// What data paths of AppRole roles begin and end with; the auth method's path stands in between.
const ROLES: (&str, &str) = ("auth/", "/role/");
/// The auth method of a role's rule that names none.
const DEFAULT_METHOD: &str = "auth/approle/role/";

/// The path of the AppRole auth method whose roles the data path `path` holds: `approle` of `auth/approle/role/`.
pub fn approle_method(path: &str) -> Option<&str> {
    path.strip_prefix(ROLES.0)?.strip_suffix(ROLES.1)
}

/// Whether the data path is one of policies or roles, and not of a mount.
pub fn is_of_names(data_path: &str) -> bool {
    data_path == POLICIES || approle_method(data_path).is_some()
}

/// Include and exclude rules, and names of policies and roles. The default lets every path through.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    include: Patterns,
    exclude: Patterns,
    policies: Option<Names>,
    approles: Option<Names>,
}

impl Filter {
    /// Rules of these regular expressions.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Filter> {
        Ok(Filter {
            include: Patterns::new("include", include)?,
            exclude: Patterns::new("exclude", exclude)?,
            ..Filter::default()
        })
    }

    /// The same with rules for the names of policies and roles; `None` lets all of them through.
    pub fn with_names(self, policies: Option<&[String]>, approles: Option<&[String]>) -> Result<Filter> {
        let names =
            |key, texts: Option<&[String]>, folder| texts.map(|texts| Names::new(key, texts, folder)).transpose();
        Ok(Filter {
            policies: names("policies", policies, POLICIES)?,
            approles: names("approles", approles, DEFAULT_METHOD)?,
            ..self
        })
    }

    /// Whether the origin path `path` is synced: some include is found in it, or there is none, and no
    /// exclude is.
    pub fn allows(&self, path: &str) -> bool {
        (self.include.texts.is_empty() || self.include.found_in(path))
            && !self.exclude.found_in(path)
            && self.names_at(path).is_none_or(|names| names.allow(path))
    }

    /// The data paths of the named policies and roles, each once.
    pub fn data_paths(&self) -> Vec<String> {
        let rules = [&self.policies, &self.approles]
            .into_iter()
            .flatten()
            .flat_map(|names| &names.rules);
        let mut paths: Vec<String> = Vec::new();
        for (folder, _) in rules {
            if !paths.contains(folder) {
                paths.push(folder.clone());
            }
        }
        paths
    }

    /// Whether anything in this data path of policies or roles may get through.
    pub fn reaches(&self, data_path: &str) -> bool {
        let has_rule = |names: &Names| names.rules.iter().any(|(folder, _)| folder == data_path);
        self.names_at(data_path).is_none_or(has_rule)
    }

    fn names_at(&self, path: &str) -> Option<&Names> {
        match path {
            _ if path.starts_with(POLICIES) => self.policies.as_ref(),
            _ if path.starts_with(ROLES.0) => self.approles.as_ref(),
            _ => None,
        }
    }

    /// The rules for names of policies as they were given.
    pub fn policies(&self) -> Option<&[String]> {
        self.policies.as_ref().map(|names| &*names.texts)
    }

    /// The rules for names of roles as they were given.
    pub fn approles(&self) -> Option<&[String]> {
        self.approles.as_ref().map(|names| &*names.texts)
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

/// Regular expressions for the names in folders, with the texts they were made of, which alone make two lists equal.
#[derive(Clone, Debug)]
struct Names {
    texts: Vec<String>,
    rules: Vec<(String, Regex)>,
}

impl Names {
    /// A text that begins with `auth/<path>/role/` is about the names there, any other about those in `folder`. Names of roles
    /// have no slashes, so the last one ends the path.
    fn new(key: &str, texts: &[String], folder: &str) -> Result<Names> {
        let rule = |text: &String| {
            let own = text
                .rfind(ROLES.1)
                .filter(|_| folder != POLICIES && text.starts_with(ROLES.0));
            let (folder, pattern) = own.map_or((folder, &**text), |at| text.split_at(at + ROLES.1.len()));
            compile(pattern).map(|regex| (folder.to_owned(), regex))
        };
        let numbered = texts.iter().enumerate();
        let rules = numbered.map(|(n, text)| rule(text).context(|| format!("{key}.{n} {text:?}")));
        Ok(Names {
            rules: rules.collect::<Result<_>>()?,
            texts: texts.to_vec(),
        })
    }

    fn allow(&self, path: &str) -> bool {
        let is_meant = |(folder, regex): &(String, Regex)| {
            path.strip_prefix(folder.as_str())
                .is_some_and(|name| regex.is_match(name))
        };
        self.rules.iter().any(is_meant)
    }
}

impl PartialEq for Names {
    fn eq(&self, other: &Names) -> bool {
        self.texts == other.texts
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

    fn named(policies: &[&str], approles: &[&str]) -> Result<Filter> {
        Filter::default().with_names(Some(&strings(policies)), Some(&strings(approles)))
    }

    #[test]
    fn which_names_are_allowed() {
        for (policies, approles, path, allowed) in [
            (&["^team-"][..], &[][..], "sys/policies/acl/team-a", true),
            (&["^team-"], &[], "sys/policies/acl/my-team-a", false),
            (&["team", "^x$"], &[], "sys/policies/acl/x", true),
            (&["policies"], &[], "sys/policies/acl/x", false),
            (&["auth/"], &[], "sys/policies/acl/auth/x", true),
            (&[], &[], "sys/policies/acl/x", false),
            (&[], &["^ci"], "auth/approle/role/ci-1", true),
            (&[], &["^ci"], "auth/approle/role/a-ci", false),
            (&[], &["^ci"], "auth/other/role/ci-1", false),
            (&[], &["auth/other/role/^ci"], "auth/other/role/ci-1", true),
            (&[], &["auth/other/role/^ci"], "auth/approle/role/ci-1", false),
            (&[], &["auth/a/role/b/role/."], "auth/a/role/b/role/x", true),
            (&[], &["auth/a/role/b/role/."], "auth/a/role/b", false),
            (&[], &[], "secret/data/a", true),
        ] {
            let filter = named(policies, approles).unwrap();
            assert_eq!(filter.allows(path), allowed, "{policies:?} {approles:?} {path}");
            assert!(Filter::default().allows(path));
        }
        let excluded = Filter::new(&[], &strings(&["secret$"])).unwrap();
        let excluded = excluded.with_names(Some(&strings(&["."])), None).unwrap();
        assert!(!excluded.allows("sys/policies/acl/secret") && excluded.allows("sys/policies/acl/a"));
    }

    #[test]
    fn names_make_data_paths() {
        let filter = named(&["a", "b"], &["c", "auth/ci/role/d", "auth/approle/role/e"]).unwrap();
        assert_eq!(filter.data_paths(), [POLICIES, "auth/approle/role/", "auth/ci/role/"]);
        assert!(filter.reaches(POLICIES) && filter.reaches("auth/ci/role/") && !filter.reaches("auth/x/role/"));
        assert!(!named(&[], &[]).unwrap().reaches(POLICIES) && Filter::default().reaches(POLICIES));
        assert!(is_of_names(POLICIES) && is_of_names("auth/ci/role/") && !is_of_names("secret/"));
        assert_eq!(approle_method("auth/a/b/role/"), Some("a/b"));
        let error = named(&[], &["a", "auth/ci/role/("]).unwrap_err().to_string();
        assert_eq!(
            error,
            r#"approles.1 "auth/ci/role/(": not a regular expression: unclosed group"#
        );
        assert!(named(&[], &["auth/ci/role/"]).is_err());
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
