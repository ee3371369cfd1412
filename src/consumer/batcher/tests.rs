//! The batcher over a stage in memory, on a clock that only the tests move.

use std::time::Duration;

use futures_util::FutureExt;

use super::*;
use crate::config::units::{ByteSize, Span};
use crate::consumer::memory_stage::{Durability, Entry, MemoryStage, context, some_time};

/// A batcher that closes batches at these limits.
fn batcher(stage: &Arc<MemoryStage>, limits: BatchLimits) -> (Batcher, Arc<ConsumerStats>) {
    let mut context = context(stage);
    context.batch = limits;
    (Batcher::new(&context), context.stats)
}

fn limits(messages: usize, bytes: u64, interval_ms: u64) -> BatchLimits {
    BatchLimits {
        messages,
        bytes: ByteSize(bytes),
        interval: Span(Duration::from_millis(interval_ms)),
    }
}

async fn push_all(batcher: &mut Batcher, payloads: &[&[u8]]) {
    for payload in payloads {
        batcher.push(payload, some_time()).await.unwrap();
    }
}

#[tokio::test]
async fn a_batch_closes_when_it_has_its_messages_and_keeps_them_in_order() {
    let stage = MemoryStage::new(Durability::Immediate);
    let (mut batcher, stats) = batcher(&stage, limits(3, 1_000, 60_000));
    let payloads: [&[u8]; 7] = [b"a", b"", b"c", b"d", b"e", b"f", b"g"];
    push_all(&mut batcher, &payloads).await;
    assert_eq!(stage.batch_sizes(), [3, 3], "the seventh waits");
    batcher.finish().await.unwrap();
    assert_eq!(stage.batch_sizes(), [3, 3, 1]);
    assert_eq!(stage.payloads(), payloads);
    assert_eq!(
        (
            stats.received.get(),
            stats.received_bytes.get(),
            stats.staged.get()
        ),
        (7, 6, 7)
    );
}

