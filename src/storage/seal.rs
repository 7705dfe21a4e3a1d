//! Values sealed under keys from a file: what lies on a disk or in a bucket tells nobody anything, and none of it can be
//! changed, or put in another's place, without being noticed.
//!
//! A sealed value is `vseal`, a version byte, the key's id (4 bytes), a salt (32), the ciphertext and its tag (16). From the
//! key and the salt HKDF-SHA-256 makes a key for this one value, so that no nonce can ever come twice; the cipher is
//! ChaCha20-Poly1305, which takes the same time for all data on every machine, also on those without instructions for AES.
//! The length of a value is not hidden, and that an older value was put back in its own place is not seen here.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce};
use ring::hkdf::{HKDF_SHA256, Prk, Salt};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use crate::error::{Error, Kind, Result, fail};

/// How many bytes a sealed value is longer than what is in it.
pub const OVERHEAD: usize = HEADER + SALT + TAG;

const MAGIC: &[u8; 5] = b"vseal";
const VERSION: u8 = 1;
const ID: usize = 4;
const HEADER: usize = MAGIC.len() + 1 + ID;
const SALT: usize = 32;
const TAG: usize = 16;

/// The length of a key, in bytes.
const KEY: usize = 32;
/// A file of keys is smaller, in bytes.
const MOST_BYTES: u64 = 64 * 1024;
const HOW_TO_MAKE_ONE: &str = "make one with `openssl rand -base64 32`";

/// A key, as what is made of it.
pub struct Key {
    id: [u8; ID],
    /// Makes the keys of values.
    values: Prk,
    /// Makes keyed hashes.
    names: hmac::Key,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(hidden)")
    }
}

impl Key {
    fn new(bytes: &[u8; KEY]) -> Result<Key> {
        let values = Salt::new(HKDF_SHA256, b"vsync seal 1").extract(bytes);
        let names = values
            .expand(&[b"names"], hmac::HMAC_SHA256)
            .map_err(|_| underivable())?
            .into();
        let mut key = Key {
            id: [0; ID],
            values,
            names,
        };
        let tag = key.tag("id", b"");
        key.id.copy_from_slice(&tag[..ID]);
        Ok(key)
    }

    /// A keyed hash of `what`, which is of `kind`: without the key nobody can tell what it is of, or check a guess.
    pub fn tag(&self, kind: &str, what: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.names);
        for part in [kind.as_bytes(), &[0], what] {
            context.update(part);
        }
        let mut tag = [0; 32];
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }

    /// [`tag`](Self::tag) as 64 lower-case hex digits: a name that tells nothing.
    pub fn hidden_name(&self, kind: &str, name: &str) -> String {
        hex(&self.tag(kind, name.as_bytes()))
    }

    /// The key for the value with this salt, and no other.
    fn of_value(&self, salt: &[u8]) -> Result<LessSafeKey> {
        let info = [b"value", salt];
        let key = self.values.expand(&info, &CHACHA20_POLY1305);
        Ok(LessSafeKey::new(key.map_err(|_| underivable())?.into()))
    }

    fn seal(&self, context: &[u8], value: &[u8]) -> Result<Vec<u8>> {
        let mut sealed = Vec::with_capacity(OVERHEAD + value.len());
        sealed.extend_from_slice(MAGIC);
        sealed.push(VERSION);
        sealed.extend_from_slice(&self.id);
        let bound = bound(&sealed, context);
        sealed.extend_from_slice(&random::<SALT>()?);
        sealed.extend_from_slice(value);
        let (start, inside) = sealed.split_at_mut(HEADER + SALT);
        let tag = self
            .of_value(&start[HEADER..])?
            .seal_in_place_separate_tag(nonce(), bound, inside)
            .map_err(|_| Error::new(Kind::Refused, "the value is too large to be sealed"))?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// `None` if it is not as it was sealed, or was sealed for another place.
    fn open(&self, context: &[u8], header: &[u8], salt: &[u8], inside: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut value = inside.to_vec();
        let bound = bound(header, context);
        let length = match self.of_value(salt)?.open_in_place(nonce(), bound, &mut value) {
            Ok(opened) => opened.len(),
            Err(_) => return Ok(None),
        };
        value.truncate(length);
        Ok(Some(value))
    }
}

/// The keys of a file: the first seals, each opens.
#[derive(Debug)]
pub struct Keys {
    keys: Vec<Key>,
    /// What to call the file in messages.
    file: String,
}

