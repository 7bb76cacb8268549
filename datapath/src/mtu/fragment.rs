//! Fragmentation of IPv4 packets (RFC 791 2.3 and 3.2).

use super::{IPV4_HEADER, checksum};

/// Why a packet cannot be fragmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// It is not a whole IPv4 packet.
    Malformed,
    /// Its sender forbids it.
    DontFragment,
    /// Not even 8 octets fit behind its header, or the result would be longer than IPv4 can say.
    Impossible,
}

/// The fragments of a packet, in order, made one at a time.
#[derive(Debug)]
pub struct Fragments<'a> {
    packet: &'a [u8],
    header_len: usize,
    /// Octets of payload in every fragment but the last: a multiple of 8.
    step: usize,
    /// Fragment offset of the packet itself, in octets, and whether more follow it: it may be a fragment.
    base: usize,
    more: bool,
    /// Octets of payload done.
    at: usize,
}

impl<'a> Fragments<'a> {
    /// Prepares to cut `packet` into fragments of at most `mtu` octets.
    pub fn new(packet: &'a [u8], mtu: u16) -> Result<Self, Error> {
        let header: &[u8; IPV4_HEADER] = packet.first_chunk().ok_or(Error::Malformed)?;
        let header_len = usize::from(header[0] & 0x0f) * 4;
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header[0] >> 4 != 4 || header_len < IPV4_HEADER || total < header_len || packet.len() < total {
            return Err(Error::Malformed);
        }
        let word = u16::from_be_bytes([header[6], header[7]]);
        if word & 0x4000 != 0 {
            return Err(Error::DontFragment);
        }
        let step = usize::from(mtu).saturating_sub(header_len) / 8 * 8;
        let base = usize::from(word & 0x1fff) * 8;
        if step == 0 || base + (total - header_len) > usize::from(u16::MAX) {
            return Err(Error::Impossible);
        }
        Ok(Self { packet: &packet[..total], header_len, step, base, more: word & 0x2000 != 0, at: 0 })
    }

    /// Writes the next fragment to `out`, which holds at least the MTU;
    /// returns its length, or `None` after the last.
    ///
    /// # Panics
    /// If `out` is too short.
    pub fn next_into(&mut self, out: &mut [u8]) -> Option<usize> {
        let payload = &self.packet[self.header_len..];
        if self.at >= payload.len() {
            return None;
        }
        let end = (self.at + self.step).min(payload.len());
        let header_len = self.write_header(out);
        let part = &payload[self.at..end];
        let total = header_len + part.len();
        out[header_len..total].copy_from_slice(part);
        let header = &mut out[..header_len];
        header[2..4].copy_from_slice(&(total as u16).to_be_bytes());
        let more = self.more || end < payload.len();
        let word = ((self.base + self.at) / 8) as u16 | if more { 0x2000 } else { 0 };
        header[6..8].copy_from_slice(&word.to_be_bytes());
        header[10..12].fill(0);
        let sum = checksum(&[header]);
        header[10..12].copy_from_slice(&sum);
        self.at = end;
        Some(total)
    }

