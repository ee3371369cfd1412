//! The source's numbers through the batcher, over a stage in memory.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::consumer::batcher::Batcher;
use crate::consumer::memory_stage::{Durability, Entry, MemoryStage, context};
use crate::stats::ConsumerStats;

/// A batcher that checks `$.u` (per `$.s`, previous `$.pu`).
fn batcher(
    stage: &Arc<MemoryStage>,
    per: Option<&str>,
    previous: Option<&str>,
) -> (Batcher, Arc<ConsumerStats>) {
    let path = |text: &str| text.parse::<Path>().unwrap();
    let mut context = context(stage);
    context.sequence = Some(Sequence::new(path("$.u"), per.map(path), previous.map(path)));
    (Batcher::new(&context), context.stats)
}

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(1_700_000_000_000_000 + micros)
}

/// Pushes messages, each a second behind the one before.
async fn push(batcher: &mut Batcher, messages: &[&str]) {
    for (second, message) in (0..).zip(messages) {
        batcher
            .push(message.as_bytes(), at(second * 1_000_000))
            .await
            .unwrap();
    }
}

/// The stage's entries in a row: messages as they are, holes as `key first..last (messages)`.
fn entries(stage: &MemoryStage) -> Vec<String> {
    let mut shown = Vec::new();
    for entry in stage.entries() {
        match entry {
            Entry::Batch(batch) => shown.extend(
                batch
                    .iter()
                    .map(|message| String::from_utf8(message.payload.to_vec()).unwrap()),
            ),
            Entry::Outage(outage) => shown.push(match outage.kind.skip() {
                Some(skip) => format!(
                    "{} {}..{} ({})",
                    skip.key.as_deref().unwrap_or("-"),
                    skip.first,
                    skip.last,
                    outage.messages
                ),
                None => outage.cause,
            }),
        }
    }
    shown
}

fn disconnected() -> Outage {
    Outage {
        from: at(0),
        to: at(1),
        messages: 0,
        cause: "no connection".to_owned(),
        kind: OutageKind::Disconnected,
    }
}

#[tokio::test]
async fn a_hole_stands_before_the_message_that_shows_it_and_is_counted() {
    let stage = MemoryStage::new(Durability::Immediate);
    let (mut batcher, stats) = batcher(&stage, None, None);
    let messages = [
        r#"{"u":1}"#,
        r#"{"u":"2"}"#,
        r#"{"x":1}"#,
        r#"{"u":6}"#,
        "no json",
        r#"{"u":6}"#,
    ];
    push(&mut batcher, &messages).await;
    batcher.finish().await.unwrap();
    assert_eq!(
        entries(&stage),
        [
            messages[0],
            messages[1],
            messages[2],
            "- 3..5 (3)",
            messages[3],
            messages[4],
            messages[5]
        ]
    );
    let hole = &stage.outages()[0];
    assert_eq!(
        (hole.from, hole.to),
        (at(1_000_000), at(3_000_000)),
        "from the last in order"
    );
    assert_eq!(hole.cause, SKIPPED);
    let found = &stats.sequence;
    assert_eq!(
        [
            found.holes.get(),
            found.missing.get(),
            found.duplicates.get(),
            found.unnumbered.get()
        ],
        [1, 3, 1, 2]
    );
    assert_eq!(stats.gaps.get(), 1);
}

