//! The format's golden bytes, round trips, and every kind of damage that a record can come back with.

use super::*;
use crate::record::{Batch, Timestamp};
use crate::stage::{Outage, OutageKind, Skip, StagedBatch};

mod golden;
mod properties;

const STAGE: &str = "websocket_1";
const CODECS: [Codec; 3] = [Codec::None, Codec::Lz4, Codec::Zstd];

fn batch(messages: &[(&[u8], i64)]) -> Batch {
    let mut batch = Batch::with_capacity(messages.len(), 0);
    for (payload, micros) in messages {
        assert!(batch.push(payload, Timestamp::from_micros(*micros)));
    }
    batch
}

fn encode(codec: Codec, base: u64, batch: &Batch) -> Vec<Record> {
    let mut records = Vec::new();
    let base = Offset::new(base);
    let end = Encoder::new(codec)
        .encode(STAGE, base, base, batch, &mut records)
        .unwrap();
    assert_eq!(end, base.advanced_by(batch.len() as u64));
    records
}

fn outage() -> Outage {
    Outage {
        from: Timestamp::from_micros(1_700_000_000_000_000),
        to: Timestamp::from_micros(1_700_000_002_500_000),
        messages: 0,
        cause: "connection closed by the server (1006)".to_owned(),
        kind: OutageKind::Disconnected,
    }
}

fn open_record(record: &Record) -> Result<Sealed<'_>, EnvelopeError> {
    open(STAGE, &record.key, &record.value)
}

fn decode(records: &[Record]) -> Result<Vec<StagedBatch>, EnvelopeError> {
    let mut assembler = Assembler::new();
    let mut batches = Vec::new();
    for record in records {
        batches.extend(assembler.push(&open_record(record)?)?);
    }
    assert!(assembler.is_empty());
    Ok(batches)
}

/// Every message of these batches with its offset, payload and time.
fn messages(batches: &[StagedBatch]) -> Vec<(u64, Vec<u8>, i64)> {
    batches
        .iter()
        .flat_map(|staged| staged.messages_from(Offset::ZERO))
        .map(|(offset, m)| (offset.get(), m.payload.to_vec(), m.received_at.micros()))
        .collect()
}

fn messages_of(base: u64, batch: &Batch) -> Vec<(u64, Vec<u8>, i64)> {
    (base..)
        .zip(batch.iter())
        .map(|(offset, m)| (offset, m.payload.to_vec(), m.received_at.micros()))
        .collect()
}

/// Bytes that no codec can shrink.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

/// Gives a changed value the checksum that it would have been written with.
fn reseal(record: &mut Record) {
    let sum = [&record.key[..], &record.value[..60], &record.value[64..]]
        .iter()
        .fold(crc32c::crc32c(STAGE.as_bytes()), |sum, bytes| {
            crc32c::crc32c_append(sum, bytes)
        });
    record.value[60..64].copy_from_slice(&sum.to_le_bytes());
}

/// A record with `change` made to its value, and a checksum that fits.
fn forged(change: impl FnOnce(&mut Vec<u8>)) -> Record {
    let mut record = encode(Codec::Lz4, 7, &batch(&[(&[b'a'; 200], 5), (b"b", 6)])).remove(0);
    change(&mut record.value);
    reseal(&mut record);
    record
}

#[test]
fn an_empty_batch_becomes_no_record() {
    assert_eq!(encode(Codec::Lz4, 4, &Batch::default()), []);
}

#[test]
fn what_does_not_shrink_is_stored_as_it_is() {
    for codec in CODECS {
        let records = encode(codec, 0, &batch(&[(&noise(5000, 1), 1)]));
        assert_eq!(open_record(&records[0]).unwrap().header.codec, Codec::None);
    }
}

#[test]
fn a_small_message_before_and_after_a_huge_one_keeps_its_own_record() {
    let huge = noise(709_000, 3);
    let batch = batch(&[(b"before", 1), (&huge, 2), (b"after", 3)]);
    let records = encode(Codec::Zstd, 10, &batch);
    let keys: Vec<_> = records.iter().filter_map(|r| parse_key(&r.key)).collect();
    let parts = keys.iter().filter(|(base, _)| base.get() == 11).count();
    assert_eq!((parts, keys.len()), (11, 13));
    assert_eq!(messages(&decode(&records).unwrap()), messages_of(10, &batch));
}

#[test]
fn messages_that_just_fill_a_record_and_just_do_not_come_back_whole() {
    for missing in 0..80 {
        let filler = vec![1; MAX_PAYLOAD - missing];
        for contents in [
            [(&filler[..], i64::MAX), (b"x", 5)],
            [(b"x", 5), (&filler[..], i64::MIN)],
        ] {
            let batch = batch(&contents);
            let records = encode(Codec::None, 0, &batch);
            assert_eq!(messages(&decode(&records).unwrap()), messages_of(0, &batch));
        }
    }
}

