//! What the consumers of a running engine are doing, as the engine says: their states, since when and why, and what each of
//! several connections contributes. Nothing of it is a fact of the stage, so nothing is known of it when no engine runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use socket_el::record::Timestamp;
use socket_el::stage::StageError;
use socket_el::stage::path::StagePath;

use crate::table::{Align, Table, human_count};
use crate::time::{Time, age};

/// The part of `GET /v1/status` that is shown. An engine of another version may say less.
#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    consumers: BTreeMap<String, Consumer>,
}

/// A consumer of the engine.
#[derive(Deserialize, Serialize)]
pub(crate) struct Consumer {
    /// Whether it runs at all: starting, running, ended.
    state: String,
    activity: Option<Activity>,
    received: u64,
    #[serde(default)]
    duplicates: u64,
    connects: u64,
    #[serde(default)]
    connections: Vec<Connection>,
}

/// One of its connections.
#[derive(Deserialize, Serialize)]
struct Connection {
    address: String,
    activity: Activity,
    first: u64,
    duplicates: u64,
    connects: u64,
}

/// What something is doing.
#[derive(Deserialize, Serialize)]
struct Activity {
    state: String,
    since: Time,
    why: String,
}

/// The consumers of these stages; none when no engine runs.
pub(crate) async fn consumers(
    path: &dyn StagePath,
    stages: &[String],
) -> Result<BTreeMap<String, Consumer>, StageError> {
    let Some(status) = path.status().await? else {
        return Ok(BTreeMap::new());
    };
    // What can't be read is of a version that says it in another way; the stages are shown all the same.
    let mut consumers =
        serde_json::from_value::<Status>(status).map_or_else(|_| BTreeMap::new(), |status| status.consumers);
    consumers.retain(|name, _| stages.contains(name));
    Ok(consumers)
}

/// The consumers in a table, with a row for each of several connections.
pub(crate) fn shown(consumers: &BTreeMap<String, Consumer>, now: Timestamp) -> String {
    let mut table = Table::new([
        ("CONSUMER", Align::Left),
        ("STATE", Align::Left),
        ("FOR", Align::Right),
        ("RECEIVED", Align::Right),
        ("DUPLICATES", Align::Right),
        ("CONNECTS", Align::Right),
        ("WHY", Align::Left),
    ]);
    for (name, consumer) in consumers {
        let running = consumer.activity.as_ref().filter(|_| consumer.state == "running");
        let [state, since, why] = running.map_or_else(
            || [consumer.state.clone(), "-".to_owned(), String::new()],
            |activity| activity.shown(now),
        );
        table.push([
            name.clone(),
            state,
            since,
            human_count(consumer.received),
            human_count(consumer.duplicates),
            human_count(consumer.connects),
            why,
        ]);
        if consumer.connections.len() < 2 {
            continue;
        }
        for (number, connection) in (1..).zip(&consumer.connections) {
            let [state, since, why] = connection.activity.shown(now);
            table.push([
                format!("  {number} {}", connection.address),
                state,
                since,
                human_count(connection.first),
                human_count(connection.duplicates),
                human_count(connection.connects),
                why,
            ]);
        }
    }
    table.to_string()
}

impl Activity {
    /// State, for how long, and why.
    fn shown(&self, now: Timestamp) -> [String; 3] {
        [self.state.clone(), age(self.since.0, now), self.why.clone()]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn consumers(status: serde_json::Value) -> BTreeMap<String, Consumer> {
        serde_json::from_value::<Status>(status).unwrap().consumers
    }

    #[test]
    fn several_connections_have_a_row_each() {
        let activity = |state: &str, why: &str| json!({"state": state, "since": 1_000_000, "why": why});
        let told = consumers(json!({"engine": {}, "consumers": {
            "trades": {"state": "running", "activity": activity("live", "1 of 2 connections"), "received": 1200,
                "duplicates": 7, "connects": 3, "gaps": 0, "connections": [
                    {"address": "ws://a/", "activity": activity("live", ""), "first": 1000, "duplicates": 0, "connects": 1},
                    {"address": "ws://b/", "activity": activity("waiting", "cut"), "first": 200, "duplicates": 7, "connects": 2},
                ]},
            "old": {"state": "ended", "received": 0, "connects": 0},
        }}));
        let shown = shown(&told, Timestamp::from_micros(62_000_000));
        let rows: Vec<Vec<&str>> = shown
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(rows[1], ["old", "ended", "-", "0", "0", "0"]);
        assert_eq!(
            rows[2].join(" "),
            "trades live 1 m 1 s 1 200 7 3 1 of 2 connections"
        );
        assert_eq!(rows[3].join(" "), "1 ws://a/ live 1 m 1 s 1 000 0 1");
        assert_eq!(rows[4].join(" "), "2 ws://b/ waiting 1 m 1 s 200 7 2 cut");
    }
}
