//! Times, held as numbers where the number gives back every byte of the text.
//!
//! A million insights hold a million times, nearly all of them in the one form that the servers write. A time is only
//! ever compared for being the same, so nothing is gained by knowing the calendar: the fields are packed as they stand,
//! February 31st included. Whatever has another form stays text.

use std::fmt;

use super::known::as_text;

/// Years that a stamp can tell, from [`FIRST_YEAR`] on: as many as fit into 64 bits with all that follows them.
const YEARS: u64 = 512;
const FIRST_YEAR: u64 = 1900;
/// More than any fraction of nine digits.
const FRACTIONS: u64 = 1_000_000_000;
/// What stands before the fraction.
const FORM: &[u8; 19] = b"0000-00-00T00:00:00";

/// A time such as `2019-05-14T23:41:52.904927369Z`, with up to nine digits of a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The fields, each a digit of a number of mixed radix.
    pub number: u64,
    /// How many digits the fraction has; with none, there is no point either.
    pub digits: u8,
}

impl Stamp {
    /// The stamp that [`Stamp::write`] makes `text` of; `None` if there is none.
    pub fn of(text: &str) -> Option<Stamp> {
        let (date, rest) = text.as_bytes().split_first_chunk::<19>()?;
        let fits = |(byte, form): (&u8, &u8)| byte == form || (*form == b'0' && byte.is_ascii_digit());
        let fraction = match rest {
            [b'Z'] => &[][..],
            [b'.', fraction @ .., b'Z'] if (1..=9).contains(&fraction.len()) => fraction,
            _ => return None,
        };
        if !date.iter().zip(FORM).all(fits) || !fraction.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let year = number(&date[..4])
            .checked_sub(FIRST_YEAR)
            .filter(|year| *year < YEARS)?;
        let [month, day, hour, minute, second] = [5, 8, 11, 14, 17].map(|at| number(&date[at..at + 2]));
        let is_in_range =
            (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 60;
        let days = || (year * 12 + month - 1) * 31 + day - 1;
        is_in_range.then(|| Stamp {
            number: (((days() * 24 + hour) * 60 + minute) * 60 + second) * FRACTIONS + number(fraction),
            digits: fraction.len() as u8,
        })
    }

    /// The text, at the end of `out`.
    pub fn write(self, out: &mut Vec<u8>) {
        let (mut rest, mut fraction) = (self.number / FRACTIONS, self.number % FRACTIONS);
        let mut next = |radix: u64| {
            let field = rest % radix;
            rest /= radix;
            field
        };
        let [second, minute, hour, day, month] = [60, 60, 24, 31, 12].map(&mut next);
        let year = rest + FIRST_YEAR;
        let mut text = *b"0000-00-00T00:00:00.000000000Z";
        let pairs = [year / 100, year % 100, month + 1, day + 1, hour, minute, second];
        for (at, pair) in [0, 2, 5, 8, 11, 14, 17].into_iter().zip(pairs) {
            text[at] += (pair / 10) as u8;
            text[at + 1] += (pair % 10) as u8;
        }
        let end = FORM.len() + usize::from(self.digits) + usize::from(self.digits > 0);
        for digit in text[FORM.len()..end].iter_mut().skip(1).rev() {
            *digit += (fraction % 10) as u8;
            fraction /= 10;
        }
        text[end] = b'Z';
        out.extend_from_slice(&text[..=end]);
    }
}

/// A time where it was found: as a number, or as a text that no number gives back.
#[derive(Clone, Copy)]
pub(super) enum Time<'a> {
    Stamp(Stamp),
    Text(&'a str),
}

impl Time<'_> {
    /// The time that is spelt like this.
    pub fn of(text: &str) -> Time<'_> {
        Stamp::of(text).map_or(Time::Text(text), Time::Stamp)
    }
}

/// When a secret was changed, as its server spells it; empty if it doesn't tell.
#[derive(Clone, PartialEq, Eq)]
pub struct UpdateTime(Held);