#[tokio::test]
async fn each_key_has_numbers_of_its_own_and_holes_over_an_outage_stand_behind_it() {
    let stage = MemoryStage::new(Durability::Immediate);
    let (mut batcher, stats) = batcher(&stage, Some("$.s"), None);
    push(
        &mut batcher,
        &[r#"{"s":"A","u":1}"#, r#"{"s":"B","u":90}"#, r#"{"s":"A","u":2}"#],
    )
    .await;
    batcher.append_outage(disconnected()).await.unwrap();
    // A goes on, B has missed some, C is new, and D counts anew behind the next outage.
    push(
        &mut batcher,
        &[
            r#"{"s":"A","u":3}"#,
            r#"{"s":"B","u":100}"#,
            r#"{"s":"C","u":7}"#,
            r#"{"s":"B","u":102}"#,
        ],
    )
    .await;
    batcher.append_outage(disconnected()).await.unwrap();
    push(&mut batcher, &[r#"{"s":"B","u":1}"#, r#"{"s":"B","u":2}"#]).await;
    batcher.finish().await.unwrap();
    let holes: Vec<_> = stage
        .outages()
        .into_iter()
        .filter(|outage| outage.kind != OutageKind::Disconnected)
        .map(|hole| (hole.kind.skip().cloned().unwrap(), hole.cause))
        .collect();
    let skip = |first, last| Skip {
        key: Some("B".to_owned()),
        first,
        last,
    };
    assert_eq!(
        holes,
        [
            (skip(91, 99), CROSSED.to_owned()),
            (skip(101, 101), SKIPPED.to_owned())
        ]
    );
    assert_eq!(
        entries(&stage)[3..6],
        ["no connection", r#"{"s":"A","u":3}"#, "B 91..99 (9)"]
    );
    assert_eq!(
        (stats.sequence.restarts.get(), stats.sequence.reordered.get()),
        (1, 0)
    );
}

#[tokio::test]
async fn where_the_number_before_is_named_the_hole_ends_there_and_its_messages_are_not_known() {
    let stage = MemoryStage::new(Durability::Immediate);
    let (mut batcher, stats) = batcher(&stage, None, Some("$.pu"));
    let messages = [
        r#"{"u":100,"pu":90}"#,
        r#"{"u":170,"pu":100}"#,
        r#"{"u":260,"pu":190}"#,
        r#"{"u":300}"#,
    ];
    push(&mut batcher, &messages).await;
    batcher.finish().await.unwrap();
    assert_eq!(entries(&stage)[2], "- 171..190 (0)");
    assert_eq!(
        (
            stats.sequence.holes.get(),
            stats.sequence.missing.get(),
            stats.sequence.unnumbered.get()
        ),
        (1, 0, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_holes_is_summed_up_and_loses_none_of_what_it_counts() {
    let stage = MemoryStage::new(Durability::Immediate);
    let (mut batcher, stats) = batcher(&stage, None, None);
    // Every second number is missing, all within a tenth of a millisecond.
    let holes = 3_000_u64;
    for number in 0..=holes {
        let message = format!("{{\"u\":{}}}", number * 2);
        batcher.push(message.as_bytes(), at(0)).await.unwrap();
    }
    // A second later ten more may be recorded by themselves, the sum being the first of them.
    let last = format!("{{\"u\":{}}}", holes * 2 + 2);
    batcher.push(last.as_bytes(), at(1_000_000)).await.unwrap();
    batcher.push(b"{\"u\":1000000}", at(1_000_000)).await.unwrap();
    batcher.finish().await.unwrap();
    let recorded = stage.outages();
    let single = recorded.iter().filter(|hole| hole.kind.skip().is_some()).count();
    let summed: Vec<_> = recorded
        .iter()
        .filter(|hole| hole.kind.skip().is_none())
        .collect();
    assert_eq!((single as i64, summed.len()), (BURST + 1, 1));
    assert!(summed[0].cause.starts_with("2001 holes"), "{}", summed[0].cause);
    assert_eq!((summed[0].from, summed[0].to), (at(0), at(1_000_000)));
    let missing: u64 = recorded.iter().map(|hole| hole.messages).sum();
    assert_eq!(missing, stats.sequence.missing.get());
    assert_eq!(stats.sequence.holes.get(), holes + 2);
}

#[tokio::test(start_paused = true)]
async fn holes_that_are_summed_up_are_recorded_when_the_feed_falls_silent_and_at_the_end() {
    for by_age in [true, false] {
        let stage = MemoryStage::new(Durability::Immediate);
        let (mut batcher, stats) = batcher(&stage, None, None);
        for number in 0..1_500_u64 {
            let message = format!("{{\"u\":{}}}", number * 2);
            batcher.push(message.as_bytes(), at(0)).await.unwrap();
        }
        let recorded = || stage.outages().iter().map(|hole| hole.messages).sum::<u64>();
        assert_eq!(recorded(), u64::try_from(BURST).unwrap());
        if by_age {
            let due = tokio::time::timeout(Duration::from_secs(60), batcher.due());
            due.await.expect("it has to be recorded").unwrap();
            batcher.flush().await.unwrap();
        } else {
            batcher.finish().await.unwrap();
        }
        assert_eq!(recorded(), stats.sequence.missing.get());
        assert_eq!(recorded(), 1_499);
    }
}

#[tokio::test]
async fn keys_beyond_the_limit_are_not_followed_and_cost_nothing_else() {
    let stage = MemoryStage::new(Durability::Immediate);
    let (mut batcher, stats) = batcher(&stage, Some("$.s"), None);
    for key in 0..MAX_KEYS + 5 {
        let message = format!("{{\"s\":{key},\"u\":1}}");
        batcher.push(message.as_bytes(), at(0)).await.unwrap();
    }
    let long = format!("{{\"s\":\"{}\",\"u\":1}}", "x".repeat(MAX_KEY_BYTES));
    batcher.push(long.as_bytes(), at(0)).await.unwrap();
    push(&mut batcher, &[r#"{"s":7,"u":3}"#]).await;
    batcher.finish().await.unwrap();
    assert_eq!(stats.sequence.unnumbered.get(), 6);
    assert_eq!(stats.sequence.holes.get(), 1, "those before are followed as ever");
}

#[tokio::test]
async fn after_a_restart_numbers_go_on_from_what_the_stage_holds() {
    let dir = tempfile::tempdir().unwrap();
    let roles = [crate::stage::local::StageRole {
        name: "feed".to_owned(),
        producers: Vec::new(),
    }];
    let options = crate::stage::local::LocalOptions::new(dir.path());
    let open = || crate::stage::local::LocalPath::open(options.clone(), &roles).unwrap();
    let path = |text: &str| text.parse::<Path>().unwrap();
    let mut context = context(&MemoryStage::new(Durability::Immediate));
    context.sequence = Some(Sequence::new(path("$.u"), Some(path("$.s")), None));
    for (messages, holes) in [
        (&[r#"{"s":"A","u":1}"#, r#"{"s":"B","u":5}"#][..], 0),
        // The same as if the engine had not been started again.
        (&[r#"{"s":"A","u":2}"#, r#"{"s":"B","u":9}"#], 1),
        (&[r#"{"s":"B","u":10}"#, r#"{"s":"A","u":9}"#], 2),
    ] {
        let local = open();
        context.stage = local.stage("feed").unwrap();
        let mut batcher = Batcher::new(&context);
        push(&mut batcher, messages).await;
        batcher.finish().await.unwrap();
        assert_eq!(context.stats.sequence.holes.get(), holes);
        local.close().unwrap();
    }
    assert_eq!(context.stats.sequence.missing.get(), 3 + 6);
}

#[tokio::test]
async fn a_hole_that_was_recorded_before_its_message_was_lost_is_not_told_again() {
    let dir = tempfile::tempdir().unwrap();
    let roles = [crate::stage::local::StageRole {
        name: "feed".to_owned(),
        producers: Vec::new(),
    }];
    let options = crate::stage::local::LocalOptions::new(dir.path());
    let local = crate::stage::local::LocalPath::open(options, &roles).unwrap();
    let stage = local.stage("feed").unwrap();
    let path = |text: &str| text.parse::<Path>().unwrap();
    let mut context = context(&MemoryStage::new(Durability::Immediate));
    context.stage = stage.clone();
    context.sequence = Some(Sequence::new(path("$.u"), Some(path("$.s")), None));
    let mut batcher = Batcher::new(&context);
    push(&mut batcher, &[r#"{"s":"A","u":1}"#, r#"{"s":"B\u00e9","u":1}"#]).await;
    // As it is when the engine is killed right then.
    for last in 3..20 {
        let hole = Outage {
            kind: OutageKind::Sequence(Some(Skip {
                key: Some("Bé".to_owned()),
                first: last,
                last,
            })),
            ..disconnected()
        };
        batcher.append_outage(hole).await.unwrap();
    }
    batcher.finish().await.unwrap();

    let mut batcher = Batcher::new(&context);
    push(&mut batcher, &[r#"{"s":"A","u":3}"#, r#"{"s":"Bé","u":22}"#]).await;
    batcher.finish().await.unwrap();
    let all = stage.bounds().head;
    let mut holes = Holes::from(Offset::new(2));
    let told: Vec<_> = holes
        .before(stage.as_ref(), all)
        .await
        .unwrap()
        .into_iter()
        .skip(17)
        .map(|skip| (skip.key.unwrap(), skip.first, skip.last))
        .collect();
    assert_eq!(told, [("A".to_owned(), 2, 2), ("Bé".to_owned(), 20, 21)]);
    local.close().unwrap();
}

#[tokio::test]
async fn only_the_last_messages_of_a_stage_are_looked_at_for_numbers() {
    let stage = MemoryStage::new(Durability::Immediate);
    assert_eq!(seed_from(stage.as_ref()), Offset::ZERO);
    let mut batch = crate::record::Batch::default();
    for _ in 0..SEED_MESSAGES + 500 {
        assert!(batch.push(b"", at(0)));
    }
    stage.append(batch).await.unwrap().durable().await.unwrap();
    assert_eq!(seed_from(stage.as_ref()), Offset::new(500));
}
