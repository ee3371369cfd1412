//! Where delivery of a stage begins: from what the cursor in Postgres says, what the stage's own copy of it says, and
//! where the stage begins and ends. A pure decision; nothing is ever skipped silently.

use crate::producer::Start;
use crate::record::Offset;
use crate::stage::Bounds;

/// Where to begin, or why not to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    /// No cursor on either side: the producer is new to the stage.
    First(Offset),
    /// The cursor in Postgres is as far as the stage's copy, or ahead of it within what the stage can have given out:
    /// the usual after a crash.
    Follow(Offset),
    /// The cursor in Postgres is behind: the database was restored from a backup, rows and cursor alike. What the
    /// stage still holds from there on is delivered again.
    Redeliver {
        /// The cursor in Postgres.
        from: Offset,
        /// How far deliveries had come.
        delivered: Offset,
        /// The oldest message that the stage still holds, if what was before it is gone.
        gone_until: Option<Offset>,
    },
    /// An operator has to decide.
    Hold(HoldCause),
}

/// Why nothing can be delivered before an operator has decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HoldCause {
    /// The stage's copy remembers deliveries that the database knows nothing of.
    #[error(
        "the database has no cursor, but the stage was delivered up to offset {delivered} before: the cursor table was \
         dropped, or the database restored to a time before the first delivery. To go on at {delivered}: \
         `stage-inspect adopt STAGE --keep-cursor` after the rows are known to be there; to deliver everything again that is \
         retained: `stage-inspect adopt STAGE`, which begins at offset {oldest}"
    )]
    CursorGone {
        /// The stage's copy of the cursor.
        delivered: Offset,
        /// The oldest message that the stage still holds.
        oldest: Offset,
    },
    /// The cursor is beyond every offset that the stage can have given.
    #[error(
        "the cursor in the database stands at offset {cursor}, but the stage has never given an offset of {reach} or \
         more: the stage's directory is older than the cursor (removed and made again, or restored from a copy). \
         To deliver what the stage holds: `stage-inspect adopt STAGE`, which begins at its oldest message"
    )]
    StageOlder {
        /// The cursor in Postgres.
        cursor: Offset,
        /// The offset that no cursor of this stage can be beyond.
        reach: Offset,
    },
}

/// Decides from the cursor in Postgres (`None` when there was no row), the stage's copy, the stage's bounds, and the
/// offset that no cursor of this stage can be beyond: at the start of a process the first one that it gives. (Were the
/// stage a copy whose original went on, its new messages would have offsets before the cursor, and be passed over as
/// delivered.) Later it is the end of the reservation.
pub(super) fn decide(
    postgres: Option<Offset>,
    local: Option<Offset>,
    bounds: Bounds,
    reach: Offset,
    start: Start,
) -> Beginning {
    match (postgres, local) {
        (None, None) => Beginning::First(match start {
            Start::Oldest => bounds.oldest,
            Start::Newest => bounds.head,
        }),
        (None, Some(delivered)) => Beginning::Hold(HoldCause::CursorGone {
            delivered,
            oldest: bounds.oldest,
        }),
        (Some(cursor), _) if cursor > reach => Beginning::Hold(HoldCause::StageOlder { cursor, reach }),
        (Some(cursor), Some(delivered)) if cursor < delivered => Beginning::Redeliver {
            from: cursor,
            delivered,
            gone_until: (cursor < bounds.oldest).then_some(bounds.oldest),
        },
        (Some(cursor), Some(_) | None) => Beginning::Follow(cursor),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        oldest: Offset::new(100),
        head: Offset::new(500),
        reserved: Offset::new(1_000),
        given_from: Offset::new(500),
        staged: 500,
        is_uncounted: false,
    };

    fn decided(postgres: Option<u64>, local: Option<u64>) -> Beginning {
        decide(
            postgres.map(Offset::new),
            local.map(Offset::new),
            BOUNDS,
            BOUNDS.reserved,
            Start::Oldest,
        )
    }

    #[test]
    fn a_producer_new_to_a_stage_begins_where_its_configuration_says() {
        assert_eq!(decided(None, None), Beginning::First(Offset::new(100)));
        assert_eq!(
            decide(None, None, BOUNDS, BOUNDS.reserved, Start::Newest),
            Beginning::First(Offset::new(500))
        );
    }

    #[test]
    fn a_missing_cursor_that_the_stage_remembers_holds() {
        let held = decided(None, Some(300));
        assert_eq!(
            held,
            Beginning::Hold(HoldCause::CursorGone {
                delivered: Offset::new(300),
                oldest: Offset::new(100)
            })
        );
    }

    #[test]
    fn a_cursor_ahead_within_the_reservation_is_followed() {
        for (postgres, local) in [
            (300, Some(300)),
            (400, Some(300)),
            (400, None),
            (1_000, Some(300)),
        ] {
            assert_eq!(
                decided(Some(postgres), local),
                Beginning::Follow(Offset::new(postgres))
            );
        }
    }

    #[test]
    fn a_cursor_beyond_the_reservation_holds_whatever_the_stage_remembers() {
        for local in [None, Some(300), Some(2_000)] {
            let held = decided(Some(1_001), local);
            assert!(
                matches!(held, Beginning::Hold(HoldCause::StageOlder { .. })),
                "{held:?}"
            );
        }
    }

    #[test]
    fn a_cursor_behind_delivers_again_and_names_what_is_gone() {
        assert_eq!(
            decided(Some(200), Some(300)),
            Beginning::Redeliver {
                from: Offset::new(200),
                delivered: Offset::new(300),
                gone_until: None
            }
        );
        assert_eq!(
            decided(Some(50), Some(300)),
            Beginning::Redeliver {
                from: Offset::new(50),
                delivered: Offset::new(300),
                gone_until: Some(Offset::new(100))
            }
        );
    }
}
