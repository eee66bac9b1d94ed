#!/usr/bin/env bash
# Runs every check of the project. Needs cargo (rustup picks the pinned toolchain) and a C compiler; what else it takes,
# tools/install.sh installs. Some tests start engines or mount file systems and need root.
set -euo pipefail
cd "$(dirname "$0")/.."

# Where tools/install.sh puts programs.
export PATH="${DVCR_TOOLS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/dvcr-tools}/bin:$PATH"

step() {
    local begin=$SECONDS
    printf '\n==> %s\n' "$*"
    "$@"
    printf '==> %ss: %s\n' "$((SECONDS - begin))" "$*"
}

step tools/install.sh checks
step cargo fmt --all --check
# For all systems, because that is what cargo deny looks at before it chooses; from here on nothing is downloaded.
step cargo fetch --locked
step cargo deny --offline --locked check bans licenses sources
step cargo clippy --locked --workspace --all-targets -- -D warnings
step tools/install.sh clients
step cargo test --locked --workspace
# Other seeds than those of every run: power failures and collectors in some thousand orders.
step env DVCR_SIMULATION_SEEDS=300..3300 cargo test --locked --workspace --lib a_committed_manifest_always_reads_back_in_full
