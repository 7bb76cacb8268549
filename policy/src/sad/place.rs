//! A place for an [`Arc`] that readers use without counting a reference.
#![allow(unsafe_code, reason = "a pointer made of an Arc and back; see ARCHITECTURE.md")]

use super::readers::Pin;
use crate::sync::AtomicPtr;
use core::marker::PhantomData;
use core::ptr::null_mut;
use core::sync::atomic::Ordering::{AcqRel, Acquire};
use std::sync::Arc;

/// Holds an `Arc<T>` or nothing. All zeros is an empty place.
#[derive(Debug)]
#[repr(transparent)]
pub(super) struct Place<T> {
    /// Of [`Arc::into_raw`], or null.
    pointer: AtomicPtr<T>,
    owned: PhantomData<Arc<T>>,
}

impl<T> Place<T> {
    pub(super) fn empty() -> Self {
        Self { pointer: AtomicPtr::new(null_mut()), owned: PhantomData }
    }

    /// What is here. No reference is counted.
    ///
    /// # Safety
    /// `pin` is of those [`Readers`](super::readers::Readers) for whose sake whatever comes out of this place
    /// ([`Place::replace`]) is kept in a [`Retired`](super::readers::Retired).
    #[inline(always)]
    pub(super) unsafe fn load<'p>(&self, _pin: &'p Pin) -> Option<&'p T> {
        // SAFETY: a pointer that is here is one of an Arc whose reference this place owns, and when it
        // leaves the place, `Retired` owns it until the pin is gone: see above.
        unsafe { self.pointer.load(Acquire).as_ref() }
    }

    /// The same, kept beyond the pin.
    ///
    /// # Safety
    /// As for [`Place::load`].
    #[inline]
    pub(super) unsafe fn load_kept(&self, pin: &Pin) -> Option<Arc<T>> {
        // SAFETY: as the caller promises.
        let found: *const T = unsafe { self.load(pin) }?;
        // SAFETY: it comes from `Arc::into_raw`, and while the pin lives somebody owns a reference to it;
        // the one that `from_raw` takes is the one that is added here.
        unsafe {
            Arc::increment_strong_count(found);
            Some(Arc::from_raw(found))
        }
    }

    /// What is here, for whoever is the only one to change it.
    ///
    /// # Safety
    /// Nobody calls [`Place::replace`] meanwhile.
    pub(super) unsafe fn held(&self) -> Option<Arc<T>> {
        let here = self.pointer.load(Acquire);
        // SAFETY: a pointer that is here is one of `Arc::into_raw`, whose reference this place owns, and will
        // not leave it meanwhile. The one that `from_raw` takes is the one that is added here.
        (!here.is_null()).then(|| unsafe {
            Arc::increment_strong_count(here);
            Arc::from_raw(here)
        })
    }

    /// Whether nothing is here.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.pointer.load(Acquire).is_null()
    }

    /// Puts something here, or nothing. What was here must be kept as long as
    /// pinned readers may use it.
    pub(super) fn replace(&self, new: Option<Arc<T>>) -> Option<Arc<T>> {
        let new = new.map_or(null_mut(), |new| Arc::into_raw(new).cast_mut());
        let old = self.pointer.swap(new, AcqRel);
        // SAFETY: it was put here by `into_raw`, with its reference, which leaves with it.
        (!old.is_null()).then(|| unsafe { Arc::from_raw(old) })
    }
}

impl<T> Drop for Place<T> {
    fn drop(&mut self) {
        drop(self.replace(None));
    }
}
