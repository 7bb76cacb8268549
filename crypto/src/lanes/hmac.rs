//! HMAC (RFC 2104) over many packets at once.

use super::words::Words;
use super::{LANES, Wide};
use crate::secret;
use crate::table::{Covered, Mac, Tag};
use core::marker::PhantomData;
use zeroize::Zeroize;

/// A hash with a state of `W` words of 32 bits and blocks of 64 octets.
pub(crate) trait LaneHash<const W: usize> {
    /// The state before the first block.
    const INITIAL: [u32; W];

    /// Hashes blocks of one message.
    fn compress(state: &mut [u32; W], blocks: &[[u8; 64]]);

    /// Hashes the first `steps` blocks of each lane, of which each has as many.
    fn compress_lanes(wide: Wide, states: &mut [Words; W], lanes: [&[[u8; 64]]; LANES], steps: usize);
}

/// Fewer messages than this are hashed faster one by one: a step of all lanes takes about as long as this many
/// blocks with the SHA instructions.
const FEWEST: usize = 4;

/// The HMAC of an integrity row, truncated, whose two key blocks are hashed already.
pub(crate) struct HmacLanes<H, const W: usize> {
    inner: [u32; W],
    outer: [u32; W],
    icv_len: usize,
    wide: Wide,
    hash: PhantomData<fn() -> H>,
}

impl<H, const W: usize> Drop for HmacLanes<H, W> {
    fn drop(&mut self) {
        self.inner.zeroize();
        self.outer.zeroize();
    }
}

impl<H: LaneHash<W>, const W: usize> HmacLanes<H, W> {
    /// `key`: at most 64 octets, which is more than any integrity row has.
    pub(crate) fn new(wide: Wide, key: &[u8], icv_len: usize) -> Self {
        let state_after = |pad: u8| {
            let mut block = zeroize::Zeroizing::new([pad; 64]);
            for (octet, key) in block.iter_mut().zip(key) {
                *octet ^= key;
            }
            let mut state = H::INITIAL;
            H::compress(&mut state, core::slice::from_ref(&*block));
            state
        };
        debug_assert!(key.len() <= 64 && icv_len <= 4 * W);
        Self { inner: state_after(0x36), outer: state_after(0x5c), icv_len, wide, hash: PhantomData }
    }

    fn one(&self, message: &Covered<'_>) -> Tag {
        let (body, tail) = padded(message);
        let mut state = self.inner;
        H::compress(&mut state, body);
        H::compress(&mut state, tail.blocks());
        let last = outer_block(&state);
        state = self.outer;
        H::compress(&mut state, &[last]);
        tag_of(&state)
    }

    /// Of at most [`LANES`] messages.
    fn side_by_side(&self, messages: &[Covered<'_>], tags: &mut [Tag]) {
        let mut states = self.inner.map(|word| [word; LANES]);
        let mut bodies: [&[[u8; 64]]; LANES] = [&[]; LANES];
        let mut tails = [Tail::default(); LANES];
        for ((message, body), tail) in messages.iter().zip(&mut bodies).zip(&mut tails) {
            (*body, *tail) = padded(message);
        }
        self.run(&mut states, bodies);
        self.run(&mut states, tails.each_ref().map(Tail::blocks));
        let mut last = [[0; 64]; LANES];
        for (lane, block) in last[..messages.len()].iter_mut().enumerate() {
            *block = outer_block(&column(&states, lane));
        }
        states = self.outer.map(|word| [word; LANES]);
        self.run(&mut states, core::array::from_fn(|lane| &last[lane..][..usize::from(lane < messages.len())]));
        for (lane, tag) in tags.iter_mut().enumerate() {
            *tag = tag_of(&column(&states, lane));
        }
    }

    /// Hashes all blocks of every lane.
    fn run(&self, states: &mut [Words; W], mut lanes: [&[[u8; 64]]; LANES]) {
        loop {
            let busy = lanes.iter().filter(|lane| !lane.is_empty());
            let Some(shortest) = busy.clone().min_by_key(|lane| lane.len()).copied() else { return };
            let idle = LANES - busy.count();
            if LANES - idle < FEWEST {
                for (lane, blocks) in lanes.iter().enumerate().filter(|(_, blocks)| !blocks.is_empty()) {
                    let mut state = column(states, lane);
                    H::compress(&mut state, blocks);
                    set_column(states, lane, &state);
                }
                return;
            }
            // A lane that has nothing to hash hashes what another has, and then its state is put back.
            let before = if idle > 0 { *states } else { [[0; LANES]; W] };
            let worked = lanes.map(|lane| if lane.is_empty() { shortest } else { lane });
            H::compress_lanes(self.wide, states, worked, shortest.len());
            for (at, lane) in lanes.iter_mut().enumerate() {
                if lane.is_empty() {
                    set_column(states, at, &column(&before, at));
                } else {
                    *lane = &lane[shortest.len()..];
                }
            }
        }
    }
}

impl<H: LaneHash<W>, const W: usize> Mac for HmacLanes<H, W> {
    fn sign(&self, parts: &[&[u8]], icv: &mut [u8]) {
        let whole = parts.concat();
        icv.copy_from_slice(&self.one(&Covered::of(&whole))[..self.icv_len]);
    }

