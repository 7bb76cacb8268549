//! Ethernet frames from and to an interface, past the kernel's own layers: AF_PACKET.
//!
//! What arrives comes by a ring of blocks that the kernel fills and we read in place (TPACKET_V3). What leaves is
//! written to a socket of its own, a super-packet at a time. Both have a `virtio_net_hdr` before each frame where the
//! kernel can (PACKET_VNET_HDR): without it nobody could tell of a frame from this machine, or of one that the
//! interface has put together, whether its checksum is complete and into what it is to be cut.

use super::set_int_option;
use crate::offload::coalesce::{MOST, SuperPacket};
use crate::offload::{VIRTIO_HEADER, VirtioHeader};
use core::ptr::NonNull;
use core::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Release},
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use socket2::{Domain, Socket, Type};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Octets of an Ethernet header without a tag.
pub const ETHERNET_HEADER: usize = 14;

/// Octets of a block: room for the longest super-packet and its headers, more than once.
const BLOCK: usize = 256 * 1024;
/// Blocks of a ring: 8 MiB, which is some milliseconds at 10 Gbit/s.
const BLOCKS: usize = 32;
/// Milliseconds after which the kernel hands over a block that is not full: the least there is.
const PATIENCE: u32 = 1;
/// The kernel wants to know it; frames of this ring are as long as they are.
const FRAME: usize = 2048;

// Of a block's header (`struct tpacket_block_desc`, `struct tpacket_hdr_v1`).
const BLOCK_STATUS: usize = 8;
const BLOCK_FRAMES: usize = 12;
const BLOCK_FIRST: usize = 16;
// Of a frame's header (`struct tpacket3_hdr`), and of the address behind it (`struct sockaddr_ll`).
const NEXT: usize = 0;
const CAPTURED: usize = 12;
const LENGTH: usize = 16;
const STATUS: usize = 20;
const MAC: usize = 24;
const TCI: usize = 32;
const ADDRESS: usize = 48;
const PACKET_TYPE: usize = ADDRESS + 10;
const FRAME_HEADER: usize = ADDRESS + 20;

/// Where in a group of sockets, which share an interface's frames by their flows, a ring stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fanout {
    /// Number of the group, in the network namespace.
    pub group: u16,
}

/// The receiving end of an interface.
#[derive(Debug)]
pub struct Ring {
    // Before the socket, whose ring it is.
    map: Map,
    socket: Socket,
    /// The block that the kernel hands over next.
    next: usize,
}

/// The memory that is shared with the kernel.
#[derive(Debug)]
struct Map(NonNull<u8>);

// SAFETY: the mapping belongs to the value, and nothing of it to a thread.
unsafe impl Send for Map {}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length by `Ring::open`, and blocks borrow from the ring, so none is left.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), BLOCK * BLOCKS) };
    }
}

