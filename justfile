# The commands of this project. `just` lists them. Each is one line that works without just as well.

[private]
default:
    @just --list --unsorted

# Run the registry: http://127.0.0.1:5000, data in ./dvcr-data
serve *arguments:
    cargo run --release -p dvcr -- serve {{arguments}}

# Everything that CI runs. Installs clients and tools: as root on Debian, with Go
test:
    tools/test.sh

# Tests in the modules, or those whose names contain a word: a minute, nothing to install
quick filter='':
    cargo test --locked -p dvcr-core -p dvcr-openapi -p dvcr --lib -- {{filter}}

# The real program against the distribution specification
conformance:
    cargo test --locked -p dvcr --test conformance

# docker, containerd, podman, buildah, skopeo, crane, oras and regctl against the real program
clients:
    tools/install.sh clients
    cargo test --locked -p dvcr --test clients

# Imports and populates of a disk that is killed twenty times on the way, with what was moved twice. Needs root, 6 GB, some ten minutes
kills size='2G':
    cargo build --locked -p dvcr && DVCR_KILL_BYTES={{size}} cargo test --locked -p dvcr-importer --test volumes kill:: -- --nocapture --test-threads=1

# Fuzz corpora with their mutations, as plain tests
corpora:
    cargo test --locked -p dvcr-core -p dvcr --test fuzz_corpus
    cargo test --locked -p dvcr-importer --test hostile corpora

# Fuzz a target: one of the directories in fuzz/corpus. Needs cargo-fuzz and a nightly toolchain
fuzz target seconds='120':
    cargo +nightly fuzz run {{target}} -- -max_total_time={{seconds}}

# Write the seeds of fuzz corpora anew, after a change of format
seeds:
    cargo test --locked -p dvcr-core -p dvcr --test fuzz_corpus write -- --ignored
    cargo test --locked -p dvcr-importer --test hostile write -- --ignored

# Write the fixture of the current data format anew. Never after a release with that format
fixture:
    cargo test --locked -p dvcr --test format -- --ignored

# Describe the management API anew: openapi/dvcr.json
openapi:
    cargo run -p dvcr -- openapi > openapi/dvcr.json.new && mv openapi/dvcr.json.new openapi/dvcr.json

# Format the code
fmt:
    cargo fmt --all

# No warnings
lint:
    cargo clippy --locked --workspace --all-targets -- -D warnings

# Licences, banned crates and sources of dependencies
deny:
    tools/install.sh checks
    cargo fetch --locked
    cargo deny --offline --locked check bans licenses sources

# Known vulnerabilities of dependencies. Fetches a database
advisories:
    cargo deny check advisories

# Measure this registry beside others. benches/README.md says how
bench *arguments='compare --quick':
    tools/install.sh peers
    cargo build --locked --release
    target/release/dvcr-bench {{arguments}}