impl Keys {
    /// Reads a file of keys: one a line, 32 random bytes as base64 or hex. Blank lines, and those that start with `#`, are
    /// passed over. The first key seals; more of them open what was sealed when they were the first.
    ///
    /// # Errors
    /// [`Kind::File`] if the file can't be read; [`Kind::Config`] if others than its owner can read or write it, or if it
    /// holds no key, or something that is none.
    pub fn read(path: &Path) -> Result<Keys> {
        let name = path.display().to_string();
        let failed = |error: std::io::Error| Error::new(Kind::File, format!("read {name}: {}", error.kind()));
        let file = File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode();
        if mode & 0o066 != 0 {
            let why = format!("{name}: holds keys and is open to other users, `chmod 600 {name}`");
            return fail(Kind::Config, why);
        }
        let mut bytes = Vec::new();
        file.take(MOST_BYTES).read_to_end(&mut bytes).map_err(failed)?;
        Keys::parse(&bytes, name)
    }

    /// The keys of the text of a file, which is called `file` in messages.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(text: &[u8], file: String) -> Result<Keys> {
        let mut found: Vec<(usize, [u8; KEY])> = Vec::new();
        for (n, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let key = key(line).map_err(|why| Error::new(Kind::Config, format!("{file}: line {n} {why}")))?;
            if let Some((first, _)) = found.iter().find(|(_, other)| *other == key) {
                let why = format!("{file}: line {n} holds the same key as line {first}, remove one of the two");
                return fail(Kind::Config, why);
            }
            found.push((n, key));
        }
        if found.is_empty() {
            return fail(Kind::Config, format!("{file}: holds no key, {HOW_TO_MAKE_ONE}"));
        }
        let keys = found.iter().map(|(_, key)| Key::new(key)).collect::<Result<_>>()?;
        Ok(Keys { keys, file })
    }

    /// The key that seals.
    pub fn first(&self) -> &Key {
        // There is one, see `parse`.
        &self.keys[0]
    }

    /// The keys that seal no more and still open.
    pub fn older(&self) -> &[Key] {
        &self.keys[1..]
    }

    /// All of them, the first first.
    pub fn all(&self) -> &[Key] {
        &self.keys
    }

    /// What to call their file in messages.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Seals `value` under the first key. It opens with the same `context` only: the name of its place.
    ///
    /// # Errors
    /// If the system has no random numbers, or the value is beyond all bounds.
    pub fn seal(&self, context: &[u8], value: &[u8]) -> Result<Vec<u8>> {
        self.first().seal(context, value)
    }

    /// What was sealed with this `context`.
    ///
    /// # Errors
    /// [`Kind::Corrupt`] if it was not, not under one of these keys, or has changed since; which of these it says.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Vec<u8>> {
        let refused = |why: String| fail(Kind::Corrupt, why);
        if !sealed.starts_with(MAGIC) || sealed.len() < OVERHEAD {
            return refused("it is not sealed, or only a part of it is there".to_string());
        }
        let (header, rest) = sealed.split_at(HEADER);
        let version = header[MAGIC.len()];
        if version != VERSION {
            return refused(format!(
                "it is sealed in version {version} of the format, and this vsync knows version {VERSION} only"
            ));
        }
        let (salt, inside) = rest.split_at(SALT);
        let mut is_known = false;
        for key in self.keys.iter().filter(|key| header.ends_with(&key.id)) {
            is_known = true;
            if let Some(value) = key.open(context, header, salt, inside)? {
                return Ok(value);
            }
        }
        match is_known {
            true => refused("it was changed since it was sealed, or belongs to another place".to_string()),
            false => refused(format!("it is sealed under a key that is not in {}", self.file)),
        }
    }

    /// Whether what is sealed so says that it is under the first key.
    pub fn is_under_first(&self, sealed: &[u8]) -> bool {
        sealed
            .get(..HEADER)
            .is_some_and(|header| header.ends_with(&self.first().id))
    }
}

