#!/usr/bin/env bash
# Passes all that the project is tested with. The end-to-end tests start private PostgreSQL servers.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/prepare.sh"

cargo fmt --all --check
cargo clippy --workspace --all-targets --locked -- -D warnings
cargo test --workspace --locked
# Private items too: the modules tell each other by links what they leave to each other.
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked
if command -v cargo-deny >/dev/null; then
    # Advisories come from the network, and appear without a change of ours: `cargo deny check advisories` is for people.
    cargo deny --locked check bans licenses sources
fi
