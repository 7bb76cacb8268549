//! Every row that may be used gives the answers of published test vectors; a
//! row without vectors fails.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod vectors;

use crypto::packet::{OpenJob, SealJob, opener, sealer};
use crypto::table::{
    ENCRYPTIONS, Encryption, Error, GROUPS, Group, HASHES, Hash, INTEGRITIES, Integrity, SIGNATURES, Signature, Status,
};
use crypto::{Entropy, EspSuite, Secret};
use vectors::ciphers::{MESSAGES, Message, PACKETS, Packet};
use vectors::groups::{EXCHANGES, Exchange};
use vectors::hex;
use vectors::macs::{DIGESTS, Hmac, INTEGRITIES as ICVS, PRFS};
use vectors::signatures::{SIGNED, Signed};

fn usable(status: Status) -> bool {
    status != Status::Forbidden
}

#[test]
fn every_encryption() {
    for row in ENCRYPTIONS.iter().filter(|row| usable(row.status)) {
        let messages: Vec<_> = MESSAGES.iter().filter(|vector| vector.row == row.keyword).collect();
        let packets: Vec<_> = PACKETS.iter().filter(|vector| vector.row == row.keyword).collect();
        assert!(!messages.is_empty() || !packets.is_empty(), "{row} has no known answers");
        assert_eq!(row.ikev1_phase1.is_some(), !messages.is_empty(), "{row}: IKE messages");
        for vector in messages {
            encrypts_message(row, vector);
            opens_message_as_packet(row, vector);
        }
        for vector in packets {
            opens_packet(row, vector);
        }
    }
}

fn encrypts_message(row: &Encryption, vector: &Message) {
    let cipher = row.ike_cipher(&hex(vector.key)).unwrap();
    assert_eq!(cipher.block_len(), row.block_len, "{row}");
    let (iv, plain) = (hex(vector.iv), hex(vector.plain));
    let mut data = plain.clone();
    cipher.encrypt(&iv, &mut data).unwrap();
    assert_eq!(data, hex(vector.cipher), "{row} by {}: encrypted", vector.source);
    cipher.decrypt(&iv, &mut data).unwrap();
    assert_eq!(data, plain, "{row} by {}: decrypted", vector.source);
}

/// The same vector once more, through the code for packets.
fn opens_message_as_packet(row: &'static Encryption, vector: &Message) {
    opens_packet(
        row,
        &Packet {
            row: vector.row,
            source: vector.source,
            keymat: vector.key,
            spi: "",
            sequence: 7,
            esn: false,
            iv: vector.iv,
            plain: vector.plain,
            cipher: vector.cipher,
            icv: "",
        },
    );
}

/// Opens the packet, and where its IV is what we would choose, seals it too.
fn opens_packet(row: &'static Encryption, vector: &Packet) {
    let integrity = (!row.is_aead()).then(|| Integrity::from_keyword("sha256").unwrap());
    let suite = EspSuite { encryption: row, integrity };
    let (spi, integrity_key) = match integrity {
        Some(_) => (hex("01020304"), vec![0x0b; 32]),
        None => (hex(vector.spi), vec![]),
    };
    let keymat = Secret::new([hex(vector.keymat), integrity_key.clone()].concat());
    let low_half = &vector.sequence.to_be_bytes()[4..];
    let mut sealed = [&spi, low_half, &hex(vector.iv), &hex(vector.cipher)].concat();
    let icv = match integrity {
        Some(integrity) => {
            let mut icv = vec![0; integrity.icv_len];
            integrity.mac(&integrity_key).unwrap().sign(&[&sealed], &mut icv);
            icv
        }
        None => hex(vector.icv),
    };
    sealed.extend(&icv);
    let clear = [&spi, low_half, &hex(vector.iv), &hex(vector.plain)].concat();

    let mut packet = sealed.clone();
    let opener = opener(suite, &keymat, vector.esn).unwrap();
    let mut jobs = [OpenJob { packet: &mut packet, sequence: vector.sequence, authentic: false }];
    opener.open(&mut jobs);
    assert!(jobs[0].authentic, "{row} by {}: not authentic", vector.source);
    let icv_at = sealed.len() - icv.len();
    assert_eq!(packet[..icv_at], clear, "{row} by {}: opened", vector.source);

    if hex(vector.iv) == vector.sequence.to_be_bytes() {
        let mut packet = [clear, vec![0; icv.len()]].concat();
        let sealer = sealer(suite, &keymat, &[0; 16], vector.esn).unwrap();
        sealer.seal(&mut [SealJob { packet: &mut packet, sequence: vector.sequence }]);
        assert_eq!(packet, sealed, "{row} by {}: sealed", vector.source);
    }
}

