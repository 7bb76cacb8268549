//! Suites of a cipher and a separate integrity algorithm: encrypt, then MAC
//! (RFC 4303 3.3.2.1, 3.4.4.1).

use super::{Decryptor, Encryptor, Layout, OpenJob, Opener, SealJob, Sealer, high_half};
use crate::secret;
use crate::table::{Covered, Mac, Tag};

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

/// What is MACed of a packet: all before the ICV, and behind it the half of the sequence number that is not
/// in it, if that is extended (RFC 4303 2.2.1).
fn covered(packet: &[u8], sequence: u64, icv_len: usize, esn: bool) -> Covered<'_> {
    let covered = Covered::of(&packet[..packet.len() - icv_len]);
    if esn { covered.followed_by(high_half(sequence)) } else { covered }
}

impl Sealer for SeparateSealer {
    fn seal(&self, jobs: &mut [SealJob<'_>]) {
        self.layout.demand(jobs);
        for jobs in jobs.chunks_mut(AT_ONCE) {
            self.encryptor.encrypt(jobs, self.layout);
            let icv_len = self.layout.icv_len;
            let mut messages = [Covered::of(&[]); AT_ONCE];
            for (message, job) in messages.iter_mut().zip(&*jobs) {
                *message = covered(job.packet, job.sequence, icv_len, self.esn);
            }
            let mut tags = [[0; size_of::<Tag>()]; AT_ONCE];
            self.mac.sign_each(&messages[..jobs.len()], icv_len, &mut tags);
            for (job, tag) in jobs.iter_mut().zip(&tags) {
                let (_, _, _, icv) = self.layout.split(job.packet);
                icv.copy_from_slice(&tag[..icv_len]);
            }
        }
    }
}

impl Opener for SeparateOpener {
    fn open(&self, jobs: &mut [OpenJob<'_>]) {
        let icv_len = self.layout.icv_len;
        for jobs in jobs.chunks_mut(AT_ONCE) {
            let count = jobs.len();
            let mut messages = [Covered::of(&[]); AT_ONCE];
            for (message, job) in messages.iter_mut().zip(&mut *jobs) {
                job.authentic = self.layout.fits(job.packet, job.sequence);
                if job.authentic {
                    *message = covered(job.packet, job.sequence, icv_len, self.esn);
                }
            }
            let mut tags = [[0; size_of::<Tag>()]; AT_ONCE];
            self.mac.sign_each(&messages[..count], icv_len, &mut tags);
            for (job, tag) in jobs.iter_mut().zip(&tags).filter(|(job, _)| job.authentic) {
                let (_, iv, payload, icv) = self.layout.split(job.packet);
                job.authentic = secret::equal(&tag[..icv_len], icv);
                // Only what is authentic is decrypted.
                if job.authentic {
                    self.decryptor.decrypt(iv, payload);
                }
            }
        }
    }
}
