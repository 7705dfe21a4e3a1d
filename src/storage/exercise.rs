//! What every backend must do, as a test that anybody can run on a backend of his own.
//!
//! The cases of Vault's own suite for its storage (deletes that change nothing, keys that are not there, a key and a folder of
//! one name, folders that go with their last key), and more: names of every kind, values of every byte, many threads.

use std::thread;

use super::{Backend, Entry};
use crate::error::{Context, Error, Kind, Result, fail};
use crate::scope::Scope;

/// Names that one place or another has trouble with.
const ODD_NAMES: [&str; 28] = [
    ".",
    "..",
    "...",
    " ",
    "a b",
    "a ",
    "+",
    "%",
    "%2e%2e",
    "%2F",
    "_",
    "_a",
    ".a",
    "a.",
    "a.new",
    "~",
    "\\",
    ":",
    "*",
    "?",
    "#",
    "&=;",
    "'\"`",
    "<b>",
    "Aa",
    "aA",
    "ünïcödé",
    "\u{1f511}",
];
/// Longer than what file systems take for a name, in bytes.
const LONG_NAME: usize = 300;
/// In bytes; what Consul takes at once is half a megabyte.
const LARGE_VALUE: usize = 300 * 1024;
/// How many use it at the same time, and how many keys each has.
const THREADS: usize = 8;
const KEYS: usize = 10;

/// Exercises `backend`, which must be empty, and is so afterwards.
///
/// # Errors
/// The first thing that is not as it should be, or that the backend fails with.
pub fn exercise_backend(scope: &Scope, backend: &dyn Backend) -> Result<()> {
    let exercise = Exercise { scope, backend };
    // Each leaves nothing behind.
    let end = |name: &str, outcome: Result<()>| outcome.and_then(|()| exercise.nothing()).context(|| name);
    end("nothing", exercise.nothing())?;
    end("one key", exercise.one_key())?;
    end("a key and a folder of one name", exercise.one_name())?;
    end("deep folders", exercise.deep_folders())?;
    end("odd names", exercise.odd_names())?;
    end("values", exercise.values())?;
    end("what is no key", exercise.no_keys())?;
    end("many threads", exercise.many_threads())
}

struct Exercise<'a> {
    scope: &'a Scope,
    backend: &'a dyn Backend,
}

