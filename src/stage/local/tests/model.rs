//! Random appends, reads, acks, stops and crashes against a vector.

use proptest::prelude::*;

use super::support::*;
use crate::record::Offset;
use crate::stage::{GapCause, Place};

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<usize>),
    Outage,
    ReadFrom(prop::sample::Index),
    Ack(prop::sample::Index),
    Reopen,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop::collection::vec(0_usize..3000, 1..12).prop_map(Step::Append),
        1 => Just(Step::Outage),
        3 => any::<prop::sample::Index>().prop_map(Step::ReadFrom),
        2 => any::<prop::sample::Index>().prop_map(Step::Ack),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ]
}

async fn run(steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let mut path = dir.path().join("stage-0");
    let (mut local, mut stage) = open(&path);
    let mut model: Vec<Numbered> = Vec::new();
    // Each behind so many messages.
    let mut outages: Vec<(usize, String)> = Vec::new();
    let mut written = 0;
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Append(sizes) => {
                let payloads: Vec<_> = (written..)
                    .zip(&sizes)
                    .map(|(n, size)| payload(n, *size))
                    .collect();
                written += sizes.len() as u64;
                let new = append(&stage, payloads).await;
                let next = model.last().map_or(0, |(offset, _)| offset + 1);
                assert!(new[0].0 >= next, "an offset is given twice");
                model.extend(new);
            }
            Step::Outage => {
                let cause = number.to_string();
                let accepted = stage.append_outage(outage(&cause)).await.unwrap();
                accepted.durable().await.unwrap();
                outages.push((model.len(), cause));
            }
            Step::ReadFrom(index) if !model.is_empty() => {
                let at = index.index(model.len());
                let (read, gaps) = read_from(&stage, model[at].0).await;
                assert_eq!(read, model[at..]);
                assert_eq!(messages_of(&gaps, GapCause::Lost), 0);
                let (from, head) = (Offset::new(model[at].0), stage.bounds().head);
                assert_eq!(stage.count_between(from, head), (model.len() - at) as u64);
            }
            Step::Ack(index) if !model.is_empty() => {
                let next = Offset::new(model[index.index(model.len())].0 + 1);
                stage.ack(PRODUCER, next).await.unwrap();
                assert_eq!(stage.cursor(PRODUCER), Some(next));
            }
            Step::ReadFrom(_) | Step::Ack(_) => {}
            Step::Reopen => {
                let cursor = stage.cursor(PRODUCER);
                local.close().unwrap();
                (local, stage) = open(&path);
                assert_eq!(stage.cursor(PRODUCER), cursor);
            }
            Step::Crash => {
                let image = image(&local, &format!("stage-{}", number + 1));
                drop(local);
                path = image;
                (local, stage) = open(&path);
            }
        }
    }
    assert_eq!(read_all(&stage).await.0, model);
    assert_eq!(stage.bounds().staged, model.len() as u64);
    for (before, (offset, _)) in (0..).zip(&model) {
        assert_eq!(stage.given_before(Offset::new(*offset)).messages, before);
    }
    let found: Vec<_> = outages_from(&stage, Place::default())
        .await
        .into_iter()
        .map(|placed| {
            let before = model.partition_point(|(offset, _)| *offset < placed.place.offset.get());
            (before, placed.outage.cause)
        })
        .collect();
    assert_eq!(found, outages, "each once, in its place");
    local.close().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_stage_behaves_like_a_vector_that_survives_everything(steps in prop::collection::vec(step(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}
