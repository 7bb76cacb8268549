//! Vendor IDs: what a peer can do beyond the RFCs of 1998.

use crate::wire::Payload;

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

/// What a peer announced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Announced {
    /// Its best way of NAT traversal, with the vendor ID that announced it.
    pub(crate) nat: Option<(NatSupport, [u8; 16])>,
    /// It answers R-U-THERE.
    pub(crate) dpd: bool,
    /// It knows XAUTH.
    pub(crate) xauth: bool,
}

impl Announced {
    /// Reads the vendor IDs among `payloads`; unknown ones say nothing.
    pub(crate) fn read(payloads: &[Payload]) -> Self {
        let has = |wanted: &[u8]| payloads.iter().any(|p| matches!(p, Payload::VendorId(id) if id == wanted));
        Self {
            nat: NAT_TRAVERSAL.iter().find(|(id, _)| has(id)).map(|&(id, support)| (support, id)),
            dpd: has(&DPD),
            xauth: has(&XAUTH),
        }
    }
}
