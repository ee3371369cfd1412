//! The questions to the catalog, and the reading of its answers.
//!
//! Everything is asked by the simple protocol, so that no prepared statement is left in a session, and with names that
//! no `search_path` bends.

use postgres_types::{Kind, Type};
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use super::column_type::{ColumnType, ScalarType};
use super::encode::Encoder;
use super::error::TableError;
use super::name::{TableName, literal, quoted};

/// A row of the catalog's answer.
pub(super) struct Answer<'a> {
    pub(super) row: &'a SimpleQueryRow,
    pub(super) table: &'a TableName,
}

impl<'a> Answer<'a> {
    pub(super) fn optional(&self, column: &str) -> Option<&'a str> {
        self.row.try_get(column).ok().flatten()
    }

    pub(super) fn text(&self, column: &str) -> Result<&'a str, TableError> {
        self.optional(column)
            .ok_or_else(|| self.unexpected(format!("{column} is missing")))
    }

    pub(super) fn flag(&self, column: &str) -> Result<bool, TableError> {
        Ok(self.text(column)? == "t")
    }

    pub(super) fn number<T: std::str::FromStr>(&self, column: &str) -> Result<T, TableError> {
        let text = self.text(column)?;
        text.parse()
            .map_err(|_| self.unexpected(format!("{column} is {text:?}")))
    }

    fn unexpected(&self, what: String) -> TableError {
        TableError::Catalog {
            table: self.table.to_string(),
            what,
        }
    }
}

/// Refuses what is not a table, and tables whose rows do not last.
pub(super) fn refuse_unfit(answer: &Answer<'_>) -> Result<(), TableError> {
    let table = answer.table.to_string();
    let what = match answer.text("kind")? {
        "r" | "p" => None,
        "f" => {
            return Err(TableError::NotDurable {
                table,
                what: "a foreign table",
            });
        }
        "v" => Some("a view"),
        "m" => Some("a materialized view"),
        "S" => Some("a sequence"),
        "i" | "I" => Some("an index"),
        "c" => Some("a composite type"),
        _ => Some("something else"),
    };
    if let Some(what) = what {
        return Err(TableError::NotATable { table, what });
    }
    let what = if answer.text("persistence")? != "p" {
        "an UNLOGGED or temporary table"
    } else if answer.flag("unfit_partition")? {
        "a table with UNLOGGED or foreign partitions"
    } else {
        return Ok(());
    };
    Err(TableError::NotDurable { table, what })
}

/// The encoder of a column's base type. `made`: whether we made the column for the values that came; then strings
/// alone are text.
pub(super) fn encoder(
    answer: &Answer<'_>,
    made: bool,
    declared: Option<&ColumnType>,
) -> Result<Encoder, TableError> {
    let modifier: i32 = answer.number("modifier")?;
    let any = !made || declared.is_some();
    if answer.text("base_kind")? == "e" {
        return Ok(Encoder::Label);
    }
    if answer.text("base_name")? == "citext" {
        return Ok(Encoder::Text { most: None, any });
    }
    let Some(base) = Type::from_oid(answer.number("base")?) else {
        return Ok(Encoder::Unsupported);
    };
    if let Kind::Array(element) = base.kind() {
        let encoder = of_base(element, modifier, any, declared);
        return Ok(match encoder {
            Encoder::Unsupported => Encoder::Unsupported,
            encoder => Encoder::Array {
                element: Box::new(encoder),
                oid: element.oid(),
            },
        });
    }
    Ok(of_base(&base, modifier, any, declared))
}

/// The encoder of a column that we make with this type, as [`encoder`] finds it once the column stands in the catalog.
pub(super) fn encoder_of(column_type: ColumnType, is_declared: bool) -> Encoder {
    let (base, modifier) = base_of(column_type.scalar);
    let encoder = of_base(&base, modifier, is_declared, Some(&column_type));
    if !column_type.array {
        return encoder;
    }
    Encoder::Array {
        element: Box::new(encoder),
        oid: base.oid(),
    }
}

/// A type as the catalog has it, with its modifier.
fn base_of(scalar: ScalarType) -> (Type, i32) {
    /// What the server adds to modifiers: bytes that once were a header.
    const HEADER: i32 = 4;
    let (base, limit) = match scalar {
        ScalarType::Boolean => (Type::BOOL, None),
        ScalarType::SmallInt => (Type::INT2, None),
        ScalarType::Integer => (Type::INT4, None),
        ScalarType::BigInt => (Type::INT8, None),
        ScalarType::Numeric(limit) => {
            let packed = limit.map(|(precision, scale)| i32::from(precision) << 16 | i32::from(scale));
            (Type::NUMERIC, packed)
        }
        ScalarType::Real => (Type::FLOAT4, None),
        ScalarType::DoublePrecision => (Type::FLOAT8, None),
        ScalarType::Text => (Type::TEXT, None),
        // The longest that can be declared is far within.
        ScalarType::Varchar(most) => (Type::VARCHAR, i32::try_from(most).ok()),
        ScalarType::Json => (Type::JSON, None),
        ScalarType::Jsonb => (Type::JSONB, None),
        ScalarType::Uuid => (Type::UUID, None),
        ScalarType::Timestamptz(_) => (Type::TIMESTAMPTZ, None),
        ScalarType::Timestamp(_) => (Type::TIMESTAMP, None),
        ScalarType::Date => (Type::DATE, None),
        ScalarType::Time => (Type::TIME, None),
        ScalarType::Inet => (Type::INET, None),
        ScalarType::Cidr => (Type::CIDR, None),
        ScalarType::Bytea { .. } => (Type::BYTEA, None),
    };
    (base, limit.map_or(-1, |limit| limit + HEADER))
}

