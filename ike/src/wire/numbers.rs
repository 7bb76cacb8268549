//! The assigned numbers of ISAKMP, the IPsec DOI and IKEv1, as IANA prints them.

use core::fmt;
use policy::sa::SaProtocol;

macro_rules! numbers {
    ($(#[$meta:meta])* $name:ident($inner:ty) { $($(#[$doc:meta])* $constant:ident = $value:literal, $text:literal;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl $name {
            $($(#[$doc])* pub const $constant: Self = Self($value);)*
        }

        /// The name of the RFC, or the number where it has none here.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match *self {
                    $(Self::$constant => f.write_str($text),)*
                    Self(other) => write!(f, "{other}"),
                }
            }
        }
    };
}

numbers! {
    /// Exchange type (RFC 2408 3.1, RFC 2409 appendix A).
    ExchangeType(u8) {
        /// Identity protection: main mode.
        MAIN_MODE = 2, "main mode";
        /// Aggressive mode.
        AGGRESSIVE = 4, "aggressive mode";
        /// Informational exchange.
        INFORMATIONAL = 5, "informational exchange";
        /// Transaction exchange (draft-ietf-ipsec-isakmp-mode-cfg-05 3).
        TRANSACTION = 6, "transaction exchange";
        /// Quick mode.
        QUICK_MODE = 32, "quick mode";
        /// New group mode.
        NEW_GROUP_MODE = 33, "new group mode";
    }
}

numbers! {
    /// Payload type (RFC 2408 3.1, RFC 3947 3.2).
    PayloadKind(u8) {
        /// End of the chain.
        NONE = 0, "none";
        /// Security association.
        SECURITY_ASSOCIATION = 1, "SA";
        /// Proposal, only inside an SA payload.
        PROPOSAL = 2, "P";
        /// Transform, only inside a proposal.
        TRANSFORM = 3, "T";
        /// Key exchange.
        KEY_EXCHANGE = 4, "KE";
        /// Identification.
        IDENTIFICATION = 5, "ID";
        /// Certificate.
        CERTIFICATE = 6, "CERT";
        /// Certificate request.
        CERTIFICATE_REQUEST = 7, "CR";
        /// Hash.
        HASH = 8, "HASH";
        /// Signature.
        SIGNATURE = 9, "SIG";
        /// Nonce.
        NONCE = 10, "NONCE";
        /// Notification.
        NOTIFICATION = 11, "N";
        /// Delete.
        DELETE = 12, "D";
        /// Vendor ID.
        VENDOR_ID = 13, "VID";
        /// Attributes of a transaction exchange (draft-ietf-ipsec-isakmp-mode-cfg-05 3.2).
        ATTRIBUTES = 14, "ATTR";
        /// NAT discovery.
        NAT_D = 20, "NAT-D";
        /// NAT original address.
        NAT_OA = 21, "NAT-OA";
        /// NAT discovery of draft-ietf-ipsec-nat-t-ike-03 and before.
        NAT_D_DRAFT = 130, "NAT-D (draft)";
        /// NAT original address of draft-ietf-ipsec-nat-t-ike-03 and before.
        NAT_OA_DRAFT = 131, "NAT-OA (draft)";
        /// A piece of a message (IKE fragmentation of Cisco).
        FRAGMENT = 132, "FRAGMENT";
    }
}

numbers! {
    /// Protocol of a proposal, notification or delete (RFC 2407 4.4.1).
    ProtocolId(u8) {
        /// ISAKMP itself.
        ISAKMP = 1, "ISAKMP";
        /// Authentication Header.
        AH = 2, "AH";
        /// Encapsulating Security Payload.
        ESP = 3, "ESP";
        /// IP compression.
        IPCOMP = 4, "IPCOMP";
    }
}

