//! Whether a replay can be done without rows standing twice, and how. A pure decision over what was found.

use super::super::table::ConflictAction;
use crate::producer::operate::Doubles;
use crate::record::Offset;

/// What was found about the table that a replay goes into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The table does not exist, or has no row.
    pub(super) is_empty: bool,
    /// From which offset on it holds rows of the stage, if it was made by us.
    pub(super) holds_from: Option<Offset>,
    /// What its metadata columns say, if the producer fills them.
    pub(super) marked: Option<Marked>,
    /// What becomes of a row that is delivered twice, if that is not to stand twice (`on_conflict`).
    pub(super) on_conflict: Option<ConflictAction>,
}

/// What becomes of one table.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct TableEnd {
    /// Quoted.
    pub(super) table: String,
    /// The offset after the last that may become rows of it.
    pub(super) until: Offset,
    pub(super) doubles: Doubles,
}

/// What the metadata columns of a table say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marked {
    /// Messages of the stretch that have rows.
    pub(super) standing: u64,
    /// Rows without an offset or a stage: of which message they are is not known.
    pub(super) unmarked: u64,
    /// Rows that were received before the stretch begins and yet have its offsets: of an earlier stage of the name.
    pub(super) of_earlier_stage: u64,
}

/// The ways to have a replay all the same.
const WAYS: &str = "Deliver into another table with --into; or drop or empty the table first, if nothing in it is to be \
     kept; or have rows stand twice with --allow-duplicates. For the next time, `metadata: true` tells which messages stand \
     in a table";

/// What becomes of each of the tables, quoted, in the replay of `from..to`; or why it is refused. Each message is for one of
/// them: a table that has had its rows since it was made gets none, and the others what they lack.
pub(super) fn decide_all(
    tables: &[(String, Found)],
    allow_duplicates: bool,
    from: Offset,
    to: Offset,
) -> Result<Vec<TableEnd>, String> {
    let mut refusal = None;
    let mut ends = Vec::new();
    for (table, found) in tables {
        let (until, doubles) = match decide(table, *found, allow_duplicates, from, to) {
            Ok(decided) => decided,
            Err(why) if found.holds_from.is_some() => {
                refusal.get_or_insert(why);
                (from, Doubles::HasAll)
            }
            Err(why) => return Err(why),
        };
        ends.push(TableEnd {
            table: table.clone(),
            until,
            doubles,
        });
    }
    match refusal {
        Some(why) if ends.iter().all(|end| end.until <= from) => Err(why),
        _ => Ok(ends),
    }
}

