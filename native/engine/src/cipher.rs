//! The AEADs of the lanes, from `ring`.
//!
//! With the feature `null-cipher` nothing is sealed, and every datagram opens: `omni bench` builds such a module for itself, to
//! show what is left without cryptography. No other build may have it.

/// Bytes of an AEAD tag.
pub const TAG: usize = 16;

/// A lane's cipher; the numbers are those on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aead {
    /// ChaCha20-Poly1305 (RFC 8439).
    ChaCha20Poly1305,
    /// AES-256-GCM (NIST SP 800-38D).
    Aes256Gcm,
}

/// A key of one direction of a lane.
pub(crate) struct Cipher(#[cfg(not(feature = "null-cipher"))] ring::aead::LessSafeKey);

#[cfg(not(feature = "null-cipher"))]
impl Cipher {
    pub(crate) fn new(aead: Aead, bytes: &[u8; 32]) -> Self {
        use ring::aead::{AES_256_GCM, CHACHA20_POLY1305, LessSafeKey, UnboundKey};
        let algorithm = match aead {
            Aead::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            Aead::Aes256Gcm => &AES_256_GCM,
        };
        Self(LessSafeKey::new(UnboundKey::new(algorithm, bytes).expect("both ciphers take keys of 32 bytes")))
    }

    /// Seal in place: the tag. None for more data than the cipher takes.
    pub(crate) fn seal(&self, counter: u64, data: &mut [u8]) -> Option<[u8; TAG]> {
        let tag = self.0.seal_in_place_separate_tag(nonce(counter), ring::aead::Aad::empty(), data);
        tag.ok()?.as_ref().try_into().ok()
    }

    /// Open what ends with its tag, in place: the length of the plaintext. None if the tag does not fit.
    pub(crate) fn open(&self, counter: u64, data: &mut [u8]) -> Option<usize> {
        let plaintext = self.0.open_in_place(nonce(counter), ring::aead::Aad::empty(), data);
        plaintext.map(|it| it.len()).ok()
    }
}

#[cfg(not(feature = "null-cipher"))]
fn nonce(counter: u64) -> ring::aead::Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    ring::aead::Nonce::assume_unique_for_key(bytes)
}

#[cfg(feature = "null-cipher")]
impl Cipher {
    pub(crate) fn new(_: Aead, _: &[u8; 32]) -> Self {
        Self()
    }

    pub(crate) fn seal(&self, _: u64, _: &mut [u8]) -> Option<[u8; TAG]> {
        Some([0; TAG])
    }

    pub(crate) fn open(&self, _: u64, data: &mut [u8]) -> Option<usize> {
        data.len().checked_sub(TAG)
    }
}

#[cfg(all(test, not(feature = "null-cipher")))]
mod tests {
    use super::*;
    use ring::aead::{Aad, Nonce};

    /// `tests/vectors/wycheproof_aead.json` holds a vector a line, all strings: cipher, result, key, nonce, aad, plaintext,
    /// ciphertext, tag, comment.
    #[test]
    fn wycheproof_vectors_seal_and_open_as_they_should() {
        let unhex = |text: &str| -> Vec<u8> {
            (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
        };
        let text = include_str!("../../../tests/vectors/wycheproof_aead.json");
        let mut tried = [0, 0];
        for line in text.lines().filter(|it| it.starts_with("    [")) {
            let fields: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
            let aead = if fields[0] == "aes_256_gcm" { Aead::Aes256Gcm } else { Aead::ChaCha20Poly1305 };
            let [bytes, nonce, aad, plaintext, ciphertext, tag] = [2, 3, 4, 5, 6, 7].map(|at| unhex(fields[at]));
            let key = Cipher::new(aead, &bytes.try_into().expect("32 bytes")).0;
            let nonce: [u8; 12] = nonce.try_into().expect("12 bytes");
            let mut opened = [&ciphertext[..], &tag[..]].concat();
            let result = key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(&aad), &mut opened);
            if fields[1] == "valid" {
                assert_eq!(result.expect(line), plaintext, "{line}");
                let mut sealed = plaintext.clone();
                let nonce = Nonce::assume_unique_for_key(nonce);
                let made = key.seal_in_place_separate_tag(nonce, Aad::from(&aad), &mut sealed).expect(line);
                assert_eq!((sealed, made.as_ref()), (ciphertext, &tag[..]), "{line}");
            } else {
                assert!(result.is_err(), "{line}");
            }
            tried[aead as usize] += 1;
        }
        assert_eq!(tried, [316, 66]);
    }
}
