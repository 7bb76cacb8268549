//! The configuration, checked: what the rest of the system works with.
//!
//! Objects and defaults are those of HP-UX IPSec (`ipsec_config add host|tunnel|ike|auth|bypass|startup`).

use crate::audit::Level;
use crate::five_tuple::{Attachment, Direction, FiveTuple};
use crate::identity::{Identity, IdentityPattern};
use crate::sa::{Lifetime, Mode};
use crate::selector::{AddressRange, Selector};
use crate::transform::EspTransform;
use crypto::table::Signature;
use crypto::{IkeSuite, Secret};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// A whole configuration. Each list is in search order: first match decides.
#[derive(Clone, Debug)]
pub struct Config {
    /// Process-wide settings.
    pub startup: Startup,
    /// Host policies by ascending priority; the default policy is not among them.
    pub hosts: Vec<Arc<HostPolicy>>,
    /// The default host policy, searched last: cookie 1, priority 0.
    pub default_action: DefaultAction,
    /// As [`HostPolicy::cache_share`], of the default host policy.
    pub default_cache_share: Option<u8>,
    /// Tunnel policies in the order of the file.
    pub tunnels: Vec<Arc<TunnelPolicy>>,
    /// IKE policies by ascending priority.
    pub ikes: Vec<Arc<IkePolicy>>,
    /// Authentication records from the fewest addresses to the most (the most specific wins), then file order.
    pub auths: Vec<Arc<AuthRecord>>,
    /// Local addresses to which IPsec does not apply at all.
    pub bypass: Vec<AddressRange>,
    /// Address pools for clients, in the order of the file.
    pub pools: Vec<Arc<Pool>>,
    /// Whether packets between interfaces go past the kernel; `None`: they come by the TUN interface alone.
    pub gateway: Option<Gateway>,
}

/// Interfaces between which the packet path itself forwards, in place of the kernel. All are Ethernet, and each is
/// named once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Behind them are the hosts that are protected; never empty.
    pub inside: Vec<String>,
    /// Behind them is everything else; never empty.
    pub outside: Vec<String>,
    /// Workers for each interface, which share its frames by their flows.
    pub workers: u32,
}

/// Process-wide settings.
#[derive(Clone, Debug)]
pub struct Startup {
    /// Least urgent level that is recorded.
    pub audit_level: Level,
    /// Directory of audit files; `None`: standard error only.
    pub audit_dir: Option<PathBuf>,
    /// Audit files rotate at this size, in kilobytes.
    pub audit_max_kbytes: u32,
    /// SPD cache soft limit, in thousands of entries.
    pub spd_soft: u32,
    /// SPD cache hard limit, in thousands of entries; at least `spd_soft`.
    pub spd_hard: u32,
    /// Lowest SPI of dynamic SAs.
    pub spi_min: u32,
    /// Highest SPI of dynamic SAs.
    pub spi_max: u32,
    /// Name of the TUN interface.
    pub interface: String,
    /// Inner MTU; `None`: from the path.
    pub mtu: Option<u16>,
    /// Anti-replay window, in packets.
    pub replay_window: u32,
    /// Whether the kernel and the packet path hand each other super-packets, as far as the kernel can.
    pub offload: bool,
    /// Workers of the packet path in each direction; `None`: as many as the processors ask for.
    pub workers: Option<u8>,
    /// Outer DF bit of IPv4 (RFC 4301 8.1).
    pub df: DfPolicy,
    /// UDP port of IKE.
    pub ike_port: u16,
    /// UDP port of IKE and ESP behind a NAT.
    pub natt_port: u16,
    /// Packets held for one tunnel while its SA is negotiated, by each worker.
    pub hold_queue: u32,
    /// Sessions of EXCLUSIVE policies, each with an SA pair of its own, at most.
    pub exclusive_sessions: u32,
    /// Idle seconds after which an SPD cache entry ages out, and the SA pair of a session with it.
    pub cache_idle_seconds: u32,
    /// Directory to which negotiated keys are written for Wireshark; a debugging aid, off unless named.
    pub export_keys: Option<PathBuf>,
    /// Lifetimes down to 10 seconds and 1 kilobyte are accepted, of the file and of peers: for tests.
    pub allow_short_lifetimes: bool,
}

/// What to do with the DF bit of the outer IPv4 header (RFC 4301 8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DfPolicy {
    /// As in the inner packet; set for IPv6 inside.
    Copy,
    /// Always set.
    Set,
    /// Never set.
    Clear,
}

/// The default policy's action: shipped as pass, may be changed to discard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultAction {
    /// What no policy matches goes in the clear.
    Pass,
    /// What no policy matches is dropped.
    Discard,
}

