//! Memory that system calls reach through pointers which are kept from call to call.
//!
//! The headers of recvmmsg(2) point to names, control buffers and slots. Setting these pointers for each call takes 150
//! ns for 128 headers. That adds 37 % to a turn that receives one datagram (measured on loopback). Therefore the
//! pointers are kept, and the memory behind them is owned by a raw pointer. A `Box` is the only valid way to its
//! content: whenever it is moved or borrowed mutably, every pointer kept elsewhere becomes invalid (Stacked Borrows and
//! Tree Borrows).

use std::ops::Range;
use std::ptr::NonNull;

/// A fixed number of elements on the heap. References to them last no longer than a borrow of this value; raw pointers
/// from [`KernelMemory::pointer`] stay valid until it is dropped, wherever it is moved.
pub(super) struct KernelMemory<T> {
    elements: NonNull<[T]>,
}

// SAFETY: it owns its elements as a `Box` does; no other thread has a reference to them.
unsafe impl<T: Send> Send for KernelMemory<T> {}

impl<T> KernelMemory<T> {
    /// Takes over the elements of a box.
    pub(super) fn new(elements: Box<[T]>) -> KernelMemory<T> {
        KernelMemory {
            elements: NonNull::from(Box::leak(elements)),
        }
    }

    /// Returns a pointer to the element at `index`, or to the end. It may be followed, also to the elements behind it,
    /// while no reference to them exists.
    ///
    /// # Panics
    /// Panics if `index` is larger than the number of elements.
    #[inline]
    pub(super) fn pointer(&self, index: usize) -> *mut T {
        assert!(index <= self.elements.len(), "a place of this memory");
        self.elements.as_ptr().cast::<T>().wrapping_add(index)
    }

    /// Returns the element at `index`.
    ///
    /// # Panics
    /// Panics if there is no such element.
    #[inline]
    pub(super) fn get(&self, index: usize) -> &T {
        &self.all()[index]
    }

    /// Returns all elements.
    #[inline]
    pub(super) fn all(&self) -> &[T] {
        // SAFETY: the elements were initialised by the box. System calls write to them only in functions that borrow
        // this value mutably.
        unsafe { self.elements.as_ref() }
    }

    /// Returns some of the elements, if they exist. No pointer to other elements becomes invalid.
    #[inline]
    pub(super) fn get_mut(&mut self, range: Range<usize>) -> Option<&mut [T]> {
        if range.start > range.end || range.end > self.elements.len() {
            return None;
        }
        let first = self.elements.as_ptr().cast::<T>().wrapping_add(range.start);
        // SAFETY: the elements exist, and the mutable borrow of this value excludes other references to them.
        Some(unsafe { std::slice::from_raw_parts_mut(first, range.len()) })
    }
}

impl<T> Drop for KernelMemory<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from a box, which nothing else owns.
        drop(unsafe { Box::from_raw(self.elements.as_ptr()) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kept pointer can be written through after the memory was moved, read as a whole and written elsewhere.
    #[test]
    fn kept_pointers_stay_valid() {
        let mut memory = KernelMemory::new(vec![0_u8; 8].into_boxed_slice());
        let kept = memory.pointer(3);
        memory.get_mut(4..8).expect("four elements").fill(1);
        assert_eq!(memory.all(), [0, 0, 0, 0, 1, 1, 1, 1]);
        let memory = std::thread::spawn(|| memory)
            .join()
            .expect("the memory came back");
        // SAFETY: the pointer is into `memory`, and no reference to it exists.
        unsafe { kept.write(7) };
        assert_eq!((memory.get(3), memory.get(4)), (&7, &1));
    }

    /// No range beyond the end is given out.
    #[test]
    fn ranges_are_checked() {
        let mut memory = KernelMemory::new(vec![0_u32; 4].into_boxed_slice());
        assert!(memory.get_mut(0..4).is_some());
        assert!(memory.get_mut(4..4).is_some_and(|none| none.is_empty()));
        assert!(memory.get_mut(3..5).is_none());
    }
}
