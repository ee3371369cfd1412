//! Asks before something is done that can't be undone.

use std::io::{IsTerminal as _, Write as _, stderr, stdin};

use socket_el::exit::{ExitReason, RunnerError};

/// Asks on a terminal whether to `do_what`, and refuses elsewhere: there --yes has to say so beforehand.
pub(crate) fn confirm(do_what: &str) -> Result<(), RunnerError> {
    if !stdin().is_terminal() || !stderr().is_terminal() {
        return Err(RunnerError::new(
            ExitReason::Configuration,
            format!("this would {do_what}. Nothing was changed; say --yes to do it"),
        ));
    }
    eprint!("This would {do_what}.\nIt can't be undone. Go on? [y/N] ");
    let mut answer = String::new();
    let asked = stderr().flush().and_then(|()| stdin().read_line(&mut answer));
    asked.map_err(|error| RunnerError::new(ExitReason::Failed, error))?;
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        Ok(())
    } else {
        Err(RunnerError::new(ExitReason::Failed, "nothing was changed"))
    }
}
