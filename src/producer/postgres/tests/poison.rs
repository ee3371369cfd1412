//! What the table or its owner does to the rows: refuse, swallow, lock, alter, drop.

use super::support::{Database, Engine, MemoryStage, PRODUCER, drain, until};
use crate::record::Offset;
use crate::stage::Stage as _;

#[tokio::test(flavor = "multi_thread")]
async fn one_refused_row_among_twenty_thousand_is_the_only_dead_letter() {
    let database = Database::shared().await;
    database
        .sql("CREATE TABLE trades (n bigint CHECK (n <> 13333))")
        .await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..20_000);
    drain(database.target(), &[&stage]).await.unwrap();
    let rows = database
        .sql("SELECT count(*), count(DISTINCT n), sum(n) FROM trades")
        .await;
    assert_eq!(rows, [format!("19999|19999|{}", 19_999 * 20_000 / 2 - 13_333)]);
    let letters = database
        .sql("SELECT message_offset, record_index, sqlstate, convert_from(payload, 'UTF8') FROM _socket_el_dead_letter")
        .await;
    assert_eq!(letters, ["13333|0|23514|{\"n\": 13333}"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_refused_without_a_row_number_are_found_by_halving() {
    let database = Database::shared().await;
    // A deferred constraint is checked at COMMIT, where no COPY is left to name a row.
    database
        .sql("CREATE TABLE trades (n bigint, m bigint UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        .await;
    let stage = MemoryStage::new("trades");
    stage.put((0..500).map(|n| {
        format!(
            "{{\"n\": {n}, \"m\": {}}}",
            if n == 77 || n == 400 { 1 } else { n }
        )
    }));
    drain(database.target(), &[&stage]).await.unwrap();
    let letters = database
        .sql("SELECT message_offset, sqlstate FROM _socket_el_dead_letter ORDER BY 1")
        .await;
    assert_eq!(letters, ["77|23505", "400|23505"]);
    assert_eq!(
        database
            .sql("SELECT count(*), count(DISTINCT n) FROM trades")
            .await,
        ["498|498"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stretch_of_refused_rows_does_not_stop_the_others() {
    let database = Database::shared().await;
    database
        .sql("CREATE TABLE trades (n bigint CHECK (n NOT BETWEEN 1000 AND 1049))")
        .await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..3_000);
    drain(database.target(), &[&stage]).await.unwrap();
    let counts = database
        .sql("SELECT (SELECT count(*) FROM trades), (SELECT count(DISTINCT message_offset) FROM _socket_el_dead_letter), (SELECT count(*) FROM _socket_el_dead_letter)")
        .await;
    assert_eq!(counts, ["2950|50|50"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_swallows_rows_holds_its_stage_and_no_other() {
    let database = Database::shared().await;
    database
        .sql(
            "CREATE TABLE swallowed (n bigint);
             CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF NEW.n % 2 = 1 THEN RETURN NULL; END IF; RETURN NEW; END $$;
             CREATE TRIGGER swallow BEFORE INSERT ON swallowed FOR EACH ROW EXECUTE FUNCTION swallow()",
        )
        .await;
    let (swallowed, other) = (MemoryStage::new("swallowed"), MemoryStage::new("other"));
    swallowed.put_numbers(0..100);
    let engine = Engine::start(database.target(), &[&swallowed, &other]);
    for round in 0..3 {
        other.put_numbers(round * 100..(round + 1) * 100);
        let expected = (round + 1) * 100;
        until("the other goes on", || engine.stats.delivered.get() == expected).await;
    }
    assert_eq!(database.sql("SELECT count(*) FROM swallowed").await, ["0"]);
    // Once the row is taken, the stage knows that it stands at the beginning.
    assert_eq!(swallowed.cursor(PRODUCER).unwrap_or_default(), Offset::ZERO);
    database.sql("DROP TRIGGER swallow ON swallowed").await;
    until("the held one goes on", || engine.stats.delivered.get() == 400).await;
    engine.stop().await.unwrap();
    database.holds_exactly("swallowed", 100).await;
    database.holds_exactly("other", 300).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_another_session_holds_delays_its_stage_and_no_other() {
    let database = Database::shared().await;
    let (locked, other) = (MemoryStage::new("locked"), MemoryStage::new("other"));
    locked.put_numbers(0..100);
    let engine = Engine::start(database.target(), &[&locked, &other]);
    until("the first hundred are there", || {
        engine.stats.delivered.get() == 100
    })
    .await;
    let (holder, connection) = database.config().connect(tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    holder
        .batch_execute("BEGIN; LOCK TABLE locked IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    locked.put_numbers(100..200);
    for round in 0..3 {
        other.put_numbers(round * 100..(round + 1) * 100);
        let expected = 100 + (round + 1) * 100;
        until("the other goes on", || engine.stats.delivered.get() == expected).await;
    }
    assert_eq!(locked.cursor(PRODUCER), Some(Offset::new(100)));
    holder.batch_execute("COMMIT").await.unwrap();
    until("the locked one goes on", || engine.stats.delivered.get() == 500).await;
    engine.stop().await.unwrap();
    drop(holder);
    connection.await.unwrap().unwrap();
    database.holds_exactly("locked", 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_change_while_loading_are_noticed_before_a_wrong_byte_is_stored() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    let engine = Engine::start(database.target(), &[&stage]);
    let mut sent = 0;
    for change in [
        "ALTER TABLE trades ALTER n TYPE numeric",
        "ALTER TABLE trades ADD COLUMN extra text DEFAULT 'x'",
        "ALTER TABLE trades ALTER n TYPE double precision",
        "ALTER TABLE trades DROP COLUMN extra",
        "ALTER TABLE trades ALTER n TYPE bigint USING n::bigint",
        "ALTER TABLE trades DROP COLUMN m",
        "TRUNCATE trades",
    ] {
        let put = |from: u64| {
            let numbers: Vec<_> = (from..from + 20_000)
                .map(|n| format!("{{\"n\": {n}, \"m\": true}}"))
                .collect();
            numbers.chunks(500).for_each(|batch| stage.put(batch));
        };
        put(sent);
        until("it is in mid-load", || engine.stats.delivered.get() > sent).await;
        sent += 20_000;
        if change.starts_with("TRUNCATE") {
            break;
        }
        database.sql(change).await;
        put(sent);
        sent += 20_000;
        until("everything is delivered", || engine.stats.delivered.get() == sent).await;
    }
    until("everything is delivered", || engine.stats.delivered.get() == sent).await;
    engine.stop().await.unwrap();
    let rows = database
        .sql("SELECT count(*), count(DISTINCT n), min(n), max(n), pg_typeof(min(n)) FROM trades")
        .await;
    assert_eq!(rows, [format!("{sent}|{sent}|0|{}|bigint", sent - 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_dropped_while_running_is_made_again() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..100);
    let engine = Engine::start(database.target(), &[&stage]);
    until("the first are delivered", || engine.stats.delivered.get() == 100).await;
    database.sql("DROP TABLE trades").await;
    stage.put_numbers(100..300);
    until("the others are delivered", || engine.stats.delivered.get() == 300).await;
    engine.stop().await.unwrap();
    let rows = database
        .sql("SELECT count(*), min(n), max(n), obj_description('trades'::regclass) LIKE '%100%' FROM trades")
        .await;
    assert_eq!(rows, ["200|100|299|t"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_tables_are_never_made_again_while_running() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..100);
    let engine = Engine::start(database.target(), &[&stage]);
    until("the first are delivered", || engine.stats.delivered.get() == 100).await;
    for table in ["_socket_el_cursor", "_socket_el_dead_letter"] {
        let delivered = engine.stats.delivered.get();
        database
            .sql(&format!("ALTER TABLE {table} RENAME TO hidden"))
            .await;
        stage.put(["{\"n\": 100}", "no json"]);
        database
            .until(
                "SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() \
                 AND query = 'ROLLBACK'",
                "1",
            )
            .await;
        assert_eq!(
            database
                .sql(&format!("SELECT to_regclass('{table}') IS NULL"))
                .await,
            ["t"]
        );
        database
            .sql(&format!("ALTER TABLE hidden RENAME TO {table}"))
            .await;
        until("it goes on", || engine.stats.delivered.get() == delivered + 2).await;
    }
    engine.stop().await.unwrap();
    assert_eq!(database.sql("SELECT count(*) FROM trades").await, ["102"]);
    assert_eq!(
        database.sql("SELECT count(*) FROM _socket_el_dead_letter").await,
        ["2"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_the_fault_of_a_row_delays_it_and_makes_no_dead_letter() {
    let database = Database::shared().await;
    database
        .sql(
            "CREATE TABLE mood (state text);
             CREATE TABLE trades (n bigint);
             CREATE SEQUENCE refusals;
             CREATE FUNCTION sulk() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE s text; BEGIN
               SELECT state INTO s FROM mood;
               IF s IS NOT NULL THEN
                 PERFORM nextval('refusals');
                 RAISE EXCEPTION 'no' USING ERRCODE = s;
               END IF;
               RETURN NEW; END $$;
             CREATE TRIGGER sulk BEFORE INSERT ON trades FOR EACH ROW EXECUTE FUNCTION sulk()",
        )
        .await;
    let stage = MemoryStage::new("trades");
    let engine = Engine::start(database.target(), &[&stage]);
    let mut sent = 0;
    // A full disk, no memory, an I/O error, serialization, deadlock, cancelled, shutdown, too many connections, a server that is
    // no primary any more, rights, configuration, a catalog that changes, an internal error, a class that nobody knows.
    for state in [
        "53100", "53200", "58030", "40001", "40P01", "57014", "57P01", "57P03", "53300", "25006", "42501",
        "0A000", "42P01", "3F000", "XX000", "ZZ001",
    ] {
        database
            .sql(&format!("INSERT INTO mood VALUES ('{state}')"))
            .await;
        stage.put_numbers(sent..sent + 100);
        sent += 100;
        // A sequence is not rolled back with the transaction that counts itself in it.
        let before: u64 = database.sql("SELECT last_value FROM refusals").await[0]
            .parse()
            .unwrap();
        database
            .until(
                &format!("SELECT (last_value > {})::text FROM refusals", before + 1),
                "true",
            )
            .await;
        assert_eq!(engine.stats.delivered.get(), sent - 100, "{state}");
        database.sql("DELETE FROM mood").await;
        until("it goes on", || engine.stats.delivered.get() == sent).await;
    }
    engine.stop().await.unwrap();
    database.holds_exactly("trades", sent).await;
    assert_eq!(
        database.sql("SELECT count(*) FROM _socket_el_dead_letter").await,
        ["0"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_fits_no_page_is_a_dead_letter_that_says_what_to_do() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    // Values that can't be compressed: each is kept elsewhere, and still leaves 18 bytes in the row.
    let mut state = 1_u64;
    let mut letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'!' + u8::try_from((state >> 33) % 90).unwrap())
    };
    let mut text = || -> String { (0..50).map(|_| letter()).collect() };
    let fields: Vec<_> = (0..490)
        .map(|n| format!("\"k{n}\": {}", serde_json::Value::from(text())))
        .collect();
    stage.put([format!("{{{}}}", fields.join(",")), r#"{"k1": "x"}"#.to_owned()]);
    drain(database.target(), &[&stage]).await.unwrap();
    let letters = database
        .sql("SELECT message_offset, sqlstate, reason FROM _socket_el_dead_letter")
        .await;
    assert!(
        letters.len() == 1
            && letters[0].starts_with("0|54000|row is too big")
            && letters[0].contains("max_columns"),
        "{letters:?}"
    );
    assert_eq!(database.sql("SELECT count(*) FROM trades").await, ["1"]);
}
