//! Memory for tables: zeroed when it is first touched, in 2 MB pages where the
//! system gives them.
//!
//! A look-up in a large table touches one random line. With pages of 4 KB the
//! translation of its address misses too, which costs as much as the line.
#![allow(unsafe_code, reason = "mmap, and a slice over what it returns; see ARCHITECTURE.md")]

use core::marker::PhantomData;
use core::ops::Deref;
use std::io;

/// Types for which memory full of zeros is a value, and which need no drop.
///
/// # Safety
/// All-zero octets must be a valid value of the type, and its alignment at most that of a page.
pub(crate) unsafe trait Zeroable: Send + Sync {
    /// That value.
    #[cfg(any(loom, miri))]
    fn zero() -> Self;
}

#[cfg(any(loom, miri))]
pub(crate) use boxed::Pages;
#[cfg(not(any(loom, miri)))]
pub(crate) use mapped::Pages;

// SAFETY: an atomic has the representation of its integer.
unsafe impl Zeroable for crate::sync::AtomicU32 {
    #[cfg(any(loom, miri))]
    fn zero() -> Self {
        Self::new(0)
    }
}

// SAFETY: an atomic has the representation of its integer.
unsafe impl Zeroable for crate::sync::AtomicU64 {
    #[cfg(any(loom, miri))]
    fn zero() -> Self {
        Self::new(0)
    }
}

/// Octets of address space that a slice of `wanted` octets takes: whole pages of 2 MB, if it is that long.
pub(super) const fn mapped_octets(wanted: u64) -> u64 {
    const HUGE: u64 = 2 << 20;
    if wanted < HUGE { wanted } else { wanted.next_multiple_of(HUGE) }
}

/// Asks the processor to fetch the line of `place`. Only a hint: never wrong, never a fault.
#[inline(always)]
pub(crate) fn prefetch<T>(place: &T) {
    #[cfg(all(target_arch = "x86_64", not(any(loom, miri))))]
    // SAFETY: SSE is part of x86-64, and a prefetch reads nothing that the program could observe.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(core::ptr::from_ref(place).cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(any(loom, miri)))))]
    let _ = place;
}

#[cfg(not(any(loom, miri)))]
mod mapped {
    use super::{Deref, PhantomData, Zeroable, io};
    use core::ptr::NonNull;
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

    const HUGE: usize = 2 << 20;

    /// A slice of zeros.
    #[derive(Debug)]
    pub(crate) struct Pages<T> {
        start: NonNull<T>,
        len: usize,
        /// Length of the mapping in octets.
        octets: usize,
        owned: PhantomData<T>,
    }

    // SAFETY: it owns its memory as a `Box<[T]>` does, and `Zeroable` is `Send + Sync`.
    unsafe impl<T: Zeroable> Send for Pages<T> {}
    // SAFETY: only shared references to the elements are given out, and `Zeroable` is `Sync`.
    unsafe impl<T: Zeroable> Sync for Pages<T> {}

    impl<T: Zeroable> Pages<T> {
        /// `len` zeros. Physical memory is taken only for what is touched.
        pub(crate) fn zeroed(len: usize) -> io::Result<Self> {
            let too_large = || io::Error::from(io::ErrorKind::OutOfMemory);
            let wanted = len.max(1).checked_mul(size_of::<T>()).ok_or_else(too_large)?;
            let huge = wanted >= HUGE;
            // A mapping begins anywhere on a 4 KB boundary; one that is longer by a page contains a
            // part that begins on a 2 MB boundary.
            let (octets, mapped) = if huge {
                let octets = wanted.checked_next_multiple_of(HUGE).ok_or_else(too_large)?;
                (octets, octets.checked_add(HUGE).ok_or_else(too_large)?)
            } else {
                (wanted, wanted)
            };
            // SAFETY: a new private mapping at an address of the kernel's choice overlaps nothing.
            let first = unsafe {
                mmap_anonymous(
                    core::ptr::null_mut(),
                    mapped,
                    ProtFlags::READ | ProtFlags::WRITE,
                    MapFlags::PRIVATE | MapFlags::NORESERVE,
                )?
            };
            let before = if huge { first.addr().next_multiple_of(HUGE) - first.addr() } else { 0 };
            // SAFETY: `before` is less than HUGE, so `start..start + octets` lies in the mapping, and so
            // do the parts before and behind it, which nobody has a reference to.
            let start = unsafe {
                let start = first.byte_add(before);
                if before > 0 {
                    munmap(first, before)?;
                }
                if mapped - before > octets {
                    munmap(start.byte_add(octets), mapped - before - octets)?;
                }
                if huge {
                    // Where the system has no huge pages to give, ordinary ones do.
                    let _ = madvise(start, octets, Advice::LinuxHugepage);
                }
                start
            };
            let start = NonNull::new(start.cast()).ok_or_else(too_large)?;
            Ok(Self { start, len, octets, owned: PhantomData })
        }

        /// Octets of address space it takes.
        pub(crate) fn octets(&self) -> usize {
            self.octets
        }
    }

    impl<T> Deref for Pages<T> {
        type Target = [T];

        #[inline(always)]
        fn deref(&self) -> &[T] {
            // SAFETY: the mapping holds `len` values of T (`Zeroable`), aligned to a page at least, and lives as
            // long as `self`; nothing ever has an exclusive reference to it.
            unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.len) }
        }
    }

    impl<T> Drop for Pages<T> {
        fn drop(&mut self) {
            // SAFETY: the mapping is ours, and with `self` goes the last reference to it. T needs no drop (`Zeroable`).
            let _ = unsafe { munmap(self.start.as_ptr().cast(), self.octets) };
        }
    }
}

#[cfg(any(loom, miri))]
mod boxed {
    use super::{Deref, PhantomData, Zeroable, io};

    /// The same without system calls, for the checkers.
    #[derive(Debug)]
    pub(crate) struct Pages<T>(Box<[T]>, PhantomData<T>);

    impl<T: Zeroable> Pages<T> {
        pub(crate) fn zeroed(len: usize) -> io::Result<Self> {
            Ok(Self((0..len).map(|_| T::zero()).collect(), PhantomData))
        }

        pub(crate) fn octets(&self) -> usize {
            size_of_val(&*self.0)
        }
    }

    impl<T> Deref for Pages<T> {
        type Target = [T];

        fn deref(&self) -> &[T] {
            &self.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::AtomicU64;
    use core::sync::atomic::Ordering::Relaxed;

    #[test]
    fn pages_of_all_sizes_are_zero_writable_and_apart() {
        for len in [0usize, 1, 511, 4096, 262_143, 262_144, 300_000] {
            let (a, b) = (Pages::<AtomicU64>::zeroed(len).unwrap(), Pages::<AtomicU64>::zeroed(len).unwrap());
            assert_eq!(a.len(), len);
            assert!(a.octets() >= len * 8);
            for (n, word) in a.iter().enumerate() {
                assert_eq!(word.swap(n as u64 + 1, Relaxed), 0);
            }
            assert!(b.iter().all(|word| word.load(Relaxed) == 0));
            assert!(a.iter().enumerate().all(|(n, word)| word.load(Relaxed) == n as u64 + 1));
        }
    }

    #[cfg(not(any(loom, miri)))]
    #[test]
    fn what_no_system_has_is_an_error() {
        assert!(Pages::<AtomicU64>::zeroed(usize::MAX).is_err());
        assert!(Pages::<AtomicU64>::zeroed(usize::MAX / 16).is_err());
    }
}
