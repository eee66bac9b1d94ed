#!/usr/bin/env bash
# Runs every check of the project. Needs cargo (rustup picks the pinned toolchain) and a C compiler; what else the tests
# drive, tools/install.sh installs. Some tests start engines or mount file systems and need root.
set -euo pipefail
cd "$(dirname "$0")/.."

step() {
    local begin=$SECONDS
    printf '\n==> %s\n' "$*"
    "$@"
    printf '==> %ss: %s\n' "$((SECONDS - begin))" "$*"
}

step cargo fmt --all --check
step cargo clippy --locked --workspace --all-targets -- -D warnings
step tools/install.sh clients
step cargo test --locked --workspace
