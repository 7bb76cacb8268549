//! Selectors as ranges of five numbers: what they have in common, and what is left of one without others.

use crate::classifier::words;
use crate::five_tuple::Attachment;
use crate::selector::{AddressRange, Selector};
use std::net::IpAddr;

/// Pieces into which a cube is cut at most.
const MOST_PIECES: usize = 256;

/// What a selector covers: a range of local addresses, of remote addresses, of
/// the two words of protocol and ports that the classifier uses, and of interfaces.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cube {
    ipv4: bool,
    /// Lowest and highest, both included.
    sides: [(u128, u128); 5],
}

impl Cube {
    /// A configuration has no selector that is not exactly a cube.
    pub(super) fn new(selector: &Selector) -> Self {
        let ([near, far], _) = words(selector);
        let wide = |(low, high): (u32, u32)| (low.into(), high.into());
        let interfaces = (0, Attachment::MOST as u128 - 1);
        let sides = [side(&selector.local), side(&selector.remote), wide(near), wide(far), interfaces];
        Self { ipv4: selector.local.is_ipv4(), sides }
    }

    /// The part of it on one interface; all of it for `None`.
    pub(super) fn on(mut self, interface: Option<Attachment>) -> Self {
        if let Some(interface) = interface {
            self.sides[4] = (interface.place() as u128, interface.place() as u128);
        }
        self
    }

    /// Everything with these addresses on one side.
    pub(super) fn of(local: &AddressRange) -> Self {
        let any = if local.is_ipv4() { AddressRange::ANY_V4 } else { AddressRange::ANY_V6 };
        Self::new(&Selector::between(*local, any))
    }

    pub(super) fn meets(&self, other: &Self) -> bool {
        self.ipv4 == other.ipv4 && self.sides.iter().zip(&other.sides).all(|(a, b)| a.0 <= b.1 && b.0 <= a.1)
    }

    pub(super) fn covers(&self, other: &Self) -> bool {
        self.ipv4 == other.ipv4 && self.sides.iter().zip(&other.sides).all(|(a, b)| a.0 <= b.0 && b.1 <= a.1)
    }

    /// Adds what is left of it without another.
    fn without(&self, other: &Self, left: &mut Vec<Self>) {
        if !self.meets(other) {
            left.push(*self);
            return;
        }
        let mut rest = *self;
        for n in 0..rest.sides.len() {
            let ((low, high), (other_low, other_high)) = (rest.sides[n], other.sides[n]);
            // They meet, so the other begins above 0 and ends below the highest in these two.
            if low < other_low {
                let mut below = rest;
                below.sides[n] = (low, other_low - 1);
                left.push(below);
            }
            if other_high < high {
                let mut above = rest;
                above.sides[n] = (other_high + 1, high);
                left.push(above);
            }
            rest.sides[n] = (low.max(other_low), high.min(other_high));
        }
    }
}

fn side(range: &AddressRange) -> (u128, u128) {
    let number = |address| match address {
        IpAddr::V4(a) => u128::from(a.to_bits()),
        IpAddr::V6(a) => a.to_bits(),
    };
    (number(range.first()), number(range.last()))
}

/// Which of some cubes, by their places, together cover one; each takes a part
/// that those before it leave. `None` if something is left, or it takes too many pieces to tell.
pub(super) fn cover_together(one: &Cube, others: impl Iterator<Item = (usize, Cube)>) -> Option<Vec<usize>> {
    let (mut left, mut used) = (vec![*one], Vec::new());
    for (place, other) in others {
        let before = left.clone();
        let mut after = Vec::new();
        before.iter().for_each(|piece| piece.without(&other, &mut after));
        if after != before {
            used.push(place);
        }
        left = after;
        if left.is_empty() {
            return Some(used);
        }
        if left.len() > MOST_PIECES {
            return None;
        }
    }
    None
}

