//! From an error to what is to be done: the one place that knows SQLSTATEs.
//!
//! Every class that PostgreSQL documents is a [`Class`], and every match over it is exhaustive, so that a class
//! added later has to be thought about. A class that nobody knows holds the stage: nothing is skipped on a guess.

use tokio_postgres::error::DbError;

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// The connection or the server is going or gone: connect again, for ever.
    Reconnect,
    /// The same, and somebody should look: the server is out of disk, memory or working order.
    ReconnectAlarm,
    /// The same transaction again after a while.
    Retry,
    /// The same again with half the rows.
    Halve,
    /// Configuration or rights: an operator has to mend it. Never a dead letter.
    Hold,
    /// The catalog is not as it was loaded: load it, encode again.
    Reload,
    /// The server could not read what we encoded: load the layout once more, then it is [`Self::Poison`].
    ReloadOnce,
    /// One of the rows can't be stored: find it, make it a dead letter, go on.
    Poison,
}

/// The classes of SQLSTATE, as PostgreSQL's appendix lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    SuccessfulCompletion,
    Warning,
    NoData,
    SqlStatementNotYetComplete,
    ConnectionException,
    TriggeredActionException,
    FeatureNotSupported,
    InvalidTransactionInitiation,
    LocatorException,
    InvalidGrantor,
    InvalidRoleSpecification,
    DiagnosticsException,
    XqueryError,
    CaseNotFound,
    CardinalityViolation,
    DataException,
    IntegrityConstraintViolation,
    InvalidCursorState,
    InvalidTransactionState,
    InvalidSqlStatementName,
    TriggeredDataChangeViolation,
    InvalidAuthorizationSpecification,
    DependentPrivilegeDescriptorsStillExist,
    InvalidTransactionTermination,
    SqlRoutineException,
    InvalidCursorName,
    ExternalRoutineException,
    ExternalRoutineInvocationException,
    SavepointException,
    InvalidCatalogName,
    InvalidSchemaName,
    TransactionRollback,
    SyntaxErrorOrAccessRuleViolation,
    WithCheckOptionViolation,
    InsufficientResources,
    ProgramLimitExceeded,
    ObjectNotInPrerequisiteState,
    OperatorIntervention,
    SystemError,
    SnapshotFailure,
    ConfigurationFileError,
    ForeignDataWrapperError,
    PlPgSqlError,
    InternalError,
    /// Not in the appendix: of an extension, a fork, or raised by a trigger with a code of its own.
    Unlisted,
}

impl Class {
    pub(super) fn of(sqlstate: &str) -> Self {
        match sqlstate.get(..2) {
            Some("00") => Self::SuccessfulCompletion,
            Some("01") => Self::Warning,
            Some("02") => Self::NoData,
            Some("03") => Self::SqlStatementNotYetComplete,
            Some("08") => Self::ConnectionException,
            Some("09") => Self::TriggeredActionException,
            Some("0A") => Self::FeatureNotSupported,
            Some("0B") => Self::InvalidTransactionInitiation,
            Some("0F") => Self::LocatorException,
            Some("0L") => Self::InvalidGrantor,
            Some("0P") => Self::InvalidRoleSpecification,
            Some("0Z") => Self::DiagnosticsException,
            Some("10") => Self::XqueryError,
            Some("20") => Self::CaseNotFound,
            Some("21") => Self::CardinalityViolation,
            Some("22") => Self::DataException,
            Some("23") => Self::IntegrityConstraintViolation,
            Some("24") => Self::InvalidCursorState,
            Some("25") => Self::InvalidTransactionState,
            Some("26") => Self::InvalidSqlStatementName,
            Some("27") => Self::TriggeredDataChangeViolation,
            Some("28") => Self::InvalidAuthorizationSpecification,
            Some("2B") => Self::DependentPrivilegeDescriptorsStillExist,
            Some("2D") => Self::InvalidTransactionTermination,
            Some("2F") => Self::SqlRoutineException,
            Some("34") => Self::InvalidCursorName,
            Some("38") => Self::ExternalRoutineException,
            Some("39") => Self::ExternalRoutineInvocationException,
            Some("3B") => Self::SavepointException,
            Some("3D") => Self::InvalidCatalogName,
            Some("3F") => Self::InvalidSchemaName,
            Some("40") => Self::TransactionRollback,
            Some("42") => Self::SyntaxErrorOrAccessRuleViolation,
            Some("44") => Self::WithCheckOptionViolation,
            Some("53") => Self::InsufficientResources,
            Some("54") => Self::ProgramLimitExceeded,
            Some("55") => Self::ObjectNotInPrerequisiteState,
            Some("57") => Self::OperatorIntervention,
            Some("58") => Self::SystemError,
            Some("72") => Self::SnapshotFailure,
            Some("F0") => Self::ConfigurationFileError,
            Some("HV") => Self::ForeignDataWrapperError,
            Some("P0") => Self::PlPgSqlError,
            Some("XX") => Self::InternalError,
            Some(_) | None => Self::Unlisted,
        }
    }
}

