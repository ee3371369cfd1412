//! Messages as they came: an object of JSON on a line for each.

use socket_el::exit::RunnerError;

use super::destination::Destination;
use super::{ExportArgs, Written, progress_bar};
use crate::message::json_line;
use crate::range::Pages;
use crate::stopping::Stopping;

/// Writes the messages of a stretch.
pub(super) async fn export(
    args: &ExportArgs,
    pages: Pages,
    stop: &mut Stopping,
) -> Result<Written, RunnerError> {
    let mut destination = args.output.open(args.force)?;
    let written = stop.unless_asked(write(args, pages, &mut destination)).await?;
    destination.finish()?;
    Ok(written)
}

async fn write(
    args: &ExportArgs,
    mut pages: Pages,
    destination: &mut Destination,
) -> Result<Written, RunnerError> {
    let start = pages.at();
    let bar = progress_bar(&pages, &args.output, "messages");
    let mut written = Written::default();
    loop {
        let from = pages.at();
        let Some(page) = pages.next().await? else {
            break;
        };
        for gap in &page.gaps {
            written.add_gap(gap, &pages);
        }
        for (offset, message) in pages.messages(&page, from) {
            destination.line(&json_line(offset, message)?)?;
            written.messages += 1;
        }
        bar.set_position(pages.at().get() - start.get());
    }
    bar.finish_and_clear();
    Ok(written)
}
