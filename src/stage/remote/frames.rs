//! Records as they travel: stored bytes, framed. All numbers are little-endian.
//!
//! ```text
//! u32   length of the head
//! head  JSON: where to read on, the gaps in between, and a glance at the stage
//! u32   how many records
//! each: u8 length of the key, the key, u32 length of the value, the value
//! ```
//!
//! Nothing may follow. A record says itself whether it is whole ([`envelope::open`](crate::stage::envelope::open)).

use serde::{Deserialize, Serialize};

use crate::record::Offset;
use crate::stage::Gap;
use crate::stage::path::{Glance, RecordPage, StoredRecord};

/// What stands before the records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordsHead {
    /// See [`RecordPage::next`].
    pub next: Offset,
    /// See [`RecordPage::gaps`].
    pub gaps: Vec<Gap>,
    /// The stage after the read; without its list of gaps. `None` when there is no such stage.
    pub glance: Option<Glance>,
}

/// The frames are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the records that came can't be taken apart")]
pub struct FrameError;

/// A page in frames. Blocks of more than 4 GiB can't be: a record is 64 KiB at most.
#[must_use]
pub fn encode(page: &RecordPage, glance: Option<Glance>) -> Vec<u8> {
    let head = RecordsHead {
        next: page.next,
        gaps: page.gaps.clone(),
        glance,
    };
    // Maps with strings as keys and plain fields always serialise.
    let head = serde_json::to_vec(&head).unwrap_or_default();
    let bytes: usize = page
        .records
        .iter()
        .map(|record| record.key.len() + record.value.len() + 5)
        .sum();
    let mut frames = Vec::with_capacity(head.len() + bytes + 8);
    put_len(&mut frames, head.len());
    frames.extend_from_slice(&head);
    put_len(&mut frames, page.records.len());
    for record in &page.records {
        frames.push(u8::try_from(record.key.len()).unwrap_or(u8::MAX));
        frames.extend_from_slice(&record.key);
        put_len(&mut frames, record.value.len());
        frames.extend_from_slice(&record.value);
    }
    frames
}

fn put_len(frames: &mut Vec<u8>, len: usize) {
    frames.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
}

/// The page that the frames hold, and the glance that came with it.
///
/// # Errors
/// When they are no frames; what they claim is never believed beyond their length.
pub fn decode(frames: &[u8]) -> Result<(RecordPage, Option<Glance>), FrameError> {
    let mut rest = frames;
    let head_len = take_len(&mut rest)?;
    let head: RecordsHead = serde_json::from_slice(take(&mut rest, head_len)?).map_err(|_| FrameError)?;
    let count = take_len(&mut rest)?;
    let mut records = Vec::new();
    for _ in 0..count {
        let key_len = *take(&mut rest, 1)?.first().ok_or(FrameError)?;
        let key = take(&mut rest, key_len.into())?.to_vec();
        let value_len = take_len(&mut rest)?;
        let value = take(&mut rest, value_len)?.to_vec();
        records.push(StoredRecord { key, value });
    }
    if !rest.is_empty() {
        return Err(FrameError);
    }
    let page = RecordPage {
        records,
        gaps: head.gaps,
        next: head.next,
    };
    Ok((page, head.glance))
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], FrameError> {
    let (taken, left) = rest.split_at_checked(len).ok_or(FrameError)?;
    *rest = left;
    Ok(taken)
}

fn take_len(rest: &mut &[u8]) -> Result<usize, FrameError> {
    let (len, left) = rest.split_first_chunk::<4>().ok_or(FrameError)?;
    *rest = left;
    Ok(u32::from_le_bytes(*len) as usize)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::Timestamp;
    use crate::stage::GapCause;

    fn page() -> RecordPage {
        let record = |number: u8| StoredRecord {
            key: vec![number; 12],
            value: vec![number; 100],
        };
        RecordPage {
            records: vec![record(1), record(2)],
            gaps: vec![Gap {
                from: Offset::new(3),
                to: Offset::new(9),
                messages: None,
                cause: GapCause::Lost,
                why: Some("gone".to_owned()),
                noticed_at: Timestamp::from_micros(1),
                period: None,
            }],
            next: Offset::new(9),
        }
    }

    #[test]
    fn a_page_survives_its_frames_and_no_cut_or_longer_one_is_taken_for_it() {
        let frames = encode(&page(), None);
        assert_eq!(decode(&frames).unwrap(), (page(), None));
        for len in 0..frames.len() {
            assert_eq!(decode(&frames[..len]), Err(FrameError), "cut at {len}");
        }
        let longer = [&frames[..], &[0]].concat();
        assert_eq!(decode(&longer), Err(FrameError));
    }

    proptest! {
        #[test]
        fn no_bytes_at_all_make_the_decoder_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }
}
