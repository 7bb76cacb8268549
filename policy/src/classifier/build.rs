//! Which bits each table looks at.
//!
//! Greedy: of what is left, the table that puts the most rules into short
//! buckets, until a few are left or no table gains anything. Rules that nothing
//! tells apart (wildcards, the same range over and over) end in a list and are
//! searched one by one: every rule is in one place, so memory is linear, and
//! the constants below bound the time.

use super::row::{Family, PROTOCOL_SHIFT};
use super::tree::{Node, Place, Slot, Table, Tree};

/// Rules that are compared one by one rather than put into tables.
const SHORT: usize = 12;
/// What a bucket of so many rules is worth, or of more: each is found later than the one before.
const WORTH: [usize; 9] = [0, 16, 26, 32, 36, 38, 40, 40, 40];
/// Slots for each value that the rules of a table have.
const SLOTS: usize = 3;
/// Rules by which a table is chosen.
const SAMPLE: usize = 1024;
/// Numbers of bits of an address between which the choice is.
const LEVELS: usize = 9;
/// Tables of a node: asking more costs more than comparing the rules that are left.
const MOST_TABLES: usize = 32;
/// Nodes within nodes.
const MOST_DEPTH: usize = 4;

const _: () = assert!(SHORT <= Slot::MOST_ROWS);

/// How many low bits of each field a table leaves out.
type Dropped = [u8; 4];

/// A rule on its way into the tree.
pub(super) struct Entry<F: Family> {
    low: F::Point,
    row: F::Row,
    spread: [u8; 4],
    place: Place,
}

impl<F: Family> Entry<F> {
    pub(super) fn new(low: F::Point, high: F::Point, place: Place) -> Self {
        Self { low, row: F::row(low, high), spread: F::spread(low, high), place }
    }

    /// Whether it has one value in the bits that are not left out.
    fn fits(&self, dropped: Dropped) -> bool {
        self.spread.iter().zip(dropped).all(|(spread, dropped)| *spread <= dropped)
    }
}

/// Compiles rules that come in search order.
pub(super) fn build<F: Family>(entries: &[Entry<F>]) -> Tree<F> {
    // The root is the first; its contents are known last.
    let root = Node { tables: (0, 0), list: (0, 0) };
    let mut builder = Builder {
        entries,
        nodes: vec![root],
        tables: Vec::new(),
        slots: Vec::new(),
        rows: Vec::with_capacity(entries.len()),
        places: Vec::with_capacity(entries.len()),
    };
    let all = (0u32..).zip(entries).map(|(n, _)| n).collect();
    builder.nodes[0] = builder.node(all, 0);
    Tree {
        nodes: builder.nodes.into(),
        tables: builder.tables.into(),
        slots: builder.slots.into(),
        rows: builder.rows.into(),
        places: builder.places.into(),
    }
}

struct Builder<'e, F: Family> {
    entries: &'e [Entry<F>],
    nodes: Vec<Node>,
    tables: Vec<Table<F>>,
    slots: Vec<Slot>,
    rows: Vec<F::Row>,
    places: Vec<Place>,
}

