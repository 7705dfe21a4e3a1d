//! What a Vault says to another token than the client's own: that of somebody who reads through the local replica.
//!
//! Such a token is never kept, renewed or had again; a refusal is an answer about it.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::json;

use super::{Session, answer, is_refused};
use crate::error::{Context, Result};
use crate::http::{Method, Reply, encode_path};
use crate::secret::SecretString;

impl Session<'_> {
    /// What `token` may do with `path`, as `sys/capabilities-self` says; `None` if the Vault does not know the token, or
    /// doesn't let it ask.
    ///
    /// # Errors
    /// Whatever is not a clear answer of Vault's.
    pub fn capabilities_of(&self, token: &SecretString, path: &str) -> Result<Option<Vec<String>>> {
        #[derive(Deserialize)]
        struct Answer {
            data: HashMap<String, serde_json::Value>,
        }
        let context = || format!("ask what a reader's token may do with {path}");
        let body = json!({ "paths": [path] }).to_string();
        let target = "sys/capabilities-self";
        let reply = self.send_with(Some(token), Method::Post, target, Some(body.as_bytes()));
        let reply = reply.context(context)?;
        if is_refused(&reply) {
            return Ok(None);
        }
        let reply = answer::done(reply).context(context)?;
        let words = serde_json::from_slice::<Answer>(&reply.body)
            .ok()
            .and_then(|mut answer| answer.data.remove(path))
            .and_then(|words| serde_json::from_value(words).ok());
        match words {
            Some(words) => Ok(Some(words)),
            None => Err(answer::unlike_vault(&reply)).context(context),
        }
    }

    /// Reads `path` with `token`, whatever the Vault answers: its own answer, or a refusal of its own.
    ///
    /// # Errors
    /// An answer that is not Vault's, or one that says nothing of the path: the server is sealed, busy, or away.
    pub fn read_as(&self, token: &SecretString, path: &str) -> Result<Reply> {
        let context = || format!("read {path} with a reader's token");
        let target = format!("/v1/{}", encode_path(path));
        let reply = self.send_to(Some(token), (Method::Get, &target, None), None);
        let reply = reply.context(context)?;
        match is_refused(&reply) {
            true => Ok(reply),
            false => answer::done(reply).context(context),
        }
    }
}
