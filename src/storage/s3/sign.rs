//! AWS's signature of a request, version 4, in its `Authorization` header.
//!
//! Pure: the time comes with the request. Each header given is signed. Paths are taken as they are sent, encoded once, as
//! S3 wants it; other services want them encoded twice. The tests are AWS's own, of its test suite and of S3's manual.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::hmac::hmac_sha256;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What is signed of a request.
pub(super) struct Signable<'a> {
    pub method: &'a str,
    /// Encoded, with its first slash.
    pub path: &'a str,
    /// Names and values, encoded, in any order.
    pub query: &'a str,
    /// With names in lower case, in any order; `host` and `x-amz-date` must be among them.
    pub headers: &'a [(&'a str, &'a str)],
    /// The SHA-256 of the body, as [`hex`] writes it.
    pub payload: &'a str,
}

/// As whom, when and for what.
pub(super) struct Signer<'a> {
    pub access_key_id: &'a str,
    pub secret_key: &'a str,
    pub region: &'a str,
    pub service: &'a str,
    /// The same as in `x-amz-date`: `20261121T100000Z`.
    pub time: &'a str,
}

impl Signer<'_> {
    /// The value of the request's `Authorization` header.
    pub(super) fn authorization(&self, request: &Signable) -> String {
        let headers = canonical_headers(request.headers);
        let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let date = self.time.get(..8).unwrap_or_default();
        let scope = format!("{date}/{}/{}/aws4_request", self.region, self.service);
        let to_sign = format!(
            "{ALGORITHM}\n{}\n{scope}\n{}",
            self.time,
            hex_sha256(canonical(request, &headers, &names).as_bytes())
        );
        let signature = hex(&hmac_sha256(&self.key(date), to_sign.as_bytes()));
        let id = self.access_key_id;
        format!("{ALGORITHM} Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}")
    }

    /// The key of one day, region and service.
    fn key(&self, date: &str) -> [u8; 32] {
        let key = hmac_sha256(format!("AWS4{}", self.secret_key).as_bytes(), date.as_bytes());
        [self.region, self.service, "aws4_request"]
            .iter()
            .fold(key, |key, part| hmac_sha256(&key, part.as_bytes()))
    }
}

/// By name, and without the space that means nothing.
fn canonical_headers<'a>(headers: &[(&'a str, &str)]) -> Vec<(&'a str, String)> {
    let trimmed = |value: &str| value.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut headers: Vec<_> = headers.iter().map(|(name, value)| (*name, trimmed(value))).collect();
    headers.sort_unstable();
    headers
}

fn canonical(request: &Signable, headers: &[(&str, String)], names: &str) -> String {
    let mut query: Vec<_> = request.query.split('&').filter(|pair| !pair.is_empty()).collect();
    query.sort_unstable_by_key(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}:{value}\n"))
        .collect();
    let (method, path, payload) = (request.method, request.path, request.payload);
    format!("{method}\n{path}\n{}\n{headers}\n{names}\n{payload}", query.join("&"))
}