/// A host policy: which packets, and what to do with them.
#[derive(Clone, Debug)]
pub struct HostPolicy {
    /// Unique among host policies.
    pub name: String,
    /// 1 to 2147483647; the lowest is searched first.
    pub priority: u32,
    /// Joins cache entries with the policy that made them; unique in a loaded configuration.
    pub cookie: u32,
    /// What it covers; never empty, several when the object repeats an address.
    pub selectors: Vec<Selector>,
    /// Only packets that enter and leave by this interface; `None`: by any.
    pub interface: Option<Attachment>,
    /// What to do.
    pub action: HostAction,
    /// Each [session](crate::session::Session) has an SA pair of its own; only with a tunnel.
    pub exclusive: bool,
    /// Percent of the SPD cache's hard limit, 1 to 100, that entries of this policy may take; `None`: all of it.
    pub cache_share: Option<u8>,
    /// Line of the object in the file.
    pub line: usize,
}

impl HostPolicy {
    /// Whether it is for packets of an interface at all.
    #[must_use]
    pub fn is_for(&self, interface: Attachment) -> bool {
        self.interface.is_none_or(|own| own == interface)
    }

    /// Whether it covers a packet.
    #[must_use]
    pub fn matches(&self, tuple: &FiveTuple, direction: Direction) -> bool {
        self.is_for(tuple.interface) && self.selectors.iter().any(|s| s.matches(tuple, direction))
    }
}

/// What a host policy does.
#[derive(Clone, Debug)]
pub enum HostAction {
    /// In the clear.
    Pass,
    /// Drop.
    Discard,
    /// Through a tunnel (HP-UX: action PASS with `-tunnel`).
    Tunnel(Arc<TunnelPolicy>),
}

/// A tunnel policy: end points, what may go through, and how it is protected.
#[derive(Clone, Debug)]
pub struct TunnelPolicy {
    /// Unique among tunnel policies.
    pub name: Arc<str>,
    /// Our end point.
    pub tsource: IpAddr,
    /// The peer's end point.
    pub tdestination: IpAddr,
    /// Tunnel, or transport: then the selector is between the end points alone.
    pub mode: Mode,
    /// The proxy IDs of quick mode: must be the mirror image of the peer's.
    pub selector: Selector,
    /// Most preferred first; never empty; all with the same PFS group.
    pub transforms: Vec<EspTransform>,
    /// Packets after which a pair of SAs ends, in either direction; 0 is no limit. Ours alone: IKEv1 does not negotiate it.
    pub packets: u32,
    /// When we start the negotiation.
    pub start: StartMode,
    /// Keys of the one transform: then nothing is negotiated.
    pub manual: Option<ManualKeys>,
    /// Whether it is for clients with addresses that the file does not know.
    pub remote_access: RemoteAccess,
    /// Line of the object in the file.
    pub line: usize,
}

impl TunnelPolicy {
    /// Whether SAs negotiated for `other` serve this policy: same end points, mode, selector, transforms and
    /// manual keys.
    #[must_use]
    pub fn has_same_sas(&self, other: &Self) -> bool {
        (self.tsource, self.tdestination, self.mode, &self.selector, &self.transforms, &self.manual)
            == (other.tsource, other.tdestination, other.mode, &other.selector, &other.transforms, &other.manual)
            && self.remote_access == other.remote_access
    }
}

/// How a tunnel has to do with remote access.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RemoteAccess {
    /// It has not: its addresses are those of the file.
    #[default]
    None,
    /// Its clients have addresses of the pool of this name: for each there is a tunnel made of this one
    /// ([`Config::expanded`]), which is itself never up.
    Pool(String),
    /// Its address inside is one that the peer gives us; as [`Self::Pool`], it is never up itself.
    Virtual {
        /// The peer tells it unasked.
        push: bool,
    },
    /// Made of one with a pool: for the client whose address it is.
    Leased(Arc<str>),
}

impl TunnelPolicy {
    /// Whether others are made of it, and it is never up itself.
    #[must_use]
    pub fn is_template(&self) -> bool {
        matches!(self.remote_access, RemoteAccess::Pool(_) | RemoteAccess::Virtual { .. })
    }
}

/// Addresses for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Unique among pools.
    pub name: String,
    /// The addresses.
    pub addresses: AddressRange,
    /// DNS servers that clients are told.
    pub dns: Vec<IpAddr>,
    /// Networks that clients are told to reach through the tunnel; each has a prefix.
    pub split: Vec<AddressRange>,
    /// Words that users are shown.
    pub banner: Option<String>,
    /// Seconds for which an address is kept for whoever has it, after his last use.
    pub lease_seconds: u32,
    /// Where leases are kept.
    pub file: PathBuf,
    /// Clients are told unasked.
    pub push: bool,
    /// Line of the object in the file.
    pub line: usize,
}

