//! Files read back by the crate's reader: row groups, and how each type is stored.

use std::fs::File;

use ::parquet::file::reader::{FileReader as _, SerializedFileReader};
use ::parquet::record::Field;
use ::parquet::schema::printer::print_schema;
use socket_el::producer::postgres::PostgresOptions;
use socket_el::producer::postgres::table::MemoryTable;
use socket_el::record::{Message, Offset, Timestamp};

use super::*;

/// Writes messages for a mapping as a producer has it in `config.yml`, and reads the file back.
fn read_back(keys: &str, messages: &[String]) -> SerializedFileReader<File> {
    let options = socket_el::config::Section::read_text(keys, &Default::default(), |section| {
        PostgresOptions::read(section, "postgres")
    });
    let options = options.unwrap_or_else(|error| panic!("{error}")).unwrap();
    let mut table = MemoryTable::new(options.for_stage("public", "feed").unwrap(), "feed").unwrap();
    let message = |(number, text)| {
        let message = Message {
            payload: str::as_bytes(text),
            received_at: Timestamp::from_micros(1_795_508_323_062_716),
        };
        (Offset::new(number), message)
    };
    let numbered: Vec<_> = (0..)
        .zip(messages.iter().map(String::as_str))
        .map(message)
        .collect();
    table.learn(&numbered).unwrap();
    table.settle().unwrap();
    let columns: Vec<_> = table.columns().collect();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rows.parquet");
    let mut writer = begin(&path, false).unwrap()(&columns).unwrap();
    for (offset, message) in numbered {
        table.encode(offset, message);
        for row in table.rows().iter() {
            let datums: Vec<_> = table.datums(row).map(Result::unwrap).collect();
            writer.row(&datums).unwrap();
        }
    }
    writer.finish().unwrap();
    SerializedFileReader::new(File::open(&path).unwrap()).unwrap()
}

/// All rows, each with its fields as `name=value`.
fn rows(reader: &SerializedFileReader<File>) -> Vec<Vec<String>> {
    let row = |row: ::parquet::record::Row| {
        let fields = row
            .get_column_iter()
            .map(|(name, field)| format!("{name}={field}"));
        fields.collect::<Vec<_>>()
    };
    let rows = reader.get_row_iter(None).unwrap();
    rows.map(|read| row(read.unwrap())).collect()
}

