//! A type-erased object of the application that owns memory in use by the stack.

use std::any::{Any, TypeId};
use std::ptr::NonNull;

/// Keeps the object at a fixed address and does not access it, so that its bytes remain valid.
///
/// It is held as a raw pointer: each move of a `Box` would assert unique access to the object, and thereby to bytes
/// that lie inside it (`[u8; N]`).
pub(super) struct Owner {
    object: NonNull<dyn Any + Send>,
    kind: TypeId,
}

impl Owner {
    /// Takes the object; returns it with its bytes. `Err` if it has none.
    pub(super) fn new<T: AsMut<[u8]> + Send + 'static>(object: T) -> Result<(Self, NonNull<u8>, usize), T> {
        let raw: *mut T = Box::into_raw(Box::new(object));
        // SAFETY: just leaked, so it is valid and exclusively ours. What follows is allowed in safe code with a leaked
        // `&'static mut T`: the slice may be used until the object is accessed again, in `drop` or `take`.
        let bytes: &mut [u8] = unsafe { (*raw).as_mut() };
        let (at, len) = (bytes.as_mut_ptr(), bytes.len());
        match (NonNull::new(at), NonNull::new(raw as *mut (dyn Any + Send))) {
            (Some(at), Some(object)) if len > 0 => Ok((Self { object, kind: TypeId::of::<T>() }, at, len)),
            // SAFETY: leaked above, and the slice is no longer used.
            _ => Err(*unsafe { Box::from_raw(raw) }),
        }
    }

    /// The object, if it is a `T`. The caller must no longer use its bytes.
    pub(super) fn take<T: 'static>(self) -> Result<T, Self> {
        if self.kind != TypeId::of::<T>() {
            return Err(self);
        }
        let raw = std::mem::ManuallyDrop::new(self).object.cast::<T>();
        // SAFETY: it came from a `Box<T>` of this type, and `ManuallyDrop` prevents `drop` from freeing it too.
        Ok(*unsafe { Box::from_raw(raw.as_ptr()) })
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // SAFETY: it came from a `Box`, is freed only here or in `take`, and its bytes are no longer used, as the
        // region that holds this owner is being dropped.
        drop(unsafe { Box::from_raw(self.object.as_ptr()) });
    }
}