/// No larger than a text's address, since there may be a million of them, and no allocation.
#[derive(Clone, PartialEq, Eq)]
enum Held {
    Stamp { number: u64, digits: u8 },
    Text(Box<Text>),
}

#[derive(Clone, PartialEq, Eq)]
struct Text(Box<str>);

impl UpdateTime {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        matches!(&self.0, Held::Text(text) if text.0.is_empty())
    }

    pub(super) fn as_time(&self) -> Time<'_> {
        match &self.0 {
            Held::Text(text) => Time::Text(&text.0),
            &Held::Stamp { number, digits } => Time::Stamp(Stamp { number, digits }),
        }
    }
}

impl From<&str> for UpdateTime {
    fn from(text: &str) -> UpdateTime {
        Time::of(text).into()
    }
}

impl From<Time<'_>> for UpdateTime {
    fn from(time: Time) -> UpdateTime {
        UpdateTime(match time {
            Time::Stamp(Stamp { number, digits }) => Held::Stamp { number, digits },
            Time::Text(text) => Held::Text(Box::new(Text(text.into()))),
        })
    }
}

impl fmt::Display for UpdateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_time() {
            Time::Text(text) => f.pad(text),
            Time::Stamp(stamp) => {
                let mut text = Vec::with_capacity(FORM.len() + 11);
                stamp.write(&mut text);
                f.pad(as_text(&text))
            }
        }
    }
}

impl fmt::Debug for UpdateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string(), f)
    }
}

#[cfg(test)]
impl serde::Serialize for UpdateTime {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The number that these digits are.
fn number(digits: &[u8]) -> u64 {
    digits
        .iter()
        .fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzz::mutated_text;

    fn written(stamp: Stamp) -> String {
        let mut out = Vec::new();
        stamp.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_servers_write_is_a_number() {
        for text in [
            "2019-05-14T23:41:52.904927369Z",
            "2026-11-21T10:00:00Z",
            "2026-11-21T10:00:00.000Z",
            "2026-11-21T10:00:00.5Z",
            "1900-01-01T00:00:00.0Z",
            "2411-12-31T23:59:59.999999999Z",
            "2026-02-31T00:00:00.000000001Z",
        ] {
            assert_eq!(Stamp::of(text).map(written).as_deref(), Some(text));
        }
    }

    #[test]
    fn what_would_not_come_back_is_none() {
        for text in [
            "",
            "Z",
            "2026-11-21",
            "2026-11-21T10:00:00",
            "2026-11-21T10:00:00.Z",
            "2026-11-21T10:00:00.0000000000Z",
            "2026-11-21T10:00:00z",
            "2026-11-21t10:00:00Z",
            "2026-11-21 10:00:00Z",
            "2026-11-21T10:00:00+00:00",
            "2026-11-21T10:00:00.5+02:00Z",
            "1899-12-31T23:59:59Z",
            "2412-01-01T00:00:00Z",
            "2026-00-21T10:00:00Z",
            "2026-13-21T10:00:00Z",
            "2026-11-00T10:00:00Z",
            "2026-11-32T10:00:00Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T10:60:00Z",
            "2026-11-21T10:00:60Z",
            "2026-11-2lT10:00:00Z",
            "2026-11-21T10:00:00.1 Z",
            "２026-11-21T10:00:00Z",
        ] {
            assert_eq!(Stamp::of(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_text_comes_back_or_is_no_stamp(text in prop_oneof![
            "[12][0-9]{3}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{0,10})?Z",
            mutated_text(&["2019-05-14T23:41:52.904927369Z", "2019-05-14T23:41:52Z"]),
            any::<String>(),
        ]) {
            if let Some(stamp) = Stamp::of(&text) {
                prop_assert_eq!(written(stamp), &*text);
            }
            let time = UpdateTime::from(&*text);
            prop_assert_eq!(time.is_empty(), text.is_empty());
            prop_assert_eq!(time.to_string(), text);
        }
    }
}
