//! HMAC-SHA-256 (RFC 2104), for fingerprints that nobody can check a guess against without the key.
//!
//! A plain hash of a short secret can be guessed from the sync info that holds it. Fifteen lines over `sha2` take the place
//! of a crate; the test vectors are those of RFC 4231.

use sha2::{Digest, Sha256};

/// A key with fewer bytes than this could be guessed together with what it protects, and is refused.
pub const LEAST_KEY: usize = 16;

/// What SHA-256 works on at a time.
const BLOCK: usize = 64;

/// The code of `message` under `key`.
pub fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0; BLOCK];
    if key.len() > BLOCK {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let padded = |pad: u8| Sha256::new().chain_update(block.map(|byte| byte ^ pad));
    let inner = padded(0x36).chain_update(message).finalize();
    padded(0x5c).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_rfc_4231() {
        let long_key = [0xaa; 131];
        let counting: Vec<u8> = (1..=25).collect();
        let table: [(&[u8], &[u8], &str); 6] = [
            (
                &[0x0b; 20],
                b"Hi There",
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                &[0xaa; 20],
                &[0xdd; 50],
                "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
            ),
            (
                &counting,
                &[0xcd; 50],
                "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
            ),
            (
                &long_key,
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
            (
                &long_key,
                b"This is a test using a larger than block-size key and a larger than block-size data. The key needs to be \
                  hashed before being used by the HMAC algorithm.",
                "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
            ),
        ];
        for (key, message, expected) in table {
            let code = hmac_sha256(key, message);
            let text: String = code.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn keys_of_every_length_differ() {
        let codes: std::collections::HashSet<_> = (0..200).map(|length| hmac_sha256(&vec![7; length], b"m")).collect();
        assert_eq!(codes.len(), 200);
    }
}
