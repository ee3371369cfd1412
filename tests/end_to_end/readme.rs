//! What the README has a reader do, done as it stands there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::support::cluster::Database;
use crate::support::engine::Workspace;

/// Shell commands under a heading of the README, those that build the program left out.
fn commands(heading: &str) -> Vec<String> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let section = page
        .split("\n## ")
        .find(|section| section.starts_with(heading))
        .unwrap_or_else(|| panic!("README.md has no section {heading}"));
    let blocks = section.split("```sh\n").skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap().to_owned())
        .filter(|block| !block.contains("cargo build"))
        .collect()
}

/// In place of `sleep`, which on a busy machine may be too short: returns when a thousand messages more are staged, and, where
/// the database can be asked, the table has rows.
const SLEEP: &str = r#"
reached=0
has_rows() { psql -h "$here/db" -U postgres -tc 'SELECT EXISTS (SELECT FROM websocket_1)' 2>&1 | grep -q t; }
database_is_up() { psql -h "$here/db" -U postgres -c '' >/dev/null 2>&1; }
head_is() { stage-inspect -c "$here/config.yml" list --json 2>/dev/null | grep -o '"head": *[0-9]*' | grep -o '[0-9]*$'; }
sleep() {
    local goal=$((reached + 1000))
    until reached=$(head_is) && ((reached >= goal)) && { ! database_is_up || has_rows; }; do command sleep 0.1; done
}
"#;

/// A TCP port that nobody has just now.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_sink_outage_every_row_is_there_and_after_a_lost_table_each_is_back_once() {
    let workspace = Workspace::direct(&Database::shared().await);
    // The database runs as another user when the test runs as root.
    fs::set_permissions(workspace.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let here = workspace.path().join("outage");
    let script = commands("After a sink outage")
        .concat()
        .replace("/tmp/outage", here.to_str().unwrap())
        .replace(":9001", &format!(":{}", free_port()));
    // Whatever fails, nothing stays: neither processes nor the database.
    let script = format!(
        "set -euo pipefail\ncd '{}'\nexport PATH='{}':$PATH\nhere='{}'\n{SLEEP}\n\
         trap 'kill ${{feed:-}} ${{engine:-}} || true; ./scripts/postgres.sh stop $here/db || true' ERR\n{script}",
        env!("CARGO_MANIFEST_DIR"),
        workspace.tool().parent().unwrap().display(),
        here.display(),
    );
    let mut shell = workspace.spawn(Path::new("bash"), &["-c", &script], &[]);
    shell.ends_with(0).await;

    let said = shell.stdout();
    let counted: Vec<Vec<u64>> = said
        .lines()
        .filter_map(|line| line.split('|').map(|cell| cell.trim().parse().ok()).collect())
        .collect();
    let [before, after_outage, after_replay] = &counted[..] else {
        panic!("three counts of rows, distinct and sent are expected:\n{said}");
    };
    for counts in [before, after_outage, after_replay] {
        assert!(
            counts[0] > 0 && counts[0] == counts[1] && counts[1] == counts[2],
            "{said}"
        );
    }
    assert!(
        before[0] < after_outage[0] && after_outage[0] < after_replay[0],
        "{said}"
    );
    let pending: Vec<u64> = said
        .lines()
        .filter(|line| line.starts_with("websocket_1 "))
        .filter_map(|line| {
            let cells = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty());
            let cells: Vec<_> = cells.collect();
            // What is wrong stands in a sentence below the table.
            cells.get(9)?.replace(' ', "").parse().ok()
        })
        .collect();
    assert!(
        0 < pending[0] && pending[0] < pending[1] && pending[2] < pending[1],
        "{said}"
    );
    assert!(
        !here.exists(),
        "the last commands of the section remove all of it"
    );
}
