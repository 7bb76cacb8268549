//! Whole packets through every suite of the table: what is sealed opens, and
//! nothing else does.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use aws_lc_rs::cipher::{
    AES_128, AES_256, Algorithm, EncryptingKey, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use crypto::entropy::testing::SeededEntropy;
use crypto::packet::{OpenJob, Opener, SealJob, Sealer, opener, sealer};
use crypto::table::{Encryption, Error, Integrity};
use crypto::{Entropy, EspSuite, Secret};
use proptest::prelude::*;

const HEADER_LEN: usize = 8;
const IV_KEY: [u8; 16] = *b"key of the IVs..";

/// An SA of one suite: both ends, and the key material.
struct Sa {
    suite: EspSuite,
    keymat: Secret,
    sealer: Box<dyn Sealer>,
    opener: Box<dyn Opener>,
}

impl Sa {
    fn new(suite: EspSuite, esn: bool, seed: u64) -> Self {
        let mut keymat = vec![0; suite.keymat_len()];
        SeededEntropy::new(seed).fill(&mut keymat);
        let keymat = Secret::new(keymat);
        let sealer = sealer(suite, &keymat, &IV_KEY, esn).unwrap();
        let opener = opener(suite, &keymat, esn).unwrap();
        Self { suite, keymat, sealer, opener }
    }

    /// A packet of `blocks` aligned blocks, not sealed yet.
    fn clear(&self, blocks: usize, sequence: u64) -> Vec<u8> {
        let around = HEADER_LEN + self.suite.encryption.iv_len + self.suite.icv_len();
        let mut packet = vec![0; around + blocks * self.suite.alignment()];
        SeededEntropy::new(sequence).fill(&mut packet);
        packet[4..8].copy_from_slice(&sequence.to_be_bytes()[4..]);
        packet
    }

    fn payload<'p>(&self, packet: &'p [u8]) -> &'p [u8] {
        &packet[HEADER_LEN + self.suite.encryption.iv_len..packet.len() - self.suite.icv_len()]
    }

    fn seal(&self, packet: &mut [u8], sequence: u64) {
        self.sealer.seal(&mut [SealJob { packet, sequence }]);
    }

    fn opens(&self, packet: &mut [u8], sequence: u64) -> bool {
        // The flag must be set by the opener, whatever it was before.
        let mut jobs = [OpenJob { packet, sequence, authentic: true }];
        self.opener.open(&mut jobs);
        jobs[0].authentic
    }
}

fn sas(esn: bool) -> impl Iterator<Item = Sa> {
    EspSuite::all().enumerate().map(move |(seed, suite)| Sa::new(suite, esn, seed as u64))
}

