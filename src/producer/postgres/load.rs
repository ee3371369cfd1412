//! Rows on their way into a table, inside an open transaction: by COPY, and where rows have a key by way of a temporary
//! table. All rows must be accounted for: each is written, or gives way to another of its key.

use std::pin::pin;

use bytes::Bytes;
use futures_util::SinkExt as _;

use super::session::Session;
use super::table::{ConflictAction, CopyRows, Loading, Upsert};
use super::transaction::Failure;

/// Rows are sent in pieces of this size: large enough to cost few messages, small enough not to be held twice.
const COPY_PIECE_BYTES: usize = 128 << 10;
/// The signature, no flags, no extension of the header.
const COPY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// A field count of -1 ends the rows.
const COPY_TRAILER: &[u8] = &[0xff, 0xff];

/// Sends rows, and returns how many of them gave way to another of their key. What `loading` prepares must be there.
pub(super) async fn load(session: &mut Session, loading: &Loading, rows: &CopyRows) -> Result<u64, Failure> {
    let sent = rows.len() as u64;
    let swallowed = |sent, stored| Failure::RowsSwallowed {
        table: loading.table().to_owned(),
        sent,
        stored,
    };
    let stored = copy(session, loading.copy_sql(), rows).await?;
    if stored != sent {
        return Err(swallowed(sent, stored));
    }
    let Some(upsert) = loading.upsert() else {
        return Ok(0);
    };
    let (wanted, written) = merge(session, upsert).await?;
    match upsert.action {
        // A row of each key is written, be it there or not.
        ConflictAction::Update if written != wanted => Err(swallowed(wanted, written)),
        ConflictAction::Update | ConflictAction::Ignore => Ok(sent.saturating_sub(written)),
    }
}

/// How many keys there are, and for how many a row was written.
async fn merge(session: &mut Session, upsert: &Upsert) -> Result<(u64, u64), tokio_postgres::Error> {
    let statement = session.statement(&upsert.merge).await?;
    let row = session.client.query_one(&statement, &[]).await?;
    let count = |column| {
        let count: i64 = row.try_get(column)?;
        Ok(u64::try_from(count).unwrap_or(0))
    };
    Ok((count(0)?, count(1)?))
}

async fn copy(session: &mut Session, copy_sql: &str, rows: &CopyRows) -> Result<u64, tokio_postgres::Error> {
    let statement = session.statement(copy_sql).await?;
    let mut sink = pin!(session.client.copy_in::<_, Bytes>(&statement).await?);
    let pieces = std::iter::once(COPY_HEADER)
        .chain(rows.bytes().chunks(COPY_PIECE_BYTES))
        .chain(std::iter::once(COPY_TRAILER));
    for piece in pieces {
        if sink.feed(Bytes::copy_from_slice(piece)).await.is_err() {
            // The connection is gone; what the server said last, if anything, is what `finish` returns.
            break;
        }
    }
    sink.finish().await
}