impl<F: Family> Builder<'_, F> {
    fn entry(&self, member: u32) -> &Entry<F> {
        &self.entries[member as usize]
    }

    /// Members are in search order, here and below.
    fn node(&mut self, members: Vec<u32>, depth: usize) -> Node {
        let all = members.len();
        let (mut rest, mut tables) = (members, Vec::new());
        while rest.len() > SHORT && tables.len() < MOST_TABLES && depth < MOST_DEPTH {
            let Some(dropped) = self.choose(&rest) else { break };
            let (inside, outside) = rest.into_iter().partition(|m| self.entry(*m).fits(dropped));
            rest = outside;
            tables.push(self.table(dropped, inside, all, depth));
        }
        tables.sort_by_key(|t| t.first);
        let first = self.tables.len() as u32;
        self.tables.extend(tables);
        Node { tables: (first, self.tables.len() as u32), list: self.list(&rest) }
    }

    fn list(&mut self, members: &[u32]) -> (u32, u32) {
        let first = self.rows.len() as u32;
        for member in members {
            let entry = &self.entries[*member as usize];
            self.rows.push(entry.row);
            self.places.push(entry.place);
        }
        (first, self.rows.len() as u32)
    }

    fn table(&mut self, dropped: Dropped, members: Vec<u32>, of: usize, depth: usize) -> Table<F> {
        let mask = F::mask(dropped);
        let first = members.first().map_or(0, |m| self.entry(*m).place.number());
        let mut hashed: Vec<_> = members.iter().map(|m| (F::hash(self.entry(*m).low, &mask), *m)).collect();
        hashed.sort_unstable();
        let values = hashed.chunk_by(|a, b| a.0 == b.0).count();
        let slots = (values * SLOTS).next_power_of_two();
        let start = self.slots.len();
        self.slots.resize(start + slots, Slot::EMPTY);
        let table = Table { mask, slots: start as u32, shift: 63 - slots.trailing_zeros() as u8, first };
        for bucket in hashed.chunk_by(|a, b| table.slot(a.0) == table.slot(b.0)) {
            let mut members: Vec<u32> = bucket.iter().map(|(_, member)| *member).collect();
            members.sort_unstable();
            self.slots[table.slot(bucket[0].0)] = if members.len() <= SHORT {
                let (first, end) = self.list(&members);
                Slot::rows(first, end - first)
            } else {
                // A bucket of all of them gained nothing.
                let depth = if members.len() == of { MOST_DEPTH } else { depth + 1 };
                let node = self.node(members, depth);
                self.nodes.push(node);
                Slot::node(self.nodes.len() as u32 - 1)
            };
        }
        table
    }

    /// The next table of a node; `None` if comparing all is as good.
    fn choose(&self, rest: &[u32]) -> Option<Dropped> {
        let step = rest.len().div_ceil(SAMPLE);
        let sample: Vec<&Entry<F>> = rest.iter().step_by(step).map(|m| self.entry(*m)).collect();
        let mut choice = Choice { sample: &sample, step, hashes: Vec::new(), best: None };
        let [_, _, near, far] = F::BITS;
        let (locals, remotes) = (levels(&sample, 0), levels(&sample, 1));
        let pairs = locals.iter().flat_map(|local| remotes.iter().map(|remote| [*local, *remote, near, far]));
        let mut candidates: Vec<(usize, Dropped)> = pairs.map(|d| (choice.fitting(d), d)).collect();
        candidates.sort_by_key(|(fitting, _)| core::cmp::Reverse(*fitting));
        for (fitting, dropped) in candidates {
            // No more rules can count than fit.
            if choice.best.is_some_and(|(score, _)| score >= fitting * WORTH[1]) {
                break;
            }
            choice.try_out(dropped);
        }
        let (_, by_addresses) = choice.best?;
        for [local, remote, ..] in [by_addresses, F::BITS] {
            for (near, far) in [(0, far), (near, 0), (0, 0), (PROTOCOL_SHIFT, far), (PROTOCOL_SHIFT, 0)] {
                choice.try_out([local, remote, near, far]);
            }
        }
        let (score, dropped) = choice.best?;
        (dropped != F::BITS && score * step > SHORT * WORTH[1]).then_some(dropped)
    }
}

/// How much of an address a table may leave out: what its rules do, or some of that.
fn levels<F: Family>(sample: &[&Entry<F>], field: usize) -> Vec<u8> {
    let mut spreads: Vec<u8> = sample.iter().map(|e| e.spread[field]).chain([F::BITS[field]]).collect();
    spreads.sort_unstable();
    let step = spreads.len().div_ceil(LEVELS);
    let mut levels: Vec<u8> = spreads.iter().copied().step_by(step).chain([F::BITS[field]]).collect();
    levels.dedup();
    levels
}

struct Choice<'s, F: Family> {
    sample: &'s [&'s Entry<F>],
    /// Rules that each of the sample stands for.
    step: usize,
    hashes: Vec<u64>,
    /// Its score, and what it leaves out.
    best: Option<(usize, Dropped)>,
}

impl<F: Family> Choice<'_, F> {
    fn fitting(&self, dropped: Dropped) -> usize {
        self.sample.iter().filter(|e| e.fits(dropped)).count()
    }

    fn try_out(&mut self, dropped: Dropped) {
        let mask = F::mask(dropped);
        self.hashes.clear();
        self.hashes.extend(self.sample.iter().filter(|e| e.fits(dropped)).map(|e| F::hash(e.low, &mask)));
        self.hashes.sort_unstable();
        let buckets = self.hashes.chunk_by(|a, b| a == b);
        let score =
            buckets.map(|bucket| WORTH[(bucket.len() * self.step).min(WORTH.len() - 1)]).sum::<usize>() / self.step;
        if self.best.is_none_or(|(best, _)| score > best) {
            self.best = Some((score, dropped));
        }
    }
}