#[test]
fn every_hash() {
    for row in HASHES.iter().filter(|row| usable(row.status)) {
        let digests: Vec<_> = DIGESTS.iter().filter(|vector| vector.row == row.keyword).collect();
        assert!(!digests.is_empty(), "{row} has no known digests");
        for vector in digests {
            let (head, tail) = vector.data.split_at(1);
            assert_eq!(row.digest(&[vector.data]), hex(vector.digest), "{row} by {}", vector.source);
            assert_eq!(row.digest(&[head, &[], tail]), hex(vector.digest), "{row} in parts");
            assert_eq!(row.len, hex(vector.digest).len(), "{row}");
        }
        let prfs: Vec<_> = PRFS.iter().filter(|vector| vector.row == row.keyword).collect();
        assert!(!prfs.is_empty(), "{row} has no known answers as a PRF");
        for Hmac { source, key, data, mac, .. } in prfs {
            let (key, data) = (hex(key), hex(data));
            let (head, tail) = data.split_at(3);
            assert_eq!(row.prf(&key, &[&data]).expose(), hex(mac), "{row} by {source}");
            assert_eq!(row.prf(&key, &[head, &[], tail]).expose(), hex(mac), "{row} in parts");
        }
    }
}

#[test]
fn every_integrity() {
    for row in INTEGRITIES.iter().filter(|row| usable(row.status)) {
        let vectors: Vec<_> = ICVS.iter().filter(|vector| vector.row == row.keyword).collect();
        assert!(!vectors.is_empty(), "{row} has no known answers");
        for Hmac { source, key, data, mac, .. } in vectors {
            let (data, expected) = (hex(data), hex(mac));
            let mac = row.mac(&hex(key)).unwrap();
            let mut icv = vec![0; row.icv_len];
            // The IV is the caller's.
            icv[..row.iv_len].copy_from_slice(&expected[..row.iv_len]);
            mac.sign(&[&data], &mut icv);
            assert_eq!(icv, expected, "{row} by {source}");

            let (head, tail) = data.split_at(3);
            assert!(mac.verify(&[head, tail], &icv), "{row} by {source}");
            assert!(!mac.verify(&[head], &icv), "{row}: other data");
            assert!(!mac.verify(&[&data], &icv[1..]), "{row}: short ICV");
            icv[row.icv_len - 1] ^= 1;
            assert!(!mac.verify(&[&data], &icv), "{row}: wrong ICV");
        }
    }
}

/// Yields the private value of a vector, once.
struct Fixed(Vec<u8>);

impl Entropy for Fixed {
    fn fill(&mut self, out: &mut [u8]) {
        // Private values are big-endian numbers that may have leading zeros.
        let (zeros, value) = out.split_at_mut(out.len() - self.0.len());
        zeros.fill(0);
        value.copy_from_slice(&core::mem::take(&mut self.0));
    }
}

#[test]
fn every_group() {
    for row in GROUPS.iter().filter(|row| usable(row.status)) {
        let vectors: Vec<_> = EXCHANGES.iter().filter(|vector| vector.row == row.keyword).collect();
        assert!(!vectors.is_empty(), "{row} has no known answers");
        for vector in vectors {
            exchanges(row, vector);
        }
    }
}

fn exchanges(row: &Group, vector: &Exchange) {
    let initiator = row.generate(&mut Fixed(hex(vector.private_i))).unwrap();
    let responder = row.generate(&mut Fixed(hex(vector.private_r))).unwrap();
    assert_eq!(initiator.public(), hex(vector.public_i), "{row} by {}: initiator", vector.source);
    assert_eq!(responder.public(), hex(vector.public_r), "{row} by {}: responder", vector.source);
    assert_eq!(initiator.public().len(), row.public_len, "{row}");
    let shared = initiator.agree(&hex(vector.public_r)).unwrap();
    assert_eq!(shared.expose(), hex(vector.shared), "{row} by {}: secret", vector.source);
    assert_eq!(responder.agree(&hex(vector.public_i)).unwrap(), shared, "{row}");
    assert_eq!(shared.len(), row.shared_len, "{row}");
}

#[test]
fn every_signature() {
    for row in SIGNATURES.iter().filter(|row| usable(row.status)) {
        let vectors: Vec<_> = SIGNED.iter().filter(|vector| vector.row == row.keyword).collect();
        assert!(!vectors.is_empty(), "{row} has no known answers");
        for vector in vectors {
            signs(row, vector);
        }
    }
}

