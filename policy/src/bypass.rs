//! The bypass list: local addresses to which IPsec does not apply at all.

use crate::selector::AddressRange;
use std::net::IpAddr;

/// Local addresses excluded from every policy look-up, as if a policy PASS with
/// that local address and wildcards elsewhere stood before all others.
///
/// It is a hole: what is protected for other addresses of this host can be
/// reached over a bypassed one.
#[derive(Clone, Debug, Default)]
pub struct BypassList {
    ranges: Box<[AddressRange]>,
}

impl BypassList {
    /// The list of these ranges.
    #[must_use]
    pub fn new(ranges: &[AddressRange]) -> Self {
        Self { ranges: ranges.into() }
    }

    /// The range, if any, that excludes a local address: the first in the order of the file.
    #[must_use]
    pub fn find(&self, local: IpAddr) -> Option<AddressRange> {
        self.ranges.iter().find(|r| r.contains(local)).copied()
    }

    /// The ranges, in the order of the file.
    #[must_use]
    pub fn ranges(&self) -> &[AddressRange] {
        &self.ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_addresses() {
        let range = |a: &str, len| AddressRange::prefix(a.parse().unwrap(), len).unwrap();
        let list = BypassList::new(&[range("10.1.0.0", 16), range("fd00::", 64)]);
        assert_eq!(list.find("10.1.2.3".parse().unwrap()), Some(range("10.1.0.0", 16)));
        assert_eq!(list.find("fd00::9".parse().unwrap()), Some(range("fd00::", 64)));
        assert_eq!(list.find("10.2.0.0".parse().unwrap()), None);
        assert_eq!(list.find("::".parse().unwrap()), None);
        assert_eq!(BypassList::default().find("10.1.2.3".parse().unwrap()), None);
    }
}
