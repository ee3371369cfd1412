//! What refused messages among many cost. Attempts are counted, not seconds.

use super::support::{Database, MemoryStage, drain};

/// Messages of each test: as many as one transaction holds.
const MESSAGES: u64 = 20_000;

/// What a delivery took.
struct Cost {
    /// COPY statements that the table has seen, also those that were rolled back.
    copies: u64,
    /// Rows that came to the table, also those that were rolled back.
    rows: u64,
}

/// Delivers the payloads into a table that refuses some rows: by a check, which names the row, or when COMMIT comes to a
/// deferred trigger, where none is named. All others must be rows, once and in order.
async fn deliver(payloads: &[String], check: &str, late: &str, refused: u64) -> Cost {
    let database = Database::shared().await;
    // Sequences are not rolled back. The order is told by the rows' places, so none may be used again.
    database
        .sql(&format!(
            "CREATE TABLE trades (n bigint CHECK (NOT ({check}))) WITH (autovacuum_enabled = false);
             CREATE SEQUENCE copies; CREATE SEQUENCE row_attempts;
             CREATE FUNCTION count_copy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               PERFORM nextval('copies'); RETURN NULL; END $$;
             CREATE FUNCTION count_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               PERFORM nextval('row_attempts'); RETURN NEW; END $$;
             CREATE FUNCTION refuse_late() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE n bigint := NEW.n; BEGIN
               IF {late} THEN RAISE EXCEPTION 'too late' USING ERRCODE = '23514'; END IF; RETURN NULL; END $$;
             CREATE TRIGGER count_copy BEFORE INSERT ON trades FOR EACH STATEMENT EXECUTE FUNCTION count_copy();
             CREATE TRIGGER count_row BEFORE INSERT ON trades FOR EACH ROW EXECUTE FUNCTION count_row();
             CREATE CONSTRAINT TRIGGER refuse_late AFTER INSERT ON trades DEFERRABLE INITIALLY DEFERRED
               FOR EACH ROW EXECUTE FUNCTION refuse_late()"
        ))
        .await;
    let stage = MemoryStage::new("trades");
    payloads.chunks(100).for_each(|batch| stage.put(batch));
    drain(database.target(), &[&stage]).await.unwrap();
    let landed = database
        .sql(
            "SELECT count(*), count(DISTINCT n), count(*) FILTER (WHERE n <= before),
                    (SELECT count(*) FROM _socket_el_dead_letter), (SELECT count(DISTINCT message_offset) FROM _socket_el_dead_letter)
             FROM (SELECT n, lag(n) OVER (ORDER BY ctid) AS before FROM trades) AS numbered",
        )
        .await;
    let rows = payloads.len() as u64 - refused;
    assert_eq!(landed, [format!("{rows}|{rows}|0|{refused}|{refused}")]);
    let counted = database
        .sql("SELECT (SELECT last_value FROM copies), (SELECT last_value FROM row_attempts)")
        .await;
    let (copies, rows) = counted[0].split_once('|').unwrap();
    Cost {
        copies: copies.parse().unwrap(),
        rows: rows.parse().unwrap(),
    }
}

fn numbers() -> Vec<String> {
    (0..MESSAGES).map(|n| format!("{{\"n\": {n}}}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_refused_message_of_twenty_thousand_costs_two_more_transactions() {
    let cost = deliver(&numbers(), "n = 13333", "false", 1).await;
    assert_eq!(
        (cost.copies, cost.rows <= 2 * MESSAGES),
        (3, true),
        "{}",
        cost.rows
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_that_only_the_server_refuses_cost_a_few_small_transactions_each() {
    for (where_they_are, check) in [
        ("spread evenly", "n % 200 = 7"),
        ("spread over all but the beginning", "n % 199 = 3 AND n > 100"),
        ("at the beginning", "n < 100"),
        ("side by side in the middle", "n BETWEEN 5000 AND 5099"),
        ("at the end", "n >= 19900"),
    ] {
        let cost = deliver(&numbers(), check, "false", 100).await;
        assert!(cost.copies <= 300, "{where_they_are}: {} COPYs", cost.copies);
        assert!(cost.rows <= 3 * MESSAGES, "{where_they_are}: {} rows", cost.rows);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_that_are_refused_without_a_row_number_cost_a_search_each() {
    for (where_they_are, late) in [
        ("spread evenly", "n % 200 = 7"),
        ("side by side in the middle", "n BETWEEN 5000 AND 5099"),
    ] {
        let cost = deliver(&numbers(), "false", late, 100).await;
        // To halve 30,000 down to one takes 15 steps, and to grow again as many.
        assert!(
            cost.copies <= 100 * 2 * 15,
            "{where_they_are}: {} COPYs",
            cost.copies
        );
        assert!(cost.rows <= 6 * MESSAGES, "{where_they_are}: {} rows", cost.rows);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_that_parsing_refuses_never_come_to_the_server_and_cost_nothing() {
    let mut payloads = numbers();
    for at in (0..MESSAGES as usize).step_by(200) {
        payloads[at].push('}');
    }
    let cost = deliver(&payloads, "false", "false", 100).await;
    assert_eq!((cost.copies, cost.rows), (1, MESSAGES - 100));
}