impl Exercise<'_> {
    fn nothing(&self) -> Result<()> {
        self.lists("", &[])?;
        self.lists("a/", &[])?;
        self.holds("a", None)?;
        self.delete("a")?;
        self.delete("a/b/c")?;
        self.lists("", &[])
    }

    fn one_key(&self) -> Result<()> {
        self.put("a", b"1")?;
        self.holds("a", Some(b"1"))?;
        self.lists("", &["a"])?;
        self.lists("a/", &[])?;
        self.holds("a/b", None)?;
        self.put("a", b"2")?;
        self.holds("a", Some(b"2"))?;
        self.lists("", &["a"])?;
        self.delete("a")?;
        self.holds("a", None)?;
        self.lists("", &[])?;
        self.delete("a")?;
        self.put("a", b"3")?;
        self.holds("a", Some(b"3"))?;
        self.delete("a")
    }

    fn one_name(&self) -> Result<()> {
        self.put("foo", b"of the key")?;
        self.put("foo/bar", b"of the folder")?;
        self.put("foo/bar/baz", b"deeper")?;
        self.lists("", &["foo", "foo/"])?;
        self.lists("foo/", &["bar", "bar/"])?;
        self.holds("foo", Some(b"of the key"))?;
        self.holds("foo/bar", Some(b"of the folder"))?;
        self.delete("foo")?;
        self.lists("", &["foo/"])?;
        self.holds("foo", None)?;
        self.holds("foo/bar", Some(b"of the folder"))?;
        self.put("foo", b"again")?;
        self.delete("foo/bar")?;
        self.lists("", &["foo", "foo/"])?;
        self.lists("foo/", &["bar/"])?;
        self.holds("foo", Some(b"again"))?;
        self.holds("foo/bar/baz", Some(b"deeper"))?;
        self.delete("foo/bar/baz")?;
        self.lists("", &["foo"])?;
        self.delete("foo")
    }

    fn deep_folders(&self) -> Result<()> {
        let keys = ["a/b/c/d", "a/b/c/e", "a/b/f", "a/g", "ab", "ab/c", "a0", "a-b/c"];
        for key in keys {
            self.put(key, key.as_bytes())?;
        }
        self.lists("", &["a-b/", "a/", "a0", "ab", "ab/"])?;
        self.lists("a/", &["b/", "g"])?;
        self.lists("a/b/", &["c/", "f"])?;
        self.lists("a/b/c/", &["d", "e"])?;
        self.lists("a/b/c/d/", &[])?;
        self.lists("ab/", &["c"])?;
        for folder in ["a", "a/b", "a/b/c"] {
            self.holds(folder, None)?;
            self.delete(folder)?;
        }
        self.lists("a/b/c/", &["d", "e"])?;
        self.delete("a/b/c/d")?;
        self.lists("a/b/c/", &["e"])?;
        self.delete("a/b/c/e")?;
        self.lists("a/b/c/", &[])?;
        self.lists("a/b/", &["f"])?;
        self.delete("a/b/f")?;
        self.lists("a/", &["g"])?;
        for key in ["a/g", "ab", "ab/c", "a0", "a-b/c"] {
            self.holds(key, Some(key.as_bytes()))?;
            self.delete(key)?;
        }
        Ok(())
    }

    fn odd_names(&self) -> Result<()> {
        let long = "n".repeat(LONG_NAME);
        let names: Vec<&str> = ODD_NAMES.into_iter().chain([long.as_str()]).collect();
        for name in &names {
            self.put(name, name.as_bytes())?;
            self.put(&format!("{name}/{name}"), b"in a folder")?;
        }
        let mut all: Vec<String> = names
            .iter()
            .flat_map(|name| [(*name).to_string(), format!("{name}/")])
            .collect();
        all.sort_unstable();
        self.lists("", &all.iter().map(String::as_str).collect::<Vec<_>>())?;
        for name in &names {
            self.holds(name, Some(name.as_bytes()))?;
            self.lists(&format!("{name}/"), &[name])?;
            self.delete(name)?;
            self.holds(&format!("{name}/{name}"), Some(b"in a folder"))?;
            self.delete(&format!("{name}/{name}"))?;
        }
        Ok(())
    }

    fn values(&self) -> Result<()> {
        let all: Vec<u8> = (0..=255).collect();
        let large: Vec<u8> = (0..LARGE_VALUE).map(|n| (n * 31 % 251) as u8).collect();
        for value in [&[][..], b"\n", &all, &large, b"small again"] {
            self.put("of/a/value", value)?;
            self.holds("of/a/value", Some(value))?;
        }
        self.delete("of/a/value")
    }

    fn no_keys(&self) -> Result<()> {
        for key in ["", "/", "a/", "/a", "a//b", "a\n", "\0"] {
            let entry = Entry {
                key: key.to_string(),
                value: b"x".to_vec(),
            };
            let outcomes = [
                self.backend.put(self.scope, entry),
                self.backend.get(self.scope, key).map(drop),
                self.backend.delete(self.scope, key),
            ];
            let is_refused = |outcome: &Result<()>| outcome.as_ref().is_err_and(|error| error.kind() == Kind::Refused);
            if !outcomes.iter().all(is_refused) {
                return fail(Kind::Corrupt, format!("the key {key:?} should be refused"));
            }
        }
        for prefix in ["a", "/", "a//"] {
            if self.backend.list(self.scope, prefix).is_ok() {
                return fail(Kind::Corrupt, format!("the prefix {prefix:?} should be refused"));
            }
        }
        Ok(())
    }

    fn many_threads(&self) -> Result<()> {
        thread::scope(|threads| {
            let running: Vec<_> = (0..THREADS)
                .map(|n| threads.spawn(move || self.one_of_many(n)))
                .collect();
            running.into_iter().try_for_each(|one| match one.join() {
                Ok(outcome) => outcome,
                Err(_) => fail(Kind::Panic, "a thread panicked"),
            })
        })?;
        let shared = self.backend.get(self.scope, "shared")?;
        match shared {
            Some(entry) if is_whole(&entry.value) => self.delete("shared"),
            other => fail(Kind::Corrupt, format!("the shared key ends as {other:?}")),
        }
    }

    /// Has keys of its own, in a folder that it makes and empties again, and a key that all write to.
    fn one_of_many(&self, n: usize) -> Result<()> {
        let folder = format!("thread-{n}/");
        let names: Vec<String> = (0..KEYS).map(|key| format!("key-{key}")).collect();
        for name in &names {
            let key = format!("{folder}{name}");
            self.put(&key, key.as_bytes())?;
            self.put("shared", &vec![b'0' + n as u8; 1000 * (n + 1)])?;
            let shared = self.backend.get(self.scope, "shared")?;
            if !shared.is_some_and(|entry| is_whole(&entry.value)) {
                return fail(Kind::Corrupt, "the value of a shared key is none that was written");
            }
        }
        self.lists(&folder, &names.iter().map(String::as_str).collect::<Vec<_>>())?;
        for name in &names {
            let key = format!("{folder}{name}");
            self.holds(&key, Some(key.as_bytes()))?;
            self.delete(&key)?;
            self.holds(&key, None)?;
        }
        self.lists(&folder, &[])
    }

    fn put(&self, key: &str, value: &[u8]) -> Result<()> {
        let entry = Entry {
            key: key.to_string(),
            value: value.to_vec(),
        };
        self.backend.put(self.scope, entry).context(|| format!("put {key:?}"))
    }

    fn delete(&self, key: &str) -> Result<()> {
        self.backend
            .delete(self.scope, key)
            .context(|| format!("delete {key:?}"))
    }

    fn holds(&self, key: &str, value: Option<&[u8]>) -> Result<()> {
        let found = self.backend.get(self.scope, key).context(|| format!("get {key:?}"))?;
        let expected = value.map(|value| Entry {
            key: key.to_string(),
            value: value.to_vec(),
        });
        match found == expected {
            true => Ok(()),
            false => Err(unlike(
                key,
                found.map(|entry| entry.value.len()),
                value.map(<[u8]>::len),
            )),
        }
    }

    fn lists(&self, prefix: &str, names: &[&str]) -> Result<()> {
        let found = self
            .backend
            .list(self.scope, prefix)
            .context(|| format!("list {prefix:?}"))?;
        match found == names {
            true => Ok(()),
            false => fail(
                Kind::Corrupt,
                format!("list {prefix:?}: {found:?} instead of {names:?}"),
            ),
        }
    }
}

/// Whether a value is one that a thread has written: of one digit, as often as its number says.
fn is_whole(value: &[u8]) -> bool {
    let digit = value.first().copied().unwrap_or(0);
    let n = usize::from(digit.wrapping_sub(b'0'));
    n < THREADS && value.len() == 1000 * (n + 1) && value.iter().all(|byte| *byte == digit)
}

fn unlike(key: &str, found: Option<usize>, expected: Option<usize>) -> Error {
    let told = |size: Option<usize>| size.map_or("nothing".to_string(), |size| format!("a value of {size} bytes"));
    let why = format!("get {key:?}: {}, not the expected {}", told(found), told(expected));
    Error::new(Kind::Corrupt, why)
}
