//! The forms that strings of a config may have: durations, addresses, paths, shares.
//!
//! Each function takes the text and gives its canonical form, or the rule it breaks. None of them quotes
//! the text: what stands in the wrong place may be a secret.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::settings::{MaxDeletes, Webhook};
use crate::secret::SecretString;

/// A value in its canonical form, or the rule that it breaks: "must ...".
pub type Checked<T> = Result<T, String>;

/// Longer times than a year are a slip, and would overflow the clock's own arithmetic.
const MAX_DURATION: Duration = Duration::from_secs(8760 * 3600);

/// What [`duration`] accepts.
pub fn expected_duration(min_ms: u64) -> String {
    format!("must be a duration from {min_ms}ms to 8760h, written like 90s, 5m or 1h30m")
}

/// `90s`, `5m`, `1h30m`, `250ms`.
pub fn duration(text: &str, min_ms: u64) -> Checked<Duration> {
    parse_duration(text)
        .filter(|duration| *duration >= Duration::from_millis(min_ms) && *duration <= MAX_DURATION)
        .ok_or_else(|| expected_duration(min_ms))
}

fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, tail) = rest.split_at_checked(digits)?;
        let unit_length = tail.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(unit_length)?;
        let milliseconds: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        let number: u64 = number.parse().ok()?;
        total = total.checked_add(Duration::from_millis(number.checked_mul(milliseconds)?))?;
        rest = tail;
    }
    Some(total)
}

/// `http://` or `https://`, host and optional port; gives it without a final slash.
pub fn address(text: &str) -> Checked<String> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let scheme = scheme.to_ascii_lowercase();
    if scheme != "http" && scheme != "https" {
        return Err("must start with http:// or https://".to_owned());
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('@') {
        return Err("must not hold a user or password".to_owned());
    }
    if rest.contains(['/', '?', '#']) {
        return Err("must end after the host and port, without a path or query".to_owned());
    }
    let host = host_and_port(rest).ok_or("must be http(s)://host:port")?;
    Ok(format!("{scheme}://{host}"))
}

/// As [`address`], but `host:port` alone means `http://host:port`, as Consul's own tools take it.
pub fn consul_address(text: &str) -> Checked<String> {
    if text.contains("://") {
        address(text)
    } else {
        address(&format!("http://{text}"))
    }
}

/// `http://` or `https://`, host, optional port, and then whatever names the hook.
pub fn webhook(text: &str) -> Checked<Webhook> {
    let authority = text.find("://").map_or(0, |at| at + 3);
    let end = text[authority..]
        .find(['/', '?', '#'])
        .map_or(text.len(), |at| authority + at);
    let (address, target) = (address(&text[..end])?, &text[end..]);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@/?%".contains(c);
    if !target.chars().all(is_plain) {
        return Err("must be percent-encoded, and without a part after #".to_owned());
    }
    let slash = if target.starts_with('/') { "" } else { "/" };
    Ok(Webhook {
        address,
        target: SecretString::new(format!("{slash}{target}")),
    })
}

fn host_and_port(text: &str) -> Option<String> {
    let (host, port) = match text.rfind(':') {
        Some(colon) if !text.ends_with(']') => (&text[..colon], Some(&text[colon + 1..])),
        _ => (text, None),
    };
    let is_digits = |port: &str| port.chars().all(|c| c.is_ascii_digit());
    if port.is_some_and(|port| !is_digits(port) || !matches!(port.parse::<u16>(), Ok(1..))) {
        return None;
    }
    let is_v6 = |inner: &str| inner.parse::<Ipv6Addr>().is_ok();
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let is_valid = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inner) => is_v6(inner),
        None => !host.is_empty() && host.chars().all(is_name),
    };
    is_valid.then(|| text.to_ascii_lowercase())
}

/// A path without slashes at its ends: a namespace, an auth method's mount.
pub fn segments(text: &str) -> Checked<String> {
    let trimmed = text.trim_matches('/');
    check_segments(trimmed)?;
    Ok(trimmed.to_owned())
}

/// A data path: ends with `/`, does not start with one.
pub fn mount(text: &str) -> Checked<String> {
    let Some(path) = text.strip_suffix('/') else {
        return Err("must end with /".to_owned());
    };
    check_relative(path)?;
    if ["sys/", "auth/"].iter().any(|own| text.starts_with(own)) {
        return Err(
            "must be a KV mount or a folder in one; policies and roles are listed under `policies` and `approles`"
                .to_owned(),
        );
    }
    Ok(text.to_owned())
}

