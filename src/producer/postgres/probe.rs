//! What would be made in the database: by the configuration alone (`check`), and by what stands there (`check --connect`,
//! which also looks at the rights). Changes nothing.

use tokio_postgres::Client;

use super::PostgresOptions;
use super::cursor::OwnTables;
use super::session::{Session, describe};
use super::table::{NewKeys, Router, Table, TableError};
use super::target::Target;

/// The tables of the stages, as far as the configuration tells them; a line for each thing.
pub(super) fn foresee(
    target: &Target,
    options: &PostgresOptions,
    stages: &[String],
) -> Result<Vec<String>, String> {
    let mut lines = Vec::new();
    for stage in stages {
        let router = Router::new(options.for_stage(target.schema(), stage)?);
        for table in router.tables() {
            lines.extend(foreseen(table, stage, "is"));
        }
    }
    Ok(lines)
}

fn foreseen(table: &Table, stage: &str, is: &str) -> Vec<String> {
    let name = table.name_sql();
    let Some(sql) = table.foreseen() else {
        let conflict = table.mapping().on_conflict.as_ref();
        let key = conflict.map_or(String::new(), |conflict| {
            format!(", with the primary key ({})", conflict.key.join(", "))
        });
        return vec![format!(
            "stage {stage}: table {name} {is} made from its first messages{key}"
        )];
    };
    let mut lines = vec![format!("stage {stage}: table {name} {is} made so:")];
    lines.extend(sql.lines().map(|line| format!("  {line}")));
    lines
}

/// Tries the database once; a line for each thing found. An error when it can't be used, or delivery would be held.
pub(super) async fn probe(
    target: &Target,
    options: &PostgresOptions,
    stages: &[String],
) -> Result<Vec<String>, String> {
    let unusable = |error| format!("can't use the database {target}: {error}");
    let session = Session::open(target).await.map_err(unusable)?;
    session
        .refuse_transaction_pooling(target)
        .await
        .map_err(unusable)?;
    let mut lines = vec![format!(
        "connected to {}, database {}",
        session.peer(),
        target.database()
    )];
    let refused = |error| format!("the database {target} refused to answer: {}", describe(&error));
    let client = &session.client;
    let tables = OwnTables::new(target.schema());
    let may_make = look(client, target, &tables, &mut lines).await.map_err(refused)?;
    let delivering = denied_in_delivery(client, &tables).await.map_err(refused)?;
    let mut is_held = !may_make.own_tables || !delivering.is_empty();
    lines.extend(delivering);
    let mut is_made = false;
    for stage in stages {
        let mut router = Router::new(options.for_stage(target.schema(), stage)?);
        for table in router.tables_mut() {
            match look_at(client, table, stage).await {
                Ok(found) => {
                    is_made |= !found.exists;
                    is_held |= found.lacks_rights || !found.exists && !may_make.tables;
                    lines.extend(found.lines);
                }
                Err(TableError::Database { source, .. }) => return Err(refused(source)),
                Err(error) => {
                    is_held = true;
                    lines.push(format!("stage {stage}: delivery would be held: {error}"));
                }
            }
        }
    }
    if is_made {
        // The making of a table is recorded.
        let recording = denied(client, tables.table(), &["SELECT", "INSERT", "UPDATE"]).await;
        let recording = recording.map_err(refused)?;
        is_held |= recording.is_some();
        lines.extend(recording);
    }
    if is_held {
        return Err(lines.join("\n"));
    }
    Ok(lines)
}

/// What the user may make in the schema.
struct MayMake {
    tables: bool,
    /// Those of ours that are missing; with none that is so.
    own_tables: bool,
}

/// What the user may not do with our own tables that every delivery does, a line for each table. Those that are missing will be its
/// own.
async fn denied_in_delivery(
    client: &Client,
    tables: &OwnTables,
) -> Result<Vec<String>, tokio_postgres::Error> {
    let mut lines = Vec::new();
    for (table, rights) in [
        (tables.cursor(), &["SELECT", "INSERT", "UPDATE"][..]),
        (tables.dead_letter(), &["SELECT", "INSERT"]),
        (tables.gap(), &["INSERT"]),
    ] {
        lines.extend(denied(client, table, rights).await?);
    }
    Ok(lines)
}

/// What to grant, when the user lacks one of these rights on a table that is there.
async fn denied(
    client: &Client,
    table: &str,
    rights: &[&str],
) -> Result<Option<String>, tokio_postgres::Error> {
    let row = client
        .query_one(
            "SELECT coalesce(bool_and(has_table_privilege(to_regclass($1)::oid, r)), true) FROM unnest($2::text[]) r",
            &[&table, &rights],
        )
        .await?;
    let may: bool = row.try_get(0)?;
    let rights = rights.join(", ");
    Ok((!may).then(|| format!("the user lacks rights on {table} that delivery needs: GRANT {rights} ON it")))
}

