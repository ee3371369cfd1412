//! The counts in the cursor's row: what became of the messages before the cursor. They move in the statement that moves the cursor,
//! so that they are exact whatever is killed.
//!
//! A row of a version that did not count has NULL there, until [`settle`] has made up for it.

use tokio_postgres::{Client, Error};
use tracing::warn;

use super::cursor::{CursorKey, OwnTables, to_sql};
use super::dead_letter::SKIPPED;
use super::transaction::Prepared;
use crate::record::Offset;
use crate::stage::report::Outcomes;
use crate::stage::{Gap, GapCause, Given, Stage};

/// The columns, in the order of [`values`].
const COLUMNS: [&str; 6] = [
    "delivered",
    "ignored",
    "skipped",
    "dead_letters",
    "dropped",
    "lost",
];

/// The column that tells whether a table has them.
pub(super) const FIRST_COLUMN: &str = COLUMNS[0];

/// The columns with something before each name and their type behind it, as tables are made and changed.
pub(super) fn definition(before: &str) -> String {
    COLUMNS
        .map(|column| format!("{before}{column} bigint"))
        .join(", ")
}

/// An expression for all of them as one text; NULL when nothing was counted yet.
pub(super) fn select_sql() -> String {
    let columns = COLUMNS.map(|column| format!("coalesce({column}, 0)"));
    format!(
        "CASE WHEN {FIRST_COLUMN} IS NOT NULL THEN concat_ws(' ', {}) END",
        columns.join(", ")
    )
}

/// What [`select_sql`] has answered.
pub(super) fn parse(text: Option<&str>) -> Option<Outcomes> {
    let mut numbers = text?.split(' ').map(|number| {
        number
            .parse::<i64>()
            .map_or(0, |number| u64::try_from(number).unwrap_or(0))
    });
    let mut next = || numbers.next().unwrap_or(0);
    Some(Outcomes {
        delivered: next(),
        ignored: next(),
        skipped: next(),
        dead_letters: next(),
        dropped: next(),
        lost: next(),
    })
}

/// Assignments that add the parameter of this number, which is an array: [`values`].
pub(super) fn add_sql(parameter: u32) -> String {
    let mut place = 0;
    COLUMNS
        .map(|column| {
            place += 1;
            format!("{column} = coalesce({column}, 0) + (${parameter}::int8[])[{place}]")
        })
        .join(", ")
}

/// Assignments that set literal values.
pub(super) fn set_sql(outcomes: Outcomes) -> String {
    let mut values = values(outcomes).into_iter();
    COLUMNS
        .map(|column| format!("{column} = {}", values.next().unwrap_or(0)))
        .join(", ")
}

/// The values as the columns hold them.
pub(super) fn values(outcomes: Outcomes) -> Vec<i64> {
    let Outcomes {
        delivered,
        ignored,
        skipped,
        dead_letters,
        dropped,
        lost,
    } = outcomes;
    [delivered, ignored, skipped, dead_letters, dropped, lost]
        .map(|count| i64::try_from(count).unwrap_or(i64::MAX))
        .to_vec()
}

/// Messages that gaps before `until` stand for, as far as their number is known.
pub(super) fn of_gaps(gaps: &[Gap], until: Offset) -> Outcomes {
    let mut outcomes = Outcomes::default();
    for gap in gaps {
        let messages = match gap.messages {
            None | Some(0) => continue,
            // Every offset of it was one.
            Some(_) => gap.to.min(until).get().saturating_sub(gap.from.get()),
        };
        match gap.cause {
            GapCause::DroppedOldest => outcomes.dropped += messages,
            GapCause::Lost | GapCause::Expired => outcomes.lost += messages,
            GapCause::Reservation => {}
        }
    }
    outcomes
}

/// What becomes of the messages of a transaction.
pub(super) fn of_transaction(prepared: &Prepared) -> Outcomes {
    let dead_letters = prepared.dead_letters.len() as u64;
    Outcomes {
        delivered: prepared.messages.saturating_sub(prepared.ignored + dead_letters),
        ignored: prepared.ignored,
        dead_letters,
        ..of_gaps(&prepared.gaps, prepared.end)
    }
}

