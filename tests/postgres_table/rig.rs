//! A database of its own for each test, and messages delivered into a table as a session does.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use futures_util::SinkExt;
use socket_el::config::{Section, Variables};
use socket_el::private_postgres::{Options, PrivatePostgres};
use socket_el::producer::postgres::PostgresOptions;
use socket_el::producer::postgres::table::{
    CopyRows, Encoded, Mapping, Router, RouterOptions, SchemaChange, Table, TableError,
};
use socket_el::record::{Message, Offset, Timestamp};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// One cluster for all tests of this process. Its watcher removes it when the process ends.
static CLUSTER: OnceLock<PrivatePostgres> = OnceLock::new();
static DATABASES: AtomicU32 = AtomicU32::new(0);
const RECEIVED_AT: Timestamp = Timestamp::from_micros(1_700_000_000_123_456);

/// A database of its own, and the target tables of a stage in it: most often one.
pub(crate) struct Rig {
    pub(crate) database: String,
    pub(crate) client: Client,
    pub(crate) router: Router,
    next: u64,
}

/// What became of messages.
#[derive(Debug, Default)]
pub(crate) struct Delivered {
    pub(crate) rows: usize,
    pub(crate) ignored: u64,
    /// Number of the message, record of it, reason.
    pub(crate) dead: Vec<(usize, Option<u32>, String)>,
    pub(crate) extra_values: u64,
    pub(crate) discarded_values: u64,
}

impl Rig {
    pub(crate) async fn new(setup: &str) -> Self {
        Self::with_metadata(setup, false).await
    }

    pub(crate) async fn with_metadata(setup: &str, metadata: bool) -> Self {
        Self::with_options(setup, options(metadata)).await
    }

    /// With the keys of the mapping as `config.yml` has them.
    pub(crate) async fn mapped(setup: &str, keys: &str) -> Self {
        Self::with_options(setup, mapped(keys)).await
    }

    async fn with_options(setup: &str, options: RouterOptions) -> Self {
        let cluster = cluster();
        let database = format!("table_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        cluster.create_database(&database).await.unwrap();
        let mut client = connect(&database).await;
        client.batch_execute(setup).await.unwrap();
        let mut router = Router::new(options);
        router.mend(&mut client, false).await.unwrap();
        Self {
            database,
            client,
            router,
            next: 0,
        }
    }

    /// The only table.
    pub(crate) fn table(&self) -> &Table {
        let [table] = self.router.tables() else {
            panic!("there are several tables");
        };
        table
    }

    pub(crate) async fn load(&mut self) -> Result<(), TableError> {
        self.router.mend(&mut self.client, false).await
    }

    /// Encodes one message for the only table.
    pub(crate) fn encode(&mut self, offset: u64, text: &str, rows: &mut CopyRows) -> Encoded {
        encode(&mut self.router, offset, text, rows)
    }

    pub(crate) async fn apply(&mut self, change: SchemaChange) -> Result<(), TableError> {
        self.router.tables_mut()[0].apply(&mut self.client, change).await
    }

    /// Goes on with another table and another mapping in the same database.
    pub(crate) async fn begin_again(&mut self, setup: &str, keys: &str) {
        self.client.batch_execute(setup).await.unwrap();
        self.router = Router::new(mapped(keys));
        self.load().await.unwrap();
    }

    /// The offset of the next message.
    pub(crate) fn next_offset(&self) -> u64 {
        self.next
    }

    /// A table state as after a restart.
    pub(crate) async fn restart(&mut self) {
        self.router = Router::new(options(false));
        self.load().await.unwrap();
    }

    /// Delivers messages as a session does, all of which become rows, and returns how many of their values went to
    /// `_extra`.
    pub(crate) async fn deliver(&mut self, messages: &[&str]) -> u64 {
        let delivered = self.deliver_all(messages).await;
        assert_eq!((delivered.ignored, delivered.dead.as_slice()), (0, &[][..]));
        delivered.extra_values
    }

    /// Delivers messages as a session does, and tells what became of them.
    pub(crate) async fn deliver_all(&mut self, messages: &[&str]) -> Delivered {
        for _ in 0..10 {
            let mut rows: Vec<_> = self.router.tables().iter().map(|_| CopyRows::new()).collect();
            let mut changes = false;
            let mut delivered = Delivered::default();
            for (index, message) in messages.iter().enumerate() {
                let offset = Offset::new(self.next + index as u64);
                match self.router.encode(offset, payload(message.as_bytes()), &mut rows) {
                    Encoded::Rows(_) => {}
                    Encoded::NeedsSchema => changes = true,
                    Encoded::Ignored => delivered.ignored += 1,
                    Encoded::DeadLetter { reason, record_index } => {
                        delivered.dead.push((index, record_index, reason));
                    }
                }
            }
            if !changes {
                self.next += messages.len() as u64;
                for (table, rows) in self.router.tables().iter().zip(&rows) {
                    let stored = self.copy(table, rows).await.unwrap();
                    assert_eq!(stored, rows.len() as u64);
                    let places = rows.iter().map(|row| (row.offset, row.record_index));
                    assert!(places.is_sorted_by(|one, next| one < next), "rows out of order");
                    delivered.rows += rows.len();
                    delivered.extra_values += rows.extra_values();
                    delivered.discarded_values += rows.discarded_values();
                }
                return delivered;
            }
            self.router.mend(&mut self.client, true).await.unwrap();
        }
        panic!("the table never became what the messages want");
    }

    async fn copy(&self, table: &Table, rows: &CopyRows) -> Result<u64, tokio_postgres::Error> {
        if rows.is_empty() {
            return Ok(0);
        }
        let loading = table.loading();
        if let Some(upsert) = loading.upsert() {
            // The rows stay where the COPY puts them: what becomes of those of one key is not this rig's.
            self.client.batch_execute(&upsert.prepare).await?;
        }
        let sink = self.client.copy_in(loading.copy_sql()).await?;
        let mut sink = Box::pin(sink);
        let mut data = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
        data.extend_from_slice(rows.bytes());
        data.extend_from_slice(&(-1_i16).to_be_bytes());
        sink.send(Bytes::from(data)).await?;
        sink.as_mut().finish().await
    }

    /// The rows of a query, columns joined by `|`, NULL as `~`.
    pub(crate) async fn query(&self, sql: &str) -> Vec<String> {
        query(&self.client, sql).await
    }

    /// The rows of a query, column by column.
    pub(crate) async fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        self.try_rows(sql).await.unwrap()
    }