#[test]
fn every_type_is_stored_as_readers_expect_it() {
    let keys = "metadata: true\ncolumns:\n  flag: boolean\n  small: smallint\n  int: integer\n  big: bigint\n  real: real\n  \
        double: double precision\n  declared: numeric(30,4)\n  free: numeric\n  wide: numeric\n  huge: numeric\n  text: text\n  \
        json: json\n  id: uuid\n  at: timestamptz\n  local: timestamp\n  day: date\n  time: time\n  net: cidr\n  \
        bytes: bytea\n  list: 'numeric[]'";
    let full = r#"{"flag":true,"small":-1,"int":2,"big":9007199254740993,"real":0.5,"double":0.1,"declared":"1.5","free":"1.40",
        "wide":"123456789012345678.25","huge":"1e60","text":"","json":{"a":1.0},"id":"00000000-0000-4000-8000-0000000000FF",
        "at":"1970-01-01T00:00:01Z","local":"1970-01-01T00:00:02","day":"1970-01-04","time":"00:00:05","net":"10.0.0.0/8",
        "bytes":"\\x00ff","list":[1,null,0.25]}"#;
    let more = r#"{"free":-0.00001306,"list":[]}"#;
    let reader = read_back(keys, &[full, more, "{}"].map(str::to_owned));
    let mut schema = Vec::new();
    print_schema(&mut schema, reader.metadata().file_metadata().schema());
    let schema = String::from_utf8(schema).unwrap();
    for stored in [
        "OPTIONAL BYTE_ARRAY _stage (STRING);",
        "OPTIONAL INT64 _offset;",
        "OPTIONAL INT64 _received_at (TIMESTAMP(MICROS,true));",
        "OPTIONAL BOOLEAN flag;",
        "OPTIONAL INT32 small (INTEGER(16,true));",
        "OPTIONAL INT32 int;",
        "OPTIONAL INT64 big;",
        "OPTIONAL FLOAT real;",
        "OPTIONAL DOUBLE double;",
        "OPTIONAL FIXED_LEN_BYTE_ARRAY (16) declared (DECIMAL(30,4));",
        "OPTIONAL INT64 free (DECIMAL(18,8));",
        "OPTIONAL FIXED_LEN_BYTE_ARRAY (16) wide (DECIMAL(38,2));",
        "OPTIONAL BYTE_ARRAY huge (STRING);",
        "OPTIONAL BYTE_ARRAY text (STRING);",
        "OPTIONAL BYTE_ARRAY json (STRING);",
        "OPTIONAL BYTE_ARRAY id (STRING);",
        "OPTIONAL INT64 at (TIMESTAMP(MICROS,true));",
        "OPTIONAL INT64 local (TIMESTAMP(MICROS,false));",
        "OPTIONAL INT32 day (DATE);",
        "OPTIONAL INT64 time (TIME(MICROS,false));",
        "OPTIONAL BYTE_ARRAY net (STRING);",
        "OPTIONAL BYTE_ARRAY bytes;",
        "OPTIONAL INT64 element (DECIMAL(18,2));",
    ] {
        assert!(schema.contains(stored), "{stored}\n{schema}");
    }
    let rows = rows(&reader);
    let huge = format!("huge=\"1{}\"", "0".repeat(60));
    let expected = [
        "_stage=\"feed\"",
        "_offset=0",
        "_received_at=2026-11-24 08:18:43.062716 +00:00",
        "flag=true",
        "small=-1",
        "int=2",
        "big=9007199254740993",
        "real=0.5",
        "double=0.1",
        "declared=1.5000",
        "free=1.40000000",
        "wide=123456789012345678.25",
        &huge,
        "text=\"\"",
        "json=\"{\"a\":1.0}\"",
        "id=\"00000000-0000-4000-8000-0000000000ff\"",
        "at=1970-01-01 00:00:01.000000 +00:00",
        "local=1970-01-01 00:00:02.000000 +00:00",
        "day=1970-01-04",
        "time=00:00:05.000000",
        "net=\"10.0.0.0/8\"",
        "bytes=[0, 255]",
        "list=[1.00, null, 0.25]",
    ];
    assert_eq!(rows[0], expected);
    assert!(rows[1].contains(&"free=-0.00001306".to_owned()), "{:?}", rows[1]);
    assert!(rows[1].contains(&"list=[]".to_owned()), "{:?}", rows[1]);
    assert!(
        rows[2].iter().skip(3).all(|field| field.ends_with("=null")),
        "{:?}",
        rows[2]
    );
}

#[test]
fn row_groups_are_bounded_by_rows_and_by_bytes() {
    let small: Vec<_> = (0..MAX_ROWS + 1)
        .map(|number| format!("{{\"n\":{number}}}"))
        .collect();
    // A message of 1 MiB becomes a text of as many bytes.
    let pad = "x".repeat(1 << 20);
    let large: Vec<_> = (0..70)
        .map(|number| format!("{{\"n\":{number},\"pad\":\"{pad}\"}}"))
        .collect();
    for (messages, groups) in [(small, [MAX_ROWS, 1]), (large, [64, 6])] {
        let reader = read_back("", &messages);
        let sizes = reader
            .metadata()
            .row_groups()
            .iter()
            .map(|group| group.num_rows());
        assert_eq!(sizes.collect::<Vec<_>>(), groups.map(|rows| rows as i64));
        let numbers =
            reader
                .get_row_iter(None)
                .unwrap()
                .map(|row| match row.unwrap().get_column_iter().next() {
                    Some((_, Field::Long(number))) => *number,
                    other => panic!("{other:?}"),
                });
        assert!(numbers.eq(0..messages.len() as i64));
    }
}

#[test]
fn a_file_without_rows_has_its_columns() {
    let reader = read_back("columns: { price: numeric }", &[]);
    assert_eq!(reader.metadata().file_metadata().num_rows(), 0);
    assert_eq!(
        reader.metadata().file_metadata().schema_descr().column(0).name(),
        "price"
    );
}