/// The SAs of a tunnel whose keys are in the configuration. They have no lifetimes, and nobody replaces them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManualKeys {
    /// What we receive with.
    pub inbound: ManualSa,
    /// What we send with.
    pub outbound: ManualSa,
    /// Whether replayed packets are refused. A peer that begins again is then not heard until it has caught up
    /// with its sequence numbers, hence RFC 4303 3.3.3 advises against it.
    pub anti_replay: bool,
}

/// One direction of [`ManualKeys`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManualSa {
    /// SPI: the receiver's.
    pub spi: u32,
    /// In the order of [`crypto::packet::sealer`].
    pub keymat: Secret,
}

/// When a tunnel is negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartMode {
    /// On the first packet.
    Traffic,
    /// When the daemon starts, and again whenever it goes down.
    Boot,
    /// Never by us: we only respond, and replace what has been negotiated before it ends.
    Respond,
}

/// An IKE policy: how to protect the negotiation with some peers.
#[derive(Clone, Debug)]
pub struct IkePolicy {
    /// Unique among IKE policies.
    pub name: String,
    /// Peers it is for, by address.
    pub remote: AddressRange,
    /// 1 to 2147483647; the lowest is searched first.
    pub priority: u32,
    /// Most preferred first; never empty.
    pub proposals: Vec<IkeSuite>,
    /// How peers may prove who they are; empty: as the authentication record says.
    pub methods: Vec<AuthMethod>,
    /// Lifetime of the ISAKMP SA in seconds, and no volume.
    pub lifetime: Lifetime,
    /// Quick modes one ISAKMP SA may protect; 0 is no limit. 1 is perfect forward secrecy for keys and identities.
    pub max_quick_modes: u32,
    /// NAT traversal.
    pub nat_traversal: NatTraversal,
    /// Seconds between NAT keepalives (RFC 3948 4).
    pub keepalive_seconds: u16,
    /// Most octets of an IP packet with a piece of a message, where the peer takes pieces; `None`: no fragmentation.
    pub fragment_size: Option<u16>,
    /// Whether, and how, it is noticed that a peer is gone.
    pub dpd: Dpd,
    /// What a quick mode that fails does to its ISAKMP SA.
    pub quick_mode_failure: QuickModeFailure,
    /// Line of the object in the file.
    pub line: usize,
}

/// Dead peer detection (RFC 3706).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dpd {
    /// Seconds without a sign of the peer before it is asked; 0: it never is.
    pub seconds: u16,
    /// Whether it is asked also when nothing was sent to it meanwhile.
    pub periodic: bool,
    /// What becomes of its tunnels when it does not answer; its SAs are deleted in any case.
    pub action: DpdAction,
}

impl Dpd {
    /// Asked after half a minute when packets go out and none come; tunnels as they are started.
    pub const DEFAULT: Self = Self { seconds: 30, periodic: false, action: DpdAction::Hold };
}

/// What becomes of the tunnels to a dead peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DpdAction {
    /// As if they had never been up: `start` says when they are negotiated again.
    Hold,
    /// They wait for the peer to begin.
    Clear,
    /// Those that were up are negotiated again at once.
    Restart,
}

impl DpdAction {
    /// What it does, as a clause.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Hold => "its tunnels are negotiated again as their `start` says",
            Self::Clear => "its tunnels wait for it to begin",
            Self::Restart => "its tunnels are negotiated again at once",
        }
    }
}

/// `hold`, `clear` or `restart`.
impl core::fmt::Display for DpdAction {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Hold => "hold",
            Self::Clear => "clear",
            Self::Restart => "restart",
        })
    }
}

/// What a quick mode that fails does to its ISAKMP SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuickModeFailure {
    /// Nothing: what is wrong is wrong with a tunnel (HP-UX A.03).
    Keep,
    /// It is deleted too (HP-UX A.02).
    Delete,
}

/// IKEv1 authentication method (RFC 2409 appendix A).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// Pre-shared key, value 1.
    PreSharedKey,
    /// Signatures with certificates.
    Signature(&'static Signature),
    /// The side whose user is asked (XAUTH) proves nothing before that, the other one signs with RSA
    /// (draft-ietf-ipsec-isakmp-hybrid-auth-05).
    Hybrid,
}