/// The sums of two.
pub(super) fn sum(one: Outcomes, other: Outcomes) -> Outcomes {
    Outcomes {
        delivered: one.delivered + other.delivered,
        ignored: one.ignored + other.ignored,
        skipped: one.skipped + other.skipped,
        dead_letters: one.dead_letters + other.dead_letters,
        dropped: one.dropped + other.dropped,
        lost: one.lost + other.lost,
    }
}

/// The row as it was taken.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found {
    /// It was made just now.
    Made,
    /// It counts nothing yet.
    Uncounted,
    /// It counts.
    Counted(Outcomes),
}

/// Sees to it, inside the open transaction that has taken the row, that it accounts for every message before its cursor at `at`.
/// It does already unless the row is new or of a version that did not count, or somebody moved the cursor by hand.
pub(super) async fn settle(
    client: &Client,
    tables: &OwnTables,
    key: &CursorKey,
    stage: &dyn Stage,
    at: Offset,
    found: Found,
) -> Result<Outcomes, Error> {
    let Given {
        messages: before,
        is_exact,
    } = stage.given_before(at);
    let outcomes = match found {
        Found::Made => Outcomes {
            skipped: before,
            ..Outcomes::default()
        },
        Found::Uncounted => uncounted(client, tables, key, at, before).await?,
        Found::Counted(known) if !is_exact => return Ok(known),
        Found::Counted(known) if known.total() == before => return Ok(known),
        Found::Counted(known) => {
            let ahead = uncount_ahead(client, tables, key, at).await?;
            warn!(stage = key.stage, cursor = %at, counted = known.total(), staged = before, dead_letters = ahead.total(),
                "the counts in the cursor's row do not add up to what was staged before it: the cursor was moved by hand, or by a \
                 version that does not count. Messages that were stepped over are counted as skipped from now on, and those that \
                 are delivered again only once. Dead letters from the cursor on stay, but are no longer counted: their messages \
                 come again, so drop them rather than retry them");
            let known = Outcomes {
                skipped: known.skipped.saturating_sub(ahead.skipped),
                dead_letters: known.dead_letters.saturating_sub(ahead.dead_letters),
                ..known
            };
            corrected(known, before)
        }
    };
    client
        .execute(
            &format!(
                "UPDATE {} SET {} WHERE stage = $1 AND producer = $2",
                tables.cursor(),
                set_sql(outcomes)
            ),
            &[&key.stage, &key.producer],
        )
        .await?;
    Ok(outcomes)
}

/// The counts of the `before` messages before the cursor at `at` where no row tells them: the dead letters that stand are known,
/// and all else counts as delivered.
pub(super) async fn uncounted(
    client: &Client,
    tables: &OwnTables,
    key: &CursorKey,
    at: Offset,
    before: u64,
) -> Result<Outcomes, Error> {
    let counting = format!(
        "SELECT count(*) FILTER (WHERE reason = $4 AND sqlstate IS NULL), count(*) FROM {} \
         WHERE stage = $1 AND producer = $2 AND stage_path_id = $3::text::uuid AND message_offset < $5 \
         AND into_table IS NULL AND NOT replayed",
        tables.dead_letter()
    );
    let (skipped, letters) = skipped_and_all(client, &counting, key, at).await?;
    let (skipped, letters) = (skipped.min(before), letters.min(before));
    Ok(Outcomes {
        skipped,
        dead_letters: letters.saturating_sub(skipped),
        delivered: before - letters,
        ..Outcomes::default()
    })
}

/// The two counts of a statement about the dead letters on one side of `at`: those stepped over, and all.
async fn skipped_and_all(
    client: &Client,
    statement: &str,
    key: &CursorKey,
    at: Offset,
) -> Result<(u64, u64), Error> {
    let (owner, path_id) = (key.owner(), key.path_id.to_string());
    let row = client
        .query_one(statement, &[&key.stage, &owner, &path_id, &SKIPPED, &to_sql(at)])
        .await?;
    let count = |column| {
        row.try_get::<_, i64>(column)
            .map(|count| u64::try_from(count).unwrap_or(0))
    };
    Ok((count(0)?, count(1)?))
}