numbers! {
    /// Notify message type (RFC 2408 3.14.1, RFC 2407 4.6.3, RFC 3706).
    NotifyKind(u16) {
        /// The certificate or DOI cannot be used, and so on: 1 to 16 of RFC 2408.
        INVALID_PAYLOAD_TYPE = 1, "INVALID-PAYLOAD-TYPE";
        /// Domain of interpretation unknown.
        DOI_NOT_SUPPORTED = 2, "DOI-NOT-SUPPORTED";
        /// Situation unknown.
        SITUATION_NOT_SUPPORTED = 3, "SITUATION-NOT-SUPPORTED";
        /// Cookies of no SA.
        INVALID_COOKIE = 4, "INVALID-COOKIE";
        /// Major version not supported.
        INVALID_MAJOR_VERSION = 5, "INVALID-MAJOR-VERSION";
        /// Minor version not supported.
        INVALID_MINOR_VERSION = 6, "INVALID-MINOR-VERSION";
        /// Exchange type not supported.
        INVALID_EXCHANGE_TYPE = 7, "INVALID-EXCHANGE-TYPE";
        /// Flags not supported.
        INVALID_FLAGS = 8, "INVALID-FLAGS";
        /// Message ID not acceptable.
        INVALID_MESSAGE_ID = 9, "INVALID-MESSAGE-ID";
        /// Protocol not acceptable.
        INVALID_PROTOCOL_ID = 10, "INVALID-PROTOCOL-ID";
        /// No SA has this SPI.
        INVALID_SPI = 11, "INVALID-SPI";
        /// Transform not acceptable.
        INVALID_TRANSFORM_ID = 12, "INVALID-TRANSFORM-ID";
        /// Attributes not acceptable.
        ATTRIBUTES_NOT_SUPPORTED = 13, "ATTRIBUTES-NOT-SUPPORTED";
        /// None of the proposals is acceptable.
        NO_PROPOSAL_CHOSEN = 14, "NO-PROPOSAL-CHOSEN";
        /// Proposal malformed.
        BAD_PROPOSAL_SYNTAX = 15, "BAD-PROPOSAL-SYNTAX";
        /// Payload malformed.
        PAYLOAD_MALFORMED = 16, "PAYLOAD-MALFORMED";
        /// Public value not acceptable.
        INVALID_KEY_INFORMATION = 17, "INVALID-KEY-INFORMATION";
        /// Identity not acceptable.
        INVALID_ID_INFORMATION = 18, "INVALID-ID-INFORMATION";
        /// Certificate malformed.
        INVALID_CERT_ENCODING = 19, "INVALID-CERT-ENCODING";
        /// Certificate not acceptable.
        INVALID_CERTIFICATE = 20, "INVALID-CERTIFICATE";
        /// Kind of certificate not acceptable.
        CERT_TYPE_UNSUPPORTED = 21, "CERT-TYPE-UNSUPPORTED";
        /// Authority not acceptable.
        INVALID_CERT_AUTHORITY = 22, "INVALID-CERT-AUTHORITY";
        /// Hash differs.
        INVALID_HASH_INFORMATION = 23, "INVALID-HASH-INFORMATION";
        /// The peer is not who it says it is.
        AUTHENTICATION_FAILED = 24, "AUTHENTICATION-FAILED";
        /// Signature wrong.
        INVALID_SIGNATURE = 25, "INVALID-SIGNATURE";
        /// There is no certificate to send, or none came.
        CERTIFICATE_UNAVAILABLE = 28, "CERTIFICATE-UNAVAILABLE";
        /// The SA is in use on the responder's side: answer to the commit bit.
        CONNECTED = 16384, "CONNECTED";
        /// Lifetime the responder will use (RFC 2407 4.6.3.1).
        RESPONDER_LIFETIME = 24576, "RESPONDER-LIFETIME";
        /// Whether the sender checks for replays (RFC 2407 4.6.3.2).
        REPLAY_STATUS = 24577, "REPLAY-STATUS";
        /// The sender holds no other SA with the receiver (RFC 2407 4.6.3.3).
        INITIAL_CONTACT = 24578, "INITIAL-CONTACT";
        /// Dead peer detection, question (RFC 3706 5.1).
        R_U_THERE = 36136, "R-U-THERE";
        /// Dead peer detection, answer.
        R_U_THERE_ACK = 36137, "R-U-THERE-ACK";
    }
}

