//! Buffers: a uniquely owned slice and the memory it belongs to.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use super::pool::Block;
use super::{AllocError, Backing, BufPool, PinnedRegion};

/// An allocation, returned when dropped.
enum Memory {
    /// A boxed slice.
    Heap(#[expect(dead_code, reason = "only its drop matters")] HeapSlice),
    /// A region of its own, boxed to keep buffers small.
    Region(Box<PinnedRegion>),
    /// A pool's block.
    Block(Block),
}

/// A boxed slice as a raw pointer, as a `Box` asserts unique access to its contents.
struct HeapSlice(NonNull<[u8]>);

// SAFETY: it is the only owner of plain bytes.
unsafe impl Send for HeapSlice {}
// SAFETY: a shared reference allows no access.
unsafe impl Sync for HeapSlice {}

impl Drop for HeapSlice {
    fn drop(&mut self) {
        // SAFETY: made from a box in `PinnedBuf::unpinned`, and owned by this value alone.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

enum Home {
    Whole(Memory),
    Part(Arc<Memory>),
}

impl Home {
    fn memory(&self) -> &Memory {
        match self {
            Self::Whole(memory) => memory,
            Self::Part(memory) => memory,
        }
    }
}

/// A uniquely owned buffer of bytes at a fixed address.
///
/// It dereferences to `[u8]`. Dropping it, on any thread, returns its memory to where it came from; a buffer may
/// outlive its pool. Its bytes are always initialised, but a recycled buffer still holds earlier contents.
pub struct PinnedBuf {
    at: NonNull<u8>,
    len: usize,
    capacity: usize,
    home: Home,
}

const _: () = assert!(size_of::<PinnedBuf>() <= 48);

// SAFETY: a buffer is the only way to its bytes; its home is `Send` by itself.
unsafe impl Send for PinnedBuf {}
// SAFETY: a shared reference gives shared access to plain bytes; its home is `Sync` by itself.
unsafe impl Sync for PinnedBuf {}

impl PinnedBuf {
    /// A buffer of `len` bytes at `at`, with room for `capacity`. All of these bytes are initialised and belong to
    /// `memory`, which nobody else uses.
    fn new(at: NonNull<u8>, len: usize, capacity: usize, memory: Memory) -> Self {
        assert!(len <= capacity, "{len} bytes in a block of {capacity}");
        Self { at, len, capacity, home: Home::Whole(memory) }
    }

    /// A buffer of zeroed heap memory that is not pinned, for tests and small data.
    pub fn unpinned(len: usize) -> Self {
        let bytes = NonNull::from(Box::leak(vec![0; len].into_boxed_slice()));
        Self::new(bytes.cast(), len, len, Memory::Heap(HeapSlice(bytes)))
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the length is 0.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The maximum for [`PinnedBuf::set_len`], in bytes.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Shortens the buffer to `len` bytes. Has no effect if it is already that short.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Sets the length to `len` bytes, fewer or more than now. Added bytes hold earlier contents.
    ///
    /// # Panics
    /// If `len` exceeds [`PinnedBuf::capacity`].
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity, "length {len} beyond the buffer's capacity of {}", self.capacity);
        self.len = len;
    }

    /// Virtual address of the first byte.
    pub fn addr(&self) -> usize {
        self.at.addr().get()
    }

    /// Kind of pages of the memory.
    pub fn backing(&self) -> Backing {
        match self.home.memory() {
            Memory::Heap(_) => Backing::Unlocked,
            Memory::Region(region) => region.backing(),
            Memory::Block(block) => block.backing(),
        }
    }

    /// Splits the buffer in two: the bytes `..at`, and the bytes `at..` with the spare capacity. The memory is returned
    /// when both parts are dropped.
    ///
    /// # Panics
    /// If `at` exceeds [`PinnedBuf::len`].
    pub fn split(self, at: usize) -> (Self, Self) {
        assert!(at <= self.len, "split at {at} of a buffer of {} bytes", self.len);
        let memory = match self.home {
            Home::Whole(memory) => Arc::new(memory),
            Home::Part(memory) => memory,
        };
        // SAFETY: `at <= len <= capacity`, so this is inside the allocation or right behind it.
        let behind = unsafe { self.at.add(at) };
        let front = Self { at: self.at, len: at, capacity: at, home: Home::Part(memory.clone()) };
        let back = Self { at: behind, len: self.len - at, capacity: self.capacity - at, home: Home::Part(memory) };
        (front, back)
    }

    /// Returns the object whose memory was registered with [`PinnedRegion::from_mapping`].
    ///
    /// # Errors
    /// The buffer itself, if it did not come from a `T`, or if other parts of it ([`PinnedBuf::split`]) are still in
    /// use.
    pub fn take_owner<T: AsMut<[u8]> + Send + 'static>(self) -> Result<T, Self> {
        let Self { at, len, capacity, home } = self;
        let back = |home| Self { at, len, capacity, home };
        let memory = match home {
            Home::Whole(memory) => memory,
            Home::Part(memory) => Arc::try_unwrap(memory).map_err(|memory| back(Home::Part(memory)))?,
        };
        match memory {
            Memory::Region(region) => {
                region.take_owner().map_err(|region| back(Home::Whole(Memory::Region(Box::new(region)))))
            }
            other => Err(back(Home::Whole(other))),
        }
    }
}

impl BufPool {
    /// Allocates a buffer of `len` bytes. Its [`PinnedBuf::capacity`] is that of its size class (the next power of two,
    /// at least 1 KiB), and it is aligned to the class or 2 MiB, whichever is less. New memory is zeroed; a recycled
    /// buffer holds earlier contents.
    ///
    /// # Errors
    /// [`AllocError::Empty`] for `len` 0, [`AllocError::TooLarge`] above [`MAX_BUF`](super::MAX_BUF),
    /// [`AllocError::Exhausted`] at the pool's limit, and [`AllocError::NoHugepages`] or [`AllocError::System`] if the
    /// system provides no memory.
    pub fn alloc(&self, len: usize) -> Result<PinnedBuf, AllocError> {
        let (at, capacity, block) = self.take(len)?;
        Ok(PinnedBuf::new(at, len, capacity, Memory::Block(block)))
    }
}

impl PinnedRegion {
    /// The whole region as one buffer.
    pub fn into_buf(self) -> PinnedBuf {
        let (at, len) = (self.at, self.len);
        PinnedBuf::new(at, len, len, Memory::Region(Box::new(self)))
    }
}

impl Deref for PinnedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` initialised bytes inside the allocation that `home` keeps. Parts never overlap, so nobody else
        // accesses them, and `&self` rules out writes through this buffer.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

impl DerefMut for PinnedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes this the only access.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for PinnedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for PinnedBuf {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl fmt::Debug for PinnedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PinnedBuf({} of {} bytes at {:#x})", self.len, self.capacity, self.addr())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(len: usize) -> PinnedBuf {
        let mut buf = PinnedBuf::unpinned(len);
        buf.iter_mut().enumerate().for_each(|(i, b)| *b = i as u8);
        buf
    }

    #[test]
    fn unpinned_is_zeroed_and_writable() {
        let mut buf = PinnedBuf::unpinned(5);
        assert_eq!(buf[..], [0; 5]);
        buf[4] = 9;
        assert_eq!((buf.len(), buf.capacity(), buf.backing()), (5, 5, Backing::Unlocked));
        assert_eq!(buf[..], [0, 0, 0, 0, 9]);
        assert!(PinnedBuf::unpinned(0).is_empty());
        let text = format!("{buf:?}");
        assert!(text.starts_with("PinnedBuf(5 of 5 bytes at 0x"), "{text}");
    }

    #[test]
    fn length_moves_within_capacity() {
        let mut buf = counting(8);
        buf.truncate(3);
        buf.truncate(7);
        assert_eq!(buf[..], [0, 1, 2]);
        buf.set_len(8);
        assert_eq!(buf[6..], [6, 7]);
    }

    #[test]
    #[should_panic(expected = "beyond the buffer's capacity of 4")]
    fn a_front_part_cannot_grow_into_the_back() {
        counting(8).split(4).0.set_len(5);
    }

    #[test]
    #[should_panic(expected = "split at 9")]
    fn split_beyond_the_end() {
        counting(8).split(9);
    }

    #[test]
    fn parts_are_disjoint_and_independent() {
        let mut whole = counting(10);
        whole.truncate(8);
        let start = whole.addr();
        let (mut front, back) = whole.split(2);
        let (mut middle, mut back) = back.split(3);
        assert_eq!([front.addr(), middle.addr(), back.addr()], [start, start + 2, start + 5]);
        assert_eq!((front.capacity(), middle.capacity(), back.capacity()), (2, 3, 5));
        front.fill(100);
        drop(front);
        middle[0] = 200;
        back.set_len(5);
        assert_eq!((&middle[..], &back[..]), (&[200, 3, 4][..], &[5, 6, 7, 8, 9][..]));
        let back = std::thread::spawn(move || back).join().unwrap();
        drop(middle);
        assert_eq!(back[0], 5);
    }

    #[test]
    fn empty_parts_are_fine() {
        let (front, back) = counting(3).split(0);
        assert_eq!((front.len(), &back[..]), (0, &[0, 1, 2][..]));
        let (front, back) = back.split(3);
        assert_eq!((&front[..], back.len()), (&[0, 1, 2][..], 0));
    }
}
