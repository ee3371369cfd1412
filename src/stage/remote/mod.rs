//! A stage path through the engine that has it open: the client of `control.sock`.
//!
//! sled allows one process, so the engine serves its stages on a Unix socket in the stage path (`crate::control`), and
//! this module makes the same traits out of it: [`RemotePath`] is a [`StagePath`](super::path::StagePath), and its stages
//! are [`Stage`](super::Stage)s that are read and acknowledged, but never written.
//!
//! Invariants:
//! * What comes over the socket is verified as what comes from the disk is: every record by its checksum.
//! * An answer is only taken from the engine that the stage was last compared with: requests name the *life* of the engine
//!   that they are meant for, and another one refuses them. A new life is compared first: same path, and a past that holds
//!   all that was read.
//! * What is asked without waiting (bounds, cursors, counts) is answered from a mirror, which a stream of changes keeps up.
//!
//! What it leaves to others: who serves (`crate::control`), and whether to ask an engine or to open the files
//! ([`look`](super::look)).

mod client;
mod follow;
mod frames;
mod mirror;
mod path;
mod socket;
mod stage;
mod wire;

pub use client::ClientError;
pub use frames::{FrameError, RecordsHead, decode as decode_records, encode as encode_records};
pub use path::{Forgotten, RemotePath};
pub use socket::{ListenError, SOCKET_NAME, SocketFile};
pub use wire::{
    Ack, BatchParams, ErrorBody, ErrorKind, Identity, MAX_BODY_BYTES, OutageParams, PROTOCOL, RECORDS_TYPE,
    RecordParams, RequestErrorKind,
};
