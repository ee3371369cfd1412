//! The server goes away and comes back; nobody has to help.

use super::support::{Database, Engine, MemoryStage, cluster, until};
use crate::private_postgres::StopMode;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_stopped_under_load_and_started_again_loses_and_doubles_nothing() {
    let cluster = cluster();
    let database = Database::on(&cluster).await;
    let stage = MemoryStage::new("trades");
    let engine = Engine::start(database.target(), &[&stage]);
    let mut sent = 0;
    for mode in [StopMode::Immediate, StopMode::Fast, StopMode::Immediate] {
        stage.put_numbers(sent..sent + 50_000);
        until("it is in mid-load", || engine.stats.delivered.get() > sent).await;
        sent += 50_000;
        cluster.stop(mode).unwrap();
        stage.put_numbers(sent..sent + 1_000);
        sent += 1_000;
        cluster.start_again().unwrap();
        until("everything is delivered", || engine.stats.delivered.get() == sent).await;
    }
    engine.stop().await.unwrap();
    database.holds_exactly("trades", sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_started_before_its_server_waits_for_it_and_can_be_stopped_meanwhile() {
    let cluster = cluster();
    let database = Database::on(&cluster).await;
    cluster.stop(StopMode::Fast).unwrap();
    let stage = MemoryStage::new("trades");
    stage.put_numbers(0..100);
    Engine::start(database.target(), &[&stage]).stop().await.unwrap();
    let engine = Engine::start(database.target(), &[&stage]);
    cluster.start_again().unwrap();
    until("everything is delivered", || engine.stats.delivered.get() == 100).await;
    engine.stop().await.unwrap();
    database.holds_exactly("trades", 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_somebody_terminates_are_made_again() {
    let database = Database::shared().await;
    let stage = MemoryStage::new("trades");
    let engine = Engine::start(database.target(), &[&stage]);
    let mut sent = 0;
    for _ in 0..10 {
        stage.put_numbers(sent..sent + 5_000);
        sent += 5_000;
        database.end_sessions().await;
    }
    until("everything is delivered", || engine.stats.delivered.get() == sent).await;
    engine.stop().await.unwrap();
    database.holds_exactly("trades", sent).await;
}
