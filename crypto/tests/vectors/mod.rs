//! Known answers from published sources, one list per kind of row. Octets are
//! in hexadecimal.

pub(crate) mod ciphers;
pub(crate) mod groups;
pub(crate) mod macs;
pub(crate) mod signatures;

/// The octets that `digits` spell.
pub(crate) fn hex(digits: &str) -> Vec<u8> {
    assert!(digits.len().is_multiple_of(2), "{digits}");
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}
