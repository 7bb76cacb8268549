//! Vendor IDs (RFC 2408 3.16): what a peer can do beyond the RFCs of 1998, and who made it.

use crate::wire::{Body, Message, Payload};
use core::fmt;

/// MD5("RFC 3947"): NAT traversal.
pub(crate) const RFC_3947: [u8; 16] =
    [0x4a, 0x13, 0x1c, 0x81, 0x07, 0x03, 0x58, 0x45, 0x5c, 0x57, 0x28, 0xf2, 0x0e, 0x95, 0x45, 0x2f];
/// MD5("draft-ietf-ipsec-nat-t-ike-03").
pub(crate) const NAT_T_DRAFT_03: [u8; 16] =
    [0x7d, 0x94, 0x19, 0xa6, 0x53, 0x10, 0xca, 0x6f, 0x2c, 0x17, 0x9d, 0x92, 0x15, 0x52, 0x9d, 0x56];
/// MD5("draft-ietf-ipsec-nat-t-ike-02\n"): the form that was deployed.
pub(crate) const NAT_T_DRAFT_02_NEWLINE: [u8; 16] =
    [0x90, 0xcb, 0x80, 0x91, 0x3e, 0xbb, 0x69, 0x6e, 0x08, 0x63, 0x81, 0xb5, 0xec, 0x42, 0x7b, 0x1f];
/// MD5("draft-ietf-ipsec-nat-t-ike-02").
pub(crate) const NAT_T_DRAFT_02: [u8; 16] =
    [0xcd, 0x60, 0x46, 0x43, 0x35, 0xdf, 0x21, 0xf8, 0x7c, 0xfd, 0xb2, 0xfc, 0x68, 0xb6, 0xa4, 0x48];
/// Dead peer detection, version 1.0 (RFC 3706 5.1).
pub(crate) const DPD: [u8; 16] =
    [0xaf, 0xca, 0xd7, 0x13, 0x68, 0xa1, 0xf1, 0xc9, 0x6b, 0x86, 0x96, 0xfc, 0x77, 0x57, 0x01, 0x00];
/// MD5("FRAGMENTATION"): messages in pieces. A word with capabilities may follow.
const FRAGMENTATION: [u8; 16] =
    [0x40, 0x48, 0xb7, 0xd5, 0x6e, 0xbc, 0xe8, 0x85, 0x25, 0xe7, 0xde, 0x7f, 0x00, 0xd6, 0xc2, 0xd3];
/// MD5("quick mode responder receives from message 2"): our own. As responder of a quick mode its sender decrypts under
/// the new SAs from its message 2 on. Message 3, which nothing confirms, is not what it waits for, so the initiator may
/// encrypt as soon as it has sent that.
pub(crate) const RECEIVES_EARLY: [u8; 16] =
    [0xf5, 0x4b, 0x93, 0x60, 0x5b, 0x23, 0x38, 0xc9, 0xaa, 0x89, 0xfb, 0x00, 0x31, 0x6f, 0xa4, 0xf8];
/// The capability of main mode, without which the others are of no use.
const FRAGMENTS_IN_MAIN_MODE: u8 = 0x80;

/// A vendor ID that has a name.
struct Known {
    name: &'static str,
    /// What it begins with: a version may follow.
    id: &'static [u8],
    /// What it is the MD5 of, where that is known.
    #[cfg_attr(not(test), expect(dead_code, reason = "the tests show that the octets are right"))]
    md5_of: Option<&'static str>,
}

const fn known(name: &'static str, id: &'static [u8]) -> Known {
    Known { name, id, md5_of: None }
}

const fn hashed(name: &'static str, id: &'static [u8], md5_of: &'static str) -> Known {
    Known { name, id, md5_of: Some(md5_of) }
}

