//! What holds for any batch, any outage and any bytes.

use proptest::prelude::*;

use super::*;

prop_compose! {
    /// Messages of all sizes: mostly small, some that fill a record, a few that need several.
    fn any_message()(
        len in prop_oneof![
            4 => Just(0_usize), 20 => 1..300_usize, 4 => 300..40_000_usize,
            2 => (MAX_PAYLOAD - 40)..(MAX_PAYLOAD + 40), 1 => 70_000..300_000_usize,
        ],
        seed in any::<u64>(),
        dense in any::<bool>(),
        at in prop_oneof![any::<i64>(), 1_700_000_000_000_000..1_700_000_100_000_000_i64],
    ) -> (Vec<u8>, i64) {
        (if dense { noise(len, seed) } else { vec![seed as u8; len] }, at)
    }
}

fn any_kind() -> impl Strategy<Value = OutageKind> {
    let skip = (prop::option::of(".{0,100}"), any::<u64>(), any::<u64>());
    prop_oneof![
        Just(OutageKind::Disconnected),
        Just(OutageKind::DroppedNewest),
        Just(OutageKind::TooLarge),
        prop::option::of(skip.prop_map(|(key, first, last)| Skip { key, first, last }))
            .prop_map(OutageKind::Sequence),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_batch_comes_back_whole_from_records_within_the_limit(
        contents in prop::collection::vec(any_message(), 1..40),
        base in 0..u64::MAX - 100,
        codec in prop::sample::select(&CODECS[..]),
    ) {
        let mut batch = Batch::default();
        for (payload, at) in &contents {
            prop_assert!(batch.push(payload, Timestamp::from_micros(*at)));
        }
        let records = encode(codec, base, &batch);
        let mut end = base;
        for record in &records {
            prop_assert!(record.value.len() <= MAX_STORED);
            let header = open_record(record).unwrap().header;
            prop_assert_eq!(header.prev_end.get(), end);
            prop_assert_eq!(header.key(), record.key);
            if header.is_last_part() {
                end = header.end().get();
            }
        }
        prop_assert!(records.is_sorted_by(|a, b| a.key < b.key));
        prop_assert_eq!(messages(&decode(&records).unwrap()), messages_of(base, &batch));
    }

    #[test]
    fn no_bytes_make_opening_or_decoding_panic(
        mut value in prop::collection::vec(any::<u8>(), 0..300),
        version in 0..4_u8,
        codec in 0..4_u8,
        payload_len in any::<bool>(),
    ) {
        if value.len() >= 64 {
            let stored_len = value.len() as u32 - 64;
            value[..8].copy_from_slice(&[b'S', b'E', b'L', b'1', version, codec, 0, 0]);
            value[8..44].fill(0);
            value[20] = 1;
            value[32] = 1;
            value[36..40].copy_from_slice(&if payload_len { stored_len } else { 5000 }.to_le_bytes());
            value[40..44].copy_from_slice(&stored_len.to_le_bytes());
        }
        let mut record = Record { key: key(Offset::ZERO, 0), value };
        if record.value.len() >= 64 {
            reseal(&mut record);
        }
        if let Ok(sealed) = open_record(&record) {
            drop(Assembler::new().push(&sealed));
            drop(decode_outage(&sealed));
        }
    }

    #[test]
    fn outages_come_back_whole(
        from in any::<i64>(),
        to in any::<i64>(),
        missed in any::<u64>(),
        cause in ".{0,300}",
        kind in any_kind(),
    ) {
        let outage = Outage {
            from: Timestamp::from_micros(from),
            to: Timestamp::from_micros(to),
            messages: missed,
            cause,
            kind,
        };
        let head = Offset::new(9);
        let record = Encoder::new(Codec::Zstd).encode_outage(STAGE, head, head, 3, &outage).unwrap();
        prop_assert_eq!(record.key, key(head, GAP_PART | 3));
        let sealed = open_record(&record).unwrap();
        prop_assert_eq!(sealed.header.end(), head);
        prop_assert_eq!(decode_outage(&sealed).unwrap(), outage);
    }
}