impl Ring {
    /// Receives what arrives at the interface of this index, and nothing that leaves by it. Non-blocking. Needs
    /// CAP_NET_RAW. The error says EOPNOTSUPP or ENOPROTOOPT where the kernel lacks what it takes (Linux 4.20).
    pub fn open(interface: u32, fanout: Option<Fanout>) -> io::Result<Self> {
        // No protocol: nothing arrives before it is bound.
        let socket = Socket::new(Domain::from(libc::AF_PACKET), Type::RAW.nonblocking(), None)?;
        let fd = socket.as_fd();
        set_int_option(fd, libc::SOL_PACKET, libc::PACKET_VERSION, libc::tpacket_versions::TPACKET_V3 as libc::c_int)?;
        set_int_option(fd, libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1)?;
        set_int_option(fd, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
        let request = libc::tpacket_req3 {
            tp_block_size: BLOCK as libc::c_uint,
            tp_block_nr: BLOCKS as libc::c_uint,
            tp_frame_size: FRAME as libc::c_uint,
            tp_frame_nr: (BLOCK / FRAME * BLOCKS) as libc::c_uint,
            tp_retire_blk_tov: PATIENCE,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        // SAFETY: the pointer and the length describe `request`, which lives until the call returns; the kernel only
        // reads it.
        let result = unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_RX_RING,
                (&raw const request).cast(),
                size_of::<libc::tpacket_req3>() as libc::socklen_t,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping, at an address of the kernel's choice, of the ring's exact size.
        let address = unsafe { mmap(core::ptr::null_mut(), BLOCK * BLOCKS, protection, flags, fd, 0)? };
        let map = Map(NonNull::new(address.cast()).ok_or(io::ErrorKind::OutOfMemory)?);
        bind(&socket, interface, libc::ETH_P_ALL as u16)?;
        if let Some(Fanout { group }) = fanout {
            let argument = u32::from(group) | libc::PACKET_FANOUT_HASH << 16;
            set_int_option(fd, libc::SOL_PACKET, libc::PACKET_FANOUT, argument.cast_signed())?;
        }
        Ok(Self { map, socket, next: 0 })
    }

    /// The next block, if the kernel has handed it over; the kernel has it again when it is dropped.
    pub fn block(&mut self) -> Option<Block<'_>> {
        // SAFETY: `next` is below `BLOCKS`, so the block lies in the mapping.
        let base = unsafe { self.map.0.add(self.next * BLOCK) };
        // SAFETY: the field is there, at a multiple of 4 in a page, mapped for as long as the ring lives, and is
        // written, by the kernel and by us, as one word only.
        let status = unsafe { AtomicU32::from_ptr(base.add(BLOCK_STATUS).cast().as_ptr()) };
        if status.load(Acquire) & libc::TP_STATUS_USER == 0 {
            return None;
        }
        self.next = (self.next + 1) % BLOCKS;
        // SAFETY: the block lies in the mapping. Since its status is ours the kernel writes nothing in it, until
        // `Block::drop` gives it back, which ends the borrow; its status is read and written by `status` alone, which
        // the slice does not cover: it begins behind it.
        let octets = unsafe { core::slice::from_raw_parts(base.add(BLOCK_FRAMES).as_ptr(), BLOCK - BLOCK_FRAMES) };
        Some(Block { octets, status })
    }

    /// Frames that the kernel has dropped since this was last asked, because the ring was full or a frame could not be
    /// described.
    pub fn newly_lost(&self) -> io::Result<u32> {
        // `struct tpacket_stats_v3`: frames, drops, times the ring was full.
        let mut statistics = [0u32; 3];
        let mut length = size_of_val(&statistics) as libc::socklen_t;
        // SAFETY: both pointers are to live, writable locals, and `length` is the size of `statistics`.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                statistics.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if result == 0 { Ok(statistics[1]) } else { Err(io::Error::last_os_error()) }
    }

    /// Takes the error that polling told of: the interface went down (ENETDOWN), from where it may come back.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.socket.take_error()
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Frames that arrived, in memory that is the kernel's again afterwards.
#[derive(Debug)]
pub struct Block<'r> {
    /// From [`BLOCK_FRAMES`] on.
    octets: &'r [u8],
    status: &'r AtomicU32,
}

impl Block<'_> {
    /// The frames, in the order of their arrival. They borrow from the block itself, not from the ring: none may be
    /// looked at when the kernel has the block again.
    pub fn frames(&self) -> Frames<'_> {
        Frames::of(self.octets)
    }
}

impl Drop for Block<'_> {
    fn drop(&mut self) {
        // TP_STATUS_KERNEL. Released: whatever was read of the block was read before.
        self.status.store(0, Release);
    }
}

/// The frames of a block.
#[derive(Clone, Debug)]
pub struct Frames<'b> {
    /// From [`BLOCK_FRAMES`] on.
    block: &'b [u8],
    left: u32,
    /// Where the next one's header is, from the beginning of the block.
    at: usize,
}

