//! The canonical form of an entry: compact JSON, the same bytes that `serde_json` makes of an insight.
//!
//! Every bucket that changed is hashed and stored in this form, so it is written straight from what is packed.

use std::io::Write;

use super::entries::Entry;
use super::stamp::Time;

/// The bytes of an entry beside those of its path, if the insight is of the usual kind. To begin with enough room.
pub(super) const USUAL: usize = 96;

/// What an escaped byte becomes: `u`, its number in hex, or what stands here.
const ESCAPES: [u8; 256] = {
    let mut escapes = [0; 256];
    let mut control = 0;
    while control < 0x20 {
        escapes[control] = b'u';
        control += 1;
    }
    escapes[b'\x08' as usize] = b'b';
    escapes[b'\t' as usize] = b't';
    escapes[b'\n' as usize] = b'n';
    escapes[b'\x0c' as usize] = b'f';
    escapes[b'\r' as usize] = b'r';
    escapes[b'"' as usize] = b'"';
    escapes[b'\\' as usize] = b'\\';
    escapes
};

/// Writes `"path":{insight}` at the end of `out`.
pub(super) fn write(out: &mut Vec<u8>, entry: Entry) {
    let parts = entry.known.parts();
    write_string(out, entry.path);
    out.extend_from_slice(b":{\"version\":");
    match parts.version {
        0..10 => out.push(b'0' + parts.version as u8),
        // Writing to a vector can't fail.
        version => _ = write!(out, "{version}"),
    }
    out.extend_from_slice(b",\"updateTime\":");
    match parts.time {
        Time::Text(text) => write_string(out, text.as_bytes()),
        Time::Stamp(stamp) => {
            out.push(b'"');
            stamp.write(out);
            out.push(b'"');
        }
    }
    out.extend_from_slice(b",\"type\":\"");
    out.extend_from_slice(parts.secret_type.name().as_bytes());
    out.push(b'"');
    if let Some(fingerprint) = parts.fingerprint {
        _ = write!(out, ",\"fingerprint\":\"{fingerprint}\"");
    }
    if parts.foreign != 0 {
        _ = write!(out, ",\"foreign\":{}", parts.foreign);
    }
    if entry.known.has_orphans() {
        out.extend_from_slice(b",\"orphans\":");
        let mut separator = b'[';
        for place in parts.orphans() {
            out.push(separator);
            write_string(out, place.as_bytes());
            separator = b',';
        }
        out.push(b']');
    }
    out.push(b'}');
}

/// Writes a JSON string. What is not ASCII stands as it is.
fn write_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| ESCAPES[usize::from(*byte)] != 0) {
        out.extend_from_slice(&rest[..at]);
        match ESCAPES[usize::from(rest[at])] {
            b'u' => _ = write!(out, "\\u{:04x}", rest[at]),
            escape => out.extend_from_slice(&[b'\\', escape]),
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}
