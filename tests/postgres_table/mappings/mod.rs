//! Any mapping and any table, and whatever messages: what the server reads back is what the messages said, in its column or in
//! `_extra`; or it is dropped, ignored or a dead letter exactly where the configuration says so. Nothing else stands anywhere.
//!
//! The mapping is written as a user writes it, with columns of every type; the table is made by us, or stands there with
//! columns of every type that can be written and of some that can't. Each message carries what has to become of it.

mod case;
mod compare;
mod sent;

use crate::random::{NulRule, dice, times};
use crate::rig::Rig;
use case::{Case, NewKeys};
use compare::{Expected, differences};
use sent::{Fate, anything};

/// Mappings, each with a table of its own.
const MAPPINGS: usize = 10;
/// Deliveries for each; the table changes between them.
const DELIVERIES: usize = 3;
/// Messages of each.
const MESSAGES: usize = 50;

#[tokio::test]
async fn whatever_the_mapping_and_the_table_what_was_sent_is_read_back_or_left_out_as_configured() {
    let mut dice = dice();
    let mut rig = Rig::new(
        "CREATE EXTENSION citext; CREATE DOMAIN percent AS numeric(5,2); \
         CREATE TYPE mood AS ENUM ('sad', 'it''s ok', '\u{1F600}')",
    )
    .await;
    let (mut rows, mut dead) = (0, 0);
    for _ in 0..MAPPINGS * times() {
        let case = Case::any(&mut dice);
        let setup = format!(
            "DROP SCHEMA IF EXISTS feed CASCADE; CREATE SCHEMA feed; SET timezone = 'UTC'; {}",
            case.table
        );
        rig.begin_again(&setup, &case.yaml).await;
        let mut expected = Expected::default();
        let mut unknown = Vec::new();
        for _ in 0..DELIVERIES {
            let from = rig.next_offset();
            let sent: Vec<_> = (0..MESSAGES).map(|_| anything(&case, &mut dice)).collect();
            let texts: Vec<_> = sent.iter().map(|sent| sent.text.as_str()).collect();
            let delivered = rig.deliver_all(&texts).await;
            let mut discarded = 0;
            let mut ignored = 0;
            let mut free = 0;
            for (index, sent) in sent.iter().enumerate() {
                let reason = delivered.dead.iter().find(|(dead, ..)| *dead == index);
                let reason = reason.map(|(_, _, reason)| reason.as_str());
                let about = || format!("{}\n{}\n{}\n{reason:?}", case.yaml, case.table, sent.text);
                let rule = case.nul.unwrap_or(NulRule::Replaced);
                let offset = from + index as u64;
                match &sent.fate {
                    Fate::Dead => {
                        assert!(reason.is_some(), "no dead letter: {}", about());
                        dead += 1;
                    }
                    Fate::Ignored => {
                        assert!(reason.is_none(), "{}", about());
                        ignored += 1;
                    }
                    Fate::Whole => {
                        assert!(
                            reason.is_none_or(
                                |reason| case.new_keys == NewKeys::Freeze && reason.contains("freeze")
                            ),
                            "{}",
                            about()
                        );
                        if reason.is_none() {
                            expected.whole.push((offset, sent.json.meant(rule).plain()));
                        }
                    }
                    Fate::Rows { records, may_die } => {
                        if let Some(reason) = reason {
                            assert!(*may_die && reason.contains("freeze"), "{}", about());
                            continue;
                        }
                        let message = sent.json.meant(rule).plain();
                        for (index, record) in records.iter().enumerate() {
                            discarded += record.new_values;
                            expected.records.push((
                                offset,
                                index,
                                record.json.record_meant(rule).plain(),
                                message.clone(),
                                record.must.clone(),
                            ));
                        }
                    }
                    Fate::Any => {
                        free += u64::from(reason.is_none());
                        unknown.push(offset.to_string());
                    }
                }
            }
            assert!(
                (ignored..=ignored + free).contains(&delivered.ignored),
                "{}",
                case.yaml
            );
            if case.new_keys == NewKeys::Discard {
                // What the messages of which nothing is known have dropped comes on top.
                let counted = delivered.discarded_values;
                let is_exact = !sent.iter().any(|sent| matches!(sent.fate, Fate::Any));
                assert!(
                    counted == discarded || counted > discarded && !is_exact,
                    "{counted} dropped, and not {discarded}: {}\n{}",
                    case.yaml,
                    case.table
                );
            }
            rows += delivered.rows;
        }
        expected.rows = expected.records.len() as u64 + expected.whole.len() as u64;
        if rig.rows("SELECT to_regclass('feed.t')").await == [[None]] {
            assert_eq!(expected.rows, 0, "{}", case.yaml);
            continue;
        }
        if !unknown.is_empty() {
            let delete = format!("DELETE FROM feed.t WHERE _offset IN ({})", unknown.join(", "));
            rig.client.batch_execute(&delete).await.unwrap();
        }
        expected.write(&rig).await;
        let differences = differences(&rig, &case).await;
        assert!(
            differences.is_empty(),
            "{}\n{}\n{}",
            case.yaml,
            case.table,
            differences
                .iter()
                .take(4)
                .map(|text| text.chars().take(900).collect())
                .collect::<Vec<String>>()
                .join("\n")
        );
        let found = rig.rows("SELECT count(*) FROM feed.t").await;
        assert_eq!(found, [[Some(expected.rows.to_string())]], "{}", case.yaml);
    }
    println!("{rows} rows, {dead} dead letters");
}
