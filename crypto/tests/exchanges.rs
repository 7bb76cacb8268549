//! Diffie-Hellman with peers that send what they should not, and with entropy
//! that is none.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crypto::Entropy;
use crypto::entropy::testing::SeededEntropy;
use crypto::table::{Error, GROUPS, Group, Status};

fn usable() -> impl Iterator<Item = &'static Group> {
    GROUPS.iter().filter(|row| row.status != Status::Forbidden)
}

fn refuses(group: &Group, public: &[u8], why: &str) {
    let ours = group.generate(&mut SeededEntropy::new(1)).unwrap();
    // Before anything is computed, and when it would be.
    for result in [group.check(public), ours.agree(public).map(|_| ())] {
        match result {
            Err(Error::PublicValue { group: keyword, reason }) => {
                assert_eq!(keyword, group.keyword);
                assert!(reason.contains(why), "{group}: {reason}");
            }
            other => panic!("{group}: {other:?} instead of refusal because {why}"),
        }
    }
}

#[test]
fn true_public_values_pass_the_check() {
    for (group, seed) in usable().zip(1..) {
        let public = group.generate(&mut SeededEntropy::new(seed)).unwrap().public().to_vec();
        assert_eq!(group.check(&public), Ok(()), "{group}");
    }
    let forbidden = GROUPS.iter().find(|row| row.status == Status::Forbidden).unwrap();
    assert!(matches!(forbidden.check(&[2; 96]), Err(Error::Unusable { .. })));
}

#[test]
fn two_sides_agree_and_a_third_does_not() {
    for group in usable() {
        let [a, b, c] = [1, 2, 3].map(|seed| group.generate(&mut SeededEntropy::new(seed)).unwrap());
        let [public_a, public_b] = [&a, &b].map(|side| side.public().to_vec());
        assert_ne!(public_a, public_b, "{group}");
        let shared = a.agree(&public_b).unwrap();
        assert_eq!(shared, b.agree(&public_a).unwrap(), "{group}");
        assert_ne!(shared, c.agree(&public_a).unwrap(), "{group}");
    }
}

#[test]
fn public_values_of_another_length_are_refused() {
    for group in usable() {
        let peer = group.generate(&mut SeededEntropy::new(2)).unwrap().public().to_vec();
        refuses(group, &[], "long");
        refuses(group, &peer[1..], "long");
        refuses(group, &[&[0], &peer[..]].concat(), "long");
    }
}

/// A number of the length of the group's public values.
fn small(group: &Group, value: u8) -> Vec<u8> {
    let mut octets = vec![0; group.public_len];
    octets[group.public_len - 1] = value;
    octets
}

#[test]
fn modp_values_out_of_range_are_refused() {
    for group in usable().filter(|row| row.keyword.starts_with("modp")) {
        refuses(group, &small(group, 0), "0 or 1");
        refuses(group, &small(group, 1), "0 or 1");
        refuses(group, &vec![0xff; group.public_len], "p - 1");
        // 2 is the generator, whatever the exponent was.
        assert!(group.generate(&mut SeededEntropy::new(1)).unwrap().agree(&small(group, 2)).is_ok());
    }
}

#[test]
fn p_and_p_minus_1_are_refused() {
    // The prime of group 2 from RFC 2409 6.2.
    let mut p: Vec<u8> = "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74\
                          020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437\
                          4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED\
                          EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE65381FFFFFFFFFFFFFFFF"
        .as_bytes()
        .chunks(2)
        .map(|digits| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap())
        .collect();
    let group = Group::from_number(2).unwrap();
    refuses(group, &p, "p - 1");
    *p.last_mut().unwrap() -= 1;
    refuses(group, &p, "p - 1");
    *p.last_mut().unwrap() -= 1;
    assert!(group.generate(&mut SeededEntropy::new(1)).unwrap().agree(&p).is_ok());
}

#[test]
fn points_off_the_curve_are_refused() {
    for group in usable().filter(|row| row.keyword.starts_with("ecp")) {
        refuses(group, &vec![0; group.public_len], "curve");
        refuses(group, &vec![0xff; group.public_len], "curve");
        let mut peer = group.generate(&mut SeededEntropy::new(2)).unwrap().public().to_vec();
        *peer.last_mut().unwrap() ^= 1;
        refuses(group, &peer, "curve");
    }
}

#[test]
fn points_of_small_order_are_refused() {
    let group = Group::from_keyword("x25519").unwrap();
    refuses(group, &[0; 32], "small order");
    let mut one = [0; 32];
    one[0] = 1;
    refuses(group, &one, "small order");
    // p - 1, p and p + 1, little-endian.
    for low in [0xec, 0xed, 0xee] {
        let mut point = [0xff; 32];
        point[0] = low;
        point[31] = 0x7f;
        refuses(group, &point, "small order");
    }
}

struct Constant(u8);

impl Entropy for Constant {
    fn fill(&mut self, out: &mut [u8]) {
        out.fill(self.0);
    }
}

#[test]
fn a_broken_entropy_source_is_an_error() {
    for group in usable().filter(|row| row.keyword != "x25519") {
        let error = group.generate(&mut Constant(0)).err();
        assert_eq!(error, Some(Error::Entropy { group: group.keyword }));
    }
    // Beyond the order of the curve: drawn again, and again.
    for group in usable().filter(|row| row.keyword.starts_with("ecp")) {
        assert_eq!(group.generate(&mut Constant(0xff)).err(), Some(Error::Entropy { group: group.keyword }));
    }
}

#[test]
fn a_refused_draw_is_drawn_again() {
    struct FirstZero(bool);
    impl Entropy for FirstZero {
        fn fill(&mut self, out: &mut [u8]) {
            out.fill(if std::mem::take(&mut self.0) { 0 } else { 5 });
        }
    }
    for group in usable() {
        assert!(group.generate(&mut FirstZero(true)).is_ok(), "{group}");
    }
}

#[test]
fn seeded_entropy_replays() {
    let take = |seed, sizes: &[usize]| {
        let mut entropy = SeededEntropy::new(seed);
        let mut taken = Vec::new();
        for &size in sizes {
            let mut octets = vec![0; size];
            entropy.fill(&mut octets);
            taken.extend(octets);
        }
        taken
    };
    assert_eq!(take(7, &[100]), take(7, &[1, 31, 33, 0, 35]));
    assert_ne!(take(7, &[100]), take(8, &[100]));
    let octets = take(7, &[64]);
    assert_ne!(octets[..32], octets[32..]);
}
