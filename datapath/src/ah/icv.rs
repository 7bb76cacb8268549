//! What of the headers before an AH its ICV covers (RFC 4302 3.3.3.1, appendix A).

use crate::headers::{IPV4_HEADER, IPV6_HEADER, protocol};

/// The headers of a packet up to and with the fixed part of its AH, as the ICV sees them:
/// what routers change is zero, and what they change predictably is as the receiver gets it.
/// `None` if they are malformed.
pub(super) fn immutable(headers: &[u8]) -> Option<Vec<u8>> {
    let mut view = headers.to_vec();
    match headers.first()? >> 4 {
        4 => ipv4(&mut view)?,
        6 => ipv6(&mut view)?,
        _ => return None,
    }
    Some(view)
}

/// RFC 4302 3.3.3.1.1 and appendix A1.
fn ipv4(view: &mut [u8]) -> Option<()> {
    let header_len = usize::from(view[0] & 0xf) * 4;
    let header = view.get_mut(..header_len).filter(|h| h.len() >= IPV4_HEADER)?;
    // Type of service; flags and fragment offset; time to live; checksum.
    for changed in [1..2, 6..9, 10..12] {
        header[changed].fill(0);
    }
    let mut final_hop = None;
    let (fixed, mut options) = header.split_at_mut(IPV4_HEADER);
    while let [kind, ..] = *options {
        let len = match kind {
            0 => break,
            1 => 1,
            _ => usize::from(*options.get(1)?),
        };
        if len == 0 || kind > 1 && len < 2 {
            return None;
        }
        let (option, rest) = options.split_at_mut_checked(len)?;
        match kind {
            // No operation; (extended) security, commercial security, router alert, sender-directed delivery.
            1 | 130 | 133 | 134 | 148 | 149 => {}
            _ => {
                // Source routes: the destination is the last hop of what is left of the route.
                if matches!(kind, 131 | 137) && option.len() >= 7 && usize::from(option[2]) <= option.len() {
                    final_hop = option.last_chunk::<4>().copied();
                }
                option.fill(0);
            }
        }
        options = rest;
    }
    if let Some(hop) = final_hop {
        fixed[16..20].copy_from_slice(&hop);
    }
    Some(())
}

/// RFC 4302 3.3.3.1.2 and appendix A2.
fn ipv6(view: &mut [u8]) -> Option<()> {
    let (fixed, mut rest) = view.split_first_chunk_mut::<IPV6_HEADER>()?;
    // Traffic class and flow label; hop limit.
    fixed[..4].copy_from_slice(&[0x60, 0, 0, 0]);
    fixed[7] = 0;
    let mut next = fixed[6];
    loop {
        let len = match next {
            protocol::HOP_BY_HOP | protocol::DESTINATION_OPTIONS | protocol::ROUTING => {
                8 + 8 * usize::from(*rest.get(1)?)
            }
            _ => return Some(()),
        };
        let (header, after) = rest.split_at_mut_checked(len)?;
        if next == protocol::ROUTING {
            arrived(header, fixed)?;
        } else {
            options(&mut header[2..])?;
        }
        next = header[0];
        rest = after;
    }
}

/// The data of options that may change on the way (the third bit of the type) is zero.
fn options(mut options: &mut [u8]) -> Option<()> {
    while let [kind, ..] = *options {
        // Pad1 has no length.
        let len = if kind == 0 { 1 } else { 2 + usize::from(*options.get(1)?) };
        let (option, rest) = options.split_at_mut_checked(len)?;
        if kind & 0x20 != 0 {
            option[2..].fill(0);
        }
        options = rest;
    }
    Some(())
}

/// A routing header as its last hop gets it (RFC 2460 4.4, RFC 6275 6.4): no segments left, the destination is
/// the last of its addresses, and the others have moved up by one.
fn arrived(routing: &mut [u8], fixed: &mut [u8; IPV6_HEADER]) -> Option<()> {
    let (kind, left) = (routing[2], usize::from(routing[3]));
    if left == 0 {
        return Some(());
    }
    let addresses = routing.get_mut(8..)?;
    let (slots, odd) = addresses.as_chunks_mut::<16>();
    // Of other types nobody here knows how they change.
    if !matches!(kind, 0 | 2) || !odd.is_empty() || left > slots.len() {
        return None;
    }
    let visited = slots.len() - left;
    let mut destination = [0; 16];
    destination.copy_from_slice(&fixed[24..]);
    for slot in &mut slots[visited..] {
        core::mem::swap(slot, &mut destination);
    }
    fixed[24..].copy_from_slice(&destination);
    routing[3] = 0;
    Some(())
}
