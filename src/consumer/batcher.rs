//! The batcher.
/// The batcher.
pub struct Batcher {}
