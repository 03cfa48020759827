//! An application's object that owns memory we use, with its type erased.

use std::any::{Any, TypeId};
use std::ptr::NonNull;

/// Keeps the object where it is and untouched, so that the bytes it lent stay valid.
///
/// Held as a raw pointer: a `Box` would claim to be the only way to the object, and thereby to bytes
/// that lie inside it (`[u8; N]`), each time it is moved.
pub(super) struct Owner {
    object: NonNull<dyn Any + Send>,
    kind: TypeId,
}

impl Owner {
    /// Takes the object; returns it with the bytes that it owns. `Err` when there are none.
    pub(super) fn new<T: AsMut<[u8]> + Send + 'static>(object: T) -> Result<(Self, NonNull<u8>, usize), T> {
        let raw: *mut T = Box::into_raw(Box::new(object));
        // SAFETY: just leaked, so valid and ours alone. What follows is what safe code may do with a leaked
        // `&'static mut T`: the slice may be used until the object is touched again, in `drop` or `take`.
        let bytes: &mut [u8] = unsafe { (*raw).as_mut() };
        let (at, len) = (bytes.as_mut_ptr(), bytes.len());
        match (NonNull::new(at), NonNull::new(raw as *mut (dyn Any + Send))) {
            (Some(at), Some(object)) if len > 0 => Ok((Self { object, kind: TypeId::of::<T>() }, at, len)),
            // SAFETY: leaked above, and the slice is not used any more.
            _ => Err(*unsafe { Box::from_raw(raw) }),
        }
    }

    /// The object, if it is a `T`. The caller has stopped using its bytes.
    pub(super) fn take<T: 'static>(self) -> Result<T, Self> {
        if self.kind != TypeId::of::<T>() {
            return Err(self);
        }
        let raw = std::mem::ManuallyDrop::new(self).object.cast::<T>();
        // SAFETY: it came from `Box<T>` of this very type, and `ManuallyDrop` keeps `drop` from freeing it too.
        Ok(*unsafe { Box::from_raw(raw.as_ptr()) })
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // SAFETY: it came from a `Box`, is freed only here or in `take`, and its bytes are used no more:
        // the region that holds this owner is going away.
        drop(unsafe { Box::from_raw(self.object.as_ptr()) });
    }
}