impl NotifyKind {
    /// Whether it reports an error rather than a status (RFC 2408 3.14.1: below 8192 and its private range).
    #[must_use]
    pub fn is_error(self) -> bool {
        self.0 < 16384
    }
}

numbers! {
    /// Identification type (RFC 2407 4.6.2.1).
    IdKind(u8) {
        /// One IPv4 address.
        IPV4_ADDR = 1, "ID_IPV4_ADDR";
        /// A fully qualified domain name.
        FQDN = 2, "ID_FQDN";
        /// A name in a domain, as of mail.
        USER_FQDN = 3, "ID_USER_FQDN";
        /// An IPv4 address and its mask.
        IPV4_ADDR_SUBNET = 4, "ID_IPV4_ADDR_SUBNET";
        /// One IPv6 address.
        IPV6_ADDR = 5, "ID_IPV6_ADDR";
        /// An IPv6 address and its mask.
        IPV6_ADDR_SUBNET = 6, "ID_IPV6_ADDR_SUBNET";
        /// First and last IPv4 address.
        IPV4_ADDR_RANGE = 7, "ID_IPV4_ADDR_RANGE";
        /// First and last IPv6 address.
        IPV6_ADDR_RANGE = 8, "ID_IPV6_ADDR_RANGE";
        /// Distinguished name.
        DER_ASN1_DN = 9, "ID_DER_ASN1_DN";
        /// General name.
        DER_ASN1_GN = 10, "ID_DER_ASN1_GN";
        /// Opaque octets.
        KEY_ID = 11, "ID_KEY_ID";
    }
}

impl From<SaProtocol> for ProtocolId {
    fn from(protocol: SaProtocol) -> Self {
        match protocol {
            SaProtocol::Esp => Self::ESP,
            SaProtocol::Ah => Self::AH,
        }
    }
}

/// The IPsec domain of interpretation (RFC 2407 4.2).
pub const DOI_IPSEC: u32 = 1;
/// SIT_IDENTITY_ONLY (RFC 2407 4.2.1).
pub const SIT_IDENTITY_ONLY: u32 = 1;
/// KEY_IKE, the only transform of ISAKMP proposals (RFC 2407 4.4.2).
pub const KEY_IKE: u8 = 1;

/// Attribute classes of phase 1 (RFC 2409 appendix A).
pub mod phase1_attribute {
    /// Encryption Algorithm.
    pub const ENCRYPTION: u16 = 1;
    /// Hash Algorithm.
    pub const HASH: u16 = 2;
    /// Authentication Method.
    pub const AUTHENTICATION: u16 = 3;
    /// Group Description.
    pub const GROUP: u16 = 4;
    /// Life Type.
    pub const LIFE_TYPE: u16 = 11;
    /// Life Duration.
    pub const LIFE_DURATION: u16 = 12;
    /// Key Length.
    pub const KEY_LENGTH: u16 = 14;
}

/// Attribute classes of phase 2 (RFC 2407 4.5).
pub mod phase2_attribute {
    /// SA Life Type.
    pub const LIFE_TYPE: u16 = 1;
    /// SA Life Duration.
    pub const LIFE_DURATION: u16 = 2;
    /// Group Description.
    pub const GROUP: u16 = 3;
    /// Encapsulation Mode.
    pub const ENCAPSULATION: u16 = 4;
    /// Authentication Algorithm.
    pub const AUTHENTICATION: u16 = 5;
    /// Key Length.
    pub const KEY_LENGTH: u16 = 6;
    /// Extended (64-bit) Sequence Number (RFC 4304).
    pub const EXTENDED_SEQUENCE: u16 = 11;
}

/// Life types of both phases.
pub mod life_type {
    /// Seconds.
    pub const SECONDS: u16 = 1;
    /// Kilobytes.
    pub const KILOBYTES: u16 = 2;
}

/// X.509 Certificate - Signature: the type of CERT and CERTREQ payloads that is used (RFC 2408 3.9).
pub const X509_SIGNATURE: u8 = 4;

/// Authentication methods of phase 1 (RFC 2409 appendix A).
pub mod authentication_method {
    use crypto::table::Signature;