impl AuthMethod {
    /// The value of the Authentication Method attribute.
    #[must_use]
    pub fn ikev1(self) -> u16 {
        match self {
            Self::PreSharedKey => 1,
            Self::Signature(row) => row.ikev1,
            Self::Hybrid => 64221,
        }
    }

    /// How whoever signs by this method does it.
    #[must_use]
    pub fn signature(self) -> Option<&'static Signature> {
        match self {
            Self::PreSharedKey => None,
            Self::Signature(row) => Some(row),
            Self::Hybrid => Signature::from_keyword("rsasig"),
        }
    }
}

/// As HP-UX writes it: `PSK`, `RSASIG`; and `HYBRID`.
impl core::fmt::Display for AuthMethod {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::PreSharedKey => "PSK",
            Self::Signature(row) => row.hpux,
            Self::Hybrid => "HYBRID",
        })
    }
}

/// How the peers of an authentication record prove who they are in phase 1 (RFC 2409 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase1Exchange {
    /// In six messages, identities encrypted.
    Main,
    /// In three, identities in the clear. We begin with it, and answer both.
    Aggressive,
}

/// As HP-UX writes it: `Main Mode`.
impl core::fmt::Display for Phase1Exchange {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Main => "Main Mode",
            Self::Aggressive => "Aggressive Mode",
        })
    }
}

/// When ESP goes in UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatTraversal {
    /// When a NAT is detected (RFC 3947).
    Auto,
    /// Always: we make the peer believe there is a NAT.
    Force,
    /// Never: we do not announce it.
    Off,
}

/// An authentication record: who the peer is, who we are to it, and the secret.
#[derive(Clone, Debug)]
pub struct AuthRecord {
    /// Unique among authentication records.
    pub name: String,
    /// Peers it is for, by address.
    pub remote: AddressRange,
    /// How it and we may prove who we are, the most preferred first; empty: nohow.
    pub methods: Vec<AuthMethod>,
    /// The pre-shared key; decoded.
    pub preshared: Option<Secret>,
    /// Where our certificate is, and whom we believe.
    pub certificates: Option<CertificateFiles>,
    /// Who we say we are; `None`: our address.
    pub local_id: Option<Identity>,
    /// We say that we are the owner of our certificate. Who that is stands in `local_id` once the files are read.
    pub local_subject: bool,
    /// Who the peer must be; `None`: its address.
    pub remote_id: Option<IdentityPattern>,
    /// The exchange that we begin with, and whether we answer aggressive mode.
    pub exchange: Phase1Exchange,
    /// Encoded names of the authorities in the files, for certificate requests; empty until they are read.
    pub authorities: Vec<Vec<u8>>,
    /// Whether one side's user has to prove who he is as well.
    pub xauth: Option<Xauth>,
    /// Line of the object in the file.
    pub line: usize,
}

impl AuthRecord {
    /// The methods that a negotiation under `policy` may use, the most preferred first.
    #[must_use]
    pub fn methods_under(&self, policy: &IkePolicy) -> Vec<AuthMethod> {
        let allowed = |m: &&AuthMethod| policy.methods.is_empty() || policy.methods.contains(m);
        self.methods.iter().filter(allowed).copied().collect()
    }
}

/// Extended authentication (draft-ietf-ipsec-isakmp-xauth-06): after phase 1, before anything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Xauth {
    /// We say who our user is.
    Client {
        /// The user's name.
        user: String,
        /// His password.
        password: PasswordSource,
    },
    /// We ask who the peer's user is.
    Server {
        /// The file of users and their hashed passwords.
        users: PathBuf,
        /// How often a peer may try.
        tries: u8,
    },
}

/// Where a password is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordSource {
    /// In the configuration.
    Given(Secret),
    /// In a file, up to the end of its first line.
    File(PathBuf),
}

/// `client` or `server`.
impl core::fmt::Display for Xauth {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Client { .. } => "client",
            Self::Server { .. } => "server",
        })
    }
}

impl CertificateFiles {
    /// Whether any CRL is to be fetched.
    #[must_use]
    pub fn fetches(&self) -> bool {
        self.crl_fetch || !self.crl_urls.is_empty()
    }
}

/// The files of an authentication record. Nothing has looked into them yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// Our certificate, perhaps with those between it and the authority, and with the key; none where only the peer
    /// signs (hybrid authentication).
    pub certificate: Option<PathBuf>,
    /// The private key, if it is not beside the certificate.
    pub key: Option<PathBuf>,
    /// What the key or container is encrypted with.
    pub passphrase: Option<Secret>,
    /// Authorities that we believe; empty only where the peer never signs (hybrid authentication).
    pub authorities: Vec<PathBuf>,
    /// Certificate revocation lists.
    pub crls: Vec<PathBuf>,
    /// URLs (`http://`) of more of them, which are fetched and kept up to date.
    pub crl_urls: Vec<String>,
    /// Whether CRLs are also fetched from where the peers' certificates say they are.
    pub crl_fetch: bool,
    /// What if no list says whether a certificate is revoked.
    pub crl_policy: RevocationPolicy,
}

