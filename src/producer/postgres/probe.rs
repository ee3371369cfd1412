//! What would be made in the database: by the configuration alone (`check`), and by what stands there (`check --connect`,
//! which also looks at the rights). Changes nothing.

use tokio_postgres::Client;

use super::PostgresOptions;
use super::cursor::OwnTables;
use super::session::{Session, describe};
use super::table::{Router, Table, TableError};
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
    look(&session.client, target, &mut lines).await.map_err(refused)?;
    let mut is_held = false;
    for stage in stages {
        let mut router = Router::new(options.for_stage(target.schema(), stage)?);
        for table in router.tables_mut() {
            match look_at(&session.client, table, stage).await {
                Ok(found) => lines.extend(found),
                Err(TableError::Database { source, .. }) => return Err(refused(source)),
                Err(error) => {
                    is_held = true;
                    lines.push(format!("stage {stage}: delivery would be held: {error}"));
                }
            }
        }
    }
    if is_held {
        return Err(lines.join("\n"));
    }
    Ok(lines)
}

/// Looks at our own tables and at the rights.
async fn look(
    client: &Client,
    target: &Target,
    lines: &mut Vec<String>,
) -> Result<(), tokio_postgres::Error> {
    let schema = target.schema();
    for statement in OwnTables::new(schema).missing(client, schema).await? {
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
    Ok(())
}

/// Looks at one table.
async fn look_at(client: &Client, table: &mut Table, stage: &str) -> Result<Vec<String>, TableError> {
    table.load(client).await?;
    let name = table.name_sql().to_owned();
    let row = client
        .query_opt(
            "SELECT has_table_privilege(c.oid, 'INSERT'), pg_has_role(c.relowner, 'USAGE'), \
             has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'UPDATE'), \
             has_database_privilege(current_database(), 'TEMPORARY') \
             FROM pg_class c WHERE c.oid = to_regclass($1)",
            &[&name],
        )
        .await;
    let failed = |source| TableError::Database {
        table: name.clone(),
        source,
    };
    let Some(row) = row.map_err(failed)? else {
        return Ok(foreseen(table, stage, "would be"));
    };
    let may = |column| row.try_get::<_, bool>(column).map_err(failed);
    let (insert, own, update, temporary) = (may(0)?, may(1)?, may(2)?, may(3)?);
    let has_key = table.mapping().on_conflict.is_some();
    let mut lines = Vec::new();
    if !insert {
        lines.push(format!(
            "stage {stage}: the user may not insert into {name}: GRANT INSERT"
        ));
    } else if has_key && !(update && temporary) {
        lines.push(format!(
            "stage {stage}: on_conflict on {name} needs more rights: GRANT SELECT, UPDATE ON it, and GRANT TEMPORARY ON DATABASE"
        ));
    } else if let Some(sql) = table.foreseen() {
        lines.push(format!(
            "stage {stage}: table {name} exists, and would be changed so:"
        ));
        lines.extend(sql.lines().map(|line| format!("  {line}")));
    } else if own {
        lines.push(format!("stage {stage}: table {name} exists and takes rows"));
    }
    if !own {
        lines.push(format!(
            "stage {stage}: table {name} exists; new keys can't become columns, for the user does not own it"
        ));
    }
    Ok(lines)
}