    /// Pre-shared key.
    pub const PRE_SHARED_KEY: u16 = 1;
    /// XAUTHInitPreShared (draft-ietf-ipsec-isakmp-xauth-06 7.2): and then the initiator's user.
    pub const XAUTH_INIT_PRE_SHARED_KEY: u16 = 65001;
    /// XAUTHRespPreShared: and then the responder's user.
    pub const XAUTH_RESP_PRE_SHARED_KEY: u16 = 65002;
    /// XAUTHInitRSA.
    pub const XAUTH_INIT_RSA: u16 = 65005;
    /// XAUTHRespRSA.
    pub const XAUTH_RESP_RSA: u16 = 65006;
    /// HybridInitRSA (draft-ietf-ipsec-isakmp-hybrid-auth-05 3.1): the responder signs, the initiator's user is asked.
    pub const HYBRID_INIT_RSA: u16 = 64221;
    /// HybridRespRSA: the initiator signs, the responder's user is asked.
    pub const HYBRID_RESP_RSA: u16 = 64222;

    /// The name of a method, or its number.
    #[must_use]
    pub fn name(method: u16) -> String {
        match method {
            PRE_SHARED_KEY => "pre-shared key".into(),
            4 => "RSA encryption".into(),
            5 => "revised RSA encryption".into(),
            XAUTH_INIT_PRE_SHARED_KEY => "pre-shared key and XAUTH of the initiator".into(),
            XAUTH_RESP_PRE_SHARED_KEY => "pre-shared key and XAUTH of the responder".into(),
            XAUTH_INIT_RSA => "RSA signatures and XAUTH of the initiator".into(),
            XAUTH_RESP_RSA => "RSA signatures and XAUTH of the responder".into(),
            HYBRID_INIT_RSA => "RSA signature of the responder and XAUTH of the initiator (hybrid)".into(),
            HYBRID_RESP_RSA => "RSA signature of the initiator and XAUTH of the responder (hybrid)".into(),
            other => match Signature::from_ikev1(other) {
                Some(row) => format!("{} signatures", row.hpux),
                None => format!("method {other}"),
            },
        }
    }
}

/// Encapsulation modes of phase 2 (RFC 2407 4.5, RFC 3947 5.1).
pub mod encapsulation_mode {
    /// Tunnel.
    pub const TUNNEL: u16 = 1;
    /// Transport.
    pub const TRANSPORT: u16 = 2;
    /// UDP-Encapsulated-Tunnel.
    pub const UDP_TUNNEL: u16 = 3;
    /// UDP-Encapsulated-Transport.
    pub const UDP_TRANSPORT: u16 = 4;
    /// UDP-Encapsulated-Tunnel of draft-ietf-ipsec-nat-t-ike-03 and before.
    pub const UDP_TUNNEL_DRAFT: u16 = 61443;
    /// UDP-Encapsulated-Transport of draft-ietf-ipsec-nat-t-ike-03 and before.
    pub const UDP_TRANSPORT_DRAFT: u16 = 61444;

    /// Whether ESP travels in UDP.
    #[must_use]
    pub fn is_udp(mode: u16) -> bool {
        !matches!(mode, TUNNEL | TRANSPORT)
    }

    /// Whether it is transport mode, in UDP or not.
    #[must_use]
    pub fn is_transport(mode: u16) -> bool {
        matches!(mode, TRANSPORT | UDP_TRANSPORT | UDP_TRANSPORT_DRAFT)
    }

    /// The name of a mode, or its number.
    #[must_use]
    pub fn name(mode: u16) -> String {
        match mode {
            TUNNEL => "tunnel".into(),
            TRANSPORT => "transport".into(),
            UDP_TUNNEL => "UDP-encapsulated tunnel".into(),
            UDP_TRANSPORT => "UDP-encapsulated transport".into(),
            UDP_TUNNEL_DRAFT => "UDP-encapsulated tunnel (draft)".into(),
            UDP_TRANSPORT_DRAFT => "UDP-encapsulated transport (draft)".into(),
            other => format!("mode {other}"),
        }
    }
}
