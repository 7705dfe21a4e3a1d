//! What a store's answers say: a page of a listing, or why it refuses.
//!
//! Nothing is believed that an S3 store does not say: a page names its bucket and prefix and says whether it is the last, and
//! a refusal has a code. Codes are sorted here and never quoted.

use percent_encoding::percent_decode_str;
use roxmltree::{Document, Node, ParsingOptions};

use crate::error::Kind;

/// The most elements and texts in an answer: a thousand keys have some twenty each.
const NODES_LIMIT: u32 = 200_000;

/// One page of a listing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// Keys of objects, and prefixes that several have in common, which end with a slash; each without the prefix asked for.
    pub rests: Vec<String>,
    /// What to ask the next page with; `None` after the last.
    pub next: Option<String>,
}

/// Reads a page of the listing of `prefix`; `None` if it is not one.
pub(super) fn page(body: &[u8], bucket: &str, prefix: &str) -> Option<Page> {
    let document = parse(body)?;
    let root = document.root_element();
    let is_encoded = value(root, "EncodingType") == Some("url");
    let decode = |text: &str| match is_encoded {
        true => decoded(text),
        false => Some(text.to_string()),
    };
    // Some leave out an empty prefix.
    let own_prefix = decode(value(root, "Prefix").unwrap_or_default())?;
    if root.tag_name().name() != "ListBucketResult" || value(root, "Name") != Some(bucket) || own_prefix != prefix {
        return None;
    }
    let mut rests = Vec::new();
    for child in root.children() {
        let key = match child.tag_name().name() {
            "Contents" => decode(value(child, "Key")?)?,
            "CommonPrefixes" => decode(value(child, "Prefix")?)?,
            _ => continue,
        };
        rests.push(key.strip_prefix(prefix)?.to_string());
    }
    let next = match value(root, "IsTruncated")? {
        "false" => None,
        "true" => Some(
            value(root, "NextContinuationToken")
                .filter(|token| !token.is_empty())?
                .to_string(),
        ),
        _ => return None,
    };
    Some(Page { rests, next })
}

fn parse(body: &[u8]) -> Option<Document<'_>> {
    let options = ParsingOptions {
        nodes_limit: NODES_LIMIT,
        ..ParsingOptions::default()
    };
    Document::parse_with_options(std::str::from_utf8(body).ok()?, options).ok()
}

/// As S3 encodes keys in listings: like a form.
fn decoded(text: &str) -> Option<String> {
    let plain = text.replace('+', " ");
    Some(percent_decode_str(&plain).decode_utf8().ok()?.into_owned())
}

/// The text of a child, if that is there.
fn value<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    let child = node.children().find(|child| child.tag_name().name() == name)?;
    Some(child.text().unwrap_or_default())
}

/// Why a store refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is no such object.
    NoSuchKey,
    /// There is no such bucket.
    NoSuchBucket,
    /// The key's policies do not allow it.
    AccessDenied,
    /// The store does not know the key.
    UnknownKey,
    /// The signature is not one with this key.
    WrongSecret,
    /// The session token is expired or wrong.
    WrongToken,
    /// The clocks differ.
    ClockSkew,
    /// The bucket is in another region, or has another address.
    Elsewhere,
    /// It is too large, or has a name that the store does not take.
    TooLarge,
    /// The store asks to slow down.
    SlowDown,
    /// The store waited in vain for the rest of the request.
    Cut,
    /// Something else.
    Other,
}

impl Refusal {
    /// The refusal with this status and body; `None` if an S3 store does not refuse like that.
    pub(super) fn read(status: u16, body: &[u8]) -> Option<Refusal> {
        // A value that was read may be large.
        let document = if status >= 300 { parse(body)? } else { return None };
        let root = document.root_element();
        let code = value(root, "Code").filter(|_| root.tag_name().name() == "Error")?;
        Some(match code {
            "NoSuchKey" if status == 404 => Refusal::NoSuchKey,
            "NoSuchBucket" => Refusal::NoSuchBucket,
            "AccessDenied" | "AllAccessDisabled" | "AccountProblem" => Refusal::AccessDenied,
            "InvalidAccessKeyId" => Refusal::UnknownKey,
            "SignatureDoesNotMatch" => Refusal::WrongSecret,
            "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => Refusal::WrongToken,
            "RequestTimeTooSkewed" => Refusal::ClockSkew,
            "AuthorizationHeaderMalformed" | "PermanentRedirect" | "TemporaryRedirect" => Refusal::Elsewhere,
            "EntityTooLarge" | "KeyTooLongError" | "InvalidObjectName" | "QuotaExceeded" => Refusal::TooLarge,
            "SlowDown" | "ServiceUnavailable" | "TooManyRequests" | "RequestLimitExceeded" => Refusal::SlowDown,
            "RequestTimeout" => Refusal::Cut,
            _ => Refusal::Other,
        })
    }

    /// Whether other credentials may help.
    pub(super) fn is_of_credentials(self) -> bool {
        matches!(self, Refusal::UnknownKey | Refusal::WrongSecret | Refusal::WrongToken)
    }