#[test]
fn sealed_packets_open() {
    for esn in [false, true] {
        for sa in sas(esn) {
            for blocks in [1, 2, 3, 7, 8, 9, 63, 64, 65, 90, 560] {
                let sequence = 0xffff_fff0 + blocks as u64;
                let clear = sa.clear(blocks, sequence);
                let mut packet = clear.clone();
                sa.seal(&mut packet, sequence);
                assert_eq!(packet[..HEADER_LEN], clear[..HEADER_LEN], "{}: the header changed", sa.suite);
                let name = sa.suite.encryption.keyword;
                if name != "null" && !name.ends_with("gmac") {
                    assert_ne!(sa.payload(&packet), sa.payload(&clear), "{}: not encrypted", sa.suite);
                }
                assert!(sa.opens(&mut packet, sequence), "{} of {blocks} blocks", sa.suite);
                assert_eq!(sa.payload(&packet), sa.payload(&clear), "{} of {blocks} blocks", sa.suite);
            }
        }
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    for sa in sas(true) {
        let mut sealed = sa.clear(2, 99);
        sa.seal(&mut sealed, 99);
        for bit in 0..sealed.len() * 8 {
            let mut packet = sealed.clone();
            packet[bit / 8] ^= 1 << (bit % 8);
            assert!(!sa.opens(&mut packet, 99), "{}: bit {bit}", sa.suite);
        }
    }
}

#[test]
fn every_other_length_is_refused() {
    for sa in sas(false) {
        let mut sealed = sa.clear(3, 5);
        sa.seal(&mut sealed, 5);
        for len in 0..sealed.len() {
            assert!(!sa.opens(&mut sealed.clone()[..len], 5), "{}: {len} octets", sa.suite);
        }
        let mut longer = sealed.clone();
        for _ in 0..40 {
            longer.push(0);
            assert!(!sa.opens(&mut longer.clone(), 5), "{}: {} octets", sa.suite, longer.len());
        }
        assert!(sa.opens(&mut sealed, 5), "{}", sa.suite);
    }
}

#[test]
fn another_sequence_number_is_refused() {
    const SEQUENCE: u64 = 0x1_0000_0002;
    for (esn, sa) in sas(false).map(|sa| (false, sa)).chain(sas(true).map(|sa| (true, sa))) {
        let mut sealed = sa.clear(4, SEQUENCE);
        sa.seal(&mut sealed, SEQUENCE);
        assert!(!sa.opens(&mut sealed.clone(), SEQUENCE + 1), "{}: low half", sa.suite);
        // The high half counts exactly when sequence numbers are extended.
        let other_high_half = sa.opens(&mut sealed.clone(), SEQUENCE + (1 << 32));
        assert_eq!(other_high_half, !esn, "{}: high half, ESN {esn}", sa.suite);

        // With the other setting the same packet is not authentic.
        let other = Sa::new(sa.suite, !esn, 0);
        let mut packet = sa.clear(4, SEQUENCE);
        let same_keys = sealer(sa.suite, &other.keymat, &IV_KEY, esn).unwrap();
        same_keys.seal(&mut [SealJob { packet: &mut packet, sequence: SEQUENCE }]);
        assert!(!other.opens(&mut packet, SEQUENCE), "{}: ESN {esn} read as {}", sa.suite, !esn);
    }
}

#[test]
fn a_batch_is_its_packets_one_by_one() {
    for sa in sas(true) {
        // Sizes in disorder, and more packets than are ever worked on at once.
        let blocks = [1, 90, 3, 90, 90, 2, 1, 40, 41, 90, 5, 90, 90, 90, 90, 1, 1, 90, 17, 64, 30, 2, 90, 90, 8];
        let numbered = || blocks.iter().zip(1_000_000..);
        let mut one_by_one: Vec<_> = numbered().map(|(&blocks, sequence)| sa.clear(blocks, sequence)).collect();
        let clear = one_by_one.clone();
        let mut batch = one_by_one.clone();
        for (packet, (_, sequence)) in one_by_one.iter_mut().zip(numbered()) {
            sa.seal(packet, sequence);
        }
        let mut jobs: Vec<_> =
            batch.iter_mut().zip(numbered()).map(|(packet, (_, sequence))| SealJob { packet, sequence }).collect();
        sa.sealer.seal(&mut jobs);
        assert_eq!(batch, one_by_one, "{}", sa.suite);

        batch[3][20] ^= 1;
        let mut jobs: Vec<_> = batch
            .iter_mut()
            .zip(numbered())
            .map(|(packet, (_, sequence))| OpenJob { packet, sequence, authentic: false })
            .collect();
        sa.opener.open(&mut jobs);
        for (at, job) in jobs.iter().enumerate() {
            assert_eq!(job.authentic, at != 3, "{}: packet {at}", sa.suite);
            if job.authentic {
                assert_eq!(sa.payload(job.packet), sa.payload(&clear[at]), "{}: packet {at}", sa.suite);
            }
        }
    }
}

#[test]
fn empty_batches_are_nothing() {
    for sa in sas(false) {
        sa.sealer.seal(&mut []);
        sa.opener.open(&mut []);
    }
}

#[test]
fn ivs_differ_and_cannot_be_foreseen() {
    for sa in sas(false).filter(|sa| sa.suite.encryption.iv_len > 0) {
        let iv = |sequence: u64| {
            let mut packet = sa.clear(1, sequence);
            sa.seal(&mut packet, sequence);
            packet[HEADER_LEN..HEADER_LEN + sa.suite.encryption.iv_len].to_vec()
        };
        assert_ne!(iv(1), iv(2), "{}", sa.suite);
        if sa.suite.encryption.block_len > 1 {
            let other_key = sealer(sa.suite, &sa.keymat, &[0; 16], false).unwrap();
            let mut packet = sa.clear(1, 1);
            other_key.seal(&mut [SealJob { packet: &mut packet, sequence: 1 }]);
            assert_ne!(packet[HEADER_LEN..][..sa.suite.encryption.iv_len], iv(1), "{}", sa.suite);
        } else {
            assert_eq!(iv(0x0102_0304_0506_0708), [1, 2, 3, 4, 5, 6, 7, 8], "{}", sa.suite);
        }
    }
}

#[test]
#[should_panic(expected = "not laid out")]
fn sealing_a_packet_of_odd_length_panics() {
    let sa = Sa::new("aes128-sha1".parse().unwrap(), false, 0);
    let mut packet = sa.clear(1, 1);
    packet.push(0);
    sa.seal(&mut packet, 1);
}

#[test]
#[should_panic(expected = "not laid out")]
fn sealing_under_another_sequence_number_panics() {
    let sa = Sa::new("aes128gcm16".parse().unwrap(), false, 0);
    let mut packet = sa.clear(1, 1);
    sa.seal(&mut packet, 2);
}

#[test]
fn suites_authenticate_exactly_once() {
    let sha1 = Integrity::from_keyword("sha1");
    for (encryption, integrity) in [("aes128", None), ("null", None), ("aes128ctr", None), ("aes128gcm16", sha1)] {
        let suite = EspSuite { encryption: Encryption::from_keyword(encryption).unwrap(), integrity };
        let keymat = Secret::new(vec![1; suite.keymat_len()]);
        let refused = |error| matches!(error, Some(Error::Unusable { algorithm, .. }) if algorithm == encryption);
        assert!(refused(sealer(suite, &keymat, &IV_KEY, false).err()), "{encryption}");
        assert!(refused(opener(suite, &keymat, false).err()), "{encryption}");
    }
}

#[test]
fn key_material_of_another_length_is_refused() {
    for sa in sas(false) {
        let right = sa.suite.keymat_len();
        for wrong in [0, right - 1, right + 1] {
            let keymat = Secret::new(vec![1; wrong]);
            let expected = Error::KeyLength { algorithm: sa.suite.encryption.keyword, expected: right, given: wrong };
            assert_eq!(sealer(sa.suite, &keymat, &IV_KEY, false).err(), Some(expected.clone()), "{}", sa.suite);
            assert_eq!(opener(sa.suite, &keymat, false).err(), Some(expected), "{}", sa.suite);
        }
    }
}

#[test]
fn weak_triple_des_keys_are_refused() {
    let row = Encryption::from_keyword("3des").unwrap();
    let (a, b, c) = ([0x13; 8], *b"\x01\x23\x45\x67\x89\xab\xcd\xef", *b"\xfe\xdc\xba\x98\x76\x54\x32\x11");
    // The same key but for the parity bits is the same key.
    let b_other_parity = b.map(|octet| octet ^ 1);
    let weak = [0x01; 8];
    for key in [[a, a, b], [a, b, b], [a, b, b_other_parity], [b, c, b], [a, weak, c], [[0; 8], b, c]] {
        let error = row.ike_cipher(&key.concat()).err();
        assert!(matches!(error, Some(Error::WeakKey { algorithm: "3des", .. })), "{key:02x?}");
        let suite = EspSuite { encryption: row, integrity: Integrity::from_keyword("md5") };
        let keymat = Secret::new([&key.concat()[..], &[1; 16]].concat());
        assert!(matches!(sealer(suite, &keymat, &IV_KEY, false).err(), Some(Error::WeakKey { .. })));
        assert!(matches!(opener(suite, &keymat, false).err(), Some(Error::WeakKey { .. })));
    }
    assert!(row.ike_cipher(&[a, b, c].concat()).is_ok());
}

/// What AWS-LC makes of the parts of a packet of a suite with separate
/// integrity, where it knows them.
fn as_aws_lc_seals(sa: &Sa, clear: &[u8], iv: &[u8]) -> Vec<u8> {
    let integrity = sa.suite.integrity.unwrap();
    let (cipher_keymat, integrity_key) = sa.keymat.expose().split_at(sa.suite.encryption.keymat_len());
    let (key, nonce) = cipher_keymat.split_at(sa.suite.encryption.key_len());
    let algorithm: &'static Algorithm = if key.len() == 16 { &AES_128 } else { &AES_256 };
    let key = UnboundCipherKey::new(algorithm, key).unwrap();

    let mut payload = sa.payload(clear).to_vec();
    let len = payload.len();
    if sa.suite.encryption.block_len == 16 {
        let context = EncryptionContext::Iv128(FixedLength::from(<[u8; 16]>::try_from(iv).unwrap()));
        // It pads, which adds a block that depends on the rest but not the rest on it.
        PaddedBlockEncryptingKey::cbc_pkcs7(key).unwrap().less_safe_encrypt(&mut payload, context).unwrap();
        payload.truncate(len);
    } else {
        let counter = [nonce, iv, &[0, 0, 0, 1]].concat();
        let context = EncryptionContext::Iv128(FixedLength::from(<[u8; 16]>::try_from(counter).unwrap()));
        EncryptingKey::ctr(key).unwrap().less_safe_encrypt(&mut payload, context).unwrap();
    }

    let hash = match integrity.keyword {
        "sha1" => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        "sha256" => hmac::HMAC_SHA256,
        "sha384" => hmac::HMAC_SHA384,
        _ => hmac::HMAC_SHA512,
    };
    let mut packet = [&clear[..HEADER_LEN], iv, &payload].concat();
    let icv = hmac::sign(&hmac::Key::new(hash, integrity_key), &packet);
    packet.extend(&icv.as_ref()[..integrity.icv_len]);
    packet
}

proptest! {
    #[test]
    fn aws_lc_makes_the_same_packets(seed: u64, sequence: u32, blocks in 1_usize..100) {
        for encryption in ["aes128", "aes256", "aes128ctr", "aes256ctr"] {
            for integrity in ["sha1", "sha256", "sha384", "sha512"] {
                let sa = Sa::new(format!("{encryption}-{integrity}").parse().unwrap(), false, seed);
                let clear = sa.clear(blocks, sequence.into());
                let mut packet = clear.clone();
                sa.seal(&mut packet, sequence.into());
                let iv = &packet[HEADER_LEN..HEADER_LEN + sa.suite.encryption.iv_len];
                prop_assert_eq!(&as_aws_lc_seals(&sa, &clear, iv), &packet, "{}", sa.suite);
            }
        }
    }

    #[test]
    fn opening_anything_only_says_no(octets in prop::collection::vec(any::<u8>(), 0..300), sequence: u64) {
        for sa in sas(true) {
            prop_assert!(!sa.opens(&mut octets.clone(), sequence));
            let mut octets = octets.clone();
            if let Some(low_half) = octets.get_mut(4..8) {
                low_half.copy_from_slice(&sequence.to_be_bytes()[4..]);
            }
            prop_assert!(!sa.opens(&mut octets, sequence));
        }
    }
}