#[test]
fn a_message_beyond_the_limit_is_refused_and_leaves_no_record_of_its_batch() {
    let largest = vec![0; MAX_MESSAGE];
    let records = encode(Codec::Lz4, 0, &batch(&[(&largest, i64::MIN)]));
    assert_eq!(decode(&records).unwrap()[0].batch.byte_len(), MAX_MESSAGE);

    let kept = encode(Codec::None, 0, &batch(&[(b"of the batch before", 1)]));
    let mut out = kept.clone();
    let full = [7; 60_000];
    let batch = batch(&[(&full, 1), (&full, 1), (&vec![0; MAX_MESSAGE + 1], 2)]);
    let at = Offset::new(1);
    let refused = Encoder::new(Codec::Lz4).encode(STAGE, at, at, &batch, &mut out);
    assert!(matches!(refused, Err(EnvelopeError::Limit { .. })), "{refused:?}");
    assert_eq!(out, kept);
}

#[test]
fn offsets_that_contradict_each_other_are_never_written() {
    let batch = batch(&[(b"x", 1)]);
    for (base, prev_end) in [(5, 6), (u64::MAX, 0)] {
        let mut records = Vec::new();
        let refused = Encoder::new(Codec::None).encode(
            STAGE,
            Offset::new(base),
            Offset::new(prev_end),
            &batch,
            &mut records,
        );
        assert!(matches!(refused, Err(EnvelopeError::Inconsistent { .. })));
        assert_eq!(records, []);
    }
    let at = Offset::ZERO;
    let refused = Encoder::new(Codec::None).encode_outage(STAGE, at, at, GAP_PART, &outage());
    assert!(matches!(refused, Err(EnvelopeError::Limit { .. })));
}

#[test]
fn a_cause_that_is_too_long_is_cut_at_a_character() {
    let long = Outage {
        cause: format!("x{}", "ü".repeat(5000)),
        ..outage()
    };
    let at = Offset::ZERO;
    let record = Encoder::new(Codec::None)
        .encode_outage(STAGE, at, at, 0, &long)
        .unwrap();
    let read = decode_outage(&open_record(&record).unwrap()).unwrap();
    assert_eq!(read.cause, format!("x{}", "ü".repeat(2047)));
}

#[test]
fn an_outage_of_a_kind_that_is_not_known_is_refused() {
    let at = Offset::ZERO;
    let outage = Outage {
        kind: OutageKind::DroppedNewest,
        ..outage()
    };
    let mut record = Encoder::new(Codec::None)
        .encode_outage(STAGE, at, at, 0, &outage)
        .unwrap();
    // The kind is the first of the last four bytes, which have no key and no numbers.
    let kind = record.value.len() - 4;
    assert_eq!(record.value[kind..], [1, 0, 0, 0]);
    record.value[kind] = 5;
    reseal(&mut record);
    let refused = decode_outage(&open_record(&record).unwrap());
    assert!(matches!(refused, Err(EnvelopeError::Inconsistent { .. })));
}

#[test]
fn every_single_bit_flip_of_key_or_value_is_refused() {
    let data = encode(Codec::Lz4, 7, &batch(&[(&[b'a'; 80], 5), (b"b", 6)])).remove(0);
    let at = Offset::new(7);
    let gap = Encoder::new(Codec::None)
        .encode_outage(STAGE, at, at, 1, &outage())
        .unwrap();
    for record in [data, gap] {
        assert!(open_record(&record).is_ok());
        for bit in 0..(record.key.len() + record.value.len()) * 8 {
            let mut damaged = record.clone();
            match bit / 8 {
                at @ 0..12 => damaged.key[at] ^= 1 << (bit % 8),
                at => damaged.value[at - 12] ^= 1 << (bit % 8),
            }
            let refused = open_record(&damaged);
            assert!(refused.is_err(), "bit {bit}");
            assert!(!matches!(refused, Err(EnvelopeError::Newer { .. })), "bit {bit}");
        }
    }
}

#[test]
fn every_cut_and_every_extension_is_refused() {
    let record = encode(Codec::Lz4, 7, &batch(&[(&[b'a'; 80], 5)])).remove(0);
    for len in 0..record.value.len() {
        let cut = open(STAGE, &record.key, &record.value[..len]);
        assert!(
            matches!(cut, Err(EnvelopeError::Truncated { .. })),
            "{len}: {cut:?}"
        );
    }
    let mut longer = record;
    longer.value.push(0);
    assert!(open_record(&longer).is_err());
    reseal(&mut longer);
    assert!(matches!(
        open_record(&longer),
        Err(EnvelopeError::Inconsistent { .. })
    ));
}