/// What to do about any error of the client library.
pub(super) fn action_for(error: &tokio_postgres::Error) -> Action {
    match error.as_db_error() {
        Some(db) if is_catalog_race(db) => Action::Reload,
        Some(db) => action_for_sqlstate(db.code().code()),
        // No word from the server: the connection is closed, broken, or speaks nonsense.
        None => Action::Reconnect,
    }
}

/// Two sessions that make the same table or type at once: the loser sees a unique violation on the catalog itself.
fn is_catalog_race(db: &DbError) -> bool {
    db.code().code() == "23505" && matches!(db.schema(), Some("pg_catalog"))
}

/// What to do about a SQLSTATE.
pub(super) fn action_for_sqlstate(sqlstate: &str) -> Action {
    match Class::of(sqlstate) {
        Class::ConnectionException => Action::Reconnect,
        Class::OperatorIntervention => match sqlstate {
            // query_canceled: a statement_timeout or somebody's pg_cancel_backend.
            "57014" => Action::Halve,
            // database_dropped.
            "57P04" => Action::Hold,
            _ => Action::Reconnect,
        },
        Class::InsufficientResources => match sqlstate {
            // too_many_connections.
            "53300" => Action::Reconnect,
            _ => Action::ReconnectAlarm,
        },
        Class::SystemError => Action::ReconnectAlarm,
        Class::InvalidTransactionState => match sqlstate {
            // read_only_sql_transaction: this server is no primary any more. idle_in_transaction_session_timeout and
            // transaction_timeout end the session.
            "25006" | "25P03" | "25P04" => Action::Reconnect,
            _ => Action::Retry,
        },
        Class::TransactionRollback => match sqlstate {
            // transaction_integrity_constraint_violation: of a deferred constraint.
            "40002" => Action::Poison,
            // statement_completion_unknown.
            "40003" => Action::Reconnect,
            _ => Action::Retry,
        },
        Class::ObjectNotInPrerequisiteState => match sqlstate {
            // lock_not_available, object_in_use.
            "55P03" | "55006" => Action::Retry,
            _ => Action::Hold,
        },
        Class::DataException => match sqlstate {
            // untranslatable_binary_representation and bad_copy_file_format.
            "22P03" | "22P04" => Action::ReloadOnce,
            _ => Action::Poison,
        },
        Class::IntegrityConstraintViolation => Action::Poison,
        Class::ProgramLimitExceeded => match sqlstate {
            // program_limit_exceeded, statement_too_complex: a value that is too large, or nested too deep. The others are about
            // columns and arguments, and not about a row.
            "54000" | "54001" => Action::Poison,
            _ => Action::Hold,
        },
        // snapshot_too_old.
        Class::SnapshotFailure => Action::Retry,
        Class::PlPgSqlError => match sqlstate {
            "P0001" => Action::Poison,
            _ => Action::Hold,
        },
        Class::SyntaxErrorOrAccessRuleViolation => match sqlstate {
            // undefined_table, undefined_column, datatype_mismatch, duplicate_table, duplicate_column; invalid_column_reference is
            // what a unique index is missed by that on_conflict needs.
            "42P01" | "42703" | "42804" | "42P07" | "42701" | "42P10" => Action::Reload,
            _ => Action::Hold,
        },
        // A trigger or function of the operator's, our own mistake, or something that only rights and settings cause.
        Class::SuccessfulCompletion
        | Class::Warning
        | Class::NoData
        | Class::SqlStatementNotYetComplete
        | Class::TriggeredActionException
        | Class::FeatureNotSupported
        | Class::InvalidTransactionInitiation
        | Class::LocatorException
        | Class::InvalidGrantor
        | Class::InvalidRoleSpecification
        | Class::DiagnosticsException
        | Class::XqueryError
        | Class::CaseNotFound
        | Class::CardinalityViolation
        | Class::InvalidCursorState
        | Class::InvalidSqlStatementName
        | Class::TriggeredDataChangeViolation
        | Class::InvalidAuthorizationSpecification
        | Class::DependentPrivilegeDescriptorsStillExist
        | Class::InvalidTransactionTermination
        | Class::SqlRoutineException
        | Class::InvalidCursorName
        | Class::ExternalRoutineException
        | Class::ExternalRoutineInvocationException
        | Class::SavepointException
        | Class::InvalidCatalogName
        | Class::InvalidSchemaName
        | Class::WithCheckOptionViolation
        | Class::ConfigurationFileError
        | Class::ForeignDataWrapperError
        | Class::InternalError
        | Class::Unlisted => Action::Hold,
    }
}