/// Looks at our own tables and at the rights.
async fn look(
    client: &Client,
    target: &Target,
    tables: &OwnTables,
    lines: &mut Vec<String>,
) -> Result<MayMake, tokio_postgres::Error> {
    let schema = target.schema();
    let missing = tables.missing(client, schema).await?;
    for statement in &missing {
        lines.push(format!("would run: {statement}"));
    }
    let rights = client
        .query_one(
            "SELECT n.oid IS NOT NULL, coalesce(has_schema_privilege(n.oid, 'CREATE'), false), \
                    has_database_privilege(current_database(), 'CREATE') \
             FROM (SELECT 1) one LEFT JOIN pg_namespace n ON n.nspname = $1",
            &[&schema],
        )
        .await?;
    let (exists, in_schema, in_database): (bool, bool, bool) =
        (rights.try_get(0)?, rights.try_get(1)?, rights.try_get(2)?);
    if !exists && !in_database {
        lines.push(format!(
            "schema {schema} does not exist, and the user may not make it: GRANT CREATE ON DATABASE, or make it"
        ));
    } else if exists && !in_schema {
        lines.push(format!(
            "the user may not make tables in schema {schema}: GRANT CREATE ON SCHEMA"
        ));
    }
    let tables = if exists { in_schema } else { in_database };
    Ok(MayMake {
        tables,
        own_tables: tables || missing.is_empty(),
    })
}

/// What was found of a table.
struct Found {
    exists: bool,
    /// Whether the user may not fill it, or not add what the configuration names.
    lacks_rights: bool,
    lines: Vec<String>,
}

/// Looks at one table.
async fn look_at(client: &Client, table: &mut Table, stage: &str) -> Result<Found, TableError> {
    table.load(client).await?;
    let name = table.name_sql().to_owned();
    let row = client
        .query_opt(
            "SELECT has_table_privilege(c.oid, 'INSERT'), pg_has_role(c.relowner, 'USAGE'), \
             has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'UPDATE'), \
             has_database_privilege(current_database(), 'TEMPORARY'), row_security_active(c.oid) \
             FROM pg_class c WHERE c.oid = to_regclass($1)",
            &[&name],
        )
        .await;
    let failed = |source| TableError::Database {
        table: name.clone(),
        source,
    };
    let Some(row) = row.map_err(failed)? else {
        return Ok(Found {
            exists: false,
            lacks_rights: false,
            lines: foreseen(table, stage, "would be"),
        });
    };
    let may = |column| row.try_get::<_, bool>(column).map_err(failed);
    let (insert, own, update, temporary) = (may(0)?, may(1)?, may(2)?, may(3)?);
    let is_by_row = may(4)?;
    let has_key = table.mapping().on_conflict.is_some();
    // COPY into the table itself is refused then; rows with a key come by another statement.
    let refuses_copy = is_by_row && !has_key;
    let lacks_more = has_key && !(update && temporary);
    let foreseen = table.foreseen();
    let lacks_rights = !insert || refuses_copy || lacks_more || !own && foreseen.is_some();
    let mut lines = Vec::new();
    if !insert {
        lines.push(format!(
            "stage {stage}: the user may not insert into {name}: GRANT INSERT"
        ));
    } else if refuses_copy {
        lines.push(format!(
            "stage {stage}: row-level security of {name} applies to the user, and takes no COPY: load as a role with BYPASSRLS, or as the owner"
        ));
    } else if lacks_more {
        lines.push(format!(
            "stage {stage}: on_conflict on {name} needs more rights: GRANT SELECT, UPDATE ON it, and GRANT TEMPORARY ON DATABASE"
        ));
    } else if let Some(sql) = foreseen {
        lines.push(if own {
            format!("stage {stage}: table {name} exists, and would be changed so:")
        } else {
            format!(
                "stage {stage}: delivery would be held: table {name} lacks columns that the configuration names, and only its owner can add \
                 them:"
            )
        });
        lines.extend(sql.lines().map(|line| format!("  {line}")));
    } else if own {
        lines.push(format!("stage {stage}: table {name} exists and takes rows"));
    }
    if !own {
        let new_keys = match (table.mapping().new_keys, table.has_extra()) {
            (NewKeys::Evolve, true) => "values of new keys stand in _extra",
            (NewKeys::Evolve, false) => {
                "a new key would hold the stage. Add `_extra jsonb` for them, or set new_keys to freeze or discard"
            }
            (NewKeys::Discard, true) => {
                "they are dropped, and values that do not fit their columns stand in _extra"
            }
            (NewKeys::Discard, false) => {
                "they are dropped, and what fits no column is a dead letter, until it has the column `_extra jsonb`"
            }
            (NewKeys::Freeze, _) => {
                "what fits no column is a dead letter, which a column _extra would not change"
            }
        };
        lines.push(format!(
            "stage {stage}: table {name} exists; new keys can't become columns, for the user does not own it: {new_keys}"
        ));
    }
    Ok(Found {
        exists: true,
        lacks_rights,
        lines,
    })
}
