//! The SA database: what the packet path looks up for every protected packet.
//!
//! [`Sad`] finds inbound SAs by SPI, [`Outbound`] the current SA of a tunnel.
//! Readers take no lock and write nothing that other readers read; writers are the
//! daemon, seldom. An SA that is removed is dropped when no reader can be using it any more: see
//! `readers.rs`. `S` is whatever the packet path needs to know of an SA.

mod by_spi;
#[cfg(all(test, loom))]
mod models;
mod outbound;
mod place;
mod readers;
mod table;

pub use by_spi::{Pinned, Sad};
pub use outbound::{Outbound, PinnedOutbound};
pub use readers::Reader;

/// The SPI is already in the SAD (PF_KEY: EEXIST).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an SA with SPI {spi:#x} exists already")]
pub struct DuplicateSpi {
    /// The SPI.
    pub spi: u32,
}

/// Why an SA is not put into the SAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InsertError {
    /// Another one has its SPI, and stays.
    #[error(transparent)]
    Duplicate(#[from] DuplicateSpi),
    /// 0 is no SPI (RFC 4303 2.1).
    #[error("0 is no SPI: SPIs of SAs are 0x100 and above")]
    NotAnSpi,
    /// The system has none.
    #[error("there is no memory for an SA with SPI {spi:#x}")]
    NoMemory {
        /// The SPI.
        spi: u32,
    },
}
