//! Points in time, as the servers write them and as reports show them.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

/// Reads an RFC 3339 time of Vault: up to nine digits of a second, of variable width.
pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// Reads an HTTP `Date` header: whole seconds.
pub fn parse_http_date(text: &str) -> Option<Timestamp> {
    static PARSER: DateTimeParser = DateTimeParser::new();
    PARSER.parse_timestamp(text).ok()
}

/// Now by this machine's clock: `2026-11-21T10:00:00.000Z`. For what is shown, and for what is only ever compared for being
/// the same.
pub fn now() -> String {
    format!("{:.3}", Timestamp::now())
}

/// Now by this machine's clock, since the Unix epoch. For what has to survive the process; whatever else waits uses `Instant`.
pub fn since_epoch() -> Duration {
    Timestamp::now().duration_since(Timestamp::UNIX_EPOCH).unsigned_abs()
}

/// Now by this machine's clock, as signed requests to S3 name it: `20261121T100000Z`.
pub fn now_compact() -> String {
    Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzz::mutated_text;

    #[test]
    fn the_servers_forms_are_read() {
        let whole = parse("2026-11-21T23:26:49Z").unwrap();
        assert_eq!(parse_http_date("Sat, 21 Nov 2026 23:26:49 GMT"), Some(whole));
        assert!(parse("2026-11-21T23:26:49.752828174Z").unwrap() > whole);
        assert!(parse("2026-11-21T23:26:49.75Z") < parse("2026-11-21T23:26:49.752828174Z"));
        assert_eq!(parse(""), None);
        assert_eq!(parse_http_date("yesterday"), None);
        assert_eq!(now().len(), "2026-11-21T10:00:00.000Z".len());
        let (compact, plain) = (now_compact(), |char: char| char.is_ascii_digit());
        assert!(compact.len() == 16 && compact[..8].chars().all(plain), "{compact}");
        assert!(
            parse(&format!(
                "{}-{}-{}T00:00:00Z",
                &compact[..4],
                &compact[4..6],
                &compact[6..8]
            ))
            .is_some()
        );
    }

    proptest! {
        #[test]
        fn whatever_is_no_time_is_refused(
            time in mutated_text(&["2026-11-21T23:26:49.752828174Z", "2026-11-21T23:26:49+01:00", "9999-12-30T22:00:00Z"]),
            date in mutated_text(&["Sat, 21 Nov 2026 23:26:49 GMT", "Fri, 31 Dec 9999 23:59:59 GMT"]),
        ) {
            for read in [parse(&time), parse_http_date(&date)].into_iter().flatten() {
                prop_assert_eq!(parse(&read.to_string()), Some(read));
            }
        }
    }
}
