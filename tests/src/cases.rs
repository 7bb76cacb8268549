//! The combinations that are tried against real peers: today's spelling, which
//! strongSwan and Caponier share.

/// One row: IKEv1 main mode with a pre-shared key.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Name of the row.
    pub name: &'static str,
    /// Phase 1.
    pub ike: &'static str,
    /// Phase 2; a third part is the group of perfect forward secrecy.
    pub esp: &'static str,
}

/// Every row.
pub const CASES: [Case; 11] = [
    Case { name: "aes128-modp2048", ike: "aes128-sha1-modp2048", esp: "aes128-sha1" },
    Case { name: "aes128-pfs", ike: "aes128-sha1-modp2048", esp: "aes128-sha1-modp2048" },
    Case { name: "aes256-modp2048", ike: "aes256-sha256-modp2048", esp: "aes256-sha256" },
    Case { name: "aes256-ecp256", ike: "aes256-sha256-ecp256", esp: "aes256-sha256-ecp256" },
    Case { name: "aes256-x25519", ike: "aes256-sha256-x25519", esp: "aes256-sha256-x25519" },
    Case { name: "3des-modp1024", ike: "3des-sha1-modp1024", esp: "3des-sha1" },
    Case { name: "gcm128", ike: "aes128-sha256-modp2048", esp: "aes128gcm16" },
    Case { name: "gcm256-ecp384", ike: "aes256-sha384-ecp384", esp: "aes256gcm16-ecp384" },
    Case { name: "md5-modp1536", ike: "aes128-md5-modp1536", esp: "aes128-md5" },
    Case { name: "null-sha1", ike: "aes128-sha1-modp2048", esp: "null-sha1" },
    Case { name: "ctr", ike: "aes128-sha256-modp3072", esp: "aes128ctr-sha256" },
];

/// The row that tests use which are about something else.
pub const PLAIN: Case = CASES[0];

/// The pre-shared key of the tests.
pub const PRESHARED: &str = "correct-horse-battery-staple-77";
