#!/usr/bin/env bash
# Passes all that the project is tested with. The end-to-end tests start private PostgreSQL servers.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/prepare.sh"

# What is left out of a plain build is tested too, in the same one.
features=(--features stage-inspect/parquet)

# Most tests wait for disks, servers and other processes for most of their time: more of them at once than there are cores.
export RUST_TEST_THREADS="${RUST_TEST_THREADS:-$((3 * $(nproc)))}"

cargo fmt --all --check
cargo clippy --workspace "${features[@]}" --all-targets --locked -- -D warnings
# Private items too: the modules tell each other by links what they leave to each other. With the examples the dependencies have the
# features that they have in all steps, and are not checked a second time.
RUSTDOCFLAGS="-D warnings" cargo doc --workspace "${features[@]}" --lib --bin stage-inspect --examples \
    --no-deps --document-private-items --locked
cargo test --workspace "${features[@]}" --locked
if command -v cargo-deny >/dev/null; then
    # Advisories come from the network, and appear without a change of ours: `cargo deny check advisories` is for people.
    cargo deny --locked check bans licenses sources
fi