/// Calls `visit` with the places of every two cubes that meet, the lower first.
///
/// Sorted by the side on which fewer meet: much faster than comparing all with
/// all, unless all meet there.
pub(super) fn for_each_meeting(cubes: &[Cube], mut visit: impl FnMut(usize, usize)) {
    for ipv4 in [true, false] {
        let family: Vec<usize> = (0..cubes.len()).filter(|n| cubes[*n].ipv4 == ipv4).collect();
        let sorted = |by: usize| {
            let mut places = family.clone();
            places.sort_by_key(|n| cubes[*n].sides[by].0);
            places
        };
        let by_side = [0, 1].map(|side| (side, sorted(side)));
        let meeting = |(side, places): &(usize, Vec<usize>)| -> usize {
            let ends = places.iter().enumerate().map(|(n, place)| {
                let high = cubes[*place].sides[*side].1;
                places.partition_point(|p| cubes[*p].sides[*side].0 <= high) - n
            });
            ends.sum()
        };
        let Some((side, places)) = by_side.into_iter().min_by_key(meeting) else { continue };
        let mut open: Vec<usize> = Vec::new();
        for place in places {
            let cube = &cubes[place];
            open.retain(|earlier| {
                let other = &cubes[*earlier];
                if other.sides[side].1 < cube.sides[side].0 {
                    return false;
                }
                if other.meets(cube) {
                    visit(place.min(*earlier), place.max(*earlier));
                }
                true
            });
            open.push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selector::PortSelector;

    fn range(text: &str) -> AddressRange {
        match text.split_once('/') {
            Some((a, len)) => AddressRange::prefix(a.parse().unwrap(), len.parse().unwrap()).unwrap(),
            None => AddressRange::single(text.parse().unwrap()),
        }
    }

    fn cube(local: &str, remote: &str) -> Cube {
        Cube::new(&Selector::between(range(local), range(remote)))
    }

    #[test]
    fn two_halves_cover_a_whole() {
        let whole = cube("10.0.0.0/8", "10.0.0.0/8");
        let (low, high) = (cube("10.0.0.0/9", "0.0.0.0/0"), cube("10.128.0.0/9", "10.0.0.0/8"));
        let other = cube("10.0.0.0/8", "11.0.0.0/8");
        let together = |cubes: &[Cube]| cover_together(&whole, cubes.iter().copied().enumerate());
        assert_eq!(together(&[low, other, high]), Some(vec![0, 2]));
        assert_eq!(together(&[high, low]), Some(vec![0, 1]));
        assert_eq!(together(&[low, other]), None);
        let gap = cube("10.128.0.0/9", "10.0.0.0/9");
        assert_eq!(together(&[low, gap]), None);
        assert_eq!(together(&[low, gap, cube("0.0.0.0/0", "10.128.0.0/9")]), Some(vec![0, 1, 2]));
    }

    #[test]
    fn all_ports_are_less_than_anything() {
        let any = Selector { protocol: Some(6), ..Selector::between(range("10.1.1.1"), range("10.2.2.2")) };
        let ports = |from, to| {
            Cube::new(&Selector { ports: PortSelector::Ports { local: (0, 65535), remote: (from, to) }, ..any.clone() })
        };
        let halves = [(0, ports(0, 79)), (1, ports(80, 65535))];
        // Fragments have no ports.
        assert_eq!(cover_together(&Cube::new(&any), halves.into_iter()), None);
        assert_eq!(cover_together(&ports(5, 90), halves.into_iter()), Some(vec![0, 1]));
    }

    #[test]
    fn every_two_that_meet_are_visited_once() {
        let mut random = 1u64;
        let mut next = |end: u64| {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (random >> 33) % end
        };
        let mut address = |v6: bool| {
            let (bits, len) = (next(64), next(7) as u8);
            if v6 { range(&format!("::{bits:x}/{}", 128 - len)) } else { range(&format!("0.0.0.{bits}/{}", 32 - len)) }
        };
        let cubes: Vec<Cube> =
            (0..200).map(|n| Cube::new(&Selector::between(address(n % 3 == 0), address(n % 3 == 0)))).collect();
        let mut visited = Vec::new();
        for_each_meeting(&cubes, |a, b| visited.push((a, b)));
        visited.sort_unstable();
        let all = (0..200).flat_map(|b| (0..b).map(move |a| (a, b)));
        let mut expected: Vec<_> = all.filter(|(a, b)| cubes[*a].meets(&cubes[*b])).collect();
        expected.sort_unstable();
        assert!(expected.len() > 200);
        assert_eq!(visited, expected);
    }
}