/// The encoder of one of PostgreSQL's own types.
fn of_base(base: &Type, modifier: i32, any: bool, declared: Option<&ColumnType>) -> Encoder {
    let unit = declared.and_then(ColumnType::unit);
    match *base {
        Type::BOOL => Encoder::Bool,
        Type::INT2 => Encoder::Int2,
        Type::INT4 => Encoder::Int4,
        Type::INT8 => Encoder::Int8,
        Type::FLOAT4 => Encoder::Float4,
        Type::FLOAT8 => Encoder::Float8,
        Type::NUMERIC => Encoder::Numeric {
            limit: numeric_limit(modifier),
        },
        Type::TEXT => Encoder::Text { most: None, any },
        // The modifier counts four bytes that once were a header.
        Type::VARCHAR | Type::BPCHAR => Encoder::Text {
            most: u32::try_from(modifier - 4).ok(),
            any,
        },
        Type::JSON => Encoder::Json,
        Type::JSONB => Encoder::Jsonb,
        Type::TIMESTAMPTZ => Encoder::Timestamptz { unit },
        Type::TIMESTAMP => Encoder::Timestamp { unit },
        Type::DATE => Encoder::Date,
        Type::TIME => Encoder::Time,
        Type::UUID => Encoder::Uuid,
        Type::INET => Encoder::Inet,
        Type::CIDR => Encoder::Cidr,
        Type::BYTEA => Encoder::Bytea {
            base64: declared.is_some_and(|declared| declared.scalar == ScalarType::Bytea { base64: true }),
        },
        _ => Encoder::Unsupported,
    }
}

/// Precision and scale as the server packs them: the scale is a signed number of 11 bits.
fn numeric_limit(modifier: i32) -> Option<(u16, i16)> {
    let packed = u32::try_from(modifier).ok()?.checked_sub(4)?;
    let precision = u16::try_from(packed >> 16).ok()?;
    let scale = i16::try_from(packed & 0x7FF).ok()?;
    Some((precision, if scale >= 0x400 { scale - 0x800 } else { scale }))
}

/// Names the table in errors of the database.
pub(super) fn database(table: &TableName, source: tokio_postgres::Error) -> TableError {
    TableError::Database {
        table: table.to_string(),
        source,
    }
}

/// The relation of this name, as `c`.
fn relation(table: &TableName) -> String {
    format!(
        "pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         AND n.nspname = {} AND c.relname = {}",
        literal(&table.schema),
        literal(&table.table)
    )
}

/// One row with one text: changes with everything that the encoding of rows depends on. NULL when there is no table.
pub(super) fn fingerprint_sql(table: &TableName) -> String {
    format!(
        "SELECT (SELECT c.oid::text || c.relkind::text || c.relpersistence::text || ':' || \
         pg_catalog.hashtextextended(coalesce(pg_catalog.string_agg(pg_catalog.concat_ws(',', a.attnum, \
         a.atttypid, a.atttypmod, a.attgenerated, a.attidentity, a.atthasdef, a.attname), ';' \
         ORDER BY a.attnum), ''), 0)::text \
         FROM {} LEFT JOIN pg_catalog.pg_attribute a \
         ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
         GROUP BY c.oid, c.relkind, c.relpersistence) AS fingerprint",
        relation(table)
    )
}

