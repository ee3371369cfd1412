//! A source that never sends anything, and leaves an outage at every attempt: what a stage holds of them stays small.

use std::time::Duration;

use super::support::*;
use crate::record::{Offset, Timestamp};
use crate::stage::local::LocalOptions;
use crate::stage::local::carried::MAX_CARRIED;
use crate::stage::{Outage, OutageKind, SharedStage};

/// One second of a day on which the source fails every second.
fn nth(second: i64, kind: OutageKind) -> Outage {
    Outage {
        from: Timestamp::from_micros(second * 1_000_000),
        to: Timestamp::from_micros((second + 1) * 1_000_000),
        messages: u64::from(kind == OutageKind::TooLarge),
        cause: format!("second {second}"),
        kind,
    }
}

async fn record(stage: &SharedStage, seconds: std::ops::Range<i64>) {
    for second in seconds {
        // Every tenth time something came that could not be staged.
        let kind = match second % 10 {
            9 => OutageKind::TooLarge,
            _ => OutageKind::Disconnected,
        };
        let accepted = stage.append_outage(nth(second, kind)).await.unwrap();
        accepted.durable().await.unwrap();
    }
}

#[tokio::test]
async fn of_outages_without_end_and_without_a_message_the_newest_are_carried_over_and_the_others_summed_up() {
    let dir = tempfile::tempdir().unwrap();
    let roles = [role(STAGE), role("busy")];
    let local = crate::stage::local::LocalPath::open(options(dir.path()), &roles).unwrap();
    let (stage, busy) = (local.stage(STAGE).unwrap(), local.stage("busy").unwrap());
    let mut recorded = 0;
    for day in 1..=4_i64 {
        record(&stage, recorded..day * 50).await;
        recorded = day * 50;
        let newest = local.overview().generations.last().unwrap().number;
        while local.overview().generations.last().unwrap().number == newest {
            fill(&busy, 1).await;
        }
    }
    let held = outages_from(&stage, Offset::ZERO.into()).await;
    assert!(
        (MAX_CARRIED..=MAX_CARRIED + 2).contains(&held.len()),
        "{} of {recorded}",
        held.len()
    );
    // Nothing is lost of the time, nor of the messages, and places only ever go up to the last one.
    let first = held.iter().map(|placed| placed.outage.from).min().unwrap();
    let last = held.iter().map(|placed| placed.outage.to).max().unwrap();
    assert_eq!((first.micros(), last.micros()), (0, recorded * 1_000_000));
    let messages: u64 = held.iter().map(|placed| placed.outage.messages).sum();
    assert_eq!(messages, recorded as u64 / 10);
    assert_eq!(i64::from(held.last().unwrap().place.sequence), recorded - 1);
    for placed in &held {
        let second = i64::from(placed.place.sequence);
        let outage = &placed.outage;
        assert_eq!(outage.to.micros(), (second + 1) * 1_000_000, "{placed:?}");
        assert!(outage.cause.ends_with(&format!("second {second}")), "{placed:?}");
        let is_sum = outage
            .cause
            .starts_with("several stretches summed up; the last: second ");
        assert_eq!(is_sum, outage.from.micros() != second * 1_000_000, "{placed:?}");
    }
    assert!(
        held.iter()
            .any(|placed| placed.outage.kind == OutageKind::TooLarge)
    );
    // What comes next has a place of its own, and stays behind the message before which it stands.
    record(&stage, recorded..recorded + 1).await;
    fill(&stage, 1).await;
    let again = outages_from(&stage, Offset::ZERO.into()).await;
    assert_eq!(again.len(), held.len() + 1);
    assert_eq!(again[..held.len()], held);
    local.close().unwrap();
}

#[tokio::test]
async fn outages_alone_make_no_generation_old() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings: LocalOptions = options(dir.path());
    settings.tuning.seal_age = Duration::from_millis(1);
    let (local, stage) = open_with(settings);
    record(&stage, 0..30).await;
    let step = local.shared().options.tuning.housekeeping * 3;
    tokio::time::sleep(step).await;
    assert_eq!(local.overview().generations.len(), 1);
    fill(&stage, 1).await;
    until("a generation with messages is sealed at its age", || {
        local.overview().generations.len() > 1
    })
    .await;
    local.close().unwrap();
}