/// The SHA-256 of `bytes` in lower-case hexadecimal digits.
pub(super) fn hex_sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            // Nothing that is written to memory fails.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// The names of the signed headers and the signature.
    fn signed(signer: &Signer, request: &Signable) -> (String, String) {
        let text = signer.authorization(request);
        let (before, signature) = text.rsplit_once(", Signature=").unwrap();
        let (credential, names) = before.rsplit_once(", SignedHeaders=").unwrap();
        let (id, date) = (signer.access_key_id, &signer.time[..8]);
        let (region, service) = (signer.region, signer.service);
        assert_eq!(
            credential,
            format!("AWS4-HMAC-SHA256 Credential={id}/{date}/{region}/{service}/aws4_request")
        );
        (names.to_string(), signature.to_string())
    }

    /// The suite's cases, by its names. They differ from each other in method, path, query, further headers and body.
    #[test]
    fn the_vectors_of_awss_test_suite() {
        let signer = Signer {
            access_key_id: "AKIDEXAMPLE",
            secret_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            region: "us-east-1",
            service: "service",
            time: "20150830T123600Z",
        };
        let token = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqT\
                     flfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HF\
                     vlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr\
                     4rvx3iSIlTJabIQwj2ICCR/oLxBA==";
        type Case<'a> = (
            &'a str,
            &'a str,
            &'a str,
            &'a str,
            &'a [(&'a str, &'a str)],
            &'a str,
            &'a str,
        );
        let cases: [Case; 9] = [
            (
                "get-vanilla",
                "GET",
                "/",
                "",
                &[],
                "",
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                "post-vanilla",
                "POST",
                "/",
                "",
                &[],
                "",
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
            (
                "get-vanilla-query-order-key-case",
                "GET",
                "/",
                "Param2=value2&Param1=value1",
                &[],
                "",
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
            (
                "get-vanilla-query-order-value",
                "GET",
                "/",
                "Param1=value2&Param1=value1",
                &[],
                "",
                "5772eed61e12b33fae39ee5e7012498b51d56abc0abb7c60486157bd471c4694",
            ),
            (
                "get-vanilla-utf8-query",
                "GET",
                "/",
                "%E1%88%B4=bar",
                &[],
                "",
                "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
            ),
            (
                "get-utf8",
                "GET",
                "/%E1%88%B4",
                "",
                &[],
                "",
                "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
            ),
            (
                "get-header-value-trim",
                "GET",
                "/",
                "",
                &[("my-header1", " value1"), ("my-header2", " \"a   b   c\"")],
                "",
                "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
            ),
            (
                "post-sts-header-before",
                "POST",
                "/",
                "",
                &[("x-amz-security-token", token)],
                "",
                "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
            ),
            (
                "post-x-www-form-urlencoded",
                "POST",
                "/",
                "",
                &[("content-type", "application/x-www-form-urlencoded")],
                "Param1=value1",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
        ];
        for (name, method, path, query, further, body, expected) in cases {
            let mut headers = vec![("x-amz-date", signer.time), ("host", "example.amazonaws.com")];
            headers.extend(further);
            let request = Signable {
                method,
                path,
                query,
                headers: &headers,
                payload: &hex_sha256(body.as_bytes()),
            };
            assert_eq!(signed(&signer, &request).1, expected, "{name}");
        }
    }

    /// "Signature Calculations for the Authorization Header", of the reference of S3's API.
    #[test]
    fn the_examples_of_s3s_manual() {
        let signer = Signer {
            access_key_id: "AKIAIOSFODNN7EXAMPLE",
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            region: "us-east-1",
            service: "s3",
            time: "20130524T000000Z",
        };
        let body = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
        assert_eq!(hex_sha256(b"Welcome to Amazon S3."), body);
        type Case<'a> = (
            &'a str,
            &'a str,
            &'a str,
            &'a [(&'a str, &'a str)],
            &'a str,
            &'a str,
            &'a str,
        );
        let cases: [Case; 3] = [
            (
                "GET",
                "/test.txt",
                "",
                &[("range", "bytes=0-9")],
                EMPTY,
                "host;range;x-amz-content-sha256;x-amz-date",
                "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            ),
            (
                "PUT",
                "/test%24file.text",
                "",
                &[
                    ("date", "Fri, 24 May 2013 00:00:00 GMT"),
                    ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
                ],
                body,
                "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
                "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
            ),
            (
                "GET",
                "/",
                "max-keys=2&prefix=J",
                &[],
                EMPTY,
                "host;x-amz-content-sha256;x-amz-date",
                "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
            ),
        ];
        for (method, path, query, further, payload, names, expected) in cases {
            let mut headers = vec![
                ("x-amz-date", signer.time),
                ("x-amz-content-sha256", payload),
                ("host", "examplebucket.s3.amazonaws.com"),
            ];
            headers.extend(further);
            let request = Signable {
                method,
                path,
                query,
                headers: &headers,
                payload,
            };
            assert_eq!(signed(&signer, &request), (names.to_string(), expected.to_string()));
        }
    }

    #[test]
    fn every_part_counts() {
        let base = || {
            let headers: &[_] = &[("host", "h"), ("x-amz-date", "20150830T123600Z")];
            (
                "GET",
                "/a",
                "b=c",
                headers,
                EMPTY,
                "secret",
                "region",
                "20150830T123600Z",
            )
        };
        let sign = |(method, path, query, headers, payload, secret_key, region, time)| {
            let signer = Signer {
                access_key_id: "id",
                secret_key,
                region,
                service: "s3",
                time,
            };
            let request = Signable {
                method,
                path,
                query,
                headers,
                payload,
            };
            signed(&signer, &request).1
        };
        let mut all = vec![sign(base())];
        let mut changed = base();
        changed.0 = "PUT";
        all.push(sign(changed));
        changed.1 = "/A";
        all.push(sign(changed));
        changed.2 = "b=d";
        all.push(sign(changed));
        changed.3 = &[("host", "i"), ("x-amz-date", "20150830T123600Z")];
        all.push(sign(changed));
        changed.4 = "0";
        all.push(sign(changed));
        changed.5 = "Secret";
        all.push(sign(changed));
        changed.6 = "other";
        all.push(sign(changed));
        changed.7 = "20150831T123600Z";
        all.push(sign(changed));
        let different: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
    }
}