/// Every vendor ID that has a name here, the longer before one that it begins with.
const TABLE: [Known; 20] = [
    hashed("NAT-T (RFC 3947)", &RFC_3947, "RFC 3947"),
    hashed("NAT-T (draft-03)", &NAT_T_DRAFT_03, "draft-ietf-ipsec-nat-t-ike-03"),
    hashed("NAT-T (draft-02)", &NAT_T_DRAFT_02_NEWLINE, "draft-ietf-ipsec-nat-t-ike-02\n"),
    hashed("NAT-T (draft-02)", &NAT_T_DRAFT_02, "draft-ietf-ipsec-nat-t-ike-02"),
    hashed(
        "NAT-T (draft-01)",
        b"\x16\xf6\xca\x16\xe4\xa4\x06\x6d\x83\x82\x1a\x0f\x0a\xea\xa8\x62",
        "draft-ietf-ipsec-nat-t-ike-01",
    ),
    hashed(
        "NAT-T (draft-00)",
        b"\x44\x85\x15\x2d\x18\xb6\xbb\xcd\x0b\xe8\xa8\x46\x95\x79\xdd\xcc",
        "draft-ietf-ipsec-nat-t-ike-00",
    ),
    known("DPD", DPD.first_chunk::<14>().unwrap()),
    hashed("FRAGMENTATION", &FRAGMENTATION, "FRAGMENTATION"),
    hashed("receives from message 2", &RECEIVES_EARLY, "quick mode responder receives from message 2"),
    known("XAUTH", &XAUTH),
    known("Cisco Unity", b"\x12\xf5\xf2\x8c\x45\x71\x68\xa9\x70\x2d\x9f\xe2\x74\xcc"),
    known("Cisco VPN 3000", b"\x1f\x07\xf7\x0e\xaa\x65\x14\xd3\xb0\xfa\x96\x54\x2a\x50"),
    hashed("strongSwan", b"\x88\x2f\xe5\x6d\x6f\xd2\x0d\xbc\x22\x51\x61\x3b\x2e\xbe\x5b\xeb", "strongSwan"),
    hashed("racoon", b"\x70\x03\xcb\xc1\x09\x7d\xbe\x9c\x26\x00\xba\x69\x83\xbc\x8b\x35", "KAME/racoon"),
    hashed("Windows", b"\x1e\x2b\x51\x69\x05\x99\x1c\x7d\x7c\x96\xfc\xbf\xb5\x87\xe4\x61", "MS NT5 ISAKMPOAKLEY"),
    hashed(
        "Windows (negotiation discovery)",
        b"\xfb\x1d\xe3\xcd\xf3\x41\xb7\xea\x16\xb7\xe5\xbe\x08\x55\xf1\x20",
        "MS-Negotiation Discovery Capable",
    ),
    hashed(
        "Windows (initial contact)",
        b"\x26\x24\x4d\x38\xed\xdb\x61\xb3\x17\x2a\x36\xe3\xd0\xcf\xb8\x19",
        "Vid-Initial-Contact",
    ),
    hashed("IKE CGA", b"\xe3\xa5\x96\x6a\x76\x37\x9f\xe7\x07\x22\x82\x31\xe5\xce\x86\x52", "IKE CGA version 1"),
    known("Check Point", b"\xf4\xed\x19\xe0\xc1\x14\xeb\x51\x6f\xaa\xac\x0e\xe3\x7d\xaf\x28\x07\xb4\x38\x1f"),
    known("FortiGate", b"\x82\x99\x03\x17\x57\xa3\x60\x82\xc6\xa6\x21\xde"),
];

/// Extended authentication (draft-ietf-ipsec-isakmp-xauth-06 3).
pub(crate) const XAUTH: [u8; 8] = [0x09, 0x00, 0x26, 0x89, 0xdf, 0xd6, 0xb7, 0x12];

/// The vendor ID of XAUTH, if it is to be announced.
pub(crate) fn xauth(announce: bool) -> Option<Payload> {
    announce.then(|| Payload::VendorId(XAUTH.to_vec()))
}

/// Ways of NAT traversal, best first.
const NAT_TRAVERSAL: [([u8; 16], NatSupport); 4] = [
    (RFC_3947, NatSupport::Rfc3947),
    (NAT_T_DRAFT_03, NatSupport::Draft),
    (NAT_T_DRAFT_02_NEWLINE, NatSupport::Draft),
    (NAT_T_DRAFT_02, NatSupport::Draft),
];

