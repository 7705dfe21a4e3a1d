//! Answers in the form that Vault gives them.

use serde_json::{Value, json};

use crate::http::serve::Answer;

/// An answer with this JSON as its body.
pub fn json(status: u16, body: &Value) -> Answer {
    raw(status, body.to_string().into_bytes())
}

/// An answer with a body that is JSON already.
pub fn raw(status: u16, body: Vec<u8>) -> Answer {
    let headers = [("Content-Type", "application/json"), ("Cache-Control", "no-store")];
    Answer {
        status,
        headers: headers.map(|(name, value)| (name, value.to_string())).into(),
        body: body.into(),
    }
}

/// A refusal with its reasons.
pub fn errors(status: u16, reasons: &[&str]) -> Answer {
    json(status, &json!({ "errors": reasons }))
}

/// What Vault says of what is not there.
pub fn absent() -> Answer {
    errors(404, &[])
}

/// What Vault says to who has no token, or one that it does not know.
pub fn denied() -> Answer {
    errors(403, &["permission denied"])
}

/// What OpenBao says to a token whose policies don't allow it (FACTS.md section 9).
pub fn lacking() -> Answer {
    errors(403, &["1 error occurred:\n\t* permission denied\n\n"])
}

/// `data` in Vault's envelope.
pub fn data(data: &Value) -> Vec<u8> {
    let envelope = json!({
        "request_id": "",
        "lease_id": "",
        "renewable": false,
        "lease_duration": 0,
        "data": data,
        "wrap_info": null,
        "warnings": null,
        "auth": null,
    });
    envelope.to_string().into_bytes()
}
