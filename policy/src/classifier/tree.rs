//! The search: tables of buckets of rules, and within large buckets tables again.

use super::row::Family;

/// Rules of one family, compiled.
///
/// A node is some tables, and a list of the rules that are in none of them. A
/// table looks at the leading bits of some fields (a tuple, as in tuple space
/// search: Srinivasan, Suri and Varghese, 1999): each of its rules has one value
/// there, so all that can cover a packet are in one slot. A slot has no key:
/// rules found there by chance do not cover the packet, since each is compared
/// whole. It leads to a few rules, or to a node that looks at more bits.
#[derive(Debug)]
pub(super) struct Tree<F: Family> {
    /// The first is the root.
    pub(super) nodes: Box<[Node]>,
    /// Of each node together, by ascending `first`.
    pub(super) tables: Box<[Table<F>]>,
    pub(super) slots: Box<[Slot]>,
    /// Each bucket and list in search order.
    pub(super) rows: Box<[F::Row]>,
    /// Of each row.
    pub(super) places: Box<[Place]>,
}

/// See [`Tree`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    /// Its first table, and the one after its last.
    pub(super) tables: (u32, u32),
    /// The first row of its list, and the one after its last.
    pub(super) list: (u32, u32),
}

/// See [`Tree`].
#[derive(Debug)]
pub(super) struct Table<F: Family> {
    pub(super) mask: F::Mask,
    /// Its first slot.
    pub(super) slots: u32,
    /// 63 less the binary logarithm of the number of its slots.
    pub(super) shift: u8,
    /// The lowest place of its rules.
    pub(super) first: u32,
}

impl<F: Family> Table<F> {
    /// Which of its slots a hash leads to.
    #[inline]
    pub(super) fn slot(&self, hash: u64) -> usize {
        // In two steps, because a table of one slot shifts all bits out.
        self.slots as usize + ((hash >> 1) >> self.shift) as usize
    }
}

/// What a slot leads to: nothing; rows (in the low four bits how many, in the
/// others the first); or a node (0, and which; never the root).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(u32);

impl Slot {
    pub(super) const EMPTY: Self = Self(0);
    /// How many rows it can lead to.
    pub(super) const MOST_ROWS: usize = 15;

    /// `first` is less than 2^28: that many rules fit into no memory.
    pub(super) fn rows(first: u32, rows: u32) -> Self {
        Self(first << 4 | rows)
    }

    pub(super) fn node(node: u32) -> Self {
        Self(node << 4)
    }
}

/// A rule's place in the search order, its policy, and whether its row says all of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place(u64);

impl Place {
    const INEXACT: u64 = 1 << 63;

    /// `number` is less than 2^31.
    pub(super) fn new(number: u32, policy: u32, exact: bool) -> Self {
        let place = u64::from(number) << 32 | u64::from(policy);
        Self(if exact { place } else { place | Self::INEXACT })
    }

    #[inline]
    pub(super) fn number(self) -> u32 {
        (self.rank() >> 32) as u32
    }

    /// Orders places; the low half is the policy.
    #[inline]
    fn rank(self) -> u64 {
        self.0 & !Self::INEXACT
    }

    #[inline]
    fn is_exact(self) -> bool {
        self.0 & Self::INEXACT == 0
    }
}

/// After every place.
const NOWHERE: u64 = u64::MAX;

impl<F: Family> Tree<F> {
    /// The policy of the first rule that covers a packet. `verify` tells of the
    /// place of a rule whose row says too little whether it covers the packet.
    #[inline]
    pub(super) fn first_match(&self, point: F::Point, verify: &impl Fn(u32) -> bool) -> Option<u32> {
        let rank = self.in_node(&self.nodes[0], point, verify, NOWHERE);
        (rank != NOWHERE).then_some(rank as u32)
    }

    /// The lower of `best` and the first [rank](Place::rank) in a node. Goes no deeper than the builder did.
    fn in_node(&self, node: &Node, point: F::Point, verify: &impl Fn(u32) -> bool, mut best: u64) -> u64 {
        for table in &self.tables[node.tables.0 as usize..node.tables.1 as usize] {
            if table.first >= (best >> 32) as u32 {
                break;
            }
            let slot = self.slots[table.slot(F::hash(point, &table.mask))];
            if slot != Slot::EMPTY {
                let (first, rows) = (slot.0 >> 4, slot.0 & 15);
                best = match rows {
                    0 => self.in_node(&self.nodes[first as usize], point, verify, best),
                    _ => self.in_rows(first, first + rows, point, verify, best),
                };
            }
        }
        let (first, end) = node.list;
        match self.places.get(first as usize) {
            Some(place) if first < end && place.rank() < best => self.in_rows(first, end, point, verify, best),
            _ => best,
        }
    }

    // Called in two places, so that the compiler would not, and lists are short.
    #[inline(always)]
    fn in_rows(&self, first: u32, end: u32, point: F::Point, verify: &impl Fn(u32) -> bool, best: u64) -> u64 {
        let rows = first as usize..end as usize;
        for (row, place) in self.rows[rows.clone()].iter().zip(&self.places[rows]) {
            if F::covers(row, point) && (place.is_exact() || verify(place.number())) {
                return best.min(place.rank());
            }
        }
        best
    }

    /// Octets on the heap.
    pub(super) fn size(&self) -> usize {
        size_of_val(&*self.nodes)
            + size_of_val(&*self.tables)
            + size_of_val(&*self.slots)
            + size_of_val(&*self.rows)
            + size_of_val(&*self.places)
    }
}