/// By which document the peer traverses NATs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NatSupport {
    /// RFC 3947.
    Rfc3947,
    /// Drafts -02 and -03: the same with private numbers.
    Draft,
}

/// How a peer announces that it takes messages in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fragmentation {
    /// Without saying in which modes.
    Bare,
    /// With its capabilities.
    Capable,
}

impl Fragmentation {
    /// The vendor ID.
    pub(crate) fn vendor_id(self) -> Vec<u8> {
        let word: &[u8] = if self == Self::Capable { &[FRAGMENTS_IN_MAIN_MODE, 0, 0, 0] } else { &[] };
        [&FRAGMENTATION, word].concat()
    }

    fn read(id: &[u8]) -> Option<Self> {
        match id.strip_prefix(&FRAGMENTATION)? {
            [] => Some(Self::Bare),
            [first, _, _, _] if first & FRAGMENTS_IN_MAIN_MODE != 0 => Some(Self::Capable),
            _ => None,
        }
    }
}

/// What a peer announced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Announced {
    /// Its best way of NAT traversal, with the vendor ID that announced it.
    pub(crate) nat: Option<(NatSupport, [u8; 16])>,
    /// It answers R-U-THERE.
    pub(crate) dpd: bool,
    /// It knows XAUTH.
    pub(crate) xauth: bool,
    /// It takes messages in pieces.
    pub(crate) fragmentation: Option<Fragmentation>,
    /// As responder of a quick mode it receives from message 2 on.
    pub(crate) receives_early: bool,
}

impl Announced {
    /// Reads the vendor IDs among `payloads`; unknown ones say nothing.
    pub(crate) fn read(payloads: &[Payload]) -> Self {
        let has = |wanted: &[u8]| payloads.iter().any(|p| matches!(p, Payload::VendorId(id) if id == wanted));
        let fragmentation = payloads.iter().find_map(|p| match p {
            Payload::VendorId(id) => Fragmentation::read(id),
            _ => None,
        });
        Self {
            nat: NAT_TRAVERSAL.iter().find(|(id, _)| has(id)).map(|&(id, support)| (support, id)),
            dpd: has(&DPD),
            xauth: has(&XAUTH),
            fragmentation,
            receives_early: has(&RECEIVES_EARLY),
        }
    }
}

/// Vendor IDs of a peer that are remembered; those without a name with so many octets.
const MOST: usize = 24;
const MOST_OCTETS: usize = 24;

/// What the peer of an ISAKMP SA says that it is and can, for reports. Nothing of it is authenticated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Vendors {
    names: Vec<String>,
    fragmentation: bool,
    receives_early: bool,
}

impl Vendors {
    /// Takes note of the vendor IDs of a message in the clear.
    pub(crate) fn note(&mut self, message: &Message) {
        let Body::Clear(payloads) = &message.body else { return };
        let announced = Announced::read(payloads);
        self.fragmentation |= announced.fragmentation.is_some();
        self.receives_early |= announced.receives_early;
        for payload in payloads {
            let Payload::VendorId(id) = payload else { continue };
            let name = Name(id).to_string();
            if self.names.len() < MOST && !self.names.contains(&name) {
                self.names.push(name);
            }
        }
    }

    /// Their names, in the order in which they came.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// The peer takes messages in pieces.
    pub(crate) fn fragmentation(&self) -> bool {
        self.fragmentation
    }

    /// As responder of a quick mode the peer receives from message 2 on.
    pub(crate) fn receives_early(&self) -> bool {
        self.receives_early
    }
}

