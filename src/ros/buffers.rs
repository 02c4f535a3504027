//! Buffers for large messages, used again once the middleware has let go of them.

use bytes::{Bytes, BytesMut};

/// Messages kept in sight at most. RustDDS lets go of what a reliable subscription has acknowledged every 6 s only, all at
/// once: so many are on their way where 30 a second are published.
const KEPT: usize = 200;
/// Their bytes at most. What is beyond is allocated for each message and freed by the middleware.
const KEPT_BYTES: usize = 256 * 1024 * 1024;

/// Recycles the memory of published messages.
#[derive(Debug, Default)]
pub struct MessageBuffers {
    published: Vec<Bytes>,
}

impl MessageBuffers {
    /// No buffer yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { published: Vec::new() }
    }

    /// An empty buffer: one that was published before and nobody holds any more, or a new one.
    pub fn take(&mut self) -> BytesMut {
        let free = self.published.iter().position(Bytes::is_unique).map(|index| self.published.swap_remove(index));
        let mut buffer = free.and_then(|bytes| bytes.try_into_mut().ok()).unwrap_or_default();
        buffer.clear();
        buffer
    }

    /// The finished message, to be published; its memory comes back from [`Self::take`] later.
    pub fn finish(&mut self, buffer: BytesMut) -> Bytes {
        let message = buffer.freeze();
        let kept: usize = self.published.iter().map(Bytes::len).sum();
        if self.published.len() < KEPT && kept + message.len() <= KEPT_BYTES {
            self.published.push(message.clone());
        }
        message
    }

    /// Frees what nobody holds any more, where nothing is published for a while.
    pub fn release(&mut self) {
        self.published.retain(|message| !message.is_unique());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_when_the_message_is_gone() {
        let mut buffers = MessageBuffers::new();
        let mut first = buffers.take();
        first.extend_from_slice(&[7; 4096]);
        let address = first.as_ptr();
        let message = buffers.finish(first);
        let body = message.slice(4..);
        drop(message);
        // A part is still being sent: the memory must not be touched.
        let other = buffers.take();
        assert_ne!(other.as_ptr(), address);
        assert_eq!(body[0], 7);
        drop(body);
        let again = buffers.take();
        assert_eq!((again.as_ptr(), again.len()), (address, 0));
        assert!(again.capacity() >= 4096);
    }

    /// Publishes so many messages that are let go of all at once; gives how many of them needed new memory.
    fn burst(buffers: &mut MessageBuffers, messages: usize) -> usize {
        let mut new = 0;
        let mut published = Vec::new();
        for _ in 0..messages {
            let mut buffer = buffers.take();
            new += usize::from(buffer.capacity() == 0);
            buffer.extend_from_slice(&[7; 4096]);
            published.push(buffers.finish(buffer));
        }
        new
    }

    #[test]
    fn what_is_held_back_for_six_seconds_at_thirty_a_second_is_used_again() {
        let mut buffers = MessageBuffers::new();
        assert_eq!(burst(&mut buffers, 190), 190);
        assert_eq!(burst(&mut buffers, 190), 0);
    }

    #[test]
    fn memory_is_kept_within_bounds_and_freed_where_nothing_is_published() {
        let mut buffers = MessageBuffers::new();
        burst(&mut buffers, KEPT + 10);
        assert_eq!(buffers.published.len(), KEPT);
        let held = buffers.published[0].clone();
        buffers.release();
        assert_eq!(buffers.published, [held], "the middleware has it still");
        // Never written to, so the system gives none of it.
        let quarter = KEPT_BYTES / 4;
        let large: Vec<Bytes> = (0..5).map(|_| buffers.finish(BytesMut::zeroed(quarter))).collect();
        assert_eq!((large.len(), buffers.published.len()), (5, 4), "the small one and three of a quarter each");
    }
}
