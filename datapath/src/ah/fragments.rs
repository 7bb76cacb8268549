//! Fragments of a packet of AH over IPv6 (RFC 8200 4.5). The kernel does not make them of a packet that
//! comes with its header.

use super::layout::{Place, place};
use crate::headers::{IPV6_HEADER, protocol};

/// Octets of a fragment header.
const FRAGMENT_HEADER: usize = 8;

/// The fragments of a packet, in order, made one at a time.
#[derive(Debug)]
pub(crate) struct Fragments<'a> {
    packet: &'a [u8],
    /// Where AH is: the headers before it are for routers, and go with each fragment.
    ah: Place,
    /// Octets of AH and what follows in every fragment but the last: a multiple of 8.
    step: usize,
    /// Octets of those done.
    done: usize,
}

impl<'a> Fragments<'a> {
    /// Prepares to cut an IPv6 packet of AH into fragments of at most `mtu` octets; `None` if it is none, or
    /// not even 8 octets fit.
    pub(crate) fn new(packet: &'a [u8], mtu: u16) -> Option<Self> {
        let ah = place(packet).filter(|_| packet[0] >> 4 == 6)?;
        let step = usize::from(mtu).checked_sub(ah.at + FRAGMENT_HEADER)? / 8 * 8;
        (step > 0).then_some(Self { packet, ah, step, done: 0 })
    }

    /// Writes the next fragment to `out`, which holds at least the MTU; returns its length, or `None` after the last.
    pub(crate) fn next_into(&mut self, out: &mut [u8]) -> Option<usize> {
        let (before, rest) = self.packet.split_at(self.ah.at);
        if self.done >= rest.len() {
            return None;
        }
        let end = (self.done + self.step).min(rest.len());
        let part = &rest[self.done..end];
        let (data, total) = (before.len() + FRAGMENT_HEADER, before.len() + FRAGMENT_HEADER + part.len());
        out[..before.len()].copy_from_slice(before);
        out[self.ah.named_at] = protocol::FRAGMENT;
        out[4..6].copy_from_slice(&((total - IPV6_HEADER) as u16).to_be_bytes());
        let more = u16::from(end < rest.len());
        let header = &mut out[before.len()..data];
        (header[0], header[1]) = (protocol::AH, 0);
        // The offset, in units of 8 octets, is in the upper 13 bits: so it is the number of octets itself.
        header[2..4].copy_from_slice(&(self.done as u16 | more).to_be_bytes());
        // Another one for each packet of an SA, and most likely for those of others.
        let identification = self.ah.sequence.wrapping_add(self.ah.spi);
        header[4..8].copy_from_slice(&identification.to_be_bytes());
        out[data..total].copy_from_slice(part);
        self.done = end;
        Some(total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Agreement, udp_packet};
    use policy::sa::Mode;

    fn sealed(mode: Mode, ipv4: bool, len: usize) -> Vec<u8> {
        let [(_, near), _] = Agreement::ah("sha256", mode, ipv4).sas();
        let inner = crate::esp::tests::inner(&udp_packet(ipv4, len));
        crate::esp::tests::seal_inner(&near, inner).as_slice().to_vec()
    }

    /// Put together as RFC 8200 4.5 says; etherparse takes the middle of a packet of AH for an AH.
    #[test]
    fn put_together_they_are_the_packet() {
        for (mode, len, mtu) in
            [(Mode::Transport, 5000, 1280), (Mode::Tunnel, 1400, 1300), (Mode::Transport, 65_000, 1500)]
        {
            let whole = sealed(mode, false, len);
            let (mut fragments, mut out) = (Fragments::new(&whole, mtu).unwrap(), [0xaa; 1500]);
            let (mut payload, mut ids, mut last) = (Vec::<u8>::new(), Vec::new(), false);
            while let Some(len) = fragments.next_into(&mut out) {
                let (header, rest) = out[..len].split_at(IPV6_HEADER);
                let (fragment, part) = rest.split_at(FRAGMENT_HEADER);
                assert!(len <= usize::from(mtu) && !last, "{mode:?} {len}");
                let (length, next) = (u16::from_be_bytes([header[4], header[5]]), header[6]);
                assert_eq!((usize::from(length), next), (rest.len(), 44));
                assert_eq!((&header[..4], &header[7..]), (&whole[..4], &whole[7..IPV6_HEADER]));
                assert_eq!(fragment[..2], [51, 0]);
                let word = u16::from_be_bytes([fragment[2], fragment[3]]);
                assert_eq!((usize::from(word >> 3) * 8, word & 6), (payload.len(), 0));
                last = word & 1 == 0;
                assert!(last || part.len().is_multiple_of(8));
                ids.push(fragment[4..].to_vec());
                payload.extend(part);
            }
            assert!(last && payload == whole[IPV6_HEADER..], "{mode:?} {len}");
            ids.dedup();
            assert_eq!(ids.len(), 1);
        }
    }

    #[test]
    fn what_cannot_be_cut_is_refused() {
        let whole = sealed(Mode::Transport, false, 100);
        assert!(Fragments::new(&whole, 55).is_none() && Fragments::new(&whole, 56).is_some());
        assert!(Fragments::new(&sealed(Mode::Transport, true, 100), 1280).is_none(), "IPv4");
        assert!(Fragments::new(&udp_packet(false, 100), 1280).is_none(), "no AH");
    }
}
