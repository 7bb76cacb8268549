//! What the packet path tells the daemon.

use crate::sa::SaEvent;
use policy::five_tuple::FiveTuple;
use policy::limits::LimitEvent;
use policy::sa::SaProtocol;
use policy::session::Session;
use std::net::{IpAddr, SocketAddr};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Packets wait for an SA of a tunnel. Told once until it is answered: by
    /// an SA and a release, or by a failure.
    Acquire {
        /// Index of the tunnel in the SPD.
        tunnel: u32,
        /// The session that is to have a pair of its own, if the SA is not to be shared.
        session: Option<Session>,
        /// The first packet that waits.
        tuple: FiveTuple,
    },
    /// An SA pair is near, or at, a limit.
    Sa(SaEvent),
    /// A protected packet arrived for an SPI we do not have: the peer may have
    /// an SA that we lost. Told at most once a second.
    UnknownSpi {
        /// The SPI.
        spi: u32,
        /// ESP or AH.
        protocol: SaProtocol,
        /// Where it was sent.
        local: IpAddr,
        /// From where it says it comes; port 0 unless it came in UDP.
        remote: SocketAddr,
    },
    /// An authentic packet, newer than all before it, came in UDP from another port than
    /// the one its peer was at: a NAT has moved it. Told once a second and SA until it is followed.
    PeerMoved {
        /// Number of the SA pair.
        pair: u64,
        /// Where it came from.
        remote: SocketAddr,
    },
    /// An IKE message on the port that ESP in UDP shares (RFC 3948 2.2).
    Ike(IkeDatagram),
    /// The SPD cache is at a limit.
    Cache(LimitEvent),
    /// An IKE message or NAT keepalive could not be sent.
    SendFailed {
        /// To whom.
        remote: SocketAddr,
        /// What the system says.
        error: String,
    },
    /// A worker cannot go on: no packet passes it any more.
    WorkerStopped {
        /// Name of the worker.
        worker: &'static str,
        /// What happened.
        error: String,
    },
}

/// An IKE message without its non-ESP marker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IkeDatagram {
    /// Where it was sent.
    pub local: SocketAddr,
    /// Where it came from.
    pub remote: SocketAddr,
    /// The message.
    pub message: Vec<u8>,
}

impl From<SaEvent> for Event {
    fn from(event: SaEvent) -> Self {
        Self::Sa(event)
    }
}