/// One frame, as the kernel describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'b> {
    /// From the destination address on, without the tag that the interface or the kernel has taken off.
    pub octets: &'b [u8],
    /// Whether that is all of it.
    pub whole: bool,
    /// What is still to be done to it; places in it count from the beginning of the frame. `None`: not known here.
    pub offload: Option<VirtioHeader>,
    /// The tag (TCI of IEEE 802.1Q) that was taken off.
    pub tag: Option<u16>,
    /// To whom it is addressed: `PACKET_HOST` for this machine.
    pub packet_type: u8,
    /// Whether frames before it were dropped, of which [`Ring::newly_lost`] tells.
    pub losing: bool,
}

impl<'b> Frames<'b> {
    fn of(block: &'b [u8]) -> Self {
        let word = |at: usize| word(block, at - BLOCK_FRAMES);
        let (left, at) = (word(BLOCK_FRAMES).unwrap_or(0), word(BLOCK_FIRST).unwrap_or(0) as usize);
        Self { block, left, at }
    }
}

/// The flag of `virtio_net_hdr` that TCP had congestion marks: which segments have them is plain from its flags.
const GSO_ECN: u8 = 0x80;

impl<'b> Iterator for Frames<'b> {
    type Item = Frame<'b>;

    /// A header that points outside the block ends it.
    fn next(&mut self) -> Option<Frame<'b>> {
        self.left = self.left.checked_sub(1)?;
        let header = self.block.get(self.at.checked_sub(BLOCK_FRAMES)?..)?;
        let fixed = header.get(..FRAME_HEADER)?;
        let (captured, length, status) = (word(fixed, CAPTURED)?, word(fixed, LENGTH)?, word(fixed, STATUS)?);
        let mac = usize::from(u16::from_ne_bytes([fixed[MAC], fixed[MAC + 1]]));
        let octets = header.get(mac..mac + captured as usize)?;
        let mut before: [u8; VIRTIO_HEADER] = *header.get(mac.checked_sub(VIRTIO_HEADER)?..mac)?.first_chunk()?;
        before[1] &= !GSO_ECN;
        self.at += word(fixed, NEXT)? as usize;
        Some(Frame {
            octets,
            whole: captured == length,
            offload: VirtioHeader::decode(&before),
            tag: (status & libc::TP_STATUS_VLAN_VALID != 0).then_some(word(fixed, TCI)? as u16),
            packet_type: fixed[PACKET_TYPE],
            losing: status & libc::TP_STATUS_LOSING != 0,
        })
    }
}

fn word(octets: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*octets.get(at..)?.first_chunk()?))
}

/// The sending end of an interface.
#[derive(Debug)]
pub struct Sender(Socket);

impl Sender {
    /// Sends from the interface of this index. Non-blocking. Needs CAP_NET_RAW.
    pub fn open(interface: u32) -> io::Result<Self> {
        // No protocol, ever: it receives nothing.
        let socket = Socket::new(Domain::from(libc::AF_PACKET), Type::RAW.nonblocking(), None)?;
        set_int_option(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1)?;
        bind(&socket, interface, 0)?;
        // As much as bursts need; what net.core.wmem_max allows does too, less well.
        const BUFFER: libc::c_int = 4 << 20;
        if set_int_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, BUFFER).is_err() {
            let _ = set_int_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF, BUFFER);
        }
        Ok(Self(socket))
    }

    /// Sends packets behind an Ethernet header, as one, as the [`Coalescer`](crate::offload::coalesce::Coalescer)
    /// planned. An error means that none was sent: EAGAIN that the interface is behind, EMSGSIZE that it takes none so
    /// long.
    pub fn send<'p>(
        &self,
        ethernet: &[u8; ETHERNET_HEADER],
        whole: &SuperPacket,
        packets: impl Iterator<Item = &'p [u8]>,
    ) -> io::Result<()> {
        let mut header = whole.header;
        if let Some((start, _)) = &mut header.checksum {
            *start += ETHERNET_HEADER as u16;
        }
        if header.segments.is_some() {
            header.header_len += ETHERNET_HEADER as u16;
        }
        let header = header.encode();
        let mut parts = [IoSlice::new(&[]); MOST + 3];
        parts[0] = IoSlice::new(&header);
        parts[1] = IoSlice::new(ethernet);
        parts[2] = IoSlice::new(whole.headers.as_slice());
        let mut count = 3;
        for (part, packet) in parts[3..].iter_mut().zip(packets) {
            *part = IoSlice::new(&packet[whole.skip..]);
            count += 1;
        }
        rustix::io::writev(&self.0, &parts[..count])?;
        Ok(())
    }
}

