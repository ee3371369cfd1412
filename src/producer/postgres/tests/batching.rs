//! How much a transaction holds, and when it is waited for more.

use std::time::Duration;

use super::super::{Batching, PostgresOptions};
use super::support::{Database, Engine, MemoryStage, QUICK, drain, until};
use crate::producer::RunUntil;

fn batch(rows: usize, bytes: usize, interval: Duration) -> PostgresOptions {
    PostgresOptions {
        batch: Batching {
            rows,
            bytes,
            interval,
        },
        ..PostgresOptions::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_holds_no_more_rows_and_bytes_than_are_configured() {
    // A row takes 14 bytes, so that 1 KiB takes 74 of them.
    for (rows, bytes, transactions) in [(250, 8 << 20, 4), (20_000, 1 << 10, 14), (20_000, 8 << 20, 1)] {
        let database = Database::shared().await;
        let stage = MemoryStage::new("trades");
        stage.put_numbers(0..1_000);
        let options = batch(rows, bytes, Duration::ZERO);
        let engine = Engine::mapped(database.target(), &[&stage], options, RunUntil::Drained, QUICK);
        let stats = engine.stats.clone();
        engine.ended().await.unwrap();
        assert_eq!(
            stats.transactions.get(),
            transactions,
            "{rows} rows, {bytes} bytes"
        );
        database.holds_exactly("trades", 1_000).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trickle_is_gathered_until_a_transaction_is_full_and_a_drain_waits_for_nothing() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    // Longer than any test: what comes before it is full comes because it is full.
    let options = batch(50, 8 << 20, Duration::from_secs(3_600));
    let engine = Engine::mapped(
        database.target(),
        &[&stage],
        options.clone(),
        RunUntil::Stopped,
        QUICK,
    );
    stage.put_numbers(0..1);
    until("the first is delivered at once", || {
        engine.stats.delivered.get() == 1
    })
    .await;
    for n in 1..51 {
        stage.put_numbers(n..n + 1);
    }
    until("it is full", || engine.stats.delivered.get() == 51).await;
    assert_eq!(engine.stats.transactions.get(), 2);
    stage.put_numbers(51..60);
    engine.stop().await.unwrap();
    database.holds_exactly("trades", 51).await;
    drain(database.target(), &[&stage]).await.unwrap();
    stage.put_numbers(60..70);
    let engine = Engine::mapped(database.target(), &[&stage], options, RunUntil::Drained, QUICK);
    engine.ended().await.unwrap();
    database.holds_exactly("trades", 70).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_does_not_fill_goes_when_its_interval_is_over() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    let options = batch(20_000, 8 << 20, Duration::from_millis(30));
    let engine = Engine::mapped(database.target(), &[&stage], options, RunUntil::Stopped, QUICK);
    for n in 0..30 {
        stage.put_numbers(n..n + 1);
        until("it is delivered", || engine.stats.delivered.get() == n + 1).await;
    }
    engine.stop().await.unwrap();
    database.holds_exactly("trades", 30).await;
}
