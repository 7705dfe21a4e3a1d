//! Listings, read as they come: a folder may hold a million names.
//!
//! A policy of OpenBao's may cut every listing short (`pagination_limit`), and an answer that is cut says nothing of it.
//! But who asks for more names than that is refused, so all are asked for, and after a refusal page by page.

use std::io::{BufReader, Chain, Cursor, Read};
use std::sync::atomic::Ordering;

use serde::Deserialize;

use super::{Found, Session, answer};
use crate::error::{Error, Kind, Result, fail};
use crate::http::{Method, Reply, encode_path};

/// An answer's body, of which no more than a part is in memory.
pub enum Body<'a> {
    /// All of it: most folders are small, and what is in memory is read faster.
    Whole(&'a [u8]),
    /// It goes on.
    Stream(BufReader<Chain<Cursor<Vec<u8>>, &'a mut dyn Read>>),
}

/// The largest body that is in memory as a whole, in bytes: the metadata of some six hundred secrets.
const WHOLE: u64 = 256 * 1024;
/// The part of a larger one that is in memory, in bytes.
const BUFFER: usize = 16 * 1024;

impl Session<'_> {
    /// Asks for a listing of the folder `path` (which ends with `/`), with a query (empty, or beginning with `?`), and has
    /// `read` read the answer; from the start again, if that is cut off. `None` for an empty or missing folder.
    ///
    /// # Errors
    /// Whatever is not a clear answer of Vault's, by kind; [`Kind::Protocol`] if `read` can't read it.
    pub fn listing<T>(
        &self,
        path: &str,
        query: &str,
        read: impl Fn(&Reply, Body) -> serde_json::Result<T>,
    ) -> Result<Option<T>> {
        let mut listed = None;
        let mut take = |reply: &Reply, body: &mut dyn Read| {
            let mut start = Vec::new();
            let begun = (&mut *body).take(WHOLE).read_to_end(&mut start);
            begun.map_err(|_| answer::unlike_vault(reply))?;
            let outcome = match start.len() as u64 == WHOLE {
                true => {
                    let stream = Cursor::new(start).chain(body);
                    read(reply, Body::Stream(BufReader::with_capacity(BUFFER, stream)))
                }
                false => read(reply, Body::Whole(&start)),
            };
            listed = Some(outcome.map_err(|_| answer::unlike_vault(reply))?);
            Ok(())
        };
        let reply = self.send_asking(Method::List, (path, query), None, Some(&mut take))?;
        match answer::found(reply)? {
            Found::Live(reply) if reply.status == 200 => match listed {
                Some(listed) => Ok(Some(listed)),
                None => Err(answer::unlike_vault(&reply)),
            },
            Found::Absent => Ok(None),
            Found::Live(reply) | Found::Deleted(reply) => Err(answer::refusal(&reply)),
        }
    }

    /// All names in the folder `path` (which ends with `/`); those of folders end with `/`.
    ///
    /// # Errors
    /// Whatever is not a clear answer of Vault's, by kind. An empty or missing folder is no error.
    pub fn list(&self, path: &str) -> Result<Vec<String>> {
        if self.vault.lists_in_pages.load(Ordering::Relaxed) {
            return self.list_in_pages(path);
        }
        match self.list_page(path, "?limit=-1") {
            Ok(Some(names)) => Ok(names),
            Ok(None) => self.list_first(path),
            Err(error) if error.kind() == Kind::Denied => {
                let names = self.list_in_pages(path)?;
                self.vault.lists_in_pages.store(true, Ordering::Relaxed);
                Ok(names)
            }
            Err(error) => Err(error),
        }
    }

    /// What is answered to who asks for nothing in particular: all names, or as many as a policy allows.
    fn list_first(&self, path: &str) -> Result<Vec<String>> {
        let names = self.list_page(path, "")?;
        names.ok_or_else(|| Error::new(Kind::Protocol, "its listing holds no names, not even none"))
    }

    fn list_in_pages(&self, path: &str) -> Result<Vec<String>> {
        let mut names = self.list_first(path)?;
        while let Some(last) = names.last() {
            let page = self.list_page(path, &format!("?after={}", encode_path(last)))?;
            let page = page.unwrap_or_default();
            if page.is_empty() || page == names {
                // What knows no pages (KV version 1) gives all names each time.
                break;
            }
            if page.iter().any(|name| name <= last) {
                return fail(
                    Kind::Protocol,
                    "its listing does not go on where the page before it ended",
                );
            }
            names.extend(page);
        }
        Ok(names)
    }

    /// `None` if the server does not know the query, and does not say of what is empty that it is.
    fn list_page(&self, path: &str, query: &str) -> Result<Option<Vec<String>>> {
        let names = self.listing(path, query, |_, body| names(body))?;
        Ok(names.unwrap_or_else(|| Some(Vec::new())))
    }
}

/// The names in the answer to a listing; `None` if there are none and the server has passed over a parameter: then it
/// also answers so where nothing is, instead of with a 404.
fn names(body: Body) -> serde_json::Result<Option<Vec<String>>> {
    #[derive(Deserialize)]
    struct Listing {
        data: Names,
        #[serde(default)]
        warnings: Option<Vec<String>>,
    }
    #[derive(Deserialize)]
    struct Names {
        keys: Option<Vec<String>>,
    }
    let passed_over = |warning: &String| warning.contains("ignored these unrecognized parameters");
    let Listing { data, warnings } = match body {
        Body::Whole(bytes) => serde_json::from_slice(bytes)?,
        Body::Stream(stream) => serde_json::from_reader(stream)?,
    };
    match data.keys {
        Some(names) => Ok(Some(names)),
        None if warnings.iter().flatten().any(passed_over) => Ok(None),
        None => Err(serde::de::Error::missing_field("keys")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzz::mutated;

    #[test]
    fn names_are_those_under_keys() {
        for (body, expected) in [
            (r#"{"data":{"keys":["a","b/"]},"warnings":null}"#, Some(Some(2))),
            (r#"{"data":{"keys":[]}}"#, Some(Some(0))),
            (
                r#"{"data":{},"warnings":["Endpoint ignored these unrecognized parameters: [limit]"]}"#,
                Some(None),
            ),
            (r#"{"data":{},"warnings":["something else"]}"#, None),
            (r#"{"data":{}}"#, None),
            (r#"{"data":null}"#, None),
            (r#"{"data":{"keys":["a"]}}garbage"#, None),
            (r#"{"data":{"keys":["a""#, None),
        ] {
            let found = names(Body::Whole(body.as_bytes()))
                .ok()
                .map(|names| names.map(|names| names.len()));
            assert_eq!(found, expected, "{body}");
        }
    }

    proptest! {
        #[test]
        fn no_name_is_made_up(body in mutated(&[r#"{"data":{"keys":["alpha","beta/"]},"warnings":null,"errors":null}"#])) {
            if let Ok(Some(names)) = names(Body::Whole(&body)) {
                prop_assert!(names.iter().map(String::len).sum::<usize>() <= body.len());
            }
        }
    }
}
