//! The rules of the house: which layer may use which, where the world outside is touched, and that no secret leaves.

mod examples;
mod secrecy;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use regex::Regex;

use crate::common::repository;

/// The modules from the top down. A module may use those of the lines below its own, and those that stand beside it in
/// the second list.
const LAYERS: [&[&str]; 10] = [
    &["main"],
    &["lib"],
    &["daemon"],
    &["check", "plan", "verify", "status", "replica"],
    &["cycle"],
    &["engine", "store", "storage"],
    &["cli", "config", "logger"],
    &["sync_info", "transform", "filter"],
    &["vault", "consul"],
    // `fuzz` is for the tests that stand beside the code.
    &["fuzz", "http", "secret", "socket", "time", "scope", "error", "hmac"],
];

/// What a module uses of its own layer, or of none but these although they lie below.
const ONLY: [(&str, &[&str]); 19] = [
    // The map, and `run`, which puts the parts together.
    ("lib", &["cli", "config", "cycle", "daemon", "scope", "verify"]),
    // Settings hold what the layers below need; they are never handed down whole.
    (
        "config",
        &[
            "vault",
            "consul",
            "http",
            "sync_info",
            "filter",
            "transform",
            "secret",
            "hmac",
            // The address to listen at.
            "socket",
            "error",
        ],
    ),
    ("cli", &["config", "error"]),
    ("logger", &["config", "time"]),
    // An engine knows its server and its insight, nothing of stores and cycles.
    // And of filters no more than where policies and roles lie.
    (
        "engine",
        &["vault", "http", "sync_info", "filter", "hmac", "time", "error"],
    ),
    (
        "storage",
        &[
            "consul", "vault", "http", "secret", "scope", "time", "error", // Requests to S3 are signed.
            "hmac",
        ],
    ),
    ("store", &["config", "consul", "http", "scope", "sync_info", "error"]),
    // Pure: no server, no clock, no end.
    ("sync_info", &["transform", "time", "error"]),
    ("transform", &["error", "filter"]),
    ("filter", &["error"]),
    ("consul", &["http", "scope", "secret", "time", "error"]),
    ("vault", &["http", "scope", "secret", "error"]),
    // `socket` for the server's half.
    ("http", &["scope", "socket", "error"]),
    ("socket", &["error"]),
    ("secret", &["error"]),
    ("fuzz", &["error"]),
    ("scope", &["error"]),
    ("error", &[]),
    ("hmac", &[]),
];

/// Words that only these files may hold, outside their tests.
const CONFINED: [(&str, &[&str], &str); 11] = [
    (r"\b(ureq|rustls)\b", &["http/"], "one place knows the HTTP library"),
    (r"(^|[^:])\bring::", &["storage/seal.rs"], "one place knows the ciphers"),
    (r"\bctrlc\b", &["main.rs"], "one place takes signals"),
    (
        r"\benv::(var|vars|args)|env::\w+_os\b",
        &["main.rs", "config/"],
        "the environment is read in one place",
    ),
    (
        r"\bSystemTime\b|Timestamp::now",
        &["time.rs"],
        "a clock that jumps moves nothing: what waits uses Instant, what compares uses the servers' time",
    ),
    (r"process::exit", &["main.rs"], "one place ends the process"),
    (
        r"\be?println!|\bdbg!|\bprint!",
        &[],
        "data goes out through the daemon, lines through the log",
    ),
    (r"stdout\(\)", &["main.rs", "daemon/"], "stdout is for data"),
    (r"static mut|\bunsafe\b", &[], "no unsafe code"),
    (
        r"\.unwrap\(\)|\.expect\([\x22&]|\btodo!|\bunimplemented!|\bpanic!",
        &[],
        "an error is returned, not a panic",
    ),
    (
        r"\b(TODO|FIXME|XXX|HACK)\b",
        &[],
        "what is left to do stands in an issue",
    ),
];

/// A source file without its tests and comments.
struct Source {
    /// Below `src/`: `cycle/plan.rs`.
    name: String,
    code: String,
}

impl Source {
    /// The top-level module that the file belongs to.
    fn module(&self) -> &str {
        let first = self.name.split('/').next().unwrap_or_default();
        first.trim_end_matches(".rs")
    }

