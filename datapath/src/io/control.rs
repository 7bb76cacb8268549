//! Control messages: what travels beside a datagram through `recvmsg` and `sendmsg`.

use std::iter::from_fn;
use std::ptr;

/// Room for the control messages of one datagram: packet information, TOS, hop limit,
/// length of segments and count of losses, or a report of the error queue, need 136 octets at most.
pub(super) const CONTROL_LEN: usize = 160;

/// Control messages must be aligned as `cmsghdr` is.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(super) struct Control(pub(super) [u8; CONTROL_LEN]);

/// One received control message.
pub(super) struct ControlMessage {
    pub(super) level: libc::c_int,
    pub(super) kind: libc::c_int,
    body: *const u8,
    len: usize,
}

impl ControlMessage {
    /// The body, if it is long enough.
    ///
    /// # Safety
    /// The control area is still alive, and any octets are a value of `T`.
    pub(super) unsafe fn body<T: Copy>(&self) -> Option<T> {
        // SAFETY: `body` points at `len` octets of the control area; they may be unaligned.
        (self.len >= size_of::<T>()).then(|| unsafe { ptr::read_unaligned(self.body.cast()) })
    }
}

/// The control messages of something received.
///
/// # Safety
/// The system call filled `header` in, and the control area it points at is alive
/// as long as the iterator is.
pub(super) unsafe fn messages(header: &libc::msghdr) -> impl Iterator<Item = ControlMessage> {
    // SAFETY: by the condition above. The CMSG functions stay within msg_controllen.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    from_fn(move || {
        if next.is_null() {
            return None;
        }
        let at = next;
        // SAFETY: as above; `at` is a whole `cmsghdr` within the control area.
        unsafe {
            next = libc::CMSG_NXTHDR(header, at);
            let body = libc::CMSG_DATA(at);
            let len = ((*at).cmsg_len as usize).saturating_sub(body.offset_from_unsigned(at.cast()));
            Some(ControlMessage { level: (*at).cmsg_level, kind: (*at).cmsg_type, body, len })
        }
    })
}

impl Control {
    /// Writes a message behind the first `used` octets, and counts its own to them.
    pub(super) fn push<T: Copy>(&mut self, used: &mut usize, level: libc::c_int, kind: libc::c_int, body: T) {
        // SAFETY: CMSG_SPACE and CMSG_LEN only compute.
        let (space, len) = unsafe { (libc::CMSG_SPACE(size_of::<T>() as u32), libc::CMSG_LEN(size_of::<T>() as u32)) };
        let area = &mut self.0[*used..*used + space as usize];
        area.fill(0);
        let header = area.as_mut_ptr().cast::<libc::cmsghdr>();
        // SAFETY: `area` has CMSG_SPACE(size of T) octets, checked by the slice above, and starts
        // aligned: the control area is, and CMSG_SPACE keeps alignment. The body is written unaligned.
        unsafe {
            (*header).cmsg_len = len as _;
            (*header).cmsg_level = level;
            (*header).cmsg_type = kind;
            ptr::write_unaligned(libc::CMSG_DATA(header).cast(), body);
        }
        *used += space as usize;
    }
}