fn signs(row: &Signature, vector: &Signed) {
    let (public, hash, known) = (hex(vector.public), hex(vector.hash), hex(vector.signature));
    let wrong = Err(Error::Signature { algorithm: row.keyword });
    assert_eq!(row.verify(&public, &hash, &known), Ok(()), "{row} by {}", vector.source);
    let other: Vec<u8> = hash.iter().map(|octet| octet ^ 1).collect();
    assert_eq!(row.verify(&public, &other, &known), wrong, "{row}: another hash");
    for at in [0, known.len() / 2, known.len() - 1] {
        let mut bent = known.clone();
        bent[at] ^= 1;
        assert_eq!(row.verify(&public, &hash, &bent), wrong, "{row}: octet {at} of the signature");
    }
    for length in [0, 1, known.len() - 1] {
        assert_eq!(row.verify(&public, &hash, &known[..length]), wrong, "{row}: {length} octets");
    }
    assert_eq!(row.verify(&public, &hash, &[known.clone(), vec![0]].concat()), wrong, "{row}: one octet more");

    let key = row.signing_key(&hex(vector.private)).unwrap();
    let ours = key.sign(&hash).unwrap();
    assert_eq!(row.verify(&public, &hash, &ours), Ok(()), "{row}: our own");
    assert_eq!(ours.len(), known.len(), "{row}: of a fixed length");
    if vector.unique {
        assert_eq!(ours, known, "{row} by {}: signed", vector.source);
    } else {
        assert_ne!(ours, key.sign(&hash).unwrap(), "{row}: a nonce is used once");
    }
}

#[test]
fn keys_that_do_not_fit_are_refused() {
    let by = |row: &str| SIGNED.iter().find(|vector| vector.row == row).unwrap();
    for row in SIGNATURES.iter().filter(|row| usable(row.status)) {
        for other in SIGNATURES.iter().filter(|other| usable(other.status) && *other != row) {
            let vector = by(other.keyword);
            let refused = row.signing_key(&hex(vector.private)).err();
            assert!(matches!(refused, Some(Error::PrivateKey { .. })), "{row} with a key of {other}: {refused:?}");
            let own = by(row.keyword);
            let (hash, signature) = (hex(own.hash), hex(own.signature));
            assert!(row.verify(&hex(vector.public), &hash, &signature).is_err(), "{row} with a key of {other}");
        }
        let key = row.signing_key(&hex(by(row.keyword).private)).unwrap();
        assert!(key.sign(&[7; 300]).is_err(), "{row}: too long to be signed");
        assert!(row.signing_key(b"").is_err() && row.signing_key(&[0x30, 0x82, 0xff, 0xff]).is_err());
    }
    // A hash of another curve's length is no hash of this one.
    let p256 = by("ecdsa256");
    let row = Signature::from_keyword("ecdsa256").unwrap();
    let short = row.signing_key(&hex(p256.private)).unwrap().sign(&[1; 20]);
    assert_eq!(short, Err(Error::DataLength { algorithm: "ecdsa256", given: 20 }));
}

#[test]
fn forbidden_rows_do_nothing() {
    let mut entropy = Fixed(vec![7; 32]);
    let modp768 = Group::from_keyword("modp768").unwrap();
    assert_eq!(modp768.status, Status::Forbidden);
    assert!(matches!(modp768.generate(&mut entropy), Err(Error::Unusable { algorithm: "modp768", .. })));

    let des = Encryption::from_keyword("des").unwrap();
    assert_eq!(des.status, Status::Forbidden);
    assert!(matches!(des.ike_cipher(&[1; 8]), Err(Error::Unusable { algorithm: "des", .. })));
    let suite = EspSuite { encryption: des, integrity: Integrity::from_keyword("sha1") };
    let keymat = Secret::new(vec![1; suite.keymat_len()]);
    assert!(matches!(opener(suite, &keymat, false), Err(Error::Unusable { algorithm: "des", .. })));
    assert!(matches!(sealer(suite, &keymat, &[0; 16], false), Err(Error::Unusable { algorithm: "des", .. })));
    assert!(Hash::from_keyword("des").is_none());

    let dss = Signature::from_keyword("dss").unwrap();
    assert!(matches!(dss.signing_key(&[1; 8]).err(), Some(Error::Unusable { algorithm: "dss", .. })));
    assert!(matches!(dss.verify(&[1; 8], &[1; 20], &[1; 40]), Err(Error::Unusable { algorithm: "dss", .. })));
}