    /// The other top-level modules that it uses.
    fn uses(&self) -> BTreeSet<String> {
        let path = Regex::new(r"\bcrate::(\{[^;]*?\}|\w+)").expect("a regex");
        let name = Regex::new(r"(?:^|[{,])\s*(\w+)").expect("a regex");
        let mut used = BTreeSet::new();
        for found in path.captures_iter(&self.code) {
            let named = name.captures_iter(&found[1]).map(|name| name[1].to_owned());
            used.extend(named.filter(|name| name != self.module()));
        }
        if self.module() == "lib" {
            let own = Regex::new(r"(?m)^use (\w+)::").expect("a regex");
            used.extend(own.captures_iter(&self.code).map(|found| found[1].to_owned()));
        }
        used
    }
}

fn sources() -> Vec<Source> {
    let root = repository().join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    let source = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).expect("a source file");
        let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
        let without_comments = code.lines().map(|line| line.split("//").next().unwrap_or_default());
        Source {
            name: path.strip_prefix(&root).expect("below src").display().to_string(),
            code: without_comments.collect::<Vec<_>>().join("\n"),
        }
    };
    files.iter().map(source).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn layer(module: &str) -> usize {
    let position = LAYERS.iter().position(|layer| layer.contains(&module));
    position.unwrap_or_else(|| panic!("the module {module} is in no layer: give it its place in tests/house.rs"))
}

#[test]
fn each_layer_uses_only_those_below_it() {
    let mut mistakes = Vec::new();
    for source in sources() {
        let module = source.module();
        let only = ONLY
            .iter()
            .find(|(name, _)| *name == module)
            .map(|(_, allowed)| *allowed);
        for used in source.uses() {
            let allowed = match only {
                Some(allowed) => allowed.contains(&used.as_str()),
                None => layer(&used) > layer(module),
            };
            if !allowed {
                mistakes.push(format!("src/{}: uses {used}, which {module} may not", source.name));
            }
        }
    }
    assert!(mistakes.is_empty(), "{mistakes:#?}");
}

#[test]
fn what_belongs_to_one_place_is_in_no_other() {
    let mut mistakes = Vec::new();
    for source in sources() {
        for (pattern, places, why) in CONFINED {
            let pattern = Regex::new(pattern).expect("a regex");
            let is_home = places.iter().any(|place| source.name.starts_with(place));
            for line in source.code.lines().filter(|line| !is_home && pattern.is_match(line)) {
                mistakes.push(format!("src/{}: {why}: {}", source.name, line.trim()));
            }
        }
    }
    assert!(mistakes.is_empty(), "{mistakes:#?}");
}

#[test]
fn comments_leave_nothing_to_do() {
    // The code that the other tests read has no comments.
    for source in sources() {
        let text = std::fs::read_to_string(repository().join("src").join(&source.name)).expect("a source file");
        for word in ["TODO", "FIXME", "XXX"] {
            assert!(!text.contains(word), "src/{}: {word}", source.name);
        }
    }
}

#[test]
fn the_reader_of_sources_finds_what_it_looks_for() {
    // Were it blind, the tests above would hold for anything.
    let all = sources();
    let uses = |module: &str| -> BTreeSet<String> {
        all.iter()
            .filter(|source| source.module() == module)
            .flat_map(Source::uses)
            .collect()
    };
    assert!(all.len() > 30, "{} files", all.len());
    assert!(uses("cycle").is_superset(&["engine", "store", "vault", "http"].map(str::to_owned).into()));
    assert!(uses("lib").contains("daemon"));
    assert!(
        all.iter()
            .any(|source| source.name.starts_with("http/") && source.code.contains("ureq"))
    );
    assert!(
        all.iter()
            .any(|source| source.name == "main.rs" && source.code.contains("ctrlc"))
    );
    for module in ["vault", "consul", "engine", "sync_info"] {
        assert!(!uses(module).is_empty(), "{module}");
    }
    let grouped = Source {
        name: "http/x.rs".to_owned(),
        code: "use crate::{cycle::Report, vault};".to_owned(),
    };
    assert_eq!(grouped.uses(), ["cycle", "vault"].map(str::to_owned).into());
}

#[test]
fn no_async_runtime_is_in_the_tree() {
    let lock = std::fs::read_to_string(repository().join("Cargo.lock")).expect("a lock file");
    for name in [
        "tokio",
        "async-std",
        "smol",
        "futures",
        "futures-util",
        "hyper",
        "async-io",
        "openssl",
        "openssl-sys",
    ] {
        assert!(!lock.contains(&format!("name = \"{name}\"\n")), "{name} is in the tree");
    }
}