/// Where the replay of `from..to` into one table ends, and what becomes of doubles; or why it is refused.
fn decide(
    table: &str,
    found: Found,
    allow_duplicates: bool,
    from: Offset,
    to: Offset,
) -> Result<(Offset, Doubles), String> {
    match found.on_conflict {
        Some(ConflictAction::Ignore) => return Ok((to, Doubles::FirstOfKey)),
        Some(ConflictAction::Update) => return Ok((to, Doubles::LastOfKey)),
        None => {}
    }
    if allow_duplicates {
        return Ok((to, Doubles::Allowed));
    }
    if found.is_empty {
        return Ok((to, Doubles::NoneThere));
    }
    if found
        .marked
        .is_some_and(|marked| marked.unmarked == 0 && marked.of_earlier_stage == 0)
    {
        return Ok((to, Doubles::LeftOut));
    }
    if let Some(holds_from) = found.holds_from.filter(|holds_from| *holds_from > from) {
        return Ok((to.min(holds_from), Doubles::MadeLater));
    }
    let why = match found {
        Found {
            marked: Some(Marked { unmarked: 1.., .. }),
            ..
        } => "some of its rows have no _offset, so that nothing tells of which messages they are".to_owned(),
        Found { marked: Some(_), .. } => {
            "some of its rows have these offsets and were received before: they are of an earlier stage of this name".to_owned()
        }
        Found {
            holds_from: Some(offset),
            ..
        } => format!("it has held the rows of the messages from offset {offset} on since it was made"),
        Found { .. } => "nothing tells which messages they are of".to_owned(),
    };
    Err(format!(
        "table {table} holds rows, and {why}: a replay could double them. {WAYS}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: Offset = Offset::new(100);
    const TO: Offset = Offset::new(500);

    fn decided(found: Found, allow_duplicates: bool) -> Result<(u64, Doubles), String> {
        decide("t", found, allow_duplicates, FROM, TO).map(|(to, doubles)| (to.get(), doubles))
    }

    fn marked(standing: u64, unmarked: u64, of_earlier_stage: u64) -> Option<Marked> {
        Some(Marked {
            standing,
            unmarked,
            of_earlier_stage,
        })
    }

    #[test]
    fn rows_with_a_key_may_come_again() {
        for (action, doubles) in [
            (ConflictAction::Ignore, Doubles::FirstOfKey),
            (ConflictAction::Update, Doubles::LastOfKey),
        ] {
            let found = Found {
                on_conflict: Some(action),
                ..Found::default()
            };
            assert_eq!(decided(found, false), Ok((500, doubles)));
        }
    }

    #[test]
    fn of_several_tables_each_gets_what_it_lacks_and_one_that_nothing_is_known_of_refuses_all() {
        let since = |offset| Found {
            holds_from: Some(Offset::new(offset)),
            ..Found::default()
        };
        let empty = Found {
            is_empty: true,
            ..Found::default()
        };
        let decided = |tables: &[Found]| {
            let tables: Vec<_> = tables.iter().map(|found| ("t".to_owned(), *found)).collect();
            let ends = decide_all(&tables, false, FROM, TO)?;
            Ok::<_, String>(ends.iter().map(|end| end.until.get()).collect::<Vec<_>>())
        };
        assert_eq!(decided(&[since(0), since(300), empty]), Ok(vec![100, 300, 500]));
        assert!(decided(&[since(0), since(100)]).is_err());
        assert!(decided(&[empty, Found::default()]).is_err());
    }

    #[test]
    fn an_empty_table_takes_everything() {
        let found = Found {
            is_empty: true,
            holds_from: Some(Offset::new(50)),
            ..Found::default()
        };
        assert_eq!(decided(found, false), Ok((500, Doubles::NoneThere)));
    }

    #[test]
    fn a_table_that_was_made_later_takes_what_is_before_its_rows() {
        for (holds_from, to) in [(300, 300), (600, 500), (101, 101)] {
            let found = Found {
                holds_from: Some(Offset::new(holds_from)),
                ..Found::default()
            };
            assert_eq!(decided(found, false), Ok((to, Doubles::MadeLater)));
        }
    }

    #[test]
    fn a_table_that_tells_its_messages_takes_the_others() {
        let found = Found {
            holds_from: Some(Offset::new(300)),
            marked: marked(40, 0, 0),
            ..Found::default()
        };
        assert_eq!(decided(found, false), Ok((500, Doubles::LeftOut)));
    }

    #[test]
    fn a_table_that_may_hold_the_rows_is_refused_with_the_ways_unless_doubles_are_asked_for() {
        for found in [
            Found::default(),
            Found {
                holds_from: Some(Offset::new(100)),
                ..Found::default()
            },
            Found {
                marked: marked(10, 1, 0),
                ..Found::default()
            },
            Found {
                marked: marked(10, 0, 1),
                ..Found::default()
            },
        ] {
            let refused = decided(found, false).unwrap_err();
            assert!(
                refused.contains("--into") && refused.contains("--allow-duplicates"),
                "{refused}"
            );
            assert_eq!(decided(found, true), Ok((500, Doubles::Allowed)));
        }
    }

    #[test]
    fn rows_that_metadata_does_not_tell_apart_still_end_a_replay_where_they_begin() {
        let found = Found {
            holds_from: Some(Offset::new(300)),
            marked: marked(10, 3, 0),
            ..Found::default()
        };
        assert_eq!(decided(found, false), Ok((300, Doubles::MadeLater)));
    }
}