    fn verify(&self, parts: &[&[u8]], icv: &[u8]) -> bool {
        let whole = parts.concat();
        secret::equal(&self.one(&Covered::of(&whole))[..self.icv_len], icv)
    }

    fn sign_each(&self, messages: &[Covered<'_>], _: usize, tags: &mut [Tag]) {
        for (messages, tags) in messages.chunks(LANES).zip(tags.chunks_mut(LANES)) {
            if messages.len() < FEWEST {
                for (message, tag) in messages.iter().zip(tags) {
                    *tag = self.one(message);
                }
            } else {
                self.side_by_side(messages, &mut tags[..messages.len()]);
            }
        }
    }
}

/// The last blocks of a message: what does not fill a block, and the padding of the hash.
#[derive(Clone, Copy)]
struct Tail {
    octets: [[u8; 64]; 2],
    used: usize,
}

impl Default for Tail {
    fn default() -> Self {
        Self { octets: [[0; 64]; 2], used: 0 }
    }
}

impl Tail {
    fn blocks(&self) -> &[[u8; 64]] {
        &self.octets[..self.used]
    }
}

/// A message behind a key block, as whole blocks.
fn padded<'m>(message: &Covered<'m>) -> (&'m [[u8; 64]], Tail) {
    let (body, rest) = message.octets.as_chunks::<64>();
    let trailer = message.trailer();
    // Up to 63 octets, up to 4 of a trailer, the mark of the end and the length: two blocks at most.
    let used = if rest.len() + trailer.len() + 9 <= 64 { 1 } else { 2 };
    let mut tail = Tail { used, ..Tail::default() };
    let flat = tail.octets.as_flattened_mut();
    flat[..rest.len()].copy_from_slice(rest);
    flat[rest.len()..][..trailer.len()].copy_from_slice(trailer);
    flat[rest.len() + trailer.len()] = 0x80;
    let bits = 8 * (64 + message.octets.len() + trailer.len()) as u64;
    flat[used * 64 - 8..used * 64].copy_from_slice(&bits.to_be_bytes());
    (body, tail)
}

/// The inner digest behind the outer key block.
fn outer_block<const W: usize>(digest: &[u32; W]) -> [u8; 64] {
    let mut block = [0; 64];
    for (octets, word) in block.as_chunks_mut::<4>().0.iter_mut().zip(digest) {
        *octets = word.to_be_bytes();
    }
    block[4 * W] = 0x80;
    block[56..].copy_from_slice(&(8 * (64 + 4 * W) as u64).to_be_bytes());
    block
}

fn tag_of<const W: usize>(digest: &[u32; W]) -> Tag {
    let mut tag = [0; size_of::<Tag>()];
    for (octets, word) in tag.as_chunks_mut::<4>().0.iter_mut().zip(digest) {
        *octets = word.to_be_bytes();
    }
    tag
}

fn column<const W: usize>(states: &[Words; W], lane: usize) -> [u32; W] {
    core::array::from_fn(|word| states[word][lane])
}

fn set_column<const W: usize>(states: &mut [Words; W], lane: usize, state: &[u32; W]) {
    for (words, word) in states.iter_mut().zip(state) {
        words[lane] = *word;
    }
}
