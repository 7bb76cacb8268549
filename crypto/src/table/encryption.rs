//! The rows of ciphers and AEADs.

use super::{Encryption, Status, by_keyword};
use crate::message;
use crate::packet::{EspCipher, cbc, ccm, ctr, gcm, gmac, null};
use aes::{Aes128, Aes192, Aes256};

/// Every encryption algorithm that Caponier knows.
pub static ENCRYPTIONS: [Encryption; 24] = [
    Encryption {
        aliases: &["aes"],
        ike_cipher: Some(|key| message::cbc::<Aes128>("aes128", key)),
        esp: cbc::AES128_CBC,
        ..aes_cbc("aes128", "AES128", 128)
    },
    Encryption {
        ike_cipher: Some(|key| message::cbc::<Aes192>("aes192", key)),
        esp: cbc::AES192_CBC,
        ..aes_cbc("aes192", "AES192", 192)
    },
    Encryption {
        ike_cipher: Some(|key| message::cbc::<Aes256>("aes256", key)),
        esp: cbc::AES256_CBC,
        ..aes_cbc("aes256", "AES256", 256)
    },
    Encryption { esp: ctr::AES128_CTR, ..aes_ctr("aes128ctr", "AES128_CTR", 128) },
    Encryption { esp: ctr::AES192_CTR, ..aes_ctr("aes192ctr", "AES192_CTR", 192) },
    Encryption { esp: ctr::AES256_CTR, ..aes_ctr("aes256ctr", "AES256_CTR", 256) },
    Encryption {
        aliases: &["aes128gcm", "aes128gcm128"],
        esp: gcm::AES128_GCM16,
        ..aes_gcm16("aes128gcm16", "AES128_GCM16", 128)
    },
    Encryption {
        aliases: &["aes192gcm", "aes192gcm128"],
        esp: gcm::AES192_GCM16,
        ..aes_gcm16("aes192gcm16", "AES192_GCM16", 192)
    },
    Encryption {
        aliases: &["aes256gcm", "aes256gcm128"],
        esp: gcm::AES256_GCM16,
        ..aes_gcm16("aes256gcm16", "AES256_GCM16", 256)
    },
    Encryption { aliases: &["aes128ccm64"], esp: ccm::AES128_CCM8, ..aes_ccm("aes128ccm8", "AES128_CCM8", 128, 8) },
    Encryption { aliases: &["aes128ccm96"], esp: ccm::AES128_CCM12, ..aes_ccm("aes128ccm12", "AES128_CCM12", 128, 12) },
    Encryption {
        aliases: &["aes128ccm128"],
        esp: ccm::AES128_CCM16,
        ..aes_ccm("aes128ccm16", "AES128_CCM16", 128, 16)
    },
    Encryption { aliases: &["aes192ccm64"], esp: ccm::AES192_CCM8, ..aes_ccm("aes192ccm8", "AES192_CCM8", 192, 8) },
    Encryption { aliases: &["aes192ccm96"], esp: ccm::AES192_CCM12, ..aes_ccm("aes192ccm12", "AES192_CCM12", 192, 12) },
    Encryption {
        aliases: &["aes192ccm128"],
        esp: ccm::AES192_CCM16,
        ..aes_ccm("aes192ccm16", "AES192_CCM16", 192, 16)
    },
    Encryption { aliases: &["aes256ccm64"], esp: ccm::AES256_CCM8, ..aes_ccm("aes256ccm8", "AES256_CCM8", 256, 8) },
    Encryption { aliases: &["aes256ccm96"], esp: ccm::AES256_CCM12, ..aes_ccm("aes256ccm12", "AES256_CCM12", 256, 12) },
    Encryption {
        aliases: &["aes256ccm128"],
        esp: ccm::AES256_CCM16,
        ..aes_ccm("aes256ccm16", "AES256_CCM16", 256, 16)
    },
    Encryption {
        keyword: "3des",
        hpux: "3DES",
        wireshark: "TripleDES-CBC [RFC2451]",
        ikev1_phase1: Some(5),
        ikev1_esp: Some(3),
        ikev2: Some(3),
        key_bits: 192,
        key_length_attribute: false,
        iv_len: 8,
        block_len: 8,
        status: Status::Legacy,
        caveat: "its 64-bit blocks begin to repeat within some gigabytes, and it is slow",
        source: "RFC 2451, NIST SP 800-67",
        ike_cipher: Some(message::triple_des_cbc),
        esp: cbc::TRIPLE_DES_CBC,
        ..NOTHING
    },
    Encryption {
        keyword: "null",
        hpux: "NULL",
        wireshark: "NULL",
        ikev1_esp: Some(11),
        ikev2: Some(11),
        key_length_attribute: false,
        status: Status::Legacy,
        caveat: UNENCRYPTED,
        source: "RFC 2410",
        esp: null::NULL,
        ..NOTHING
    },
    Encryption { esp: gmac::AES128_GMAC, ..aes_gmac("aes128gmac", "AES128_GMAC", 128) },
    Encryption { esp: gmac::AES192_GMAC, ..aes_gmac("aes192gmac", "AES192_GMAC", 192) },
    Encryption { esp: gmac::AES256_GMAC, ..aes_gmac("aes256gmac", "AES256_GMAC", 256) },
    Encryption {
        keyword: "des",
        hpux: "DES",
        wireshark: "DES-CBC [RFC2405]",
        ikev1_phase1: Some(1),
        ikev1_esp: Some(2),
        ikev2: Some(2),
        key_bits: 64,
        key_length_attribute: false,
        iv_len: 8,
        block_len: 8,
        status: Status::Forbidden,
        caveat: "anybody can search its 56-bit keys",
        source: "RFC 2405",
        ..NOTHING
    },
];

