//! Suites of a cipher and a separate integrity algorithm: encrypt, then MAC
//! (RFC 4303 3.3.2.1, 3.4.4.1).

use super::{Decryptor, Encryptor, Layout, OpenJob, Opener, SealJob, Sealer, high_half};
use crate::table::Mac;

/// How many packets are encrypted before they are MACed, so that they are
/// still in the nearest cache.
const AT_ONCE: usize = 16;

pub(super) struct SeparateSealer {
    pub(super) encryptor: Box<dyn Encryptor>,
    pub(super) mac: Box<dyn Mac>,
    pub(super) layout: Layout,
    pub(super) esn: bool,
}

pub(super) struct SeparateOpener {
    pub(super) decryptor: Box<dyn Decryptor>,
    pub(super) mac: Box<dyn Mac>,
    pub(super) layout: Layout,
    pub(super) esn: bool,
}

/// What is MACed after the packet: the half of the sequence number that is not
/// in it (RFC 4303 2.2.1).
fn trailer(high: &[u8; 4], esn: bool) -> &[u8] {
    if esn { high } else { &[] }
}

impl Sealer for SeparateSealer {
    fn seal(&self, jobs: &mut [SealJob<'_>]) {
        self.layout.demand(jobs);
        for jobs in jobs.chunks_mut(AT_ONCE) {
            self.encryptor.encrypt(jobs, self.layout);
            for job in jobs {
                let icv_at = job.packet.len() - self.layout.icv_len;
                let (covered, icv) = job.packet.split_at_mut(icv_at);
                self.mac.sign(&[covered, trailer(&high_half(job.sequence), self.esn)], icv);
            }
        }
    }
}

impl Opener for SeparateOpener {
    fn open(&self, jobs: &mut [OpenJob<'_>]) {
        for job in jobs {
            job.authentic = self.layout.fits(job.packet, job.sequence) && self.open_one(job.packet, job.sequence);
        }
    }
}

impl SeparateOpener {
    /// Whether the ICV is right; only then is anything decrypted.
    fn open_one(&self, packet: &mut [u8], sequence: u64) -> bool {
        let (covered, icv) = packet.split_at(packet.len() - self.layout.icv_len);
        if !self.mac.verify(&[covered, trailer(&high_half(sequence), self.esn)], icv) {
            return false;
        }
        let (_, iv, payload, _) = self.layout.split(packet);
        self.decryptor.decrypt(iv, payload);
        true
    }
}