/// A sync path; a missing final `/` is added.
pub fn sync_path(text: &str) -> Checked<String> {
    let path = text.strip_suffix('/').unwrap_or(text);
    check_relative(path)?;
    Ok(format!("{path}/"))
}

fn check_relative(path: &str) -> Checked<()> {
    if path.starts_with('/') {
        return Err("must not start with /".to_owned());
    }
    check_segments(path)
}

fn check_segments(path: &str) -> Checked<()> {
    if path.chars().any(char::is_control) {
        return Err("must not hold control characters".to_owned());
    }
    if path.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if path.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return Err("must not have an empty segment, nor one that is . or ..".to_owned());
    }
    Ok(())
}

/// The `to` of a transform rule: dots would make the path that is checked another than the one written.
pub fn transform_target(text: &str) -> Checked<()> {
    if text.starts_with('/') || text.ends_with('/') {
        return Err("must be the path of a secret, without a slash at its ends".to_owned());
    }
    if text.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err("must not have a segment that is . or ..".to_owned());
    }
    Ok(())
}

/// What [`max_deletes`] accepts.
pub const EXPECTED_MAX_DELETES: &str = "must be a share like \"50%\", from 0% to 100%, or a whole number";

/// `50%`, `2.5%`, `100`.
pub fn max_deletes(text: &str) -> Checked<MaxDeletes> {
    let expected = || EXPECTED_MAX_DELETES.to_owned();
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(expected());
    }
    let Some(share) = text.strip_suffix('%') else {
        return text.parse().map(MaxDeletes::Count).map_err(|_| expected());
    };
    let is_plain = share.chars().all(|c| c.is_ascii_digit() || c == '.');
    match share.parse::<f64>() {
        Ok(share) if is_plain && share <= 100.0 => Ok(MaxDeletes::Percent(share)),
        _ => Err(expected()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzz::mutated_text;

    proptest! {
        #[test]
        fn whatever_is_taken_is_in_its_bounds_and_is_taken_again(text in mutated_text(&[
            "1h30m", "250ms", "8760h", "https://vault.example.com:8200/", "[::1]:8500", "50%", "12", "a/b/",
            "https://hooks.example.com/services/T0?x=1",
        ])) {
            if let Ok(time) = duration(&text, 100) {
                prop_assert!((Duration::from_millis(100)..=MAX_DURATION).contains(&time));
            }
            for form in [address, consul_address, segments, sync_path] {
                if let Ok(canonical) = form(&text) {
                    prop_assert!(!canonical.chars().any(char::is_control) && canonical.len() <= text.len() + 8);
                    prop_assert_eq!(form(&canonical), Ok(canonical));
                }
            }
            if let Ok(MaxDeletes::Percent(share)) = max_deletes(&text) {
                prop_assert!((0.0..=100.0).contains(&share));
            }
            if let Ok(hook) = webhook(&text) {
                prop_assert!(hook.target.reveal().starts_with('/') && hook.target.reveal().is_ascii());
            }
            let _ = (mount(&text), transform_target(&text));
        }
    }

    #[test]
    fn durations() {
        for (text, milliseconds) in [
            ("90s", Some(90_000)),
            ("5m", Some(300_000)),
            ("1h30m", Some(5_400_000)),
            ("250ms", Some(250)),
            ("1m500ms", Some(60_500)),
            ("8760h", Some(8760 * 3_600_000)),
            ("8761h", None),
            ("99ms", None),
            ("0s", None),
            ("", None),
            ("5", None),
            ("m", None),
            ("-5s", None),
            ("5 s", None),
            ("1.5h", None),
            ("5M", None),
            ("5µs", None),
            ("99999999999999999999h", None),
            ("18446744073709551615h", None),
        ] {
            assert_eq!(
                duration(text, 100).ok(),
                milliseconds.map(Duration::from_millis),
                "{text}"
            );
        }
    }

    #[test]
    fn addresses() {
        for (text, answer) in [
            ("http://127.0.0.1:8200", Ok("http://127.0.0.1:8200")),
            ("HTTPS://Vault.Example.com/", Ok("https://vault.example.com")),
            ("https://[::1]:8200", Ok("https://[::1]:8200")),
            ("https://[::1]", Ok("https://[::1]")),
            ("vault:8200", Err("must start with http:// or https://")),
            ("", Err("must start with http:// or https://")),
            ("unix:///run/vault.sock", Err("must start with http:// or https://")),
            ("https://me:pw@vault", Err("must not hold a user or password")),
            (
                "https://vault/v1",
                Err("must end after the host and port, without a path or query"),
            ),
            (
                "https://vault//",
                Err("must end after the host and port, without a path or query"),
            ),
            (
                "https://vault?x",
                Err("must end after the host and port, without a path or query"),
            ),
            ("https://", Err("must be http(s)://host:port")),
            ("https://:8200", Err("must be http(s)://host:port")),
            ("https://vault:", Err("must be http(s)://host:port")),
            ("https://vault:0", Err("must be http(s)://host:port")),
            ("https://vault:+1", Err("must be http(s)://host:port")),
            ("https://vault:65536", Err("must be http(s)://host:port")),
            ("https://va ult", Err("must be http(s)://host:port")),
            ("https://::1:8200", Err("must be http(s)://host:port")),
            ("https://[vault]:8200", Err("must be http(s)://host:port")),
        ] {
            assert_eq!(
                address(text),
                answer.map(str::to_owned).map_err(str::to_owned),
                "{text}"
            );
        }
        assert_eq!(consul_address("consul:8500").as_deref(), Ok("http://consul:8500"));
        assert_eq!(consul_address("https://consul/").as_deref(), Ok("https://consul"));
        assert!(consul_address("me:pw@consul").is_err() && consul_address("").is_err());
    }

    #[test]
    fn webhooks() {
        for (text, answer) in [
            (
                "https://hooks.example.com/services/T0/B0?x=1",
                Some(("https://hooks.example.com", "/services/T0/B0?x=1")),
            ),
            ("HTTP://Host:8080", Some(("http://host:8080", "/"))),
            ("http://host?token=a@b", Some(("http://host", "/?token=a@b"))),
            ("http://host//a/%20", Some(("http://host", "//a/%20"))),
            ("http://me:pw@host/x", None),
            ("host/x", None),
            ("", None),
            ("http:///x", None),
            ("http://host/a b", None),
            ("http://host/x#y", None),
            ("http://host/\u{fc}", None),
            ("ftp://host/x", None),
        ] {
            let read = webhook(text).ok();
            let parts = read.as_ref().map(|hook| (hook.address.as_str(), hook.target.reveal()));
            assert_eq!(parts, answer, "{text}");
        }
    }

    #[test]
    fn paths() {
        for (text, as_mount, as_sync_path, as_segments) in [
            ("secret/", Some("secret/"), Some("secret/"), Some("secret")),
            ("a/b/", Some("a/b/"), Some("a/b/"), Some("a/b")),
            ("vsync", None, Some("vsync/"), Some("vsync")),
            ("/a/", None, None, Some("a")),
            ("a//b/", None, None, None),
            ("a//", None, None, Some("a")),
            ("./a/", None, None, None),
            ("a/../b/", None, None, None),
            ("a\n/", None, None, None),
            ("/", None, None, None),
            ("", None, None, None),
        ] {
            let answer = (mount(text).ok(), sync_path(text).ok(), segments(text).ok());
            let expected = [as_mount, as_sync_path, as_segments].map(|path| path.map(str::to_owned));
            assert_eq!(<[_; 3]>::from(answer), expected, "{text:?}");
        }
    }

    #[test]
    fn shares() {
        for (text, answer) in [
            ("50%", Some(MaxDeletes::Percent(50.0))),
            ("2.5%", Some(MaxDeletes::Percent(2.5))),
            ("0%", Some(MaxDeletes::Percent(0.0))),
            ("100%", Some(MaxDeletes::Percent(100.0))),
            ("100", Some(MaxDeletes::Count(100))),
            ("0", Some(MaxDeletes::Count(0))),
            ("100.1%", None),
            ("-1%", None),
            ("+1", None),
            ("1e1%", None),
            ("1.5", None),
            ("%", None),
            ("50 %", None),
            ("inf%", None),
            ("", None),
        ] {
            assert_eq!(max_deletes(text).ok(), answer, "{text}");
        }
    }
}
