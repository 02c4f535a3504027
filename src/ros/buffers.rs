//! Buffers for large messages, used again once the middleware has let go of them.

use bytes::{Bytes, BytesMut};

/// Messages kept in sight; more than a writer ever holds back, so that none is lost for reuse in steady state.
const KEPT: usize = 24;

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
        if self.published.len() < KEPT {
            self.published.push(message.clone());
        }
        message
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
}
