//! The packet path's contact with the kernel: the only room with I/O, and the
//! only one with `unsafe` code, each block of it with its reason.
//!
//! The back ends are non-blocking and know nothing of SAs or policies; the
//! workers join them to the pipelines, and [`Datapath`] is what the daemon sees.

#![allow(unsafe_code)]

mod control;
mod datapath;
pub mod error_queue;
pub mod mmsg;
pub mod path_mtu;
pub mod port;
pub mod ring;
pub mod tun;
mod worker;

pub use datapath::{Datapath, DatapathConfig, StartError};
pub use error_queue::Report;
pub use mmsg::{Outgoing, ReceiveBatch, Received, SendBatch};
pub use path_mtu::path_mtu;
pub use port::{Port, PortKind, Share, set_path_mtu_discovery};
pub use tun::{Queues, Tun};

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `setsockopt` for options that no safe wrapper has, with an `int` as value.
fn set_int_option(fd: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `value`, which lives until the call returns; the
    // kernel only reads it.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `getsockopt` for options that no safe wrapper has, with an `int` as value.
fn int_option(fd: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: both pointers are to live, writable locals, and `length` is the size of `value`.
    let result = unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut length) };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}