/// A vendor ID, as a name, as text if it is text, or in hexadecimal digits.
struct Name<'a>(&'a [u8]);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(known) = TABLE.iter().find(|known| self.0.starts_with(known.id)) {
            return f.write_str(known.name);
        }
        let shown = self.0.get(..MOST_OCTETS).unwrap_or(self.0);
        let text = core::str::from_utf8(shown).ok();
        match text.filter(|t| t.len() >= 4 && t.chars().all(|c| c.is_ascii_graphic() && c != '"' && c != '\\')) {
            Some(text) => write!(f, "\"{text}\"")?,
            None => {
                f.write_str("0x")?;
                shown.iter().try_for_each(|b| write!(f, "{b:02x}"))?;
            }
        }
        if shown.len() < self.0.len() { f.write_str("…") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::numbers::{ExchangeType, PayloadKind};
    use crate::wire::{Cookie, Flags, Header};
    use crypto::table::Hash;

    fn message(ids: &[&[u8]]) -> Message {
        let header = Header {
            initiator: Cookie([1; 8]),
            responder: Cookie::ZERO,
            first: PayloadKind::VENDOR_ID,
            exchange: ExchangeType::MAIN_MODE,
            flags: Flags::default(),
            message_id: 0,
        };
        Message { header, body: Body::Clear(ids.iter().map(|id| Payload::VendorId(id.to_vec())).collect()) }
    }

    #[test]
    fn hashed_vendor_ids_are_the_hashes_of_their_texts() {
        let md5 = Hash::from_keyword("md5").unwrap();
        for row in TABLE {
            if let Some(text) = row.md5_of {
                assert_eq!(md5.digest(&[text.as_bytes()]), row.id, "{}", row.name);
            }
        }
        // No row hides one behind it.
        for (nth, row) in TABLE.iter().enumerate() {
            assert!(TABLE[..nth].iter().all(|earlier| !row.id.starts_with(earlier.id)), "{}", row.name);
        }
    }

    #[test]
    fn names_versions_text_and_what_is_neither() {
        let name = |id: &[u8]| Name(id).to_string();
        assert_eq!(name(&DPD), "DPD");
        assert_eq!(name(b"\x12\xf5\xf2\x8c\x45\x71\x68\xa9\x70\x2d\x9f\xe2\x74\xcc\x01\x00"), "Cisco Unity");
        assert_eq!(name(&Fragmentation::Capable.vendor_id()), "FRAGMENTATION");
        assert_eq!(name(b"\x82\x99\x03\x17\x57\xa3\x60\x82\xc6\xa6\x21\xde\x00\x05\x02\x4d"), "FortiGate");
        assert_eq!(name(b"OE-Libreswan-4.10"), "\"OE-Libreswan-4.10\"");
        assert_eq!(name(&[1, 2, 3, 0xff]), "0x010203ff");
        assert_eq!(name(b""), "0x");
        assert_eq!(name(&[0xab; 60]), format!("0x{}…", "ab".repeat(24)));
        assert_eq!(name(b"two\nlines\x1b[2J"), "0x74776f0a6c696e65731b5b324a");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_said_once() {
        let ids: Vec<Vec<u8>> = (0..100u8).map(|n| vec![n; 200]).collect();
        let ids: Vec<&[u8]> = ids.iter().map(Vec::as_slice).collect();
        let mut vendors = Vendors::default();
        vendors.note(&message(&[&DPD, &DPD, &RFC_3947]));
        assert_eq!(vendors.names(), ["DPD", "NAT-T (RFC 3947)"]);
        vendors.note(&message(&ids));
        assert_eq!(vendors.names().len(), MOST);
        assert!(vendors.names().iter().all(|name| name.chars().count() <= 2 * MOST_OCTETS + 3));
    }

    #[test]
    fn fragmentation_is_announced_in_several_ways() {
        let read = |id: &[u8]| Announced::read(&[Payload::VendorId(id.to_vec())]).fragmentation;
        for way in [Fragmentation::Bare, Fragmentation::Capable] {
            assert_eq!(read(&way.vendor_id()), Some(way));
        }
        assert_eq!(read(&[&FRAGMENTATION[..], &[0xc0, 0, 0, 0]].concat()), Some(Fragmentation::Capable));
        // In aggressive mode alone, or half a word.
        assert_eq!(read(&[&FRAGMENTATION[..], &[0x40, 0, 0, 0]].concat()), None);
        assert_eq!(read(&[&FRAGMENTATION[..], &[0x80]].concat()), None);
        assert_eq!(read(&FRAGMENTATION[..15]), None);
    }
}
