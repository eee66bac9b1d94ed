#!/usr/bin/env bash
# Takes the safety measures of garbage collection, scrub and repair away, one at a time, and shows what notices: the first seeds of the
# simulations, and the tests. This makes the tables of docs/gc.md. Some ten minutes of two cores.
#
# usage: tools/mutate-gc.sh [MEASURE...]     all of them, or those named
#
# Works on a clone of HEAD. All measures are compiled into one program; the variable DVCR_MUTANT says which one is off.
set -euo pipefail
cd "$(dirname "$0")/.."

# Seeds tried of either simulation.
seeds=${DVCR_MUTATION_SEEDS:-3300}
damage_seeds=300

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
clone=$CARGO_TARGET_DIR/mutants
rm -rf "$clone"
git clone -q --shared . "$clone/dvcr"
# Another profile than that of the project's own tests: cargo would take the one's programs for the other's.
export CARGO_PROFILE_DEV_DEBUG=line-directives-only

names=()
declare -A told where

# measure NAME WHERE TEXT FILE SUBSTITUTION: WHERE it may be noticed (s: simulation, d: simulation of damage, t: tests), what is
# taken away, and how, as a substitution of perl in which MUTANT is true where the measure is off.
measure() {
    names+=("$1")
    where[$1]=$2 told[$1]=$3
    perl -0pi -e "\$n = $5; die qq(the measure $1 is not where it was) unless \$n" "$clone/dvcr/dvcr/src/$4"
    perl -pi -e "s/MUTANT/crate::mutant(\"$1\")/g" "$clone/dvcr/dvcr/src/$4"
}

measure epoch s 'waiting for the epoch to turn (4)' store/repack.rs \
    's/self\.epochs\.turn\(\)\.await;/if !MUTANT { self.epochs.turn().await; }/'
measure condemned s 'look-ups see chunks of condemned packs (3)' store/damaged.rs \
    's/!self\.condemned\.contains\(at\.pack\)/(MUTANT || !self.condemned.contains(at.pack))/'
measure condemned-again s 'the second look-up, just before an append, sees them' store/append.rs \
    's/(\|location\|) self\.store\.is_usable\(/$1 MUTANT || self.store.is_usable(/'
measure condemned-pending s 'what is appended and not committed is offered from a condemned pack' store/lane.rs \
    's/(!self\.condemned\.contains\(placed\.pack\.id\))/(MUTANT || $1)/'
measure review-edge s 'review does not check that there is no edge' gc/review.rs \
    's/txn\.checks\.push\(Check::EmptyRange\(edges\)\);/if !MUTANT { txn.checks.push(Check::EmptyRange(edges)); }/'
measure review-hold s 'review does not check that the hold is as it was read' gc/review.rs \
    's/checks: (vec!\[Check::Exact\(hold_key\.clone\(\), hold\)\])/checks: if MUTANT { vec![] } else { $1 }/'
measure review-holders s 'review does not check that nobody holds the blob' gc/review.rs \
    's/checks: (vec!\[(Check::Exact\(blob_key, blob\)), Check::EmptyRange\(holders\)\])/checks: if MUTANT { vec![$2] } else { $1 }/'
measure put-children s 'manifest PUT does not check that its children are present' registry/manifest.rs \
    's/txn\.checks\.push\(Check::Present\(child_key\)\);/if !MUTANT { txn.checks.push(Check::Present(child_key)); }/'
measure tag-exact s 'retention or a deletion removes a tag though it was pushed since it was read' registry/removal.rs \
    's/(let key = key::tag\(repository, tag\.as_str\(\)\);\n    )(txn\.checks\.push\(Check::Exact\(key\.clone\(\), value\)\);)/$1if !MUTANT { $2 }/'
measure unneeded-edge s 'an unneeded manifest goes though an index lists it' registry/removal.rs \
    's/(key::edges\(digest, repository\),\n        \] \{)/$1\nif MUTANT && range == key::edges(digest, repository) { continue; }/'
measure unneeded-tag t 'an unneeded manifest goes though it has a tag' registry/removal.rs \
    's/(key::edges\(digest, repository\),\n        \] \{)/$1\nif MUTANT && range == key::tags_of(repository, digest) { continue; }/'
measure untagged-exact s 'it goes though its row `untagged` has changed' registry/removal.rs \
    's/checks: (vec!\[Check::Exact\(row_key\.clone\(\), row\)\])/checks: if MUTANT { vec![] } else { $1 }/'
measure untagged-renew s 'GET and HEAD by digest do not renew that row' registry/manifest.rs \
    's/if (inner\.renew_untagged\()/if MUTANT || $1/'
measure review-asked st 'a removal asks for no reviews of blobs' registry/removal.rs \
    's/txn\.puts\.push\(\(review, record::mark\(\)\)\);/if !MUTANT { txn.puts.push((review, record::mark())); }/'
measure pending-durable s 'a chunk that another upload still writes counts as durable' store/lane.rs \
    's/(let _ = appended\.wait_for\(is_there\)\.await;)/if !MUTANT { $1 }/'
measure forget-exact s 'the row of a dead chunk goes though it leads elsewhere by now (7)' store/repack.rs \
    's/(\|\(key, row\)\| )(Check::Exact\(key, row\))/$1 if MUTANT { Check::Present(key) } else { $2 }/'
measure move-exact s 'the row of a moved chunk leads to the copy though it leads elsewhere by now (6)' store/repack.rs \
    's/(txn\.checks\s*\.push\(Check::Exact\(key\.clone\(\), rows\[key\]\.clone\(\)\)\);)/if !MUTANT { $1 }/'
