//! What has to be read back, and its comparison with what the table holds: by the server, in SQL.

use std::collections::BTreeMap;

use super::case::{Case, NUMBER, NewKeys, Step, existing_name, quoted};
use crate::kinds::is_same_inferred;
use crate::rig::Rig;

/// What stands there, in SQL.
fn at_path(json: &str, path: &[Step]) -> String {
    let steps = path.iter().map(|step| match step {
        Step::Key(key) => literal(key),
        Step::Index(index) => format!("'{index}'"),
    });
    format!(
        "({json} #> ARRAY[{}]::text[])",
        steps.collect::<Vec<_>>().join(", ")
    )
}

fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// A column as it stands in the table.
struct Found {
    name: String,
    sql_type: String,
    key: Option<String>,
}

async fn columns(rig: &Rig) -> Vec<Found> {
    let rows = rig
        .rows(
            "SELECT attname, format_type(atttypid, NULL), \
             CASE WHEN col_description(attrelid, attnum) LIKE 'socket-el key: %' \
             THEN substr(col_description(attrelid, attnum), 16)::jsonb #>> '{}' END \
             FROM pg_attribute WHERE attrelid = 'feed.t'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        )
        .await;
    rows.into_iter()
        .map(|mut row| Found {
            key: row.pop().unwrap(),
            sql_type: row.pop().unwrap().unwrap(),
            name: row.pop().unwrap().unwrap(),
        })
        .collect()
}

/// What has to be read back.
#[derive(Default)]
pub(super) struct Expected {
    /// Offset, record, record, message, columns that must hold their value.
    pub(super) records: Vec<(u64, usize, String, String, Vec<String>)>,
    /// Offset, message.
    pub(super) whole: Vec<(u64, String)>,
    pub(super) rows: u64,
}

impl Expected {
    pub(super) async fn write(&self, rig: &Rig) {
        let client = &rig.client;
        client
            .batch_execute(
                "DROP TABLE IF EXISTS src, whole; CREATE TABLE src (n bigint, r bigint, j json, root json, must text[]); \
                 CREATE TABLE whole (n bigint, root json)",
            )
            .await
            .unwrap();
        let insert = client
            .prepare("INSERT INTO src SELECT $1, $2, $3::text::json, $4::text::json, $5")
            .await
            .unwrap();
        for (offset, index, record, message, must) in &self.records {
            let (offset, index) = (i64::try_from(*offset).unwrap(), i64::try_from(*index).unwrap());
            client
                .execute(&insert, &[&offset, &index, record, message, must])
                .await
                .unwrap();
        }
        let insert = client
            .prepare("INSERT INTO whole SELECT $1, $2::text::json")
            .await
            .unwrap();
        for (offset, message) in &self.whole {
            let offset = i64::try_from(*offset).unwrap();
            client.execute(&insert, &[&offset, message]).await.unwrap();
        }
    }
}

/// What the columns that new keys got should not be. `keyed` has names and types by key, `named` the keys that are not new.
fn of_the_table(case: &Case, keyed: &BTreeMap<String, (String, String)>, named: &[String]) -> Vec<String> {
    let new: Vec<_> = keyed.iter().filter(|(key, _)| !named.contains(key)).collect();
    let mut differences = Vec::new();
    if case.max_columns.is_some_and(|most| new.len() > most)
        || case.new_keys != NewKeys::Evolve && !new.is_empty()
    {
        differences.push(format!("columns of new keys: {new:?}"));
    }
    let rounded = new
        .iter()
        .filter(|(_, (_, sql_type))| case.exact && sql_type == "double precision");
    differences
        .extend(rounded.map(|column| format!("double precision in spite of numbers: numeric: {column:?}")));
    differences
}

/// Compares the whole table with what has to stand there; what differs, in words.
pub(super) async fn differences(rig: &Rig, case: &Case) -> Vec<String> {
    let found = columns(rig).await;
    let has = |name: &str| found.iter().any(|column| column.name == name);
    let extra = if has("_extra") { "t._extra" } else { "NULL::jsonb" };
    let message = if has("_message") {
        "t._message"
    } else {
        "NULL::jsonb"
    };
    let number = if has(NUMBER) {
        format!("coalesce(t.{NUMBER}, {extra}->>'{NUMBER}')")
    } else {
        format!("({extra}->>'{NUMBER}')")
    };
    rig.client
        .batch_execute(&format!(
            "DROP VIEW IF EXISTS both_; DROP VIEW IF EXISTS numbered; \
             CREATE VIEW numbered AS SELECT _offset AS _row_n, {number}::bigint AS _row_r, \
             {extra} AS _x, {message} AS _m, t.* FROM feed.t t; \
             CREATE VIEW both_ AS SELECT src.n AS _n, src.r AS _r, src.j AS _j, src.root AS _root, src.must AS _must, t.* FROM src JOIN numbered t ON t._row_n = src.n AND t._row_r = src.r"
        ))
        .await
        .unwrap();
    // What is compared, the condition, and what to show where it is not met.
    let mut conditions: Vec<(String, String, String)> = Vec::new();
    let mut demand = |what: String, condition: String, shown: &str| {
        conditions.push((what, condition, shown.to_owned()));
    };
    demand("no message in _message".to_owned(), "_m IS NULL".to_owned(), "_m");
    let own = ["_stage", "_offset", "_received_at", "_extra", "_message"];
    let mut keyed: BTreeMap<String, (String, String)> = BTreeMap::new();
    for column in found.iter().filter(|column| !own.contains(&column.name.as_str())) {
        let key = column.key.clone().unwrap_or_else(|| {
            let existing = case
                .columns
                .iter()
                .find(|known| existing_name(&known.name) == column.name);
            existing.map_or_else(|| column.name.clone(), |known| known.name.clone())
        });
        keyed.insert(key, (quoted(&column.name), column.sql_type.clone()));
    }
    let mut named = Vec::new();
    let asked = case
        .columns
        .iter()
        .map(|column| {
            (
                &column.name,
                column.kind,
                "_j",
                column.place(),
                column.path.is_some(),
            )
        })
        .chain(
            case.include
                .iter()
                .map(|(name, path)| (name, None, "_root", path.clone(), true)),
        );
    for (name, kind, from, place, is_path) in asked {
        let value = at_path(from, &place);
        named.push(name.clone());
        let (column, sql_type) = keyed
            .get(name)
            .cloned()
            .unwrap_or_else(|| ("NULL::text".to_owned(), "text".to_owned()));
        let is_same = match kind.filter(|_| keyed.contains_key(name)) {
            Some(kind)
                if case
                    .columns
                    .iter()
                    .any(|known| known.name == *name && (known.declared || known.exists)) =>
            {
                kind.is_same(&column, &value)
            }
            _ => is_same_inferred(&sql_type, &column, &value),
        };
        let key = literal(name);
        let not_in_extra = if is_path {
            "true".to_owned()
        } else {
            format!("NOT coalesce(_x ? {key}, false)")
        };
        let in_extra = format!(
            "coalesce(_x->{key} = {value}::jsonb OR _x->({key} || '_') = {value}::jsonb OR _x->({key} || '__') = {value}::jsonb, false)"
        );
        demand(
            format!("column {name:?}"),
            format!(
                "CASE WHEN {value} IS NULL OR {value}::text = 'null' THEN {column} IS NULL AND {not_in_extra} \
                 WHEN {column} IS NOT NULL THEN coalesce({is_same}, false) AND {not_in_extra} \
                 ELSE NOT {key} = ANY (_must) AND {in_extra} END"
            ),
            &format!("{value} AS sent, {column} AS found, _x, _must"),
        );
    }
    if !case.positional {
        // The other keys.
        let mut cases = String::new();
        let mut others = Vec::new();
        for (key, (column, sql_type)) in keyed.iter().filter(|(key, _)| !named.contains(key)) {
            let key = literal(key);
            let is_same = is_same_inferred(sql_type, &format!("b.{column}"), "e.value");
            cases += &format!("WHEN {key} THEN b.{column} IS NOT NULL AND coalesce({is_same}, false) ");
            others.push(format!(
                "({column} IS NULL OR coalesce((_j->{key})::text, 'null') <> 'null')"
            ));
        }
        let in_column = if cases.is_empty() {
            "false".to_owned()
        } else {
            format!("CASE e.key {cases} ELSE false END")
        };
        let by_name = case.columns.iter().filter(|column| column.path.is_none());
        let mut skipped: Vec<_> = by_name.map(|column| literal(&column.name)).collect();
        let firsts = case
            .columns
            .iter()
            .filter_map(|column| match column.path.as_deref()? {
                [Step::Key(first)] => Some(first),
                [Step::Key(first), ..] if case.new_keys != NewKeys::Evolve => Some(first),
                _ => None,
            });
        skipped.extend(firsts.map(|first| literal(first)));
        let skipped = format!("ARRAY[{}]::text[]", skipped.join(", "));
        let in_extra = "coalesce(b._x->e.key = e.value::jsonb, false)";
        let kept = match case.new_keys {
            NewKeys::Evolve => format!("({in_column} OR {in_extra})"),
            NewKeys::Freeze => in_column,
            NewKeys::Discard => format!(
                "({in_column} OR NOT coalesce(b._x ? e.key, false) OR e.key = ANY (ARRAY[{}]::text[]))",
                named
                    .iter()
                    .map(|name| literal(name))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        };
        demand(
            "another key".to_owned(),
            format!(
                "(SELECT coalesce(bool_and({kept}), true) FROM json_each(_j) e \
                 WHERE e.value::text <> 'null' AND NOT e.key = ANY ({skipped}))"
            ),
            "to_jsonb(b) - ARRAY['_j', '_root']",
        );
        demand(
            "a column without its key".to_owned(),
            if others.is_empty() {
                "true".to_owned()
            } else {
                others.join(" AND ")
            },
            "to_jsonb(b) - ARRAY['_j', '_root']",
        );
        let names: Vec<_> = named
            .iter()
            .flat_map(|name| [name.clone(), format!("{name}_"), format!("{name}__")])
            .map(|name| literal(&name))
            .collect();
        demand(
            "a key of _extra that nobody sent".to_owned(),
            format!(
                "(SELECT coalesce(bool_and(k = ANY (ARRAY[{}]::text[]) OR coalesce((_j->k)::text, 'null') <> 'null'), true) \
                 FROM jsonb_object_keys(coalesce(_x, '{{}}')) k)",
                names.join(", ")
            ),
            "_x",
        );
    }
    let mut differences = of_the_table(case, &keyed, &named);
    for (what, condition, shown) in conditions {
        let sql = format!(
            "SELECT _n, _r, left(_j::text, 300), {shown} FROM both_ b WHERE NOT coalesce({condition}, false) LIMIT 3"
        );
        match rig.try_rows(&sql).await {
            Ok(rows) => differences.extend(rows.iter().map(|row| format!("{what}: {row:?}"))),
            Err(error) => differences.push(format!("{what}: {:?}\n{sql}", error.as_db_error())),
        }
    }
    for sql in [
        "SELECT 'records that are missing', src.n, src.r, src.j FROM src \
         WHERE NOT EXISTS (SELECT FROM numbered t WHERE t._row_n = src.n AND t._row_r = src.r) LIMIT 3",
        "SELECT 'whole messages', whole.n, whole.root, t._m FROM whole LEFT JOIN numbered t ON t._row_n = whole.n \
         WHERE t._m IS DISTINCT FROM whole.root::jsonb LIMIT 3",
        "SELECT 'rows of nobody', t._row_n, t._row_r, t._x, t._m FROM numbered t \
         WHERE NOT EXISTS (SELECT FROM src WHERE t._row_n = src.n AND t._row_r = src.r) \
         AND NOT EXISTS (SELECT FROM whole WHERE t._row_n = whole.n) LIMIT 3",
    ] {
        differences.extend(rig.rows(sql).await.iter().map(|row| format!("{row:?}")));
    }
    differences
}