#[tokio::test]
async fn a_batch_closes_before_it_has_too_many_bytes_and_a_larger_message_goes_alone() {
    let stage = MemoryStage::new(Durability::Immediate);
    let (mut batcher, _) = batcher(&stage, limits(100, 10, 60_000));
    push_all(
        &mut batcher,
        &[b"12345", b"1234", b"123", b"a message of more than ten", b"1"],
    )
    .await;
    batcher.finish().await.unwrap();
    assert_eq!(stage.batch_sizes(), [2, 1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn messages_that_come_together_make_the_batches_that_they_would_one_by_one() {
    let payloads: [&[u8]; 14] = [
        b"12345",
        b"1234",
        b"123",
        b"",
        b"a message of more than ten",
        b"1",
        b"12",
        b"",
        b"1234567890",
        b"",
        b"",
        b"12345",
        b"12345",
        b"",
    ];
    let mut together = Batch::default();
    for payload in payloads {
        assert!(together.push(payload, some_time()));
    }
    for (messages, bytes) in [(100, 10), (3, 1_000), (4, 10), (2, 5), (1, 1), (100, 1_000)] {
        let mut sizes = Vec::new();
        for is_together in [false, true] {
            let stage = MemoryStage::new(Durability::Immediate);
            let (mut batcher, stats) = batcher(&stage, limits(messages, bytes, 200));
            push_all(&mut batcher, &[b"first"]).await;
            if is_together {
                batcher.push_all(&together).await.unwrap();
            } else {
                push_all(&mut batcher, &payloads).await;
            }
            let has_open = batcher.deadline.is_some();
            batcher.finish().await.unwrap();
            assert_eq!(stage.payloads()[1..], payloads);
            sizes.push((stage.batch_sizes(), has_open, stats.received_bytes.get()));
        }
        assert_eq!(sizes[0], sizes[1], "{messages} messages, {bytes} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_due_when_its_first_message_has_the_age_and_never_while_it_is_empty() {
    let stage = MemoryStage::new(Durability::Immediate);
    let (mut batcher, _) = batcher(&stage, limits(100, 1_000, 200));
    let an_hour = Duration::from_secs(3_600);
    assert!(
        tokio::time::timeout(an_hour, batcher.due()).await.is_err(),
        "empty: never"
    );

    let first = Instant::now();
    push_all(&mut batcher, &[b"first"]).await;
    tokio::time::advance(Duration::from_millis(150)).await;
    push_all(&mut batcher, &[b"second"]).await;
    assert!(batcher.due().now_or_never().is_none(), "not yet");
    batcher.due().await.unwrap();
    assert_eq!(
        first.elapsed().as_millis() / 2,
        100,
        "by the first message, not the second"
    );
    batcher.flush().await.unwrap();
    assert_eq!(stage.batch_sizes(), [2]);
    assert!(
        tokio::time::timeout(an_hour, batcher.due()).await.is_err(),
        "empty again"
    );
}

#[tokio::test(start_paused = true)]
async fn messages_count_as_staged_only_once_they_are_durable() {
    let stage = MemoryStage::new(Durability::ByHand);
    let (mut batcher, stats) = batcher(&stage, limits(2, 1_000, 200));
    push_all(&mut batcher, &[b"1", b"2", b"3", b"4"]).await;
    assert_eq!(stage.batch_sizes(), [2, 2]);
    assert!(batcher.due().now_or_never().is_none());
    assert_eq!((stats.received.get(), stats.staged.get()), (4, 0));
    stage.commit();
    assert!(batcher.due().now_or_never().is_none());
    assert_eq!(stats.staged.get(), 4, "counted while the source is silent");
    push_all(&mut batcher, &[b"5", b"6"]).await;
    stage.drop_newest();
    batcher.finish().await.unwrap();
    assert_eq!((stats.staged.get(), stats.dropped.get()), (4, 2));
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_is_bounded_in_batches_and_in_bytes() {
    let stage = MemoryStage::new(Durability::ByHand);
    let (mut small, _) = batcher(&stage, limits(1, 1_000, 200));
    for _ in 0..MAX_IN_FLIGHT_BATCHES {
        small.push(b"x", some_time()).now_or_never().unwrap().unwrap();
    }
    {
        let mut one_more = std::pin::pin!(small.push(b"x", some_time()));
        assert!((&mut one_more).now_or_never().is_none(), "waits");
        stage.commit();
        one_more.await.unwrap();
    }

    let stage = MemoryStage::new(Durability::ByHand);
    let (mut large, _) = batcher(&stage, limits(1, 1_000, 200));
    let payload = vec![0; MAX_IN_FLIGHT_BYTES / 4];
    for _ in 0..4 {
        large.push(&payload, some_time()).now_or_never().unwrap().unwrap();
    }
    let mut one_more = std::pin::pin!(large.push(b"x", some_time()));
    assert!((&mut one_more).now_or_never().is_none(), "waits");
    stage.commit();
    one_more.await.unwrap();
}

#[tokio::test]
async fn a_message_larger_than_all_that_may_be_under_way_passes_alone() {
    let stage = MemoryStage::new(Durability::Immediate);
    let (mut batcher, stats) = batcher(&stage, limits(1, 1_000, 200));
    let payload = vec![0; MAX_IN_FLIGHT_BYTES + 1];
    batcher.push(&payload, some_time()).await.unwrap();
    batcher.finish().await.unwrap();
    assert_eq!(stats.staged.get(), 1);
}

#[tokio::test]
async fn an_outage_stands_between_the_messages_before_and_after_it() {
    let stage = MemoryStage::new(Durability::Immediate);
    let (mut batcher, stats) = batcher(&stage, limits(100, 1_000, 60_000));
    push_all(&mut batcher, &[b"before"]).await;
    let outage = Outage {
        from: Timestamp::from_micros(1),
        to: Timestamp::from_micros(2),
        messages: 0,
        cause: "the line was cut".to_owned(),
        kind: OutageKind::Disconnected,
    };
    batcher.append_outage(outage.clone()).await.unwrap();
    push_all(&mut batcher, &[b"after"]).await;
    batcher.finish().await.unwrap();
    let entries = stage.entries();
    assert!(matches!(&entries[0], Entry::Batch(batch) if batch.payload_bytes() == b"before"));
    assert!(matches!(&entries[1], Entry::Outage(recorded) if *recorded == outage));
    assert!(matches!(&entries[2], Entry::Batch(batch) if batch.payload_bytes() == b"after"));
    assert_eq!(stats.gaps.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stage_that_fails_is_noticed_while_the_source_is_silent_and_at_the_end() {
    let stage = MemoryStage::new(Durability::ByHand);
    let (mut batcher, stats) = batcher(&stage, limits(1, 1_000, 200));
    push_all(&mut batcher, &[b"1", b"2"]).await;
    stage.fail();
    assert!(matches!(batcher.due().await, Err(StageError::Failed { .. })));
    assert!(matches!(batcher.finish().await, Err(StageError::Failed { .. })));
    assert_eq!(stats.staged.get(), 0);
}