    /// What kind of error it is.
    pub(super) fn kind(self, status: u16) -> Kind {
        match self {
            Refusal::NoSuchKey => Kind::NotFound,
            Refusal::AccessDenied => Kind::Denied,
            // They say nothing of what was asked for: what a replica holds of it goes on to count.
            Refusal::UnknownKey | Refusal::WrongSecret | Refusal::ClockSkew | Refusal::WrongToken => Kind::BadToken,
            Refusal::NoSuchBucket => Kind::Refused,
            Refusal::SlowDown => Kind::Limited,
            Refusal::Cut => Kind::Unreachable,
            Refusal::Other if status >= 500 => Kind::Unreachable,
            Refusal::Elsewhere | Refusal::TooLarge | Refusal::Other => Kind::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzz::mutated;

    const HEAD: &str = r#"<?xml version="1.0" encoding="UTF-8"?>"#;
    const PAGES: &[&str] = &[
        r#"<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Prefix>p+1%2F</Prefix>
<NextContinuationToken>1/t+==</NextContinuationToken><KeyCount>3</KeyCount><MaxKeys>3</MaxKeys><Delimiter>%2F</Delimiter>
<EncodingType>url</EncodingType><IsTruncated>true</IsTruncated><Contents><Key>p+1%2Fa%212e.entry</Key><Size>1</Size>
<Owner><ID>x</ID></Owner></Contents><Contents><Key>p+1/b</Key></Contents>
<CommonPrefixes><Prefix>p+1%2Fa%2F</Prefix></CommonPrefixes></ListBucketResult>"#,
        "<ListBucketResult><Name>b</Name><Prefix>p 1/</Prefix><IsTruncated>false</IsTruncated>\
         <Contents><Key>p 1/&lt;+%2F</Key></Contents></ListBucketResult>",
        "<ListBucketResult><Name>b</Name><Prefix/><IsTruncated>false</IsTruncated></ListBucketResult>",
        "<html><body><h1>200</h1></body></html>",
    ];

    fn names(page: Option<Page>) -> Option<(Vec<String>, Option<String>)> {
        page.map(|page| (page.rests, page.next))
    }

    #[test]
    fn pages_are_read() {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_string()).collect::<Vec<_>>();
        let first = (owned(&["a!2e.entry", "b", "a/"]), Some("1/t+==".to_string()));
        assert_eq!(names(page(PAGES[0].as_bytes(), "b", "p 1/")), Some(first));
        assert_eq!(
            names(page(PAGES[1].as_bytes(), "b", "p 1/")),
            Some((owned(&["<+%2F"]), None))
        );
        assert_eq!(names(page(PAGES[2].as_bytes(), "b", "")), Some((Vec::new(), None)));
    }

    #[test]
    fn what_is_no_page_of_this_listing_is_none() {
        let sound = PAGES[1];
        for body in [
            String::new(),
            HEAD.to_string(),
            PAGES[3].to_string(),
            sound[..sound.len() - 1].to_string(),
            format!("{sound}x"),
            sound.replace("<IsTruncated>false</IsTruncated>", ""),
            sound.replace("false", "perhaps"),
            sound.replace("false", "true"),
            sound.replace("<Name>b", "<Name>c"),
            sound.replace("<Prefix>p 1/", "<Prefix>p 2/"),
            sound.replace("<Prefix>p 1/</Prefix>", ""),
            sound.replace("<Key>p 1/", "<Key>p 2/"),
            sound.replace("Key>", "Kee>"),
            sound.replace("ListBucketResult", "ListBucketResults"),
            format!("<!DOCTYPE x [<!ENTITY a \"b\">]>{sound}"),
        ] {
            assert_eq!(page(body.as_bytes(), "b", "p 1/"), None, "{body}");
        }
        assert_eq!(page(b"\xff", "b", ""), None);
    }

    #[test]
    fn refusals_have_a_code() {
        let error = |code: &str| format!("{HEAD}\n<Error><Code>{code}</Code><Message>SECRET</Message></Error>");
        for (status, code, expected, kind) in [
            (404, "NoSuchKey", Refusal::NoSuchKey, Kind::NotFound),
            (400, "NoSuchKey", Refusal::Other, Kind::Refused),
            (404, "NoSuchBucket", Refusal::NoSuchBucket, Kind::Refused),
            (403, "AccessDenied", Refusal::AccessDenied, Kind::Denied),
            (403, "InvalidAccessKeyId", Refusal::UnknownKey, Kind::BadToken),
            (403, "SignatureDoesNotMatch", Refusal::WrongSecret, Kind::BadToken),
            (403, "RequestTimeTooSkewed", Refusal::ClockSkew, Kind::BadToken),
            (400, "ExpiredToken", Refusal::WrongToken, Kind::BadToken),
            (301, "PermanentRedirect", Refusal::Elsewhere, Kind::Refused),
            (400, "EntityTooLarge", Refusal::TooLarge, Kind::Refused),
            (503, "SlowDown", Refusal::SlowDown, Kind::Limited),
            (400, "RequestTimeout", Refusal::Cut, Kind::Unreachable),
            (500, "InternalError", Refusal::Other, Kind::Unreachable),
            (405, "MethodNotAllowed", Refusal::Other, Kind::Refused),
        ] {
            let refusal = Refusal::read(status, error(code).as_bytes()).unwrap();
            assert_eq!((refusal, refusal.kind(status)), (expected, kind), "{code}");
        }
        for body in [
            "",
            PAGES[3],
            PAGES[2],
            "<Error/>",
            "<Errors><Code>NoSuchKey</Code></Errors>",
            "NoSuchKey",
        ] {
            assert_eq!(Refusal::read(404, body.as_bytes()), None, "{body}");
        }
        assert_eq!(Refusal::read(200, error("NoSuchKey").as_bytes()), None);
    }

    proptest! {
        #[test]
        fn what_is_read_of_a_damaged_page_is_below_its_prefix(body in mutated(PAGES)) {
            if let Some(page) = page(&body, "b", "p 1/") {
                prop_assert!(page.next.is_none_or(|token| !token.is_empty()));
                prop_assert!(page.rests.len() <= body.len());
            }
        }
    }
}
