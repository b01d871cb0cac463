//! How deep turns run inside each other on this thread.
//!
//! An ask from a turn to an idle actor on the same node runs inside the caller's poll; a long chain
//! of them would overflow the stack, so past [`INLINE_MAX`] a turn is spawned instead.

use std::cell::Cell;

/// Turns that may run inside each other.
const INLINE_MAX: u8 = 16;

thread_local! {
    static DEPTH: Cell<u8> = const { Cell::new(0) };
}

/// One level, given back when dropped.
pub(crate) struct Level(());

/// Goes one level deeper, if there is room.
pub(crate) fn enter() -> Option<Level> {
    DEPTH.with(|depth| {
        if depth.get() >= INLINE_MAX {
            return None;
        }
        depth.set(depth.get() + 1);
        Some(Level(()))
    })
}

impl Drop for Level {
    fn drop(&mut self) {
        DEPTH.with(|depth| depth.set(depth.get().saturating_sub(1)));
    }
}
