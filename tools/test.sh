#!/usr/bin/env bash
# Runs every check of the project. Needs cargo (rustup picks the pinned toolchain) and a C compiler.
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
step cargo test --locked --workspace
