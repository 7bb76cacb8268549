//! The RSA operations that no safe interface has: PKCS #1 v1.5 padding around
//! octets that are not a DigestInfo. AWS-LC does them in constant time, blinded,
//! and checks the result before it gives it away.
#![allow(unsafe_code, reason = "calls of AWS-LC; aws-lc-rs, the safe interface, always adds a DigestInfo")]

use aws_lc_sys as c;
use core::ptr::NonNull;

/// An RSA key of AWS-LC, freed, and wiped if private, on drop.
struct Rsa(NonNull<c::RSA>);

// SAFETY: an `RSA` is not changed after it was made but for caches of its own (Montgomery
// contexts, blindings), which AWS-LC guards with locks of its own: its `rsa.h` says that
// the key may be used by several threads at once, and it is bound to none.
unsafe impl Send for Rsa {}
// SAFETY: as above.
unsafe impl Sync for Rsa {}

impl Drop for Rsa {
    fn drop(&mut self) {
        // SAFETY: the pointer came from AWS-LC with one reference, which is ours and goes here.
        unsafe { c::RSA_free(self.0.as_ptr()) }
    }
}

impl Rsa {
    fn bits(&self) -> u32 {
        // SAFETY: the pointer is valid as long as `self`.
        unsafe { c::RSA_bits(self.0.as_ptr()) }
    }

    fn size(&self) -> usize {
        // SAFETY: the pointer is valid as long as `self`.
        unsafe { c::RSA_size(self.0.as_ptr()) as usize }
    }
}

/// What AWS-LC calls to be told where to write the result of how many octets.
type Operation = unsafe extern "C" fn(
    rsa: *mut c::RSA,
    out_len: *mut usize,
    out: *mut u8,
    max_out: usize,
    input: *const u8,
    input_len: usize,
    padding: core::ffi::c_int,
) -> core::ffi::c_int;

/// Runs `operation` with PKCS #1 v1.5 padding.
fn run(rsa: &Rsa, operation: Operation, input: &[u8]) -> Option<Vec<u8>> {
    let mut out = vec![0; rsa.size()];
    let mut len = 0;
    // SAFETY: the key is valid; `input` and `out` are slices given with their lengths; nothing
    // of them is kept.
    let done = unsafe {
        operation(
            rsa.0.as_ptr(),
            &raw mut len,
            out.as_mut_ptr(),
            out.len(),
            input.as_ptr(),
            input.len(),
            c::RSA_PKCS1_PADDING,
        )
    };
    forget_errors();
    if done != 1 || len > out.len() {
        return None;
    }
    out.truncate(len);
    Some(out)
}

/// AWS-LC keeps a queue of errors for each thread; nobody reads it here.
fn forget_errors() {
    // SAFETY: it touches nothing but that queue.
    unsafe { c::ERR_clear_error() }
}

/// A private key.
pub(crate) struct PrivateKey(Rsa);

impl PrivateKey {
    /// Reads DER, PKCS #1 (RSAPrivateKey) or PKCS #8; AWS-LC checks that its numbers fit together.
    pub(crate) fn parse(der: &[u8]) -> Option<Self> {
        // SAFETY: the slice is given with its length; the result is a reference of ours, or null.
        let rsa = NonNull::new(unsafe { c::RSA_private_key_from_bytes(der.as_ptr(), der.len()) });
        let rsa = rsa.map(Rsa).or_else(|| Self::parse_pkcs8(der));
        forget_errors();
        rsa.map(Self)
    }

    fn parse_pkcs8(der: &[u8]) -> Option<Rsa> {
        let mut input = core::mem::MaybeUninit::<c::CBS>::uninit();
        // SAFETY: `CBS_init` makes `input` a view of the slice, which outlives it.
        let (key, rest) = unsafe {
            c::CBS_init(input.as_mut_ptr(), der.as_ptr(), der.len());
            let key = c::EVP_parse_private_key(input.as_mut_ptr());
            (NonNull::new(key)?, c::CBS_len(input.as_ptr()))
        };
        // SAFETY: `key` is valid and ours. `EVP_PKEY_get1_RSA` gives a reference of its own, or null
        // if it is no RSA key; then ours to `key` goes.
        let rsa = unsafe {
            let rsa = c::EVP_PKEY_get1_RSA(key.as_ptr());
            c::EVP_PKEY_free(key.as_ptr());
            NonNull::new(rsa)
        };
        rsa.map(Rsa).filter(|_| rest == 0)
    }

    /// Bits of the modulus.
    pub(crate) fn bits(&self) -> u32 {
        self.0.bits()
    }

    /// Pads `input` and applies the private key; `None` if it is too long for the modulus.
    pub(crate) fn sign_raw(&self, input: &[u8]) -> Option<Vec<u8>> {
        run(&self.0, c::RSA_sign_raw, input)
    }
}

/// A public key.
pub(crate) struct PublicKey(Rsa);

impl PublicKey {
    /// Reads an RSAPublicKey in DER.
    pub(crate) fn parse(der: &[u8]) -> Option<Self> {
        // SAFETY: the slice is given with its length; the result is a reference of ours, or null.
        let rsa = NonNull::new(unsafe { c::RSA_public_key_from_bytes(der.as_ptr(), der.len()) });
        forget_errors();
        rsa.map(|rsa| Self(Rsa(rsa)))
    }

    /// Bits of the modulus.
    pub(crate) fn bits(&self) -> u32 {
        self.0.bits()
    }

    /// What was padded and signed; `None` unless the signature has the modulus's length and the
    /// padding is exactly that of PKCS #1 v1.5, type 1.
    pub(crate) fn recover(&self, signature: &[u8]) -> Option<Vec<u8>> {
        run(&self.0, c::RSA_verify_raw, signature)
    }
}
