//! Numbers that a KV version 2 engine does not give back as they were written.
//!
//! It reads them as 64-bit floats (T5 of the facts): `9007199254740993` comes back as `9007199254740992`, `1.0` as `1`.
//! The second is another spelling of the same number, the first is a loss, and the user is told of it by path.

use serde_json::value::RawValue;
use serde_json::{Number, Value};

use super::Secret;

/// So many decimal digits always survive a 64-bit float.
const SAFE_DIGITS: usize = 15;

/// Whether some number of the secret has another value after it went through a 64-bit float.
pub fn is_rounded(secret: &Secret) -> bool {
    let text = secret.data.get();
    has_long_number(text) && serde_json::from_str(text).is_ok_and(|value| holds_rounded(&value))
}

/// Whether both hold the same data once all numbers went through 64-bit floats.
pub fn same_when_rounded(one: &RawValue, other: &RawValue) -> bool {
    let rounded = |data: &RawValue| serde_json::from_str(data.get()).ok().map(round_all);
    matches!((rounded(one), rounded(other)), (Some(a), Some(b)) if a == b)
}

/// Whether a run of digits is long enough for a loss, in a string or not: hardly any secret has to be taken apart.
/// Without one, only a huge or tiny exponent could lose something, and a server refuses or floors these itself.
fn has_long_number(text: &str) -> bool {
    let mut run = 0;
    text.bytes().any(|byte| {
        match byte {
            b'0'..=b'9' => run += 1,
            b'.' => {}
            _ => run = 0,
        }
        run > SAFE_DIGITS
    })
}

fn holds_rounded(value: &Value) -> bool {
    match value {
        Value::Number(number) => loses_digits(number.as_str()),
        Value::Array(items) => items.iter().any(holds_rounded),
        Value::Object(object) => object.values().any(holds_rounded),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

fn loses_digits(literal: &str) -> bool {
    let Ok(float) = literal.parse::<f64>() else {
        return false;
    };
    decimal(literal) != decimal(&format!("{float:e}"))
}

/// A number as its significant digits and the power of ten they are multiplied by; its sign left out. Of zero: nothing.
fn decimal(literal: &str) -> (String, i64) {
    let (mantissa, exponent) = literal.split_once(['e', 'E']).unwrap_or((literal, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all: String = [whole.trim_start_matches(['-', '+']), fraction].concat();
    let digits = all.trim_end_matches('0');
    let trailing = all.len() - digits.len();
    let digits = digits.trim_start_matches('0').to_owned();
    if digits.is_empty() {
        return (digits, 0);
    }
    let exponent = exponent.trim_start_matches('+').parse::<i64>().unwrap_or(0);
    let shift = i64::try_from(trailing).unwrap_or(0) - i64::try_from(fraction.len()).unwrap_or(0);
    (digits, exponent.saturating_add(shift))
}

fn round_all(value: Value) -> Value {
    match value {
        Value::Number(number) => {
            let float = number.as_f64().and_then(Number::from_f64);
            Value::Number(float.unwrap_or(number))
        }
        Value::Array(items) => items.into_iter().map(round_all).collect(),
        Value::Object(object) => object.into_iter().map(|(key, value)| (key, round_all(value))).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::made(RawValue::from_string(text.to_owned()).unwrap())
    }

    #[test]
    fn only_a_changed_value_is_a_loss() {
        for (number, lost) in [
            ("9007199254740992", false),
            ("9007199254740993", true),
            ("-9007199254740993", true),
            ("90071992547409930000", true),
            ("100000000000000000000000", false),
            ("1.0", false),
            ("1e2", false),
            ("1E+21", false),
            ("0.0000001", false),
            ("-0", false),
            ("0.00", false),
            ("0.12345678901234567890", true),
            ("0.12345678901234568", false),
            ("12345678.9", false),
            ("1.7976931348623157e308", false),
        ] {
            let text = format!(r#"{{"a":[{{"n":{number}}}]}}"#);
            assert_eq!(is_rounded(&secret(&text)), lost, "{number}");
        }
        assert!(!is_rounded(&secret(r#"{"n":"9007199254740993"}"#)));
    }

    #[test]
    fn what_a_server_gives_back_rounded_is_the_same_data() {
        for (sent, read, same) in [
            (
                r#"{"n":9007199254740993,"f":1.0,"e":1e2}"#,
                r#"{"e":100,"f":1,"n":9007199254740992}"#,
                true,
            ),
            (r#"{"d":0.12345678901234567890}"#, r#"{"d":0.12345678901234568}"#, true),
            (r#"{"n":9007199254740993}"#, r#"{"n":9007199254740994}"#, false),
            (r#"{"n":1}"#, r#"{"n":"1"}"#, false),
        ] {
            assert_eq!(
                same_when_rounded(&secret(sent).data, &secret(read).data),
                same,
                "{sent}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_a_float_prints_is_no_loss(float in any::<f64>().prop_filter("a number", |float| float.is_finite())) {
            let plain = format!("{float:e}");
            prop_assert!(!loses_digits(&plain), "{}", plain);
        }

        #[test]
        fn whole_numbers_are_lost_exactly_where_a_float_prints_another(number in any::<u64>()) {
            // Of a float's many decimals a server prints the shortest, with zeros behind it.
            let printed = (number as f64).to_string();
            prop_assert_eq!(loses_digits(&number.to_string()), printed != number.to_string());
        }
    }
}
