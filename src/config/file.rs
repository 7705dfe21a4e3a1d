//! The config file: which one, and its text as JSON.
//!
//! The original also read YAML, HCL and others; a file of that kind is told from a broken JSON file, so
//! that its owner learns what to write instead of where some parser stumbled.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::json;
use super::kind::type_of;
use crate::error::{Kind, Result, fail};

/// Where the file is looked for when none is named.
pub const PLACES: [&str; 2] = ["vsync.json", "/etc/vsync/vsync.json"];

/// More than any config; less than what hurts.
const MAX_SIZE: u64 = 1 << 20;

/// A config file that has been read. No `Debug`: it holds secrets.
pub struct ConfigFile {
    /// Where it was found.
    pub path: PathBuf,
    /// What it holds; an object.
    pub value: Value,
    /// Whether its mode lets others than its owner at it.
    pub is_open_to_others: bool,
}

/// Reads `file`, or the first of `places` that exists; none is not a mistake, since the environment and
/// flags may say it all.
pub fn find(file: Option<&Path>, places: &[PathBuf]) -> Result<Option<ConfigFile>> {
    if let Some(file) = file {
        return match read(file)? {
            Some(found) => Ok(Some(found)),
            None => fail(Kind::Config, format!("config file {}: does not exist", file.display())),
        };
    }
    for place in places {
        if let Some(found) = read(place)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn read(path: &Path) -> Result<Option<ConfigFile>> {
    let mistake = |what: String| fail(Kind::Config, format!("config file {}: {what}", path.display()));
    let opened = File::open(path).and_then(|file| {
        let mode = file.metadata()?.permissions().mode();
        let mut text = Vec::new();
        file.take(MAX_SIZE + 1).read_to_end(&mut text)?;
        Ok((mode, text))
    });
    let (mode, text) = match opened {
        Ok(opened) => opened,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return mistake(format!("can't be read: {}", error.kind())),
    };
    if text.len() as u64 > MAX_SIZE {
        return mistake("is larger than 1 MiB".to_owned());
    }
    match parse(path, &text) {
        Ok(value) => Ok(Some(ConfigFile {
            path: path.to_owned(),
            value,
            is_open_to_others: mode & 0o077 != 0,
        })),
        Err(what) => mistake(what),
    }
}

fn parse(path: &Path, text: &[u8]) -> std::result::Result<Value, String> {
    const INSTEAD: &str = "is no longer read, write the same keys as JSON: {\"origin\": {...}}";
    let extension = path
        .extension()
        .map(|extension| extension.to_string_lossy().to_lowercase());
    let format = match extension.as_deref() {
        Some("yaml" | "yml") => Some("YAML"),
        Some("hcl") => Some("HCL"),
        Some("toml") => Some("TOML"),
        _ => None,
    };
    if let Some(format) = format {
        return Err(format!("{format} {INSTEAD}"));
    }
    // Some editors put a byte order mark in front.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    match json::parse(text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(other) => Err(format!("must hold one JSON object, found {}", type_of(&other))),
        Err(what) => match text.trim_ascii_start().first() {
            None => Err("is empty".to_owned()),
            Some(b'{' | b'[') => Err(what),
            Some(_) => Err(format!("is not JSON but looks like YAML or HCL, which {INSTEAD}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let instead = "is no longer read, write the same keys as JSON: {\"origin\": {...}}";
        for (path, text, answer) in [
            ("a.json", "{}", "fine".to_owned()),
            ("a", "\u{feff}{}", "fine".to_owned()),
            ("a.yaml", "{}", format!("YAML {instead}")),
            ("a.YML", "a: b", format!("YAML {instead}")),
            ("a.hcl", "", format!("HCL {instead}")),
            (
                "a.json",
                "name: hvs.X",
                format!("is not JSON but looks like YAML or HCL, which {instead}"),
            ),
            (
                "a.json",
                "origin {\n}",
                format!("is not JSON but looks like YAML or HCL, which {instead}"),
            ),
            ("a.json", " \n", "is empty".to_owned()),
            ("a.json", "[]", "must hold one JSON object, found a list".to_owned()),
            (
                "a.json",
                "\"hvs.X\"",
                "must hold one JSON object, found a string".to_owned(),
            ),
            (
                "a.json",
                "{\n  x",
                "is not JSON: the mistake is at line 2, column 3".to_owned(),
            ),
        ] {
            let found = parse(Path::new(path), text.as_bytes()).map_or_else(|what| what, |_| "fine".to_owned());
            assert_eq!(found, answer, "{path} {text:?}");
        }
    }

    #[test]
    fn files() {
        let folder = std::env::temp_dir().join(format!("vsync-config-file-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (first, second, large) = (folder.join("a.json"), folder.join("b.json"), folder.join("c.json"));
        let places = [first.clone(), second.clone()];
        assert!(find(None, &places).unwrap().is_none());
        let message = |file: &Path| find(Some(file), &places).err().unwrap().to_string();
        assert_eq!(
            message(&first),
            format!("config file {}: does not exist", first.display())
        );
        assert!(message(&folder).contains("can't be read: is a directory"));
        std::fs::write(&second, "{}").unwrap();
        std::fs::set_permissions(&second, std::fs::Permissions::from_mode(0o600)).unwrap();
        let found = find(None, &places).unwrap().unwrap();
        assert_eq!((found.path, found.is_open_to_others), (second, false));
        std::fs::write(&first, "{}").unwrap();
        std::fs::set_permissions(&first, std::fs::Permissions::from_mode(0o640)).unwrap();
        let found = find(None, &places).unwrap().unwrap();
        assert_eq!((found.path, found.is_open_to_others), (first, true));
        std::fs::write(&large, " ".repeat((1 << 20) + 1)).unwrap();
        assert!(message(&large).ends_with("is larger than 1 MiB"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
