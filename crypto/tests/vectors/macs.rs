//! Known answers of hashes, PRFs and integrity algorithms.

/// A digest.
pub(crate) struct Digest {
    /// Keyword of the row.
    pub(crate) row: &'static str,
    pub(crate) source: &'static str,
    pub(crate) data: &'static [u8],
    pub(crate) digest: &'static str,
}

pub(crate) static DIGESTS: &[Digest] = &[
    Digest { row: "md5", source: "RFC 1321 A.5", data: b"abc", digest: "900150983cd24fb0d6963f7d28e17f72" },
    Digest {
        row: "sha1",
        source: "FIPS 180-4 examples",
        data: b"abc",
        digest: "a9993e364706816aba3e25717850c26c9cd0d89d",
    },
    Digest {
        row: "sha256",
        source: "FIPS 180-4 examples",
        data: b"abc",
        digest: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    },
    Digest {
        row: "sha384",
        source: "FIPS 180-4 examples",
        data: b"abc",
        digest: "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca1\
         34c825a7",
    },
    Digest {
        row: "sha512",
        source: "FIPS 180-4 examples",
        data: b"abc",
        digest: "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23\
         a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
    },
];

/// An HMAC, untruncated as a PRF or truncated as an integrity algorithm.
pub(crate) struct Hmac {
    /// Keyword of the row.
    pub(crate) row: &'static str,
    pub(crate) source: &'static str,
    pub(crate) key: &'static str,
    pub(crate) data: &'static str,
    pub(crate) mac: &'static str,
}

