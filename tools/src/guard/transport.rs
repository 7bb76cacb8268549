//! The netfilter netlink socket: batches that happen wholly or not at all, and dumps.

use netlink_packet_netfilter::nftables::NfTablesMessage;
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, sockopt};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// NFNL_SUBSYS_NFTABLES, which the header of a batch must name.
const NFTABLES: u16 = 10;
/// A netlink datagram of a dump is at most this long.
const DATAGRAM: usize = 1 << 16;

/// What went wrong in a batch.
#[derive(Debug)]
pub(super) enum BatchError {
    /// The socket failed.
    Io(io::Error),
    /// The kernel refused the message of this index, counted from 0, or the batch as a whole (`None`).
    Refused(Option<usize>, io::Error),
}

/// Whether a batch is to take effect.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// All of it, at once.
    Commit,
    /// None: the kernel checks it and forgets it.
    CheckOnly,
}

pub(super) struct Connection {
    socket: OwnedFd,
    sequence: u32,
}

impl Connection {
    /// A socket of the calling thread's network namespace.
    pub(super) fn open() -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::NETFILTER),
        )?;
        // The kernel answers before `send` returns; an answer that does not come is a fault, not a delay.
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(Duration::from_secs(5)))?;
        Ok(Self { socket, sequence: 1 })
    }

    /// Sends a batch; `Ok` means that every message of it was accepted.
    pub(super) fn batch(&mut self, messages: Vec<NfTablesMessage>, effect: Effect) -> Result<(), BatchError> {
        let first = self.sequence.wrapping_add(1);
        let count = messages.len();
        let mut out = Vec::new();
        self.append(control(ControlMessage::BatchBegin), 0, &mut out);
        for (i, message) in messages.into_iter().enumerate() {
            // The last message is answered even when all is well: that ends the wait.
            let ack = if i + 1 == count { NLM_F_ACK } else { 0 };
            self.append(tables(message), NLM_F_CREATE | NLM_F_APPEND | ack, &mut out);
        }
        if effect == Effect::Commit {
            // Without an end the kernel undoes the batch after checking it.
            self.append(control(ControlMessage::BatchEnd), 0, &mut out);
        }
        self.send(&out).map_err(BatchError::Io)?;
        let last = first.wrapping_add(count as u32).wrapping_sub(1);
        let mut acknowledged = false;
        loop {
            // The first answer is waited for, the others are there already.
            let Some(answers) = self.receive(!acknowledged).map_err(BatchError::Io)? else { return Ok(()) };
            for answer in answers {
                let NetlinkPayload::Error(error) = answer.payload else { continue };
                let sequence = answer.header.sequence_number;
                match error.code {
                    None => acknowledged |= sequence == last,
                    Some(_) => {
                        let index = sequence.wrapping_sub(first) as usize;
                        return Err(BatchError::Refused((index < count).then_some(index), error.to_io()));
                    }
                }
            }
        }
    }

    /// Asks for all objects that `request` describes.
    pub(super) fn dump(&mut self, request: NfTablesMessage) -> io::Result<Vec<NfTablesMessage>> {
        let sequence = self.sequence;
        let mut out = Vec::new();
        self.append(tables(request), NLM_F_DUMP, &mut out);
        self.send(&out)?;
        let mut found = Vec::new();
        while let Some(answers) = self.receive(true)? {
            for answer in answers {
                if answer.header.sequence_number != sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::InnerMessage(m) => {
                        if let NetfilterMessageInner::NfTables(m) = m.inner {
                            found.push(m);
                        }
                    }
                    NetlinkPayload::Done(_) => return Ok(found),
                    NetlinkPayload::Error(e) if e.code.is_some() => return Err(e.to_io()),
                    _ => {}
                }
            }
        }
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "netlink dump without an end"))
    }

    fn append(&mut self, message: NetfilterMessage, flags: u16, out: &mut Vec<u8>) {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        message.finalize();
        let start = out.len();
        out.resize(start + message.buffer_len(), 0);
        if let Some(space) = out.get_mut(start..) {
            message.serialize(space);
        }
        out.resize(out.len().next_multiple_of(4), 0);
    }

    fn send(&self, octets: &[u8]) -> io::Result<()> {
        // A batch is one datagram, however long. The forced option needs a privilege that a user
        // namespace does not give; the plain one goes as far as the system's limit.
        let room = octets.len() * 2 + DATAGRAM;
        if sockopt::set_socket_send_buffer_size_force(&self.socket, room).is_err() {
            sockopt::set_socket_send_buffer_size(&self.socket, room)?;
        }
        let sent = rustix::net::send(&self.socket, octets, SendFlags::empty())?;
        if sent == octets.len() { Ok(()) } else { Err(io::Error::new(io::ErrorKind::WriteZero, "short netlink send")) }
    }

    /// One datagram's messages; `None` when there is none and we do not wait.
    fn receive(&self, wait: bool) -> io::Result<Option<Vec<NetlinkMessage<NetfilterMessage>>>> {
        let mut buffer = vec![0; DATAGRAM];
        let flags = if wait { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
        let (len, _) = match rustix::net::recv(&self.socket, buffer.as_mut_slice(), flags) {
            Err(Errno::AGAIN) if wait => return Err(io::ErrorKind::TimedOut.into()),
            Err(Errno::AGAIN) => return Ok(None),
            other => other?,
        };
        let mut rest = buffer.get(..len).unwrap_or_default();
        let mut messages = Vec::new();
        while !rest.is_empty() {
            let message = NetlinkMessage::<NetfilterMessage>::deserialize(rest)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
            let len = (message.header.length as usize).next_multiple_of(4).max(4);
            rest = rest.get(len..).unwrap_or_default();
            messages.push(message);
        }
        Ok(Some(messages))
    }
}

fn tables(message: NfTablesMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0), message)
}

fn control(message: ControlMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NFTABLES), message)
}
