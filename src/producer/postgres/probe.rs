//! `check --connect`: connects, looks at the rights, and says what would be made. Changes nothing.

use super::PostgresOptions;
use super::cursor::OwnTables;
use super::session::{Session, describe};
use super::target::Target;

/// Tries the database once; a line for each thing found.
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
    look(&session, target, options, stages, &mut lines)
        .await
        .map_err(|error| format!("the database {target} refused to answer: {}", describe(&error)))?;
    Ok(lines)
}

async fn look(
    session: &Session,
    target: &Target,
    options: &PostgresOptions,
    stages: &[String],
    lines: &mut Vec<String>,
) -> Result<(), tokio_postgres::Error> {
    let schema = target.schema();
    let client = &session.client;
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
    for stage in stages {
        let table = options.table_for(stage);
        let row = client
            .query_opt(
                "SELECT has_table_privilege(c.oid, 'INSERT'), pg_has_role(c.relowner, 'USAGE') \
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2",
                &[&schema, &table],
            )
            .await?;
        lines.push(match row {
            None => format!("stage {stage}: table {schema}.{table} would be made from its first messages"),
            Some(row) if !row.try_get::<_, bool>(0)? => {
                format!("stage {stage}: the user may not insert into {schema}.{table}: GRANT INSERT")
            }
            Some(row) if !row.try_get::<_, bool>(1)? => format!(
                "stage {stage}: table {schema}.{table} exists; new keys can't become columns, for the user does not own it"
            ),
            Some(_) => format!("stage {stage}: table {schema}.{table} exists and takes rows"),
        });
    }
    Ok(())
}
