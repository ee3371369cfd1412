#!/usr/bin/env bash
# Runs the whole pipeline on this machine with a private PostgreSQL, and proves that every message is a row exactly once.
# Arguments go to `socket-el demo`.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/prepare.sh"

exec cargo run --release --locked --quiet --package socket-el --bin socket-el -- demo "$@"