measure dead-again t 'a sweep that was cancelled is forgotten' gc/sweep.rs \
    's/self\.hint\.fetch_add\(self\.bytes, Relaxed\);/if !MUTANT { self.hint.fetch_add(self.bytes, Relaxed); }/'
measure release-footer st 'a full device gets room of a pack without a footer back piece by piece' store/repack.rs \
    's/let forward = \*has_footer;/let forward = MUTANT || *has_footer;/'
measure pack-hold st 'the hold of packs for a backup is ignored' gc/sweep.rs \
    's/self\.held_until_ms\(\)\.await\?\.is_some\(\)/!MUTANT && self.held_until_ms().await?.is_some()/g'

measure damaged-chunk dt 'look-ups treat a damaged chunk as absent' store/damaged.rs \
    's/(self\.condemned\.contains\(at\.pack\)\)) && !self\.damaged\.is_at\(id, at\)/$1 && (MUTANT || !self.damaged.is_at(id, at))/'
measure damaged-head dt 'HEAD says that a damaged blob is not there' registry/blob.rs \
    's/if (self\.0\.store\.is_damaged\(digest\))/if !MUTANT && $1/'
measure damaged-push dt 'a push of a damaged blob is stored in full, not only compared' registry/upload.rs \
    's/&& !inner\.store\.is_damaged\(&digest\)/&& (MUTANT || !inner.store.is_damaged(&digest))/'
measure damaged-recipe dt 'the new recipe replaces that of a damaged blob' registry/commit.rs \
    's/let is_damaged = self\.store\.is_damaged\(digest\);/let is_damaged = !MUTANT && self.store.is_damaged(digest);/'
measure finding-commit dt 'a blob that was committed is looked at once more for damaged chunks' registry/upload.rs \
    's/(inner\.check_committed\(&digest\)\.await)/if MUTANT { Ok(()) } else { $1 }/'
measure finding-blobs dt 'looking for the blobs of damaged chunks at all' gc/scrub/finding.rs \
    's/(self\.find_blobs\(\)\.await\?;)/if !MUTANT { $1 }/'
measure blake3 t 'BLAKE3 of what a chunk decodes to' store/verify.rs \
    's/if (ChunkId::of\(&chunk\) != chunk_id)/if !MUTANT && $1/'
measure repair-twice t 'repair reads a chunk that lies in two packs before it believes the second' repair/rebuild/packs.rs \
    's/if again \{/if again && !MUTANT {/'
measure repair-versions t 'repair chooses among versions of a recipe by digest' repair/rebuild/recipe.rs \
    's/match ambiguous \{/match ambiguous && !MUTANT {/'
measure repair-numbers st 'repair lets numbers of recipes jump' repair/rebuild/mod.rs \
    's/next\.saturating_add\(skipped\)/next.saturating_add(if MUTANT { 0 } else { skipped })/'
measure repair-released st 'repair makes no row for a record whose room was given back' repair/rebuild/packs.rs \
    's/(\.filter\(\|entry\| )(!is_released)/$1MUTANT || $2/'
measure repair-chunks t 'repair asks for every chunk of a blob' repair/rebuild/recipe.rs \
    's/if let Some\(id\) = self\.missing_chunk\(&part\)\.await\?/if let Some(id) = self.missing_chunk(&part).await? && !MUTANT/'

cat >>"$clone/dvcr/dvcr/src/lib.rs" <<'RUST'

/// Whether this measure is off.
pub fn mutant(name: &str) -> bool {
    static OFF: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    OFF.get_or_init(|| std::env::var("DVCR_MUTANT").ok()).as_deref() == Some(name)
}
RUST

program=$(cd "$clone/dvcr" && cargo test --locked -q -p dvcr --lib --no-run --message-format json |
    perl -ne 'print "$1\n" if /"executable":"([^"]+)"/' | tail -1)

# seeds TEST TO: the first two seeds of a simulation that fail, or what fails without one.
failing_seeds() {
    local from=0 found=() log=$clone/log seed
    while [ "${#found[@]}" -lt 2 ] && [ "$from" -lt "$2" ]; do
        if DVCR_SIMULATION_SEEDS=$from..$2 timeout 1800 "$program" --nocapture "$1" >"$log" 2>&1; then break; fi
        seed=$(grep -oP 'seed \K[0-9]+(?= fails)' "$log" || true)
        [ -n "$seed" ] || { echo "stuck behind $from"; return; }
        found+=("$seed")
        [ "${#found[@]}" -gt 1 ] || grep -A1 -m1 'panicked at' "$log" | tail -1 | cut -c1-100 >"$clone/how" || true
        from=$((seed + 1))
    done
    local IFS=','
    echo "${found[*]:--}"
}

failing_tests() {
    { timeout 600 "$program" gc:: repair:: registry:: store:: --skip simulation --skip crash_tests 2>/dev/null || true; } |
        perl -ne 'push @n, $1 if /^test \S*?(\w+) \.\.\. FAILED/; END { print @n > 2 ? scalar(@n) . " tests" : join(", ", @n) || "-" }'
}

export RUST_BACKTRACE=0
[ $# -gt 0 ] || set -- "${names[@]}"
echo '| taken away | seeds | seeds with damage | tests | how |'
echo '|---|---|---|---|---|'
for name in "$@"; do
    export DVCR_MUTANT=$name
    simulated='' damaged='' tests=''
    : >"$clone/how"
    case ${where[$name]} in *s*) simulated=$(failing_seeds a_committed_manifest_always_reads_back_in_full "$seeds") ;; esac
    case ${where[$name]} in *d*) damaged=$(failing_seeds damage_is_found_and_heals "$damage_seeds") ;; esac
    case ${where[$name]} in *t*) tests=$(failing_tests) ;; esac
    echo "| ${told[$name]} | $simulated | $damaged | $tests | $(cat "$clone/how") |"
done
