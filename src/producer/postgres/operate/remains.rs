//! What the database still holds of a stage, or a producer of it, that is forgotten. Cursors go; dead letters and gaps are data, and stay
//! until somebody removes them who was told of them.

use std::collections::BTreeMap;

use postgres_protocol::escape::escape_literal;
use tokio_postgres::Client;

use super::super::Target;
use super::super::cursor::{OwnTables, from_sql};
use super::error::OperateError;
use super::facts;
use crate::producer::remains::{Departed, RemainingData, Remains};
use crate::record::Offset;
use crate::stage::path::{replay_cursor, replay_of};

/// The condition that picks the rows of those that have departed, which every table of ours but that of tables can tell.
fn condition(departed: &Departed, with_replay: bool) -> String {
    let mut condition = format!(
        "stage = {} AND stage_path_id = {}",
        escape_literal(&departed.stage),
        escape_literal(&departed.path_id.to_string())
    );
    if let Some(producer) = &departed.producer {
        let mut names = vec![escape_literal(producer)];
        if with_replay {
            names.push(escape_literal(&replay_cursor(producer)));
        }
        condition += &format!(" AND producer IN ({})", names.join(", "));
    }
    condition
}

/// What there is, by producer; nothing is changed, not even made.
pub(super) async fn find(target: &Target, departed: &Departed) -> Result<Vec<Remains>, OperateError> {
    let session = facts::connect_only(target).await?;
    let (client, tables) = (&session.client, OwnTables::new(target.schema()));
    let mut found: BTreeMap<String, Remains> = BTreeMap::new();
    let mut of = |producer: &str, add: &mut dyn FnMut(&mut Remains)| {
        let remains = found.entry(producer.to_owned()).or_insert_with(|| Remains {
            database: format!("{target}, schema {}", target.schema()),
            producer: producer.to_owned(),
            ..Remains::default()
        });
        add(remains);
    };
    if is_there(client, tables.cursor()).await? {
        let sql = format!(
            "SELECT producer, next_offset FROM {} WHERE {} ORDER BY producer",
            tables.cursor(),
            condition(departed, true)
        );
        for row in client.query(&sql, &[]).await? {
            let (producer, next): (String, Offset) = (row.try_get(0)?, from_sql(row.try_get(1)?));
            let owner = replay_of(&producer).unwrap_or(&producer);
            of(owner, &mut |remains| {
                // That of an unfinished replay goes with the producer's own.
                remains.cursor.get_or_insert(next);
            });
        }
    }
    for (what, table) in [
        ("dead letters", tables.dead_letter()),
        ("recorded gaps", tables.gap()),
    ] {
        if !is_there(client, table).await? {
            continue;
        }
        let picked = condition(departed, false);
        let sql = format!("SELECT producer, count(*) FROM {table} WHERE {picked} GROUP BY producer");
        for row in client.query(&sql, &[]).await? {
            let (producer, rows): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
            let one = Departed {
                producer: Some(producer.clone()),
                ..departed.clone()
            };
            of(&producer, &mut |remains| {
                remains.data.push(RemainingData {
                    what,
                    rows: u64::try_from(rows).unwrap_or(0),
                    remove: format!("DELETE FROM {table} WHERE {}", condition(&one, false)),
                });
            });
        }
    }
    Ok(found.into_values().collect())
}

async fn is_there(client: &Client, table: &str) -> Result<bool, OperateError> {
    let row = client
        .query_one("SELECT to_regclass($1) IS NOT NULL", &[&table])
        .await?;
    Ok(row.try_get(0)?)
}

/// Removes the cursors, those of replays among them. Returns how many those were.
pub(super) async fn forget_cursors(target: &Target, departed: &Departed) -> Result<u64, OperateError> {
    let session = facts::connect_only(target).await?;
    let tables = OwnTables::new(target.schema());
    if !is_there(&session.client, tables.cursor()).await? {
        return Ok(0);
    }
    let delete = format!(
        "DELETE FROM {} WHERE {}",
        tables.cursor(),
        condition(departed, true)
    );
    session.client.batch_execute(&facts::begin_sql()).await?;
    let gone = session.client.execute(&delete, &[]).await?;
    session.client.batch_execute("COMMIT").await?;
    Ok(gone)
}