impl AsFd for Sender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Binds a packet socket to an interface, for frames of a protocol.
fn bind(socket: &Socket, interface: u32, protocol: u16) -> io::Result<()> {
    let index = i32::try_from(interface).map_err(|_| io::ErrorKind::InvalidInput)?;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol.to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the pointer and the length describe `address`, which lives until the call returns; the kernel only
    // reads it.
    let result = unsafe {
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as libc::socklen_t)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A block as the kernel would hand it over, from [`BLOCK_FRAMES`] on.
    fn block(frames: &[(&[u8], u32, u8)]) -> Vec<u8> {
        let mut block = vec![0; 4096];
        let mut put = |at: usize, octets: &[u8]| block[at..at + octets.len()].copy_from_slice(octets);
        put(BLOCK_FRAMES, &(frames.len() as u32).to_ne_bytes());
        put(BLOCK_FIRST, &48u32.to_ne_bytes());
        let mut at = 48;
        for (octets, status, kind) in frames {
            let mac = 96;
            let next = (mac + octets.len()).next_multiple_of(16);
            for (field, value) in [
                (NEXT, next as u32),
                (CAPTURED, octets.len() as u32),
                (LENGTH, octets.len() as u32),
                (STATUS, *status),
                (TCI, 0x2007),
            ] {
                put(at + field, &value.to_ne_bytes());
            }
            put(at + MAC, &(mac as u16).to_ne_bytes());
            put(at + PACKET_TYPE, &[*kind]);
            put(at + mac, octets);
            at += next;
        }
        block.split_off(BLOCK_FRAMES)
    }

    #[test]
    fn a_block_is_walked_frame_by_frame() {
        let (plain, tagged) = ([1u8; 60], [2u8; 33]);
        let made = block(&[
            (&plain, libc::TP_STATUS_USER, 0),
            (&tagged, libc::TP_STATUS_VLAN_VALID | libc::TP_STATUS_LOSING, 3),
        ]);
        let frames: Vec<_> = Frames::of(&made).collect();
        assert_eq!(frames.len(), 2);
        assert_eq!((frames[0].octets, frames[0].tag, frames[0].packet_type), (&plain[..], None, 0));
        assert!(frames[0].whole && !frames[0].losing && frames[0].offload == Some(VirtioHeader::default()));
        assert_eq!((frames[1].octets, frames[1].tag, frames[1].packet_type), (&tagged[..], Some(0x2007), 3));
        assert!(frames[1].losing);
    }

    #[test]
    fn what_was_not_captured_whole_says_so() {
        let mut made = block(&[(&[1; 60], 1, 0)]);
        made[48 - BLOCK_FRAMES + LENGTH] = 61;
        assert!(!Frames::of(&made).next().unwrap().whole);
    }

    proptest! {
        #[test]
        fn headers_of_any_kind_stay_inside_the_block(octets in proptest::collection::vec(any::<u8>(), 0..400), count: u8, first in 0u32..300) {
            let mut octets = octets;
            for (at, word) in [(0, u32::from(count)), (BLOCK_FIRST - BLOCK_FRAMES, first)] {
                if let Some(field) = octets.get_mut(at..at + 4) {
                    field.copy_from_slice(&word.to_ne_bytes());
                }
            }
            for frame in Frames::of(&octets) {
                prop_assert!(frame.octets.len() <= octets.len());
            }
        }
    }
}
