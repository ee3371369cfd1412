//! A connection that gives way: whatever the server sends, and however fast, the other tasks of the thread have their turn. It tells
//! too whether anything was read, which is what the time of receipt hangs on.
//!
//! The WebSocket library reads on within one call for as long as there is something to read and no message is whole. A server that
//! sends nothing but empty fragments would hold a thread of the runtime in that call, and with it the control socket, timers and
//! other consumers. So after [`QUOTA_BYTES`] the connection says that there is nothing more, and is asked again at once.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::yield_now;

/// Bytes that are read before others have their turn: several hundred messages of the usual size.
pub(super) const QUOTA_BYTES: usize = 64 << 10;

/// Gives way while it is read.
#[derive(Debug)]
pub(super) struct Paced<S> {
    stream: S,
    /// Bytes that may still be read in this turn.
    left: usize,
    /// Whether anything was read since that was asked last.
    has_read: bool,
}

impl<S> Paced<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            left: QUOTA_BYTES,
            has_read: false,
        }
    }

    /// Whether anything was read since this was asked last.
    pub(super) fn take_has_read(&mut self) -> bool {
        std::mem::take(&mut self.has_read)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            self.left = QUOTA_BYTES;
            // Wakes this task behind the others, and behind what the system has to tell.
            ready!(pin!(yield_now()).poll(context));
        }
        let room = buffer.initialize_unfilled();
        let room_bytes = room.len().min(self.left);
        let mut part = ReadBuf::new(&mut room[..room_bytes]);
        let outcome = Pin::new(&mut self.stream).poll_read(context, &mut part);
        let read = part.filled().len();
        match outcome {
            Poll::Pending => self.left = QUOTA_BYTES,
            Poll::Ready(_) => self.left -= read,
        }
        self.has_read |= read > 0;
        buffer.advance(read);
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, repeat};

    use super::*;

    #[tokio::test]
    async fn who_always_has_more_to_say_is_interrupted_after_a_quota_and_heard_again() {
        let mut paced = Paced::new(repeat(b'x'));
        for _ in 0..3 {
            let mut read = 0;
            poll_fn(|context| {
                let mut room = [0; 10_000];
                loop {
                    let mut buffer = ReadBuf::new(&mut room);
                    assert!(!paced.take_has_read());
                    match Pin::new(&mut paced).poll_read(context, &mut buffer) {
                        Poll::Ready(outcome) => outcome.unwrap(),
                        Poll::Pending => return Poll::Ready(()),
                    }
                    assert!(paced.take_has_read());
                    assert!(buffer.filled().iter().all(|byte| *byte == b'x'));
                    read += buffer.filled().len();
                    assert!(read <= QUOTA_BYTES, "nobody else has a turn");
                }
            })
            .await;
            assert_eq!(read, QUOTA_BYTES);
        }
        let mut all = vec![0; 3 * QUOTA_BYTES + 1];
        paced.read_exact(&mut all).await.unwrap();
        assert!(all.iter().all(|byte| *byte == b'x'));
    }
}
