//! What is held of a question, as it is held.

use std::time::Duration;

/// What is held of a question: what was the answer, and when.
pub(super) struct Record {
    pub(super) asked: Duration,
    pub(super) answer: Option<Vec<u8>>,
}

impl Record {
    /// Eight bytes of milliseconds since the epoch, one that says whether there is a value, and the value.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let millis = u64::try_from(self.asked.as_millis()).unwrap_or(u64::MAX);
        let value = self.answer.as_deref().unwrap_or_default();
        let mut bytes = Vec::with_capacity(9 + value.len());
        bytes.extend_from_slice(&millis.to_be_bytes());
        bytes.push(u8::from(self.answer.is_some()));
        bytes.extend_from_slice(value);
        bytes
    }

    /// `None` for what is no record.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Record> {
        let (millis, rest) = bytes.split_first_chunk::<8>()?;
        let answer = match rest.split_first()? {
            (0, []) => None,
            (1, value) => Some(value.to_vec()),
            _ => return None,
        };
        Some(Record {
            asked: Duration::from_millis(u64::from_be_bytes(*millis)),
            answer,
        })
    }
}