#[test]
fn a_record_of_another_stage_or_under_another_key_is_refused() {
    let record = encode(Codec::Lz4, 7, &batch(&[(b"a", 5)])).remove(0);
    let elsewhere = open("websocket_2", &record.key, &record.value);
    assert!(matches!(elsewhere, Err(EnvelopeError::Checksum { .. })));
    let misplaced = open(STAGE, &key(Offset::new(8), 0), &record.value);
    assert!(matches!(misplaced, Err(EnvelopeError::KeyMismatch { .. })));
    let short = open(STAGE, &record.key[..11], &record.value);
    assert_eq!(short, Err(EnvelopeError::KeyLength { found: 11 }));
}

#[test]
fn a_newer_version_is_refused_as_such_and_a_damaged_version_as_damage() {
    let newer = forged(|value| value[4] = 3);
    assert_eq!(open_record(&newer), Err(EnvelopeError::Newer { version: 3 }));
    let of_outages = forged(|value| value[4] = 2);
    assert!(matches!(
        open_record(&of_outages),
        Err(EnvelopeError::Inconsistent { .. })
    ));
    let mut damaged = forged(|_| {});
    damaged.value[4] = 3;
    assert!(matches!(
        open_record(&damaged),
        Err(EnvelopeError::Checksum { .. })
    ));
}

#[test]
fn fields_that_cannot_be_are_refused_even_with_a_fitting_checksum() {
    let forgeries: [(&str, usize, &[u8]); 9] = [
        ("magic", 3, b"2"),
        ("version 0", 4, &[0]),
        ("unknown codec", 5, &[3]),
        ("unknown kind", 6, &[2]),
        ("flags", 7, &[1]),
        ("no parts", 20, &[0]),
        ("the batch before ends later", 24, &[8]),
        ("no message", 32, &[0]),
        ("raw length", 36, &(MAX_PAYLOAD as u32 + 1).to_le_bytes()),
    ];
    for (what, at, bytes) in forgeries {
        let record = forged(|value| value[at..at + bytes.len()].copy_from_slice(bytes));
        assert!(open_record(&record).is_err(), "{what}");
    }
}

#[test]
fn a_payload_that_contradicts_its_header_is_refused() {
    let forgeries: [(&str, usize, u8); 5] = [
        ("fewer messages", 32, 1),
        ("shorter raw payload", 36, 9),
        ("another codec", 5, 2),
        ("another first time", 44, 9),
        ("another last time", 52, 9),
    ];
    for (what, at, byte) in forgeries {
        let record = forged(|value| value[at] = byte);
        let sealed = open_record(&record).unwrap();
        assert!(Assembler::new().push(&sealed).is_err(), "{what}");
    }
}

#[test]
fn parts_must_follow_each_other_and_a_missing_end_costs_only_its_own_message() {
    let huge = noise(150_000, 5);
    let large = encode(Codec::None, 3, &batch(&[(&huge, 1)]));
    let other = encode(Codec::None, 9, &batch(&[(b"next", 2)])).remove(0);
    let parts: Vec<_> = large.iter().map(|r| open_record(r).unwrap()).collect();
    let mut assembler = Assembler::new();

    assert!(matches!(
        assembler.push(&parts[1]),
        Err(EnvelopeError::PartUnexpected { part: 1, .. })
    ));
    assert!(assembler.push(&parts[0]).unwrap().is_none());
    assert!(matches!(
        assembler.push(&parts[2]),
        Err(EnvelopeError::PartUnexpected { part: 2, .. })
    ));
    assert!(assembler.is_empty());

    assert!(assembler.push(&parts[0]).unwrap().is_none());
    assert!(!assembler.is_empty());
    let next = open_record(&other).unwrap();
    let incomplete = assembler.push(&next).unwrap_err();
    assert!(matches!(
        incomplete,
        EnvelopeError::PartsIncomplete {
            have: 1,
            parts: 3,
            ..
        }
    ));
    let read = assembler.push(&next).unwrap().unwrap();
    assert_eq!(messages(&[read]), [(9, b"next".to_vec(), 2)]);
}

#[test]
fn gaps_and_messages_are_not_taken_for_each_other() {
    let at = Offset::ZERO;
    let gap = Encoder::new(Codec::None)
        .encode_outage(STAGE, at, at, 0, &outage())
        .unwrap();
    let data = encode(Codec::None, 0, &batch(&[(b"a", 1)])).remove(0);
    let wrong = EnvelopeError::WrongKind { base: at };
    let pushed = Assembler::new().push(&open_record(&gap).unwrap());
    assert_eq!(pushed.unwrap_err(), wrong);
    assert_eq!(decode_outage(&open_record(&data).unwrap()).unwrap_err(), wrong);
}