/// The row no longer counts the dead letters of messages from `at` on, which are delivered again. Returns what they counted as.
async fn uncount_ahead(
    client: &Client,
    tables: &OwnTables,
    key: &CursorKey,
    at: Offset,
) -> Result<Outcomes, Error> {
    let uncounting = format!(
        "WITH ahead AS (UPDATE {} SET replayed = true \
         WHERE stage = $1 AND producer = $2 AND stage_path_id = $3::text::uuid AND message_offset >= $5 \
         AND into_table IS NULL AND NOT replayed RETURNING reason = $4 AND sqlstate IS NULL AS skipped) \
         SELECT count(*) FILTER (WHERE skipped), count(*) FROM ahead",
        tables.dead_letter()
    );
    let (skipped, letters) = skipped_and_all(client, &uncounting, key, at).await?;
    Ok(Outcomes {
        skipped,
        dead_letters: letters - skipped,
        ..Outcomes::default()
    })
}

/// Counts that add up to `before`.
fn corrected(known: Outcomes, before: u64) -> Outcomes {
    let total = known.total();
    let mut outcomes = known;
    outcomes.skipped += before.saturating_sub(total);
    let mut excess = total.saturating_sub(before);
    for count in [
        &mut outcomes.delivered,
        &mut outcomes.ignored,
        &mut outcomes.skipped,
        &mut outcomes.dead_letters,
        &mut outcomes.dropped,
        &mut outcomes.lost,
    ] {
        let taken = excess.min(*count);
        *count -= taken;
        excess -= taken;
    }
    outcomes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Timestamp;

    const SOME: Outcomes = Outcomes {
        delivered: 1,
        ignored: 2,
        skipped: 3,
        dead_letters: 4,
        dropped: 5,
        lost: 6,
    };

    #[test]
    fn counts_are_read_in_the_order_in_which_they_are_written() {
        let text: Vec<_> = values(SOME).iter().map(i64::to_string).collect();
        let text = text.join(" ");
        assert_eq!(parse(Some(&text)), Some(SOME));
        assert_eq!(parse(None), None);
        assert_eq!(
            set_sql(SOME),
            "delivered = 1, ignored = 2, skipped = 3, dead_letters = 4, dropped = 5, lost = 6"
        );
        let added = add_sql(7);
        assert!(
            added.starts_with("delivered = coalesce(delivered, 0) + ($7::int8[])[1], "),
            "{added}"
        );
        assert!(
            added.ends_with("lost = coalesce(lost, 0) + ($7::int8[])[6]"),
            "{added}"
        );
    }

    #[test]
    fn gaps_count_up_to_the_cursor_only_and_unknown_losses_not_at_all() {
        let gap = |from, to, messages, cause| Gap {
            from: Offset::new(from),
            to: Offset::new(to),
            messages,
            cause,
            why: None,
            noticed_at: Timestamp::default(),
            period: None,
        };
        let gaps = [
            gap(0, 10, Some(10), GapCause::Lost),
            gap(10, 20, None, GapCause::Lost),
            gap(20, 30, Some(0), GapCause::Reservation),
            gap(30, 40, Some(10), GapCause::Expired),
            gap(40, 60, Some(20), GapCause::DroppedOldest),
        ];
        let counted = of_gaps(&gaps, Offset::new(45));
        assert_eq!((counted.lost, counted.dropped, counted.total()), (20, 5, 25));
    }

    #[test]
    fn counts_that_do_not_add_up_are_corrected_towards_what_is_known() {
        assert_eq!(corrected(SOME, 21), SOME);
        assert_eq!(corrected(SOME, 30).skipped, 12);
        let fewer = corrected(SOME, 19);
        assert_eq!((fewer.delivered, fewer.ignored, fewer.total()), (0, 1, 19));
    }
}
