//! What an operator can do about an error of the server: by its SQLSTATE. Empty where it needs nobody.

use tokio_postgres::Error;

use super::classify::Class;
use super::dead_letter::Verdict;

/// What to do about an error.
pub(super) fn what_to_do(error: &Error) -> &'static str {
    error.code().map_or("", |code| about(code.code()))
}

/// What to do about a row that the server refuses, as a further sentence; empty where its own words say all there is to say.
pub(super) fn about_row(verdict: &Verdict) -> &'static str {
    match verdict.sqlstate.as_deref() {
        Some("54000") if verdict.reason.starts_with("row is too big") => {
            ". All columns of a row together have 8 kB; a long value is kept elsewhere, and still takes 18 bytes. With a lower max_columns the \
             rest of the keys stands in _extra, once the table is made anew; `routes` and `records` divide what is of different kinds"
        }
        Some("23505") => ". `on_conflict` says what becomes of a row whose key is in the table already",
        _ => "",
    }
}

fn about(sqlstate: &str) -> &'static str {
    const TRIGGERS: &str = "Look at the triggers, functions and rules of the table, which raise it";
    const SERVER: &str = "Look at the server's log";
    match Class::of(sqlstate) {
        Class::ConnectionException | Class::TransactionRollback | Class::SnapshotFailure => "",
        Class::FeatureNotSupported => {
            "The table does not take COPY as it is: row-level security applies to the role, or its storage does not support it. Load as \
             the table's owner or a role with BYPASSRLS, or deliver into another table"
        }
        Class::InvalidAuthorizationSpecification => {
            "Check user and password of the profile, and pg_hba.conf on the server"
        }
        Class::InvalidCatalogName => "Create the database, or name another one in the profile",
        Class::InvalidSchemaName => "Create the schema, or name another one in the profile",
        Class::SyntaxErrorOrAccessRuleViolation => match sqlstate {
            "42501" => {
                "Grant the role of the profile what it lacks: USAGE and CREATE on the schema, INSERT and SELECT on the table, and SELECT, \
                 INSERT, UPDATE and DELETE on the tables _socket_el_*. New columns take the table's owner: add them (`_extra jsonb` and \
                 `_message jsonb` for what fits no other), make the role the owner, or set new_keys to freeze or discard"
            }
            _ => "Look at the table's columns, and at its triggers, functions and rules",
        },
        Class::InsufficientResources => match sqlstate {
            "53100" => {
                "Make room on the disk of the database's server; what comes meanwhile waits in the stage"
            }
            "53200" => "Give the database's server more memory, or let it use less",
            "53300" => "Raise max_connections, or the connection limit of the role or the database",
            _ => "Raise the limit of the database's server that it names",
        },
        Class::ProgramLimitExceeded => match sqlstate {
            "54011" => {
                "The table has as many columns as PostgreSQL allows: set max_columns, or new_keys: discard"
            }
            _ => TRIGGERS,
        },
        Class::ObjectNotInPrerequisiteState => match sqlstate {
            "55P03" | "55006" => "",
            _ => "Bring the object that it names to the state that it asks for",
        },
        Class::OperatorIntervention => match sqlstate {
            "57P04" => "The database was dropped: create it, or name another one in the profile",
            _ => "",
        },
        Class::InvalidTransactionState => "",
        Class::SystemError => "Look at the server's log and at its disks",
        Class::InternalError => {
            "The server found damage or a mistake of its own: look at its log, its disks and the table before going on"
        }
        Class::PlPgSqlError | Class::TriggeredActionException | Class::TriggeredDataChangeViolation => {
            TRIGGERS
        }
        Class::DataException
        | Class::IntegrityConstraintViolation
        | Class::WithCheckOptionViolation
        | Class::CaseNotFound
        | Class::CardinalityViolation
        | Class::SqlRoutineException
        | Class::ExternalRoutineException
        | Class::ExternalRoutineInvocationException
        | Class::ForeignDataWrapperError
        | Class::XqueryError
        | Class::DiagnosticsException
        | Class::SavepointException
        | Class::InvalidCursorName
        | Class::InvalidCursorState
        | Class::LocatorException
        | Class::Unlisted => TRIGGERS,
        Class::SuccessfulCompletion
        | Class::Warning
        | Class::NoData
        | Class::SqlStatementNotYetComplete
        | Class::InvalidTransactionInitiation
        | Class::InvalidGrantor
        | Class::InvalidRoleSpecification
        | Class::InvalidSqlStatementName
        | Class::DependentPrivilegeDescriptorsStillExist
        | Class::InvalidTransactionTermination
        | Class::ConfigurationFileError => SERVER,
    }
}

#[cfg(test)]
mod tests {
    use super::super::classify::{Action, action_for_sqlstate};
    use super::*;

    #[test]
    fn whatever_holds_or_raises_an_alarm_says_what_to_do() {
        let states = [
            "0A000", "28000", "28P01", "3D000", "3F000", "42501", "42601", "42809", "53100", "53200",
            "53400", "54011", "54023", "72000", "55000", "57P04", "58030", "58P01", "P0004", "XX000",
            "XX001", "09000", "21000", "25001", "2F005", "38000", "39000", "44000", "F0000", "HV000",
            "ZZ001", "",
        ];
        for state in states {
            match action_for_sqlstate(state) {
                Action::Hold | Action::ReconnectAlarm => assert_ne!(about(state), "", "{state}"),
                Action::Retry | Action::Reconnect => assert_eq!(about(state), "", "{state}"),
                other => panic!("{state}: {other:?}"),
            }
        }
    }
}
