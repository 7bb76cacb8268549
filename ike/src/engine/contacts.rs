//! With whom an ISAKMP SA has been established since we started: they are not told again that it is the first
//! (RFC 2407 4.6.3.3).

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;

/// Addresses remembered. Who is forgotten and has no SA with us any more may be told once more, which is true.
const MOST: usize = 4096;

/// Addresses of peers, the first of them forgotten when there are too many.
#[derive(Debug, Default)]
pub(super) struct Contacts {
    known: BTreeSet<IpAddr>,
    order: VecDeque<IpAddr>,
}

impl Contacts {
    /// There is an SA with this address.
    pub(super) fn add(&mut self, peer: IpAddr) {
        if !self.known.insert(peer) {
            return;
        }
        self.order.push_back(peer);
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// Whether there was one.
    pub(super) fn contains(&self, peer: IpAddr) -> bool {
        self.known.contains(&peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn the_oldest_are_forgotten() {
        let address = |n: u32| IpAddr::V4(Ipv4Addr::from(n));
        let mut contacts = Contacts::default();
        for n in 0..2 * MOST as u32 {
            contacts.add(address(n));
            contacts.add(address(n));
        }
        assert_eq!((contacts.known.len(), contacts.order.len()), (MOST, MOST));
        assert!(!contacts.contains(address(MOST as u32 - 1)) && contacts.contains(address(MOST as u32)));
    }
}
