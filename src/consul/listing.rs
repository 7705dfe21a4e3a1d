//! Listings of keys, and what keeps a missing right from looking like "no keys".
//!
//! Consul leaves out of a listing whatever the token may not read, without a word (FACTS.md T3); only of a single key does it
//! say that it may not be read. So beside each listing a key of the same folder is read. Rules that are finer than folders
//! are not seen by that: a key that has a rule of its own, or a folder below, is left out if that denies it.

use super::{Consul, Rule};
use crate::error::Result;
use crate::http::{Method, Reply, encode_path};
use crate::scope::Scope;

/// The largest listing that is read, in bytes: a folder of two million keys.
const LISTING_LIMIT: u64 = 256 << 20;
/// The name of the key that is read beside a listing; it need not be there.
const PROBE: &str = "~";

impl Consul {
    /// The names right below `folder`, which is empty or ends with `/`; those of folders end with `/`. What is missing has
    /// none. A key of the name of the folder itself is not among them.
    ///
    /// # Errors
    /// As [`get`](Self::get); of a folder that the token may not read too.
    pub fn list(&self, scope: &Scope, folder: &str) -> Result<Vec<String>> {
        let target = format!("/v1/kv/{}?keys&separator=/&consistent", encode_path(folder));
        let reply = self.send_for(scope, Method::Get, &target, None, LISTING_LIMIT)?;
        let names = self.names(folder, reply)?;
        self.get(scope, &format!("{folder}{PROBE}"))?;
        Ok(names)
    }

    fn names(&self, folder: &str, reply: Reply) -> Result<Vec<String>> {
        if is_absence(&reply) {
            return Ok(Vec::new());
        }
        // Where no rule is needed for listings, none is denied.
        let reply = self.done(reply, Rule::List(folder))?;
        let keys: Vec<String> = serde_json::from_slice(&reply.body).map_err(|_| self.not_consul())?;
        let mut names = Vec::with_capacity(keys.len());
        for key in &keys {
            let name = key.strip_prefix(folder).ok_or_else(|| self.not_consul())?;
            if !name.is_empty() {
                names.push(name.to_string());
            }
        }
        Ok(names)
    }
}

/// Whether it is Consul itself that says that there is no such key. A proxy's 404 page must not read so: only Consul sends the
/// header.
pub(super) fn is_absence(reply: &Reply) -> bool {
    reply.status == 404 && reply.body.is_empty() && reply.header("x-consul-index").is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::consul::ConsulSettings;
    use crate::fuzz::{flaw, mutated};
    use crate::http::TlsSettings;

    const BODIES: &[&str] = &[
        r#"["p/a","p/a/","p/SECRET"]"#,
        r#"["p/"]"#,
        "[]",
        "",
        "null",
        "Permission denied",
        "ACL not found SECRET",
        "<html>SECRET</html>",
    ];

    fn names(status: u16, body: Vec<u8>, is_consul: bool) -> Result<Vec<String>> {
        let consul = Consul::new(ConsulSettings {
            address: "http://consul:8500".into(),
            tls: TlsSettings::default(),
            dc: None,
            token: None,
        });
        let header: &[_] = if is_consul { &[("x-consul-index", "7")] } else { &[] };
        consul.names("p/", Reply::new(status, body, header))
    }

    #[test]
    fn names_are_those_of_the_folder() {
        let of = |body: &str| names(200, body.into(), true).ok();
        assert_eq!(of(BODIES[0]), Some(["a", "a/", "SECRET"].map(str::to_string).to_vec()));
        assert_eq!(of(BODIES[1]), Some(Vec::new()));
        assert_eq!(of(BODIES[2]), Some(Vec::new()));
        for other in [&BODIES[3..], &[r#"["p/a","q/b"]"#, r#"["p/a""#]].concat() {
            assert_eq!(of(other), None, "{other}");
        }
        let denied = names(403, b"Permission denied".to_vec(), true).unwrap_err().to_string();
        assert!(
            denied.ends_with(r#"key_prefix "p/" { policy = "list" } [status 403]"#),
            "{denied}"
        );
    }

    proptest! {
        #[test]
        fn only_consul_says_that_a_folder_is_empty(
            body in mutated(BODIES),
            status in prop::sample::select(&[200_u16, 204, 301, 400, 403, 404, 404, 404, 413, 429, 500, 503][..]),
            is_consul in any::<bool>(),
        ) {
            let (length, is_empty) = (body.len(), body.is_empty());
            match names(status, body, is_consul) {
                Ok(_) if status == 404 => prop_assert!(is_empty && is_consul),
                Ok(names) => prop_assert!(names.iter().map(String::len).sum::<usize>() <= length),
                Err(error) => prop_assert_eq!(flaw(&error, "SECRET"), None, "{}", error),
            }
        }
    }
}