/// Random bytes.
///
/// # Errors
/// If the system has none.
pub fn random<const LENGTH: usize>() -> Result<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(_) => fail(Kind::File, "read random numbers: the system has none"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Nothing that is written to memory fails.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A key for one value needs no other nonce than this.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

/// What is sealed with a value, but not in it. The header's length never changes, so each context is its own.
fn bound(header: &[u8], context: &[u8]) -> Aad<Vec<u8>> {
    Aad::from([header, context].concat())
}

fn underivable() -> Error {
    Error::new(Kind::Panic, "derive a key: the length asked for is none")
}

/// The key on a line, or what is wrong with it, without showing any of it.
fn key(line: &[u8]) -> std::result::Result<[u8; KEY], String> {
    let bytes = match from_hex(line) {
        Some(bytes) => bytes,
        None => BASE64_STANDARD
            .decode(line)
            .map_err(|_| format!("is neither base64 nor hex, {HOW_TO_MAKE_ONE}"))?,
    };
    let length = bytes.len();
    let key: [u8; KEY] = bytes
        .try_into()
        .map_err(|_| format!("holds {length} bytes instead of {KEY}, {HOW_TO_MAKE_ONE}"))?;
    match key.iter().all(|byte| *byte == key[0]) {
        true => Err(format!("holds one byte over and over, {HOW_TO_MAKE_ONE}")),
        false => Ok(key),
    }
}

/// `None` for what is not hex. A key as base64 is none: it ends with `=`.
fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |pair: &[u8]| u8::try_from(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?).ok();
    text.chunks(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    /// A line that holds a key.
    fn line(n: u8) -> String {
        let bytes: Vec<u8> = (n..n + 32).collect();
        BASE64_STANDARD.encode(bytes)
    }

    /// The keys of a file with these.
    fn keys(numbers: &[u8]) -> Keys {
        let lines: Vec<String> = numbers.iter().map(|n| line(*n)).collect();
        Keys::parse(lines.join("\n").as_bytes(), "the.key".to_string()).unwrap()
    }

    fn error(outcome: Result<impl Sized>) -> String {
        outcome.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn key_files() {
        let (one, two) = (line(1), line(2));
        let of_hex = |n: u8| hex(&(n..n + 32).collect::<Vec<_>>());
        for (text, number) in [
            (one.clone(), 1),
            (format!("{one}\n"), 1),
            (format!("# of 2026\r\n\r\n  {one}\t\r\n# older\n{two}\n\n"), 2),
            (of_hex(1), 1),
            (format!("{}\n{two}", of_hex(1).to_uppercase()), 2),
        ] {
            let parsed = Keys::parse(text.as_bytes(), "f".to_string()).unwrap();
            assert_eq!(1 + parsed.older().len(), number, "{text}");
            let sealed = keys(&[1]).seal(b"c", b"v").unwrap();
            assert_eq!(parsed.open(b"c", &sealed).unwrap(), b"v", "{text}");
        }
        let short = BASE64_STANDARD.encode([1; 16]);
        let zeros = BASE64_STANDARD.encode([0; 32]);
        for (text, why) in [
            (String::new(), "holds no key, make one with `openssl rand -base64 32`"),
            ("# nothing\n\n".to_string(), "holds no key"),
            (short, "line 1 holds 16 bytes instead of 32"),
            (BASE64_STANDARD.encode([1; 33]), "line 1 holds 33 bytes instead of 32"),
            (
                format!("{one}\n{}", &of_hex(2)[2..]),
                "line 2 holds 31 bytes instead of 32",
            ),
            (zeros, "line 1 holds one byte over and over"),
            ("0".repeat(64), "line 1 holds one byte over and over"),
            (
                format!("#\n{one}\n{}", of_hex(1)),
                "line 3 holds the same key as line 2",
            ),
            (format!("{one} {two}"), "line 1 is neither base64 nor hex"),
            ("correct horse battery staple".to_string(), "line 1 is neither"),
            ("\u{fc}".to_string(), "line 1 is neither"),
        ] {
            let said = error(Keys::parse(text.as_bytes(), "f.key".to_string()));
            assert!(said.starts_with("f.key: ") && said.contains(why), "{text}: {said}");
            assert!(!said.contains("horse") && !said.contains(&one), "{said}");
        }
    }

    #[test]
    fn a_key_file_is_for_its_owner_alone() {
        let path = std::env::temp_dir().join(format!("vsync-seal-{}.key", std::process::id()));
        fs::write(&path, line(1)).unwrap();
        for mode in [0o600, 0o400, 0o700] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(Keys::read(&path).is_ok(), "{mode:o}");
        }
        for mode in [0o640, 0o620, 0o604, 0o602, 0o644, 0o666] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let said = error(Keys::read(&path));
            assert!(
                said.contains(&format!("`chmod 600 {}`", path.display())),
                "{mode:o}: {said}"
            );
        }
        fs::remove_file(&path).unwrap();
        let failed = Keys::read(&path).unwrap_err();
        assert_eq!(failed.kind(), Kind::File);
        assert!(failed.to_string().contains("vsync-seal"), "{failed}");
    }

    /// As one run of `openssl rand -base64 32` printed it.
    #[test]
    fn openssl_makes_one() {
        let made = Keys::parse(b"OE/1YYzvpdef6BY+bbR5/SbVaAhhQGoigvcHa60G8OI=\n", "made".to_string()).unwrap();
        assert_eq!(made.open(b"", &made.seal(b"", b"v").unwrap()).unwrap(), b"v");
    }

    #[test]
    fn debug_shows_nothing() {
        let shown = format!("{:?}", keys(&[1, 2]));
        assert_eq!(shown, "Keys { keys: [Key(hidden), Key(hidden)], file: \"the.key\" }");
    }

    #[test]
    fn older_keys_open_and_others_are_said_to_be_missing() {
        let older = keys(&[1]).seal(b"c", b"older").unwrap();
        let both = keys(&[2, 1]);
        assert_eq!(both.open(b"c", &older).unwrap(), b"older");
        assert!(!both.is_under_first(&older));
        let newer = both.seal(b"c", b"newer").unwrap();
        assert!(both.is_under_first(&newer));
        assert_eq!(keys(&[2]).open(b"c", &newer).unwrap(), b"newer");
        let said = error(keys(&[1]).open(b"c", &newer));
        assert_eq!(said, "it is sealed under a key that is not in the.key");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let keys = keys(&[1]);
        let sealed = keys.seal(b"c", b"hvs.SECRET").unwrap();
        let with = |n: usize, byte: u8| {
            let mut changed = sealed.clone();
            changed[n] ^= byte;
            changed
        };
        for (context, changed, why) in [
            (b"c", with(0, 1), "it is not sealed"),
            (b"c", sealed[..OVERHEAD - 1].to_vec(), "only a part of it"),
            (b"c", Vec::new(), "it is not sealed"),
            (b"c", with(5, 3), "version 2 of the format"),
            (b"c", with(6, 1), "a key that is not in the.key"),
            (b"c", with(HEADER, 1), "it was changed"),
            (b"c", with(OVERHEAD, 1), "it was changed"),
            (b"d", sealed.clone(), "belongs to another place"),
        ] {
            let failed = keys.open(context, &changed).unwrap_err();
            assert_eq!(failed.kind(), Kind::Corrupt);
            let said = failed.to_string();
            assert!(said.contains(why) && !said.contains("hvs"), "{why}: {said}");
        }
    }

    #[test]
    fn names_are_hidden_under_each_key_in_another_way() {
        let keys = keys(&[1, 2]);
        let names: std::collections::HashSet<String> = [keys.first(), &keys.older()[0]]
            .iter()
            .flat_map(|key| {
                [("a", "b"), ("a", "c"), ("b", "b"), ("ab", "")].map(|(kind, name)| key.hidden_name(kind, name))
            })
            .collect();
        assert_eq!(names.len(), 8);
        assert!(
            names
                .iter()
                .all(|name| name.len() == 64 && from_hex(name.as_bytes()).is_some())
        );
        // The same tomorrow: stores are named so.
        assert_eq!(keys.first().hidden_name("entry", "secret/data/app1"), GOLDEN_NAME);
        let sealed: Vec<u8> = (0..GOLDEN_SEAL.len() / 2)
            .map(|n| u8::from_str_radix(&GOLDEN_SEAL[2 * n..2 * n + 2], 16).unwrap())
            .collect();
        assert_eq!(keys.open(b"entry", &sealed).unwrap(), b"value");
    }

    const GOLDEN_NAME: &str = "fbf0dfabc73d56bca579a8ba8f804ca1f5ee63fd29f2b5464c0cc453a713e17f";
    const GOLDEN_SEAL: &str = "767365616c012edb5595bd00852aae02200bca8630b6f995589d5ef438831e1b\
        62a2e649175e82f4296e55513ed25c4211f5e0fc3bdc9d4243dfef8fee2452";

    proptest! {
        #[test]
        fn what_was_sealed_opens_and_nothing_else(
            value in proptest::collection::vec(any::<u8>(), 0..200),
            contexts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 2),
            n in any::<proptest::sample::Index>(),
            flip in 1_u8..,
        ) {
            let keys = keys(&[1, 2]);
            let sealed = keys.seal(&contexts[0], &value).unwrap();
            prop_assert_eq!(sealed.len(), value.len() + OVERHEAD);
            prop_assert_ne!(&sealed, &keys.seal(&contexts[0], &value).unwrap());
            prop_assert_eq!(keys.open(&contexts[0], &sealed).unwrap(), value);
            prop_assert_eq!(keys.open(&contexts[1], &sealed).is_ok(), contexts[0] == contexts[1]);
            let n = n.index(sealed.len());
            prop_assert!(keys.open(&contexts[0], &sealed[..n]).is_err());
            prop_assert!(keys.open(&contexts[0], &[&sealed[..], &[flip]].concat()).is_err());
            let mut changed = sealed.clone();
            changed[n] ^= flip;
            prop_assert!(keys.open(&contexts[0], &changed).is_err());
        }
    }
}