    /// The header with the options that go into this fragment: all into the
    /// first, those with the copied flag into the others (RFC 791 3.1).
    fn write_header(&self, out: &mut [u8]) -> usize {
        let header = &self.packet[..self.header_len];
        if self.at == 0 {
            out[..self.header_len].copy_from_slice(header);
            return self.header_len;
        }
        out[..IPV4_HEADER].copy_from_slice(&header[..IPV4_HEADER]);
        let mut len = IPV4_HEADER;
        let mut options = &header[IPV4_HEADER..];
        while let [kind, rest @ ..] = options {
            let size = match kind {
                // End of list.
                0 => break,
                // No operation.
                1 => {
                    options = rest;
                    continue;
                }
                _ => match rest.first() {
                    Some(n) if (2..=options.len()).contains(&usize::from(*n)) => usize::from(*n),
                    // A list that makes no sense from here on ends here.
                    _ => break,
                },
            };
            if kind & 0x80 != 0 {
                out[len..len + size].copy_from_slice(&options[..size]);
                len += size;
            }
            options = &options[size..];
        }
        let padded = len.div_ceil(4) * 4;
        out[len..padded].fill(0);
        out[0] = 0x40 | (padded / 4) as u8;
        padded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{Ipv4HeaderSlice, defrag::IpDefragPayloadVec, defrag::IpDefragPool};
    use proptest::prelude::*;

    /// A packet with these options; the payload counts up.
    fn packet(options: &[u8], payload: usize, word: u16) -> Vec<u8> {
        assert_eq!(options.len() % 4, 0);
        let header_len = 20 + options.len();
        let total = (header_len + payload) as u16;
        let mut p =
            vec![0x40 | (header_len / 4) as u8, 0, 0, 0, 0x12, 0x34, 0, 0, 64, 17, 0, 0, 10, 1, 0, 1, 10, 2, 0, 2];
        p[2..4].copy_from_slice(&total.to_be_bytes());
        p[6..8].copy_from_slice(&word.to_be_bytes());
        p.extend_from_slice(options);
        let sum = checksum(&[&p]);
        p[10..12].copy_from_slice(&sum);
        p.extend((0..payload).map(|i| (i * 7 % 251) as u8));
        p
    }

    fn all(packet: &[u8], mtu: u16) -> Result<Vec<Vec<u8>>, Error> {
        let mut fragments = Fragments::new(packet, mtu)?;
        let mut out = vec![0xaa; usize::from(mtu)];
        Ok(std::iter::from_fn(|| fragments.next_into(&mut out).map(|n| out[..n].to_vec())).collect())
    }

    proptest! {
        #[test]
        fn an_independent_reassembler_gets_the_payload_back(payload in 1usize..5000, mtu in 68u16..1500) {
            let original = packet(&[], payload, 0);
            let fragments = all(&original, mtu).unwrap();
            let mut pool: IpDefragPool<(), ()> = IpDefragPool::new();
            let mut whole: Option<IpDefragPayloadVec> = None;
            for f in &fragments {
                prop_assert!(f.len() <= usize::from(mtu));
                let header = Ipv4HeaderSlice::from_slice(f).unwrap();
                prop_assert_eq!(header.to_header().calc_header_checksum(), header.header_checksum());
                prop_assert_eq!(usize::from(header.total_len()), f.len());
                prop_assert_eq!(header.identification(), 0x1234);
                if fragments.len() > 1 {
                    let sliced = etherparse::SlicedPacket::from_ip(f).unwrap();
                    if let Some(done) = pool.process_sliced_packet(&sliced, (), ()).unwrap() {
                        whole = Some(done);
                    }
                }
            }
            if fragments.len() > 1 {
                prop_assert_eq!(&whole.expect("whole after the last").payload[..], &original[20..]);
            } else {
                prop_assert_eq!(&fragments[0], &original);
            }
        }

        #[test]
        fn arbitrary_headers_do_not_upset_it(mut octets in proptest::collection::vec(any::<u8>(), 0..300), mtu: u16) {
            if let Some(first) = octets.first_mut() {
                *first = 0x40 | *first & 0x0f;
            }
            if let Ok(fragments) = all(&octets, mtu) {
                prop_assert!(fragments.iter().all(|f| f.len() <= usize::from(mtu)));
            }
        }
    }

    #[test]
    fn only_copied_options_are_in_later_fragments() {
        // Record route (not copied), no-operation, loose source route (copied), end.
        let options = [7, 7, 4, 0, 0, 0, 0, 1, 0x83, 7, 4, 1, 2, 3, 4, 0];
        let fragments = all(&packet(&options, 100, 0), 84).unwrap();
        assert_eq!(&fragments[0][20..36], &options);
        assert_eq!(&fragments[1][..1], &[0x47]);
        assert_eq!(&fragments[1][20..28], &[0x83, 7, 4, 1, 2, 3, 4, 0]);
        assert_eq!(checksum(&[&fragments[1][..28]]), [0, 0]);
    }

    #[test]
    fn a_fragment_is_cut_further_where_it_stood() {
        // More fragments, offset 80.
        let fragments = all(&packet(&[], 64, 0x2000 | 10), 52).unwrap();
        let words: Vec<u16> = fragments.iter().map(|f| u16::from_be_bytes([f[6], f[7]])).collect();
        assert_eq!(words, [0x2000 | 10, 0x2000 | 14]);
    }

    #[test]
    fn what_cannot_be_cut_is_refused() {
        assert_eq!(all(&packet(&[], 100, 0x4000), 68).unwrap_err(), Error::DontFragment);
        assert_eq!(all(&packet(&[], 100, 0), 27).unwrap_err(), Error::Impossible);
        assert_eq!(all(&packet(&[], 100, 0)[..50], 68).unwrap_err(), Error::Malformed);
        assert_eq!(all(&packet(&[], 100, 0x1fff), 68).unwrap_err(), Error::Impossible);
        assert_eq!(all(&[0x60; 40], 68).unwrap_err(), Error::Malformed);
    }
}