/// A row for each column, or one without a name for a table that has none; no row when there is no table.
pub(super) fn catalog_sql(table: &TableName) -> String {
    format!(
        "WITH RECURSIVE rel AS (SELECT c.oid, c.relkind, c.relpersistence FROM {relation}), \
         att AS (SELECT a.attname, a.attnum, a.atttypid, a.atttypmod, a.attgenerated, a.attidentity, a.atthasdef, \
         a.attcollation \
         FROM rel JOIN pg_catalog.pg_attribute a \
         ON a.attrelid = rel.oid AND a.attnum > 0 AND NOT a.attisdropped), \
         base AS (SELECT att.attnum, t.oid, att.atttypmod AS modifier, t.typtype, t.typbasetype, \
         t.typtypmod, t.typname, t.typdefault IS NOT NULL AS has_default \
         FROM att JOIN pg_catalog.pg_type t ON t.oid = att.atttypid \
         UNION ALL SELECT base.attnum, t.oid, base.typtypmod, t.typtype, t.typbasetype, t.typtypmod, \
         t.typname, base.has_default OR t.typdefault IS NOT NULL \
         FROM base JOIN pg_catalog.pg_type t ON base.typtype = 'd' AND t.oid = base.typbasetype) \
         SELECT rel.relkind AS kind, rel.relpersistence AS persistence, \
         EXISTS (SELECT FROM pg_catalog.pg_partition_tree(rel.oid::regclass) p \
         JOIN pg_catalog.pg_class c ON c.oid = p.relid \
         WHERE c.relkind = 'f' OR c.relpersistence <> 'p') AS unfit_partition, \
         ({fingerprint}) AS fingerprint, \
         att.attname AS name, att.attnum AS number, \
         pg_catalog.format_type(att.atttypid, att.atttypmod) AS type_name, \
         pg_catalog.col_description(rel.oid, att.attnum) AS comment, \
         (SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(l.collname) \
         FROM pg_catalog.pg_collation l JOIN pg_catalog.pg_namespace n ON n.oid = l.collnamespace \
         WHERE l.oid = att.attcollation AND l.oid <> (SELECT t.typcollation FROM pg_catalog.pg_type t \
         WHERE t.oid = att.atttypid)) AS collation, \
         att.attgenerated = '' AND att.attidentity <> 'a' AS writable, \
         att.atthasdef OR att.attidentity <> '' OR base.has_default AS has_default, \
         base.oid AS base, base.modifier, base.typtype AS base_kind, base.typname AS base_name \
         FROM rel LEFT JOIN att ON true \
         LEFT JOIN base ON base.attnum = att.attnum AND base.typtype <> 'd' \
         ORDER BY att.attnum",
        relation = relation(table),
        fingerprint = fingerprint_sql(table),
    )
}

/// What the catalog says about a unique index that is wanted.
pub(super) struct UniqueIndex {
    pub(super) is_there: bool,
    pub(super) is_partitioned: bool,
    /// Such indexes of deferrable constraints. The server refuses to use them, and any other beside them.
    pub(super) deferrable: Option<String>,
    /// Columns by which the table is partitioned, and which are not among those that are wanted.
    pub(super) missing: Option<String>,
}

/// Looks for a unique index on these columns, in any order, by which rows of one key can be found.
pub(super) async fn unique_index(
    client: &Client,
    table: &TableName,
    columns: &[&str],
) -> Result<UniqueIndex, TableError> {
    let mut names = columns.to_vec();
    names.sort_unstable();
    let names: Vec<_> = names.into_iter().map(literal).collect();
    let names = names.join(", ");
    let question = format!(
        "WITH fit AS (SELECT i.indimmediate, i.indexrelid FROM {relation} JOIN pg_catalog.pg_index i ON i.indrelid = c.oid \
         WHERE i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL \
         AND (SELECT pg_catalog.array_agg(a.attname::text ORDER BY a.attname::text COLLATE \"C\") \
         FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY k (number, place) \
         JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number \
         WHERE k.place <= i.indnkeyatts) = ARRAY[{names}]::text[]) \
         SELECT EXISTS (SELECT FROM fit) AS is_there, c.relkind = 'p' AS is_partitioned, \
         (SELECT pg_catalog.string_agg(indexrelid::pg_catalog.regclass::text, ', ') FROM fit WHERE NOT indimmediate) \
         AS deferrable, \
         (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY a.attnum) \
         FROM pg_catalog.pg_partitioned_table p JOIN pg_catalog.pg_attribute a ON a.attrelid = p.partrelid \
         AND a.attnum = ANY (p.partattrs::int2[]) AND a.attname::text <> ALL (ARRAY[{names}]::text[]) \
         WHERE p.partrelid = c.oid) AS missing FROM {relation}",
        relation = relation(table)
    );
    let answer = client
        .simple_query(&question)
        .await
        .map_err(|source| database(table, source))?;
    for message in &answer {
        if let SimpleQueryMessage::Row(row) = message {
            let answer = Answer { row, table };
            return Ok(UniqueIndex {
                is_there: answer.flag("is_there")?,
                is_partitioned: answer.flag("is_partitioned")?,
                deferrable: answer.optional("deferrable").map(str::to_owned),
                missing: answer.optional("missing").map(str::to_owned),
            });
        }
    }
    // Dropped meanwhile: the fingerprint tells.
    Ok(UniqueIndex {
        is_there: true,
        is_partitioned: false,
        deferrable: None,
        missing: None,
    })
}

/// The statement that makes such an index.
pub(super) fn make_unique_index(table: &TableName, columns: &[&str], is_partitioned: bool) -> String {
    // Without a lock that keeps writers out, where the server can.
    let concurrently = if is_partitioned { "" } else { " CONCURRENTLY" };
    let columns: Vec<_> = columns.iter().map(|column| quoted(column)).collect();
    format!(
        "CREATE UNIQUE INDEX{concurrently} ON {table} ({})",
        columns.join(", ")
    )
}