/// What to do with a certificate of which no valid CRL tells whether it is revoked.
/// One that a CRL revokes is refused always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevocationPolicy {
    /// Refuse it.
    Strict,
    /// Accept it, and say so.
    Relaxed,
}

impl Startup {
    /// Names of the interfaces of the packet path, at most [`Attachment::MOST`]; their places are
    /// those of [`Attachment`].
    pub fn attachments(&self) -> impl Iterator<Item = &str> {
        core::iter::once(self.interface.as_str())
    }

    /// An interface of the packet path by its name.
    #[must_use]
    pub fn attachment(&self, name: &str) -> Option<Attachment> {
        self.attachments().position(|n| n == name).and_then(Attachment::new)
    }

    /// The name of an interface of the packet path.
    #[must_use]
    pub fn attachment_name(&self, interface: Attachment) -> Option<&str> {
        self.attachments().nth(interface.place())
    }
}

impl Config {
    /// The IKE policy for a peer: first match by priority.
    #[must_use]
    pub fn ike_policy(&self, peer: IpAddr) -> Option<&Arc<IkePolicy>> {
        self.ikes.iter().find(|p| p.remote.contains(peer))
    }

    /// The authentication record for a peer: the most specific.
    #[must_use]
    pub fn auth_record(&self, peer: IpAddr) -> Option<&Arc<AuthRecord>> {
        self.auths.iter().find(|a| a.remote.contains(peer))
    }

    /// The records for a peer that begins in aggressive mode, the most specific first.
    pub fn aggressive_records(&self, peer: IpAddr) -> impl Iterator<Item = &Arc<AuthRecord>> {
        self.auths.iter().filter(move |a| a.remote.contains(peer) && a.exchange == Phase1Exchange::Aggressive)
    }

    /// A tunnel policy by name.
    #[must_use]
    pub fn tunnel(&self, name: &str) -> Option<&Arc<TunnelPolicy>> {
        self.tunnels.iter().find(|t| &*t.name == name)
    }

    /// Whether a tunnel has SAs that sessions share: not if every host policy that names
    /// it is EXCLUSIVE.
    #[must_use]
    pub fn is_shared(&self, tunnel: &str) -> bool {
        let names = |h: &&Arc<HostPolicy>| matches!(&h.action, HostAction::Tunnel(t) if *t.name == *tunnel);
        let mut users = self.hosts.iter().filter(names).peekable();
        users.peek().is_none() || users.any(|h| !h.exclusive)
    }

    /// The tunnel policies without manual keys, in the order of the file.
    pub fn negotiated(&self) -> impl Iterator<Item = &Arc<TunnelPolicy>> {
        self.tunnels.iter().filter(|t| t.manual.is_none())
    }

    /// The pool of the clients that come to an end point of ours.
    #[must_use]
    pub fn pool_at(&self, local: IpAddr) -> Option<&Arc<Pool>> {
        self.tunnels.iter().filter(|t| t.tsource == local).find_map(|t| match &t.remote_access {
            RemoteAccess::Pool(named) => self.pools.iter().find(|pool| pool.name == *named),
            _ => None,
        })
    }

    /// How a peer gives us an address, if it is to.
    #[must_use]
    pub fn virtual_to(&self, local: IpAddr, peer: IpAddr) -> Option<&RemoteAccess> {
        let between = |t: &&Arc<TunnelPolicy>| (t.tsource, t.tdestination) == (local, peer);
        let mut ways = self.tunnels.iter().filter(between).map(|t| &t.remote_access);
        ways.find(|way| matches!(way, RemoteAccess::Virtual { .. }))
    }

    /// Whether a peer has anything to negotiate with us.
    #[must_use]
    pub fn serves(&self, peer: IpAddr) -> bool {
        let pool = |t: &Arc<TunnelPolicy>| matches!(t.remote_access, RemoteAccess::Pool(_));
        self.tunnels_to(peer).next().is_some() || self.tunnels.iter().any(pool)
    }

    /// Those of them whose peer is at `peer`.
    pub fn tunnels_to(&self, peer: IpAddr) -> impl Iterator<Item = &Arc<TunnelPolicy>> {
        self.negotiated().filter(move |t| t.tdestination == peer)
    }
}