pub(crate) static PRFS: &[Hmac] = &[
    Hmac {
        row: "md5",
        source: "RFC 2202 2, case 1",
        key: "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
        data: "4869205468657265",
        mac: "9294727a3638bb1c13f48ef8158bfc9d",
    },
    Hmac {
        row: "md5",
        source: "RFC 2202 2, case 2",
        key: "4a656665",
        data: "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
        mac: "750c783e6ab0b503eaa86e310a5db738",
    },
    Hmac {
        row: "sha1",
        source: "RFC 2202 3, case 1",
        key: "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
        data: "4869205468657265",
        mac: "b617318655057264e28bc0b6fb378c8ef146be00",
    },
    Hmac {
        row: "sha1",
        source: "RFC 2202 3, case 2",
        key: "4a656665",
        data: "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
        mac: "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79",
    },
    Hmac {
        row: "sha1",
        source: "RFC 2202 3, case 6",
        key: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
               aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        data: "54657374205573696e67204c6172676572205468616e20426c6f636b2d53697a65204b6579202d2048617368\
                204b6579204669727374",
        mac: "aa4ae5e15272d00e95705637ce8a3b55ed402112",
    },
    Hmac {
        row: "sha256",
        source: "RFC 4231 4.2",
        key: "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
        data: "4869205468657265",
        mac: "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
    },
    Hmac {
        row: "sha256",
        source: "RFC 4231 4.3",
        key: "4a656665",
        data: "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
        mac: "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    },
    Hmac {
        row: "sha384",
        source: "RFC 4231 4.2",
        key: "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
        data: "4869205468657265",
        mac: "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8\
               b2fa9cb6",
    },
    Hmac {
        row: "sha384",
        source: "RFC 4231 4.3",
        key: "4a656665",
        data: "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
        mac: "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ec\
               fab21649",
    },
    Hmac {
        row: "sha512",
        source: "RFC 4231 4.2",
        key: "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
        data: "4869205468657265",
        mac: "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7d6b8a702038b274e\
               aea3f4e4be9d914eeb61f1702e696c203a126854",
    },
    Hmac {
        row: "sha512",
        source: "RFC 4231 4.3",
        key: "4a656665",
        data: "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
        mac: "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65\
               f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
    },
];

pub(crate) static INTEGRITIES: &[Hmac] = &[
    Hmac {
        row: "aes128gmac",
        source: "Python's cryptography: AES-GCM of nothing, with these as additional data",
        key: "0102030405060708090a0b0c0d0e0f10cafebabe",
        data: "61757468656e746963617465642c20696e2074686520636c6561722c20616e6420612068616c66206f662061\
               20626c6f636b",
        mac: "000000030000000715fd8b5daccd7a370ee87703e87b2e4c",
    },
    Hmac {
        row: "aes192gmac",
        source: "Python's cryptography: AES-GCM of nothing, with these as additional data",
        key: "0102030405060708090a0b0c0d0e0f101112131415161718cafebabe",
        data: "61757468656e746963617465642c20696e2074686520636c6561722c20616e6420612068616c66206f662061\
               20626c6f636b",
        mac: "00000003000000079d0a063142f23e3f8b0a947d874c220f",
    },
    Hmac {
        row: "aes256gmac",
        source: "Python's cryptography: AES-GCM of nothing, with these as additional data",
        key: "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20cafebabe",
        data: "61757468656e746963617465642c20696e2074686520636c6561722c20616e6420612068616c66206f662061\
               20626c6f636b",
        mac: "0000000300000007a3233055c5fac6ee1bccd2f90d0e6574",
    },
    Hmac {
        row: "md5",
        source: "RFC 2202 2, case 1, truncated as in RFC 2403",
        key: "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
        data: "4869205468657265",
        mac: "9294727a3638bb1c13f48ef8",
    },
    Hmac {
        row: "md5",
        source: "RFC 2202 2, case 3, truncated as in RFC 2403",
        key: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        data: "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd\
                dddddddddddd",
        mac: "56be34521d144c88dbb8c733",
    },
    Hmac {
        row: "sha1",
        source: "RFC 2202 3, case 1, truncated as in RFC 2404",
        key: "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
        data: "4869205468657265",
        mac: "b617318655057264e28bc0b6",
    },
    Hmac {
        row: "sha1",
        source: "RFC 2202 3, case 3, truncated as in RFC 2404",
        key: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        data: "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd\
                dddddddddddd",
        mac: "125d7342b9ac11cd91a39af4",
    },
    Hmac {
        row: "sha256",
        source: "RFC 4868 2.7.2.1, AUTH256-1",
        key: "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
        data: "4869205468657265",
        mac: "198a607eb44bfbc69903a0f1cf2bbdc5",
    },
    Hmac {
        row: "sha256",
        source: "RFC 4868 2.7.2.1, AUTH256-2",
        key: "4a6566654a6566654a6566654a6566654a6566654a6566654a6566654a656665",
        data: "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
        mac: "167f928588c5cc2eef8e3093caa0e87c",
    },
    Hmac {
        row: "sha384",
        source: "RFC 4868 2.7.2.2, AUTH384-1",
        key: "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b\
               0b0b0b0b",
        data: "4869205468657265",
        mac: "b6a8d5636f5c6a7224f9977dcf7ee6c7fb6d0c48cbdee973",
    },
    Hmac {
        row: "sha384",
        source: "RFC 4868 2.7.2.2, AUTH384-2",
        key: "4a6566654a6566654a6566654a6566654a6566654a6566654a6566654a6566654a6566654a6566654a656665\
               4a656665",
        data: "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
        mac: "2c7353974f1842fd66d53c452ca42122b28c0b594cfb184d",
    },
    Hmac {
        row: "sha512",
        source: "RFC 4868 2.7.2.3, AUTH512-1",
        key: "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b\
               0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b",
        data: "4869205468657265",
        mac: "637edc6e01dce7e6742a99451aae82df23da3e92439e590e43e761b33e910fb8",
    },
    Hmac {
        row: "sha512",
        source: "RFC 4868 2.7.2.3, AUTH512-2",
        key: "4a6566654a6566654a6566654a6566654a6566654a6566654a6566654a6566654a6566654a6566654a656665\
               4a6566654a6566654a6566654a6566654a656665",
        data: "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
        mac: "cb370917ae8a7ce28cfd1d8f4705d6141c173b2a9362c15df235dfb251b15454",
    },
];
