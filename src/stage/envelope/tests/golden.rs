//! The frozen bytes of format versions 1 and 2. They may never be changed: what is on disks has to be read.
//!
//! What is read back is held for every codec. What is written is held where the bytes are ours alone; a newer release of a
//! compression library may write other bytes that read the same.

use super::*;

const BASE: u64 = 0x0102_0304_0506_0708;

/// `{"seq":1}`, an empty message and `{"seq":2}`, not compressed.
const UNCOMPRESSED: (&str, &str) = (
    "010203040506070800000000",
    "53454c31 01 00 00 00 0807060504030201 00000000 01000000 0807060504030201 03000000 25000000 25000000 \
     00401e18240a0600 f4411e18240a0600 6ac5a3b9 \
     03090009 03fd00803c3048140c0002fbe603 12 7b22736571223a317d7b22736571223a327d",
);

/// 300 times `a`, and 10 µs before it (clocks are set back) 70 times `b`; lz4.
const LZ4: (&str, &str) = (
    "010203040506070800000000",
    "53454c31 01 01 00 00 0807060504030201 00000000 01000000 0807060504030201 02000000 85010000 26000000 \
     00401e18240a0600 f63f1e18240a0600 003afc18 \
     ff0502fb2c014602fd00803c3048140c0013fb7201610100ff191f6201002c60626262626262",
);

/// The same, zstd.
const ZSTD: (&str, &str) = (
    "010203040506070800000000",
    "53454c31 01 02 00 00 0807060504030201 00000000 01000000 0807060504030201 02000000 85010000 28000000 \
     00401e18240a0600 f63f1e18240a0600 7a32cbab \
     28b52ffd608500f50000a802fb2c014602fd00803c3048140c0013fb72016162020002500145054c",
);

/// 70,000 times `c`: one message in two parts, zstd.
const PARTS: [(&str, &str); 2] = [
    (
        "010203040506070800000000",
        "53454c31 01 02 00 00 0807060504030201 00000000 02000000 0807060504030201 01000000 c0ff0000 28000000 \
         00401e18240a0600 00401e18240a0600 1cedc866 \
         28b52ffd60c0fef50000b001fc7011010001fd00803c3048140c00fc701101006301004eff3a6802",
    ),
    (
        "010203040506070800000001",
        "53454c31 01 02 00 00 0807060504030201 01000000 02000000 0807060504030201 01000000 c5110000 13000000 \
         00401e18240a0600 00401e18240a0600 916ef3c6 \
         28b52ffd60c5104d00001063630100c0d1032c",
    ),
];

/// An outage of 2.5 s.
const GAP: (&str, &str) = (
    "010203040506070880000005",
    "53454c31 01 00 01 00 0807060504030201 05000080 01000000 0807060504030201 00000000 3a000000 3a000000 \
     00401e18240a0600 a0654418240a0600 0fea8265 \
     fd00803c3048140c00 fd40cb883048140c00 00 \
     26636f6e6e656374696f6e20636c6f736564206279207468652073657276657220283130303629",
);

/// The same stretch as a hole in the source's numbers, version 2: 10 messages, `BTC` from 11 to 20.
const HOLE: (&str, &str) = (
    "010203040506070880000006",
    "53454c31 02 00 01 00 0807060504030201 06000080 01000000 0807060504030201 00000000 20000000 20000000 \
     00401e18240a0600 a0654418240a0600 f7879d16 \
     fd00803c3048140c00 fd40cb883048140c00 0a 04686f6c65 03 01 03425443 0b 14",
);

fn hole() -> Outage {
    Outage {
        messages: 10,
        cause: "hole".to_owned(),
        kind: OutageKind::Sequence(Some(Skip {
            key: Some("BTC".to_owned()),
            first: 11,
            last: 20,
        })),
        ..outage()
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits
        .chunks(2)
        .map(|pair| (pair[0] << 4 | pair[1]) as u8)
        .collect()
}

fn golden((key, value): (&str, &str)) -> Record {
    Record {
        key: bytes(key).try_into().unwrap(),
        value: bytes(value),
    }
}

fn three_messages() -> Batch {
    batch(&[
        (br#"{"seq":1}"#, 1_700_000_000_000_000),
        (b"", 1_700_000_000_000_001),
        (br#"{"seq":2}"#, 1_700_000_000_000_500),
    ])
}

fn repetitive() -> Batch {
    batch(&[
        (&[b'a'; 300], 1_700_000_000_000_000),
        (&[b'b'; 70], 1_699_999_999_999_990),
    ])
}

fn in_parts() -> Batch {
    batch(&[(&[b'c'; 70_000], 1_700_000_000_000_000)])
}

#[test]
fn records_of_version_1_read_back_whatever_their_codec() {
    let cases = [
        (vec![golden(UNCOMPRESSED)], Codec::None, three_messages()),
        (vec![golden(LZ4)], Codec::Lz4, repetitive()),
        (vec![golden(ZSTD)], Codec::Zstd, repetitive()),
        (PARTS.map(golden).to_vec(), Codec::Zstd, in_parts()),
    ];
    for (records, codec, batch) in cases {
        assert_eq!(open_record(&records[0]).unwrap().header.codec, codec);
        assert_eq!(messages(&decode(&records).unwrap()), messages_of(BASE, &batch));
    }
    assert_eq!(
        decode_outage(&open_record(&golden(GAP)).unwrap()).unwrap(),
        outage()
    );
}

#[test]
fn outages_that_say_more_are_read_and_written_in_version_2() {
    let written = Encoder::new(Codec::Zstd)
        .encode_outage(STAGE, Offset::new(BASE), Offset::new(BASE), 6, &hole())
        .unwrap();
    assert!(written == golden(HOLE), "{}", hex(&written.value));
    assert_eq!(
        decode_outage(&open_record(&golden(HOLE)).unwrap()).unwrap(),
        hole()
    );
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn records_without_compression_are_written_byte_for_byte() {
    assert_eq!(
        encode(Codec::None, BASE, &three_messages())[0].value,
        golden(UNCOMPRESSED).value
    );
    let at = Offset::new(BASE);
    let gap = Encoder::new(Codec::Lz4)
        .encode_outage(STAGE, at, at, 5, &outage())
        .unwrap();
    assert!(gap == golden(GAP), "{gap:?}");
}

#[test]
fn headers_of_compressed_records_are_written_as_ever() {
    let cases = [
        (vec![golden(LZ4)], Codec::Lz4, repetitive()),
        (vec![golden(ZSTD)], Codec::Zstd, repetitive()),
        (PARTS.map(golden).to_vec(), Codec::Zstd, in_parts()),
    ];
    for (expected, codec, batch) in cases {
        let written = encode(codec, BASE, &batch);
        assert_eq!(written.len(), expected.len());
        for (written, expected) in written.iter().zip(&expected) {
            let (mut ours, theirs) = (
                open_record(written).unwrap().header,
                open_record(expected).unwrap().header,
            );
            ours.stored_len = theirs.stored_len;
            assert_eq!((written.key, ours), (expected.key, theirs));
        }
    }
}
