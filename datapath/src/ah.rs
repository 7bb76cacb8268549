//! The Authentication Header (RFC 4302).
//!
//! A packet of AH is handled whole, from its IP header: the ICV covers what of
//! that does not change on the way. [`seal`](crate::esp::outbound::seal) and the steps of
//! [`inbound`](crate::esp::inbound) are those of ESP, with a sealer and an opener of our own.

mod fragments;
mod icv;
mod layout;

pub(crate) use fragments::Fragments;
pub(crate) use layout::{Content, Outer, carries, header_len, insert, place, remove};

use crypto::packet::{OpenJob, Opener, SealJob, Sealer};
use crypto::table::{Error, Mac};
use policy::sa::SaSpec;

/// Octets before the ICV: next header, length, reserved, SPI, sequence number.
pub(crate) const FIXED: usize = 12;

/// Sealer and opener of one AH SA.
pub(crate) struct Ah {
    mac: Box<dyn Mac>,
    icv_len: usize,
    iv_len: usize,
    esn: bool,
}

impl Ah {
    /// That of an SA.
    pub(crate) fn of(spec: &SaSpec) -> Result<Self, Error> {
        let SaSpec { suite, keymat, esn, .. } = spec;
        let Some(integrity) = suite.integrity else {
            return Err(Error::Unusable { algorithm: suite.encryption.keyword, purpose: "AH" });
        };
        Ok(Self {
            mac: integrity.mac(keymat.expose())?,
            icv_len: integrity.icv_len,
            iv_len: integrity.iv_len,
            esn: *esn,
        })
    }
}

/// What is covered after the packet: the half of the sequence number that is not in it (RFC 4302 2.5.1).
fn trailer(high: &[u8; 4], esn: bool) -> &[u8] {
    if esn { high } else { &[] }
}

fn high_half(sequence: u64) -> [u8; 4] {
    let [high @ .., _, _, _, _] = sequence.to_be_bytes();
    high
}

impl Sealer for Ah {
    fn seal(&self, jobs: &mut [SealJob<'_>]) {
        for job in jobs {
            let at = place(job.packet).expect("a packet to be sealed has an AH where it was laid out").at;
            let header = icv::immutable(&job.packet[..at + FIXED]).expect("its headers were parsed");
            let (_, rest) = job.packet.split_at_mut(at + FIXED);
            let (icv, rest) = rest.split_at_mut(self.icv_len);
            let high = high_half(job.sequence);
            // The 64-bit sequence number never repeats under one key (RFC 4543 3.1).
            icv[..self.iv_len].copy_from_slice(&job.sequence.to_be_bytes()[8 - self.iv_len..]);
            // The ICV field itself counts as zeros (RFC 4302 3.3.3.1).
            let zeros = [0; 64];
            self.mac.sign(&[&header, &zeros[..self.icv_len], rest, trailer(&high, self.esn)], icv);
        }
    }
}

impl Opener for Ah {
    fn open(&self, jobs: &mut [OpenJob<'_>]) {
        for job in jobs {
            job.authentic = self.is_authentic(job.packet, job.sequence);
        }
    }
}

impl Ah {
    fn is_authentic(&self, packet: &[u8], sequence: u64) -> bool {
        let Some(ah) = place(packet).filter(|ah| ah.len >= FIXED + self.icv_len) else { return false };
        let Some(header) = icv::immutable(&packet[..ah.at + FIXED]) else { return false };
        let (icv, rest) = packet[ah.at + FIXED..].split_at(self.icv_len);
        let zeros = [0; 64];
        let high = high_half(sequence);
        self.mac.verify(&[&header, &zeros[..self.icv_len], rest, trailer(&high, self.esn)], icv)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests;
