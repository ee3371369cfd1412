//! Thousands of connections: nothing of them is left.

use futures_util::SinkExt;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::support::{Running, Server, frame, settings, until};
use crate::backoff::Backoff;
use crate::consumer::memory_stage::Durability;

/// Connections of the test.
const CONNECTIONS: usize = 3_000;
/// Connections after which everything that is made once has been made.
const WARM: usize = 100;

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test]
async fn thousands_of_connections_leave_no_task_and_no_descriptor_behind() {
    let (_server, consumer) = churn(1).await;
    consumer.stage.outages_reach(CONNECTIONS - 1).await;
    stop(consumer).await;
}

#[tokio::test]
async fn thousands_of_connections_two_at_a_time_leave_no_task_and_no_descriptor_behind() {
    let (_server, consumer) = churn(2).await;
    until(|| consumer.stats.connects.get() >= CONNECTIONS as u64).await;
    stop(consumer).await;
}

/// A consumer after thousands of connections, so many at a time, of which nothing is left.
async fn churn(at_a_time: usize) -> (Server, Running) {
    let server = Server::listen().await;
    let mut settings = settings(&server.uri());
    settings.routes = vec![settings.routes[0].clone(); at_a_time];
    settings.apart = std::time::Duration::ZERO;
    settings.backoff = Backoff::new(
        std::time::Duration::from_nanos(1),
        std::time::Duration::from_nanos(1),
    );
    let consumer = Running::start(settings, Durability::Immediate);
    let metrics = tokio::runtime::Handle::current().metrics();
    let mut warm = (0, 0);
    for number in 0..CONNECTIONS {
        let mut socket = server.accept().await;
        socket.send(Message::text("one")).await.unwrap();
        // Every end there is: with a close frame, with bytes unread, with nothing.
        match number % 3 {
            0 => socket.close(frame(CloseCode::Away, "next")).await.unwrap(),
            1 => socket.send(Message::Ping("x".into())).await.unwrap(),
            _ => {}
        }
        drop(socket);
        if number == WARM {
            warm = (metrics.num_alive_tasks(), descriptors());
        }
    }
    assert_eq!(metrics.num_alive_tasks(), warm.0);
    // Other tests of this process open some too; a leak would show as thousands.
    assert!(
        descriptors() < warm.1 + CONNECTIONS / 10,
        "{} descriptors, {} before",
        descriptors(),
        warm.1
    );
    // The server stays, so that the next attempts hang in its queue.
    (server, consumer)
}

async fn stop(consumer: Running) {
    let (stage, stats) = consumer.stop().await;
    assert_eq!(stats.received.get(), stage.payloads().len() as u64);
    assert_eq!(stats.gaps.get(), stage.outages().len() as u64);
    assert!(stats.attempts.get() <= CONNECTIONS as u64 + 2);
}
