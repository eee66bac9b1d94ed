//! The suite, and what is this engine's own: shared fsyncs, crashes, broken disks, closing.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use super::crash_disk::{CrashDisk, Dice, Power};
use super::{RedbMeta, RedbOptions};
use crate::meta::memory::MemoryMeta;
use crate::meta::suite::{self, puts, range};
use crate::meta::{Check, Commit, Key, MetaError, MetaStore, Txn, Value};

/// Small, so that pages are evicted and written before the commit.
fn options() -> RedbOptions {
    RedbOptions {
        cache_bytes: 256 << 10,
    }
}

fn open(disk: &CrashDisk) -> RedbMeta {
    let disk = disk.clone();
    RedbMeta::open_with(move || Ok(disk.open()), &options()).unwrap()
}

async fn all_rows(store: &impl MetaStore) -> Vec<(Key, Value)> {
    let all = range(b"", &[0xff; 16]);
    store.scan(&all, usize::MAX).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn passes_the_suite() {
    suite::run(async || open(&CrashDisk::new(&Power::new()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn passes_the_suite_on_files() {
    let dir = tempfile::tempdir().unwrap();
    let count = std::cell::Cell::new(0);
    suite::run(async || {
        count.set(count.get() + 1);
        let path = dir.path().join(count.get().to_string());
        RedbMeta::open(path, &RedbOptions::default()).unwrap()
    })
    .await;
}

fn random_key(dice: &mut Dice) -> Key {
    vec![b'k', dice.below(40) as u8, dice.below(2) as u8]
}

fn random_value(dice: &mut Dice) -> Value {
    if dice.one_in(20) {
        vec![dice.below(256) as u8; dice.below(100_000) as usize].into()
    } else {
        vec![dice.below(3) as u8; dice.below(3) as usize].into()
    }
}

/// A transaction over few keys, so that checks hold about as often as not.
fn random_txn(dice: &mut Dice) -> Txn {
    let mut txn = Txn::default();
    for _ in 0..dice.below(3) {
        let key = random_key(dice);
        txn.checks.push(match dice.below(4) {
            0 => Check::Present(key),
            1 => Check::Absent(key),
            2 => Check::Exact(key, random_value(dice)),
            _ => Check::EmptyRange(range(&key, &random_key(dice))),
        });
    }
    for _ in 0..dice.below(6) {
        txn.puts.push((random_key(dice), random_value(dice)));
    }
    for _ in 0..dice.below(4) {
        txn.deletes.push(random_key(dice));
    }
    txn
}

#[tokio::test]
async fn agrees_with_the_model_over_reopenings() {
    for seed in 0..20 {
        let mut dice = Dice::new(seed);
        let disk = CrashDisk::new(&Power::new());
        let model = MemoryMeta::new();
        let mut store = open(&disk);
        let mut conflicts = 0;
        for step in 0..200 {
            let txn = random_txn(&mut dice);
            let expected = model.commit(txn.clone()).await.unwrap();
            let found = store.commit(txn).await.unwrap();
            assert_eq!(found, expected, "seed {seed}, step {step}");
            conflicts += u64::from(expected != Commit::Done);
            let limit = dice.below(50) as usize;
            let part = range(&[b'k', dice.below(40) as u8], &[b'k', dice.below(50) as u8]);
            assert_eq!(
                store.scan(&part, limit).await.unwrap(),
                model.scan(&part, limit).await.unwrap(),
                "seed {seed}, step {step}"
            );
            if dice.one_in(40) {
                store.close().await;
                store = open(&disk);
            }
        }
        assert_eq!(all_rows(&store).await, all_rows(&model).await);
        assert!((20..180).contains(&conflicts), "the test has lost its edge");
    }
}

/// Runs a writer for each entry of `next`, the number of its first transaction, until the power fails. Returns what each
/// knows: the number after its last acknowledged one. Every row of a transaction carries its number.
async fn write_until_power_fails(store: RedbMeta, next: &[u64]) -> Vec<u64> {
    let store = Arc::new(store);
    let tasks: Vec<_> = (0..)
        .zip(next.to_vec())
        .map(|(writer, mut next)| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                loop {
                    match store.commit(numbered(writer, next)).await {
                        Ok(outcome) => assert_eq!(outcome, Commit::Done),
                        Err(_) => return next,
                    }
                    next += 1;
                }
            })
        })
        .collect();
    let mut acknowledged = Vec::new();
    for task in tasks {
        acknowledged.push(task.await.unwrap());
    }
    acknowledged
}

/// Three rows that are replaced each time, some of them several pages long, and one that stays.
fn numbered(writer: u8, number: u64) -> Txn {
    let mut txn = Txn::default();
    for part in 0..3 {
        let mut value = number.to_be_bytes().to_vec();
        let is_long = number % 7 == u64::from(part);
        value.resize(if is_long { 20_000 } else { 20 }, part);
        txn.puts.push((vec![writer, part], value.into()));
    }
    let log = [vec![writer, LOG], number.to_be_bytes().to_vec()].concat();
    txn.puts.push((log, Value::new()));
    txn
}

const LOG: u8 = 9;

/// Checks that the rows of each writer are those of one transaction, and returns the number of the next.
async fn check_whole(store: &RedbMeta, writers: u8, context: &str) -> Vec<u64> {
    let rows: BTreeMap<Key, Value> = all_rows(store).await.into_iter().collect();
    (0..writers)
        .map(|writer| {
            let number = |part| {
                let value = rows.get(&vec![writer, part])?;
                Some(u64::from_be_bytes(value[..8].try_into().unwrap()))
            };
            let last = number(0);
            assert_eq!(number(1), last, "{context}");
            assert_eq!(number(2), last, "{context}");
            let next = last.map_or(0, |last| last + 1);
            let log: Vec<u64> = rows
                .keys()
                .filter(|key| key[..2] == [writer, LOG])
                .map(|key| u64::from_be_bytes(key[2..].try_into().unwrap()))
                .collect();
            assert!(
                log.iter().copied().eq(0..next),
                "{context}: a hole in the log"
            );
            next
        })
        .collect()
}

/// For many seeds: power fails in a random sync, several times in a row, also while the store recovers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_loses_nothing_acknowledged_and_tears_nothing() {
    const WRITERS: u8 = 3;
    for seed in 0..60 {
        let mut dice = Dice::new(seed);
        let power = Power::new();
        let disk = CrashDisk::new(&power);
        drop(open(&disk));
        let mut next = vec![0; usize::from(WRITERS)];
        for boot in 0..4 {
            power.fail_at_sync(1 + dice.below(30));
            let backend = disk.clone();
            let opened = RedbMeta::open_with(move || Ok(backend.open()), &options());
            let acknowledged = match opened {
                Ok(store) => {
                    assert_eq!(store.stats().walks(), 0, "seed {seed}, boot {boot}");
                    write_until_power_fails(store, &next).await
                }
                Err(_) => next.clone(),
            };
            disk.crash(dice.next_u64());
            power.restore();
            let store = open(&disk);
            let context = format!("seed {seed}, boot {boot}");
            assert_eq!(store.stats().walks(), 0, "{context}");
            next = check_whole(&store, WRITERS, &context).await;
            for (found, acknowledged) in next.iter().zip(&acknowledged) {
                assert!(
                    found == acknowledged || *found == acknowledged + 1,
                    "{context}: {acknowledged} acknowledged, {found} found"
                );
            }
            store.close().await;
        }
    }
}

/// Shows that [`MetaStats::walks`](super::MetaStats::walks) would tell.
#[test]
fn a_commit_without_quick_repair_is_walked_after_a_crash() {
    let power = Power::new();
    let disk = CrashDisk::new(&power);
    drop(open(&disk));
    let database = ::redb::Builder::new()
        .create_with_backend(disk.open())
        .unwrap();
    database.begin_write().unwrap().commit().unwrap();
    disk.crash(1);
    drop(database);
    power.restore();
    assert_eq!(open(&disk).stats().walks(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_share_an_fsync() {
    let power = Power::new();
    let store = Arc::new(open(&CrashDisk::new(&power)));
    let before = power.syncs();
    let tasks: Vec<_> = (0..200_u8)
        .map(|task| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for step in 0..10 {
                    let outcome = store.commit(puts(&[(&[task, step], b"v")])).await;
                    assert_eq!(outcome.unwrap(), Commit::Done);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let syncs = power.syncs() - before;
    let stats = store.stats();
    assert_eq!(all_rows(&*store).await.len(), 2_000);
    assert_eq!(stats.transactions(), 2_000);
    assert_eq!(syncs, 2 * stats.batches(), "two-phase commits");
    assert!(syncs <= 400, "{syncs} syncs for 2,000 transactions");
    assert_eq!(stats.queued(), 0);
}

/// The queue holds fewer than these, and a batch fewer bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_wait_for_room_in_the_queue() {
    let store = open(&CrashDisk::new(&Power::new()));
    let large = Value::from(vec![1; 4 << 20]);
    let commits = (0..3_000_u32).map(|number| {
        let value = if number < 12 {
            large.clone()
        } else {
            Value::new()
        };
        store.commit(Txn {
            puts: vec![(number.to_be_bytes().to_vec(), value)],
            ..Txn::default()
        })
    });
    for outcome in futures::future::join_all(commits).await {
        assert_eq!(outcome.unwrap(), Commit::Done);
    }
    let stats = store.stats();
    assert_eq!((stats.transactions(), stats.queued()), (3_000, 0));
    // 48 MiB by 16 MiB, the other 2,988 by 512.
    assert!(stats.batches() >= 3 + 5, "{}", stats.batches());
    assert_eq!(all_rows(&store).await.len(), 3_000);
}

#[tokio::test]
async fn conflicts_cost_no_fsync() {
    let power = Power::new();
    let store = open(&CrashDisk::new(&power));
    let txn = Txn {
        checks: vec![Check::Present(b"absent".to_vec())],
        ..puts(&[(b"a", b"1")])
    };
    let before = power.syncs();
    for _ in 0..10 {
        assert_eq!(
            store.commit(txn.clone()).await.unwrap(),
            Commit::Conflict(0)
        );
    }
    assert_eq!(store.commit(Txn::default()).await.unwrap(), Commit::Done);
    assert_eq!(power.syncs(), before);
    assert_eq!(store.stats().conflicts(), 10);
}

/// Commits rows of 10 kB, numbered from `first`, until one fails; returns the number of that one and its error.
async fn fill(store: &RedbMeta, first: u64) -> (u64, MetaError) {
    for number in first.. {
        let row = (number.to_be_bytes().to_vec(), vec![7; 10_000].into());
        let txn = Txn {
            puts: vec![row],
            ..Txn::default()
        };
        match store.commit(txn).await {
            Ok(outcome) => assert_eq!(outcome, Commit::Done),
            Err(error) => return (number, error),
        }
    }
    unreachable!()
}

#[tokio::test]
async fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    let power = Power::new();
    let disk = CrashDisk::new(&power);
    let store = open(&disk);
    let mut written = 0;
    for room in [0, 1, 5, 20, 100] {
        disk.set_room(Some(room));
        let (failed, error) = fill(&store, written).await;
        assert!(matches!(error, MetaError::Full(_)), "{error}");
        // Exactly what was acknowledged is there, and can be read while the disk is full.
        assert_eq!(all_rows(&store).await.len() as u64, failed);
        let (again, error) = fill(&store, failed).await;
        assert!(again == failed && matches!(error, MetaError::Full(_)));
        disk.set_room(None);
        let outcome = store.commit(puts(&[(&failed.to_be_bytes(), b"1")])).await;
        assert_eq!(outcome.unwrap(), Commit::Done);
        written = failed + 1;
    }
    disk.crash(1);
    drop(store);
    power.restore();
    let store = open(&disk);
    assert_eq!(all_rows(&store).await.len() as u64, written);
    assert_eq!(store.stats().walks(), 0);
}

/// The first and the second sync of a commit, and the one of the reopening, fail in turn.
#[tokio::test]
async fn a_failed_sync_loses_nothing_acknowledged() {
    for seed in 0..40 {
        let mut dice = Dice::new(seed);
        let power = Power::new();
        let disk = CrashDisk::new(&power);
        let store = open(&disk);
        let mut next = 0;
        for _ in 0..20 {
            if dice.one_in(3) {
                disk.fail_syncs(1 + dice.below(4));
            }
            // An error says that it is unknown; what is found afterwards is what counts.
            match store.commit(numbered(0, next)).await {
                Ok(outcome) => assert_eq!(outcome, Commit::Done, "seed {seed}"),
                Err(MetaError::Unavailable(_)) => {
                    disk.fail_syncs(0);
                    assert_eq!(store.commit(Txn::default()).await.unwrap(), Commit::Done);
                    let found = check_whole(&store, 1, &format!("seed {seed}")).await[0];
                    assert!(found == next || found == next + 1);
                    next = found;
                    continue;
                }
                Err(error) => panic!("{error}"),
            }
            next += 1;
        }
        disk.fail_syncs(0);
        disk.crash(seed);
        drop(store);
        power.restore();
        let store = open(&disk);
        assert_eq!(store.stats().walks(), 0);
        let found = check_whole(&store, 1, &format!("seed {seed} after the crash")).await[0];
        assert_eq!(found, next, "seed {seed}");
    }
}

/// The second sync publishes a commit whose pages are durable, so after a reopening it is known to have happened.
#[tokio::test]
async fn a_commit_that_happened_is_acknowledged_although_its_last_sync_failed() {
    let power = Power::new();
    let disk = CrashDisk::new(&power);
    let store = open(&disk);
    assert_eq!(store.commit(numbered(0, 0)).await.unwrap(), Commit::Done);
    let mut acknowledged = 0;
    for number in 1..10 {
        disk.fail_sync_after(1);
        let outcome = store.commit(numbered(0, number)).await;
        assert_eq!(outcome.unwrap(), Commit::Done);
        acknowledged = number;
    }
    assert_eq!(store.stats().reopens(), 9);
    disk.crash(3);
    drop(store);
    power.restore();
    let found = check_whole(&open(&disk), 1, "after the crash").await[0];
    assert_eq!(found, acknowledged + 1);
}

#[tokio::test]
async fn reads_recover_from_a_failed_read() {
    let disk = CrashDisk::new(&Power::new());
    let store = open(&disk);
    fill_rows(&store, 2_000).await;
    for inline in [true, false] {
        let limit = if inline { 100 } else { 2_000 };
        disk.fail_reads(1);
        let mut reopens = store.stats().reopens();
        // The cache holds a part of the rows only, so some page is read from the disk soon.
        for from in 0..2_000_u64 {
            let part = range(&from.to_be_bytes(), &[0xff; 9]);
            assert!(!store.scan(&part, limit).await.unwrap().is_empty());
            let key = from.to_be_bytes().to_vec();
            assert!(store.get(&[key]).await.unwrap()[0].is_some());
            if store.stats().reopens() > reopens {
                reopens = u64::MAX;
                break;
            }
        }
        assert_eq!(reopens, u64::MAX, "no read failed");
    }
}

async fn fill_rows(store: &RedbMeta, rows: u64) {
    let txn = Txn {
        puts: (0..rows)
            .map(|number| (number.to_be_bytes().to_vec(), vec![7; 1_000].into()))
            .collect(),
        ..Txn::default()
    };
    assert_eq!(store.commit(txn).await.unwrap(), Commit::Done);
}

#[tokio::test]
async fn a_store_that_cannot_be_reopened_tries_again_at_each_call() {
    let power = Power::new();
    let disk = CrashDisk::new(&power);
    let store = open(&disk);
    assert_eq!(store.commit(numbered(0, 0)).await.unwrap(), Commit::Done);
    disk.fail_syncs(u64::MAX);
    let unavailable = |result| matches!(result, Err(MetaError::Unavailable(_)));
    assert!(unavailable(store.commit(numbered(0, 1)).await.map(|_| ())));
    assert!(unavailable(store.commit(numbered(0, 1)).await.map(|_| ())));
    let key = vec![0, 0];
    assert!(unavailable(
        store.get(std::slice::from_ref(&key)).await.map(|_| ())
    ));
    disk.fail_syncs(0);
    // A read asks for the next try and is refused meanwhile; the commit behind it finds the store open or opens it.
    let _ = store.get(std::slice::from_ref(&key)).await;
    assert_eq!(store.commit(numbered(0, 1)).await.unwrap(), Commit::Done);
    assert!(store.get(&[key]).await.unwrap()[0].is_some());
    assert_eq!(check_whole(&store, 1, "").await, [2]);
}

#[tokio::test]
async fn closing_finishes_what_is_queued() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("meta.redb");
    let store = Arc::new(RedbMeta::open(&path, &RedbOptions::default()).unwrap());
    let commits: Vec<_> = (0..100_u8)
        .map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.commit(puts(&[(&[number], b"v")])).await })
        })
        .collect();
    tokio::task::yield_now().await;
    store.close().await;
    store.close().await;
    let mut done = 0;
    for commit in commits {
        match commit.await.unwrap() {
            Ok(outcome) => {
                assert_eq!(outcome, Commit::Done);
                done += 1;
            }
            Err(error) => assert!(matches!(error, MetaError::Unavailable(_))),
        }
    }
    assert!(store.commit(Txn::default()).await.is_err());
    assert!(store.get(&[]).await.is_err());
    // Closed: the file is free although the handle lives.
    let again = RedbMeta::open(&path, &RedbOptions::default()).unwrap();
    assert_eq!(all_rows(&again).await.len(), done);
    assert!(RedbMeta::open(&path, &RedbOptions::default()).is_err());
    drop(again);
    assert!(RedbMeta::open(&path, &RedbOptions::default()).is_ok());
}

#[test]
fn other_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("meta.redb");
    for content in ["something else that is no database", ""] {
        std::fs::write(&path, content).unwrap();
        assert!(RedbMeta::open(&path, &RedbOptions::default()).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
    }
    assert!(RedbMeta::open(dir.path().join("absent/meta.redb"), &RedbOptions::default()).is_err());
}

#[test]
fn a_creation_that_was_cut_short_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("meta.redb.new"), [0; 5_000]).unwrap();
    drop(RedbMeta::open(dir.path().join("meta.redb"), &RedbOptions::default()).unwrap());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}
