//! What `stage-inspect export` makes of a stage is what the producer made of it: the file, loaded by COPY, is the table.

use futures_util::SinkExt as _;
use tokio_postgres::NoTls;

use crate::support::cluster::Database;
use crate::support::engine::{Workspace, config};
use crate::support::source::Source;

/// Loads a file of CSV into a table like `table`, and counts the rows that stand only in the one or in the other.
pub(crate) async fn differences(database: &Database, csv: &str, table: &str) -> (u64, u64) {
    let mut header = csv
        .lines()
        .next()
        .unwrap()
        .split(',')
        .map(|name| format!("\"{name}\""));
    let columns = header.by_ref().collect::<Vec<_>>().join(", ");
    let connection = database.cluster().connection(database.name());
    let (client, driver) = connection.connect(NoTls).await.unwrap();
    let driver = tokio::spawn(driver);
    client
        .batch_execute(&format!("CREATE TABLE exported (LIKE {table})"))
        .await
        .unwrap();
    let copy = format!("COPY exported ({columns}) FROM STDIN (FORMAT csv, HEADER)");
    let mut sink = Box::pin(client.copy_in(&copy).await.unwrap());
    sink.send(bytes::Bytes::from(csv.to_owned())).await.unwrap();
    sink.as_mut().finish().await.unwrap();
    drop(client);
    driver.await.unwrap().unwrap();
    let only_in = async |one: &str, other: &str| {
        let rows =
            format!("(SELECT {columns} FROM {one} EXCEPT ALL SELECT {columns} FROM {other}) difference");
        database.count(&rows).await.unwrap()
    };
    (only_in("exported", table).await, only_in(table, "exported").await)
}

const MAPPING: &str = "\
when: { $.kind: [trade, book] }
records: $.data
include: { kind: $.kind }
metadata: true
columns:
  price: numeric
  size: numeric(12,4)
  time: timestamptz(ms)
  day: date
  id: uuid
  from: inet
  raw: bytea(base64)
  levels: 'numeric[]'
  tags: 'text[]'";

/// What each of the types can hold, what they can't, and what is no row at all.
const MESSAGES: [&str; 8] = [
    r#"{"kind":"trade","data":[{"price":"1.40","size":0.5,"time":1618677786614,"day":"2024-02-29","id":"00000000-0000-4000-8000-0000000000ff","from":"10.0.0.1","raw":"AP8=","levels":[1,null,"2.50"],"tags":["a,b","\"","","\\",null],"ratio":0.1,"count":3,"ok":true,"nested":{"a":[1.0]},"note":""}]}"#,
    r#"{"kind":"trade","data":[{"price":-0.00001306,"size":"99999999.9999","time":-62198755200000,"note":"a\nb, \"c\""},{"price":1e40,"ratio":1e300}]}"#,
    r#"{"kind":"book","data":{"price":"no price","size":0.00001,"day":"2023-02-29","id":7,"note":5,"more":"\u00e9\ud83d\ude00","levels":[]}}"#,
    r#"{"kind":"status","data":{"price":1}}"#,
    r#"{"kind":"book","data":[]}"#,
    r#"{"kind":"book","data":"kept whole"}"#,
    "no json",
    r#"{"kind":"trade","data":[{"note":"\\."},{}]}"#,
];

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_the_table_beside_a_running_engine_and_beside_none() {
    let database = Database::shared().await;
    let workspace = Workspace::direct(&database);
    let source = Source::start().await;
    workspace.write_config(&config(&[("feed", &source.url())], MAPPING));
    let mut engine = workspace.run();
    engine
        .until("it is connected", async || !source.starts().await.is_empty())
        .await;
    source.send(MESSAGES.map(Into::into)).await;
    engine
        .until("all messages are passed", async || {
            let question = "SELECT next_offset FROM _socket_el_cursor WHERE stage = 'feed'";
            database.number(question).await == Some(MESSAGES.len() as u64)
        })
        .await;
    let export = async |output: &str| {
        let arguments = ["export", "feed", "--format", "csv", "-v", "--json", "-o", output];
        let profiles = ["--profiles", "profile.yml"];
        let mut exported = workspace.inspect(&[&arguments[..], &profiles].concat()).await;
        exported.ends_with(0).await;
        let told: serde_json::Value = serde_json::from_str(&exported.stdout()).unwrap();
        (
            std::fs::read_to_string(workspace.path().join(output)).unwrap(),
            told,
            exported.stderr(),
        )
    };
    let (running, told, log) = export("running.csv").await;
    assert!(log.contains(&format!("process {}", engine.pid())), "{log}");
    engine.stops_cleanly().await;
    let (stopped, told_again, log) = export("stopped.csv").await;
    assert!(log.contains("opened the files"), "{log}");
    assert_eq!((&running, &told), (&stopped, &told_again));

    assert_eq!(
        differences(&database, &running, "feed").await,
        (0, 0),
        "{running}"
    );
    let figure = |key: &str| told[key].as_u64().unwrap();
    assert_eq!(Some(figure("rows")), database.count("feed").await);
    let letters = database
        .rows("SELECT message_offset::text, reason FROM _socket_el_dead_letter")
        .await;
    assert_eq!((letters.len() as u64, figure("left_out")), (1, 1));
    let first = [
        &told["first_left_out"]["offset"].to_string(),
        told["first_left_out"]["reason"].as_str().unwrap(),
    ];
    assert_eq!(
        letters[0]
            .iter()
            .map(|field| field.as_deref().unwrap())
            .collect::<Vec<_>>(),
        first
    );
    let words = format!(
        "delivered={} ignored={} rows={} conflicts=0 dead_letters=1 extra_values={} ",
        figure("messages"),
        figure("ignored"),
        figure("rows"),
        figure("extra_values")
    );
    assert!(
        engine.stderr().contains(&words),
        "{words}\n{}",
        engine.last_words()
    );
    assert!((figure("ignored"), figure("extra_values")) == (2, 5), "{words}");
}
