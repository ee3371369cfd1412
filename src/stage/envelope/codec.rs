//! Compression of payloads. Contexts and buffers are made once and used again.

use lz4_flex::block::{
    CompressTable, compress_into_with_table, decompress, decompress_into, get_maximum_output_size,
};
use zstd::zstd_safe::compress_bound;

use super::{EnvelopeError, MAX_PAYLOAD};

/// zstd's level: the higher ones cost several times the time for a few percent of space.
const ZSTD_LEVEL: i32 = 1;

/// How a payload is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Codec {
    /// Not at all. Also what is recorded when compression would not have shrunk a payload.
    None,
    /// lz4, block format.
    #[default]
    Lz4,
    /// zstd at level 1.
    Zstd,
}

impl Codec {
    /// The header's number for it.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Lz4 => 1,
            Self::Zstd => 2,
        }
    }

    /// The codec with this number in a header.
    pub(super) fn from_code(code: u8) -> Result<Self, EnvelopeError> {
        match code {
            0 => Ok(Self::None),
            1 => Ok(Self::Lz4),
            2 => Ok(Self::Zstd),
            found => Err(EnvelopeError::Unknown { what: "codec", found }),
        }
    }

    fn failed(self, error: &dyn std::fmt::Display) -> EnvelopeError {
        EnvelopeError::Codec {
            codec: self,
            reason: error.to_string(),
        }
    }
}

/// Compresses payloads of up to [`MAX_PAYLOAD`] bytes.
pub(super) enum Compressor {
    /// Keeps payloads as they are.
    None,
    /// The table is what lz4 would otherwise allocate for every payload.
    Lz4 { table: CompressTable, out: Vec<u8> },
    /// Made at the first payload, for making it can fail.
    Zstd {
        context: Option<zstd::bulk::Compressor<'static>>,
        out: Vec<u8>,
    },
}

impl Compressor {
    pub(super) fn new(codec: Codec) -> Self {
        match codec {
            Codec::None => Self::None,
            Codec::Lz4 => Self::Lz4 {
                table: CompressTable::default(),
                out: vec![0; get_maximum_output_size(MAX_PAYLOAD)],
            },
            Codec::Zstd => Self::Zstd {
                context: None,
                out: vec![0; compress_bound(MAX_PAYLOAD)],
            },
        }
    }

    /// The payload compressed, or as it is when that does not shrink it; and which of the two.
    pub(super) fn compress<'a>(&'a mut self, raw: &'a [u8]) -> Result<(Codec, &'a [u8]), EnvelopeError> {
        let (codec, compressed) = match self {
            Self::None => return Ok((Codec::None, raw)),
            Self::Lz4 { table, out } => {
                let len =
                    compress_into_with_table(raw, out, table).map_err(|error| Codec::Lz4.failed(&error))?;
                (Codec::Lz4, &out[..len])
            }
            Self::Zstd { context, out } => {
                let context = match context {
                    Some(context) => context,
                    None => context.insert(
                        zstd::bulk::Compressor::new(ZSTD_LEVEL)
                            .map_err(|error| Codec::Zstd.failed(&error))?,
                    ),
                };
                let len = context
                    .compress_to_buffer(raw, out.as_mut_slice())
                    .map_err(|error| Codec::Zstd.failed(&error))?;
                (Codec::Zstd, &out[..len])
            }
        };
        if compressed.len() < raw.len() {
            Ok((codec, compressed))
        } else {
            Ok((Codec::None, raw))
        }
    }
}

/// Undoes what [`Compressor`] did.
#[derive(Default)]
pub(super) struct Decompressor {
    /// Made at the first payload that needs it.
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl Decompressor {
    /// Appends the `raw_len` bytes that `stored` stands for to `out`. The caller has checked `raw_len` against its
    /// limit. When it fails, what `out` holds past its old length is of no use.
    pub(super) fn decompress(
        &mut self,
        codec: Codec,
        stored: &[u8],
        raw_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), EnvelopeError> {
        if codec == Codec::Lz4 && out.is_empty() {
            // What lz4 makes itself need not be zeroed before.
            *out = decompress(stored, raw_len).map_err(|error| codec.failed(&error))?;
            return Self::check_len(codec, out.len(), raw_len);
        }
        let start = out.len();
        out.resize(start + raw_len, 0);
        let target = &mut out[start..];
        let len = match codec {
            Codec::None => {
                if stored.len() == raw_len {
                    target.copy_from_slice(stored);
                }
                stored.len()
            }
            Codec::Lz4 => decompress_into(stored, target).map_err(|error| codec.failed(&error))?,
            Codec::Zstd => {
                let context = match &mut self.zstd {
                    Some(context) => context,
                    None => self
                        .zstd
                        .insert(zstd::bulk::Decompressor::new().map_err(|error| codec.failed(&error))?),
                };
                context
                    .decompress_to_buffer(stored, target)
                    .map_err(|error| codec.failed(&error))?
            }
        };
        Self::check_len(codec, len, raw_len)
    }

    fn check_len(codec: Codec, len: usize, raw_len: usize) -> Result<(), EnvelopeError> {
        if len == raw_len {
            Ok(())
        } else {
            Err(codec.failed(&"the payload is not as long as announced"))
        }
    }
}