/// The row of a COPY, counted from 1, that the server was at when it failed, from the error's CONTEXT. `None` when it
/// does not say, or says it in words that are not understood: CONTEXT is translated by `lc_messages`.
pub(super) fn copy_row(error: &tokio_postgres::Error) -> Option<u64> {
    copy_row_of_context(error.as_db_error()?.where_()?)
}

fn copy_row_of_context(context: &str) -> Option<u64> {
    // What a trigger did stands in the lines above; COPY itself is outermost and thus last. Behind the number a column
    // and the row's content may follow, so the first ", line " counts, which a table's name would have to hold to mislead.
    let line = context.lines().rev().find(|line| line.starts_with("COPY "))?;
    let (_, number) = line.split_once(", line ")?;
    let digits = number
        .find(|c: char| !c.is_ascii_digit())
        .map_or(number, |end| &number[..end]);
    digits.parse().ok().filter(|row| *row > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_of_the_error_table_has_its_action() {
        let table = [
            (
                Action::Reconnect,
                &[
                    "08000", "08003", "08006", "08P01", "57P01", "57P02", "57P03", "57P05", "53300", "25006",
                    "40003",
                ][..],
            ),
            (
                Action::ReconnectAlarm,
                &["53000", "53100", "53200", "53400", "58000", "58030", "58P01"],
            ),
            (
                Action::Retry,
                &["40001", "40P01", "55P03", "55006", "25P02", "72000"],
            ),
            (Action::Halve, &["57014"]),
            (
                Action::Hold,
                &[
                    "28000", "28P01", "3D000", "3F000", "42501", "0A000", "XX000", "XX001", "XX002", "57P04",
                    "54011", "54023", "55000", "P0000", "P0004", "42601", "42809", "44000", "F0000", "HV000",
                    "0L000", "2F005", "39000",
                ],
            ),
            (
                Action::Reload,
                &["42P01", "42703", "42804", "42P07", "42701", "42P10"],
            ),
            (Action::ReloadOnce, &["22P03", "22P04"]),
            (
                Action::Poison,
                &[
                    "22000", "22003", "22021", "22P02", "22P05", "23000", "23502", "23503", "23505", "23514",
                    "23P01", "40002", "54000", "54001", "P0001",
                ],
            ),
        ];
        for (action, states) in table {
            for state in states {
                assert_eq!(action_for_sqlstate(state), action, "{state}");
            }
        }
    }

    #[test]
    fn a_state_of_no_known_class_holds_and_condemns_no_row() {
        for state in ["ZZ999", "UX001", "", "é", "42"] {
            assert_eq!(action_for_sqlstate(state), Action::Hold, "{state:?}");
        }
    }

    #[test]
    fn the_row_number_of_a_copy_is_found_behind_what_triggers_say() {
        for (context, row) in [
            ("COPY trades, line 17", Some(17)),
            ("COPY trades, line 17, column price", Some(17)),
            (
                "PL/pgSQL function check_it() line 3 at RAISE\nCOPY trades, line 20000",
                Some(20_000),
            ),
            ("COPY trades, Zeile 17", None),
            ("SQL statement \"COPY x\"", None),
            ("COPY trades", None),
            ("", None),
        ] {
            assert_eq!(copy_row_of_context(context), row, "{context}");
        }
    }
}