/// What the rows differ from.
const NOTHING: Encryption = Encryption {
    keyword: "",
    aliases: &[],
    hpux: "",
    wireshark: "",
    ikev1_phase1: None,
    ikev1_esp: None,
    ikev2: None,
    key_bits: 0,
    key_length_attribute: true,
    salt_len: 0,
    iv_len: 0,
    block_len: 1,
    icv_len: 0,
    status: Status::Modern,
    caveat: "",
    source: "",
    ike_cipher: None,
    esp: EspCipher::Unusable,
};

const fn aes_cbc(keyword: &'static str, hpux: &'static str, key_bits: u16) -> Encryption {
    Encryption {
        keyword,
        hpux,
        wireshark: "AES-CBC [RFC3602]",
        ikev1_phase1: Some(7),
        ikev1_esp: Some(12),
        ikev2: Some(12),
        key_bits,
        iv_len: 16,
        block_len: 16,
        source: "RFC 3602",
        ..NOTHING
    }
}

const fn aes_ctr(keyword: &'static str, hpux: &'static str, key_bits: u16) -> Encryption {
    Encryption {
        keyword,
        hpux,
        wireshark: "AES-CTR [RFC3686]",
        ikev1_esp: Some(13),
        ikev2: Some(13),
        key_bits,
        salt_len: 4,
        iv_len: 8,
        source: "RFC 3686",
        ..NOTHING
    }
}

const fn aes_gcm16(keyword: &'static str, hpux: &'static str, key_bits: u16) -> Encryption {
    Encryption {
        keyword,
        hpux,
        wireshark: "AES-GCM with 16 octet ICV [RFC4106]",
        ikev1_esp: Some(20),
        ikev2: Some(20),
        key_bits,
        salt_len: 4,
        iv_len: 8,
        icv_len: 16,
        source: "RFC 4106",
        ..NOTHING
    }
}

/// `icv_len` is 8, 12 or 16: each has a number of its own (RFC 4309 7.2).
const fn aes_ccm(keyword: &'static str, hpux: &'static str, key_bits: u16, icv_len: usize) -> Encryption {
    let id = match icv_len {
        8 => 14,
        12 => 15,
        _ => 16,
    };
    Encryption {
        keyword,
        hpux,
        ikev1_esp: Some(id),
        ikev2: Some(id as u16),
        key_bits,
        salt_len: 3,
        iv_len: 8,
        icv_len,
        source: "RFC 4309",
        ..NOTHING
    }
}

const fn aes_gmac(keyword: &'static str, hpux: &'static str, key_bits: u16) -> Encryption {
    Encryption {
        keyword,
        hpux,
        ikev1_esp: Some(23),
        ikev2: Some(21),
        key_bits,
        salt_len: 4,
        iv_len: 8,
        icv_len: 16,
        status: Status::Legacy,
        caveat: UNENCRYPTED,
        source: "RFC 4543",
        ..NOTHING
    }
}

/// Caveat of what only authenticates.
const UNENCRYPTED: &str = "it authenticates packets but everybody on the path can read them";

impl Encryption {
    /// NULL (RFC 2410).
    pub(crate) fn nothing() -> &'static Self {
        ENCRYPTIONS.iter().find(|row| row.key_bits == 0).expect("the table has NULL, and nothing else without a key")
    }

    /// By keyword or alias, in any case.
    #[must_use]
    pub fn from_keyword(name: &str) -> Option<&'static Self> {
        by_keyword!(ENCRYPTIONS, name)
    }

    /// By its name inside an HP-UX transform, in any case.
    #[must_use]
    pub fn from_hpux(name: &str) -> Option<&'static Self> {
        ENCRYPTIONS.iter().find(|row| row.hpux.eq_ignore_ascii_case(name))
    }

    /// By IKEv1 phase 1 Encryption Algorithm and Key Length attribute.
    ///
    /// `key_bits` is the attribute as received: a cipher of variable key length
    /// must have it, one of fixed length must not (RFC 2409 appendix A, RFC 3602 5.3).
    #[must_use]
    pub fn from_ikev1_phase1(id: u16, key_bits: Option<u16>) -> Option<&'static Self> {
        ENCRYPTIONS.iter().find(|row| row.ikev1_phase1 == Some(id) && row.takes_key_bits(key_bits))
    }

    /// By IKEv1 ESP transform identifier and Key Length attribute, as in
    /// [`Encryption::from_ikev1_phase1`] (RFC 2407 4.5).
    #[must_use]
    pub fn from_ikev1_esp(id: u8, key_bits: Option<u16>) -> Option<&'static Self> {
        ENCRYPTIONS.iter().find(|row| row.ikev1_esp == Some(id) && row.takes_key_bits(key_bits))
    }

    /// By IKEv2 transform identifier and Key Length attribute (RFC 7296 3.3.5).
    #[must_use]
    pub fn from_ikev2(id: u16, key_bits: Option<u16>) -> Option<&'static Self> {
        ENCRYPTIONS.iter().find(|row| row.ikev2 == Some(id) && row.takes_key_bits(key_bits))
    }

    /// What the Key Length attribute of a proposal for this row says, if there is one.
    #[must_use]
    pub fn key_length(&self) -> Option<u16> {
        self.key_length_attribute.then_some(self.key_bits)
    }

    fn takes_key_bits(&self, key_bits: Option<u16>) -> bool {
        self.key_length() == key_bits
    }
}