    /// The same, or what the server says against it.
    pub(crate) async fn try_rows(
        &self,
        sql: &str,
    ) -> Result<Vec<Vec<Option<String>>>, tokio_postgres::Error> {
        let answer = self.client.simple_query(sql).await?;
        let rows = answer.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(
                (0..row.len())
                    .map(|index| row.get(index).map(str::to_owned))
                    .collect(),
            ),
            _ => None,
        });
        Ok(rows.collect())
    }

    /// Columns and their types.
    pub(crate) async fn columns(&self) -> Vec<String> {
        self.query(
            "SELECT attname || ' ' || format_type(atttypid, atttypmod) FROM pg_attribute \
             WHERE attrelid = 'feed.t'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        )
        .await
    }

    pub(crate) async fn fingerprint_matches(&self) -> bool {
        let answer = self.query(&self.table().fingerprint_sql()).await;
        let fingerprint = answer.first().map(String::as_str).filter(|text| *text != "~");
        self.table().fingerprint_matches(fingerprint)
    }
}

pub(crate) fn options(metadata: bool) -> RouterOptions {
    let mapping = Mapping {
        metadata,
        ..Mapping::default()
    };
    RouterOptions::single("feed", "websocket_1", "t", mapping)
}

pub(crate) fn mapped(keys: &str) -> RouterOptions {
    let table = if keys.contains("routes:") {
        ""
    } else {
        "table: t\n"
    };
    let read = Section::read_text(&format!("{table}{keys}"), &Variables::default(), |section| {
        PostgresOptions::read(section, "postgres")
    });
    let read = read.unwrap_or_else(|error| panic!("{error}")).unwrap();
    read.for_stage("feed", "websocket_1").unwrap()
}

pub(crate) fn encode(router: &mut Router, offset: u64, text: &str, rows: &mut CopyRows) -> Encoded {
    let message = payload(text.as_bytes());
    router.encode(Offset::new(offset), message, std::slice::from_mut(rows))
}

fn cluster() -> &'static PrivatePostgres {
    CLUSTER.get_or_init(|| {
        PrivatePostgres::start(&Options {
            fsync: false,
            ..Options::default()
        })
        .unwrap()
    })
}

pub(crate) async fn connect(database: &str) -> Client {
    let (client, connection) = cluster().connection(database).connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

pub(crate) fn payload(payload: &[u8]) -> Message<'_> {
    Message {
        payload,
        received_at: RECEIVED_AT,
    }
}

pub(crate) async fn query(client: &Client, sql: &str) -> Vec<String> {
    let answer = client.simple_query(sql).await.unwrap();
    let rows = answer.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            let fields: Vec<_> = (0..row.len())
                .map(|index| row.get(index).unwrap_or("~"))
                .collect();
            Some(fields.join("|"))
        }
        _ => None,
    });
    rows.collect()
}
