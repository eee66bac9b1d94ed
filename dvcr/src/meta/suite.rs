//! What every engine must do, as one suite: run it on each. Compiled for tests only.

// Test code that other crates may call, so no allowance for tests covers it.
#![allow(clippy::unwrap_used)]

use std::{ops::ControlFlow, sync::Arc};

use super::{Check, Commit, Key, KeyRange, MetaStore, Txn, Value};

/// Runs the whole suite; `make` returns a new, empty store at each call. Panics where the engine is wrong. Needs a runtime.
pub async fn run<M, F>(make: F)
where
    M: MetaStore + 'static,
    F: AsyncFn() -> M,
{
    absent_keys_read_as_none(&make().await).await;
    values_come_in_the_order_of_the_keys(&make().await).await;
    any_bytes_are_a_key(&make().await).await;
    scans_are_ordered_and_half_open(&make().await).await;
    scans_page(&make().await).await;
    scans_end_at_bytes(&make().await).await;
    each_check_holds_or_not(&make().await).await;
    the_first_failing_check_is_named(&make().await).await;
    a_conflict_changes_nothing(&make().await).await;
    checks_see_the_state_before_the_transaction(&make().await).await;
    puts_win_over_deletes(&make().await).await;
    large_values_survive(&make().await).await;
    a_snapshot_does_not_see_what_comes_later(&make().await).await;
    concurrent_increments_lose_nothing(Arc::new(make().await)).await;
    an_empty_range_admits_one_of_many(Arc::new(make().await)).await;
    a_guard_and_its_row_exclude_each_other(Arc::new(make().await)).await;
    reads_see_what_was_acknowledged(Arc::new(make().await)).await;
}

async fn a_snapshot_does_not_see_what_comes_later(store: &impl MetaStore) {
    done(store, puts(&[(b"a", b"1"), (b"b", b"2"), (b"c", b"3")])).await;
    let snapshot = store.snapshot().await.unwrap();
    let mut txn = puts(&[(b"a", b"9"), (b"d", b"4")]);
    txn.deletes.push(b"b".to_vec());
    done(store, txn).await;
    let seen = |range: &KeyRange, most: usize| {
        let mut rows = Vec::new();
        let mut visit = |key: &[u8], value: &[u8]| {
            rows.push([key, value].concat());
            if rows.len() == most {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        snapshot.each(range, &mut visit).unwrap();
        rows
    };
    let all = range(b"a", b"z");
    assert_eq!(seen(&all, 9), [b"a1", b"b2", b"c3"]);
    assert_eq!(seen(&all, 2), [b"a1", b"b2"]);
    assert_eq!(seen(&range(b"b", b"c"), 9), [b"b2"]);
    assert!(seen(&range(b"z", b"a"), 9).is_empty());
}

/// A range of keys.
pub fn range(from: &[u8], to: &[u8]) -> KeyRange {
    KeyRange {
        from: from.to_vec(),
        to: to.to_vec(),
    }
}

/// A transaction that only puts.
pub fn puts(rows: &[(&[u8], &[u8])]) -> Txn {
    Txn {
        puts: rows
            .iter()
            .map(|(key, value)| (key.to_vec(), Value::copy_from_slice(value)))
            .collect(),
        ..Txn::default()
    }
}

async fn done(store: &impl MetaStore, txn: Txn) {
    assert_eq!(store.commit(txn).await.unwrap(), Commit::Done);
}

async fn get(store: &impl MetaStore, key: &[u8]) -> Option<Value> {
    store.get(&[key.to_vec()]).await.unwrap().remove(0)
}

async fn keys(store: &impl MetaStore, range: &KeyRange, limit: usize) -> Vec<Key> {
    let rows = store.scan(range, limit).await.unwrap();
    rows.into_iter().map(|(key, _)| key).collect()
}

async fn absent_keys_read_as_none(store: &impl MetaStore) {
    assert_eq!(get(store, b"a").await, None);
    assert_eq!(
        store.get(&[]).await.unwrap(),
        Vec::<Option<Value>>::default()
    );
    assert!(keys(store, &range(b"", b"\xff"), 10).await.is_empty());
    done(store, Txn::default()).await;
    let delete = Txn {
        deletes: vec![b"a".to_vec()],
        ..Txn::default()
    };
    done(store, delete).await;
}

async fn values_come_in_the_order_of_the_keys(store: &impl MetaStore) {
    done(store, puts(&[(b"b", b"2"), (b"a", b"1"), (b"empty", b"")])).await;
    let asked = [&b"b"[..], b"x", b"a", b"b", b"empty"].map(<[u8]>::to_vec);
    let values = store.get(&asked).await.unwrap();
    let two = Some(Value::from_static(b"2"));
    let one = Some(Value::from_static(b"1"));
    assert_eq!(
        values,
        [two.clone(), None, one, two, Some(Value::new())].to_vec()
    );
    // More keys than any engine reads in one step.
    let many: Vec<Key> = (0..1_000)
        .map(|at| if at % 2 == 0 { &b"a"[..] } else { b"x" }.to_vec())
        .collect();
    let values = store.get(&many).await.unwrap();
    assert_eq!(values.len(), 1_000);
    assert!(
        values
            .iter()
            .enumerate()
            .all(|(at, value)| value.is_some() == (at % 2 == 0))
    );
}

async fn any_bytes_are_a_key(store: &impl MetaStore) {
    let all = [
        &b"\0"[..],
        b"\0\0",
        b"\0\xff",
        b"'\"%\\",
        b"\x7f",
        b"\x80",
        b"\xc3\x28",
        b"\xff",
        b"\xff\xff",
    ];
    done(store, puts(&all.map(|key| (key, key)))).await;
    assert_eq!(keys(store, &range(b"", b"\xff\xff\xff"), 100).await, all);
    for key in all {
        assert_eq!(get(store, key).await.as_deref(), Some(key));
    }
    let long = vec![b'k'; 1_000];
    done(store, puts(&[(&long, b"v")])).await;
    assert_eq!(get(store, &long).await.as_deref(), Some(&b"v"[..]));
}

async fn scans_are_ordered_and_half_open(store: &impl MetaStore) {
    let rows = [
        (&b"c"[..], &b"3"[..]),
        (b"a", b"1"),
        (b"ab", b"2"),
        (b"d", b"4"),
    ];
    done(store, puts(&rows)).await;
    let check = async |from: &[u8], to: &[u8], expected: &[&[u8]]| {
        assert_eq!(keys(store, &range(from, to), 10).await, expected);
    };
    check(b"", b"z", &[b"a", b"ab", b"c", b"d"]).await;
    check(b"a", b"d", &[b"a", b"ab", b"c"]).await;
    check(b"a\0", b"d\0", &[b"ab", b"c", b"d"]).await;
    check(b"b", b"c", &[]).await;
    check(b"c", b"c", &[]).await;
    check(b"d", b"a", &[]).await;
    check(b"", b"", &[]).await;
    let found = store.scan(&range(b"ab", b"d"), 10).await.unwrap();
    assert_eq!(
        found,
        [
            (b"ab".to_vec(), Value::from_static(b"2")),
            (b"c".to_vec(), Value::from_static(b"3"))
        ]
    );
    assert!(keys(store, &range(b"", b"z"), 0).await.is_empty());
}

async fn scans_page(store: &impl MetaStore) {
    let all: Vec<Key> = (0..1_000_u32).map(|at| at.to_be_bytes().to_vec()).collect();
    let rows: Vec<_> = all.iter().map(|key| (key.as_slice(), &b"v"[..])).collect();
    done(store, puts(&rows)).await;
    for limit in [1, 7, 100, 999, 1_000, usize::MAX] {
        let mut rest = range(b"", b"\xff");
        let mut found = Vec::new();
        loop {
            let page = keys(store, &rest, limit).await;
            assert!(page.len() <= limit);
            let Some(last) = page.last() else { break };
            rest.from = last.clone();
            rest.from.push(0);
            found.extend(page);
        }
        assert_eq!(found, all, "pages of {limit}");
    }
}

async fn scans_end_at_bytes(store: &impl MetaStore) {
    done(
        store,
        puts(&[
            (b"a", b"12"),
            (b"b", b"123456789"),
            (b"c", b"1"),
            (b"d", b""),
        ]),
    )
    .await;
    let check = async |from: &[u8], limit: usize, bytes: usize, expected: &[&[u8]]| {
        let all = range(from, b"z");
        let rows = store.scan_within(&all, limit, bytes).await.unwrap();
        let keys: Vec<Key> = rows.into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, expected, "{limit} rows, {bytes} bytes");
    };
    // One row at least, whatever its length.
    check(b"a", 9, 0, &[b"a"]).await;
    check(b"b", 9, 4, &[b"b"]).await;
    check(b"a", 9, 3, &[b"a"]).await;
    check(b"a", 9, 4, &[b"a", b"b"]).await;
    check(b"a", 9, 14, &[b"a", b"b", b"c"]).await;
    check(b"a", 9, 100, &[b"a", b"b", b"c", b"d"]).await;
    check(b"a", 2, 100, &[b"a", b"b"]).await;
    check(b"a", 0, 100, &[]).await;
}

async fn each_check_holds_or_not(store: &impl MetaStore) {
    done(store, puts(&[(b"a", b"1"), (b"c", b"")])).await;
    let check = async |check: Check, holds: bool| {
        let txn = Txn {
            checks: vec![check.clone()],
            ..Txn::default()
        };
        let expected = if holds {
            Commit::Done
        } else {
            Commit::Conflict(0)
        };
        assert_eq!(store.commit(txn).await.unwrap(), expected, "{check:?}");
    };
    let exact =
        |key: &[u8], value: &'static [u8]| Check::Exact(key.to_vec(), Value::from_static(value));
    check(Check::Present(b"a".to_vec()), true).await;
    check(Check::Present(b"b".to_vec()), false).await;
    check(Check::Absent(b"a".to_vec()), false).await;
    check(Check::Absent(b"b".to_vec()), true).await;
    check(exact(b"a", b"1"), true).await;
    check(exact(b"a", b"2"), false).await;
    check(exact(b"a", b"11"), false).await;
    check(exact(b"b", b""), false).await;
    check(exact(b"c", b""), true).await;
    check(Check::EmptyRange(range(b"", b"a")), true).await;
    check(Check::EmptyRange(range(b"", b"a\0")), false).await;
    check(Check::EmptyRange(range(b"a\0", b"c")), true).await;
    check(Check::EmptyRange(range(b"a", b"a")), true).await;
    check(Check::EmptyRange(range(b"z", b"a")), true).await;
    check(Check::EmptyRange(range(b"", b"z")), false).await;
}

async fn the_first_failing_check_is_named(store: &impl MetaStore) {
    done(store, puts(&[(b"a", b"1")])).await;
    let present = Check::Present(b"a".to_vec());
    let absent = Check::Absent(b"a".to_vec());
    let txn = Txn {
        checks: vec![
            present.clone(),
            present,
            absent.clone(),
            Check::Present(b"b".to_vec()),
            absent,
        ],
        ..Txn::default()
    };
    assert_eq!(store.commit(txn).await.unwrap(), Commit::Conflict(2));
}

async fn a_conflict_changes_nothing(store: &impl MetaStore) {
    done(store, puts(&[(b"a", b"1"), (b"b", b"2")])).await;
    let txn = Txn {
        checks: vec![Check::Absent(b"b".to_vec())],
        deletes: vec![b"a".to_vec()],
        ..puts(&[(b"b", b"9"), (b"c", b"9")])
    };
    assert_eq!(store.commit(txn).await.unwrap(), Commit::Conflict(0));
    let rows = store.scan(&range(b"", b"z"), 10).await.unwrap();
    assert_eq!(
        rows,
        [
            (b"a".to_vec(), Value::from_static(b"1")),
            (b"b".to_vec(), Value::from_static(b"2"))
        ]
    );
}

async fn checks_see_the_state_before_the_transaction(store: &impl MetaStore) {
    let txn = Txn {
        checks: vec![
            Check::Absent(b"a".to_vec()),
            Check::EmptyRange(range(b"", b"z")),
        ],
        ..puts(&[(b"a", b"1")])
    };
    done(store, txn).await;
    let txn = Txn {
        checks: vec![Check::Present(b"a".to_vec())],
        deletes: vec![b"a".to_vec()],
        ..Txn::default()
    };
    done(store, txn).await;
    assert_eq!(get(store, b"a").await, None);
}

async fn puts_win_over_deletes(store: &impl MetaStore) {
    done(store, puts(&[(b"a", b"1"), (b"b", b"1")])).await;
    let txn = Txn {
        deletes: vec![b"a".to_vec(), b"b".to_vec(), b"c".to_vec()],
        ..puts(&[(b"c", b"2"), (b"a", b"2")])
    };
    done(store, txn).await;
    assert_eq!(get(store, b"a").await.as_deref(), Some(&b"2"[..]));
    assert_eq!(get(store, b"b").await, None);
    assert_eq!(get(store, b"c").await.as_deref(), Some(&b"2"[..]));
}

async fn large_values_survive(store: &impl MetaStore) {
    let large: Vec<u8> = (0..8_u32 << 20)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    done(store, puts(&[(b"a", &large), (b"b", b"1")])).await;
    assert!(get(store, b"a").await.unwrap() == large);
    let txn = Txn {
        checks: vec![Check::Exact(b"a".to_vec(), large.into())],
        ..puts(&[(b"a", b"small")])
    };
    done(store, txn).await;
    assert_eq!(get(store, b"a").await.as_deref(), Some(&b"small"[..]));
}

/// Tasks of the concurrent cases, and steps of each.
const TASKS: u64 = 16;
const STEPS: u64 = 20;

/// Runs `task` [`TASKS`] times at once, numbered from 0, and returns what they return, in order.
async fn together<T, F>(task: impl Fn(u64) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let tasks: Vec<_> = (0..TASKS).map(|at| tokio::spawn(task(at))).collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}

async fn concurrent_increments_lose_nothing<M: MetaStore + 'static>(store: Arc<M>) {
    done(&*store, puts(&[(b"n", &0_u64.to_be_bytes())])).await;
    together(|_| {
        let store = Arc::clone(&store);
        async move {
            let mut left = STEPS;
            while left > 0 {
                let old = get(&*store, b"n").await.unwrap();
                let next = u64::from_be_bytes(old.as_ref().try_into().unwrap()) + 1;
                let txn = Txn {
                    checks: vec![Check::Exact(b"n".to_vec(), old)],
                    ..puts(&[(b"n", &next.to_be_bytes())])
                };
                if store.commit(txn).await.unwrap() == Commit::Done {
                    left -= 1;
                }
            }
        }
    })
    .await;
    let sum = get(&*store, b"n").await.unwrap();
    assert_eq!(sum.as_ref(), (TASKS * STEPS).to_be_bytes());
}

async fn an_empty_range_admits_one_of_many<M: MetaStore + 'static>(store: Arc<M>) {
    for step in 0..STEPS {
        let outcomes = together(|at| {
            let store = Arc::clone(&store);
            async move {
                let prefix = step.to_be_bytes();
                let end = (step + 1).to_be_bytes();
                let key = [prefix, at.to_be_bytes()].concat();
                let txn = Txn {
                    checks: vec![Check::EmptyRange(range(&prefix, &end))],
                    ..puts(&[(&key, b"")])
                };
                store.commit(txn).await.unwrap()
            }
        })
        .await;
        let done = outcomes.iter().filter(|o| **o == Commit::Done).count();
        assert_eq!(done, 1, "step {step}: {outcomes:?}");
    }
    assert_eq!(
        keys(&*store, &range(b"", b"\xff"), 1_000).await.len() as u64,
        STEPS
    );
}

/// The pattern of garbage collection: a referrer needs its target, and the target goes only while nothing refers to it.
async fn a_guard_and_its_row_exclude_each_other<M: MetaStore + 'static>(store: Arc<M>) {
    for step in 0..STEPS {
        let target = [b"target".as_slice(), &step.to_be_bytes()].concat();
        let edges = [b"edge".as_slice(), &step.to_be_bytes()].concat();
        let edges_end = [b"edge".as_slice(), &(step + 1).to_be_bytes()].concat();
        done(&*store, puts(&[(&target, b"")])).await;
        together(|at| {
            let store = Arc::clone(&store);
            let edge = [edges.clone(), at.to_be_bytes().to_vec()].concat();
            let remove = Txn {
                checks: vec![Check::EmptyRange(range(&edges, &edges_end))],
                deletes: vec![target.clone()],
                ..Txn::default()
            };
            let refer = Txn {
                checks: vec![Check::Present(target.clone())],
                ..puts(&[(&edge, b"")])
            };
            async move {
                let txn = if at % 2 == step % 2 { remove } else { refer };
                store.commit(txn).await.unwrap()
            }
        })
        .await;
        let is_there = get(&*store, &target).await.is_some();
        let referred = !keys(&*store, &range(&edges, &edges_end), 100)
            .await
            .is_empty();
        assert_eq!(is_there, referred, "step {step}");
    }
}

async fn reads_see_what_was_acknowledged<M: MetaStore + 'static>(store: Arc<M>) {
    together(|at| {
        let store = Arc::clone(&store);
        async move {
            for step in 0..STEPS {
                let key = [at.to_be_bytes(), step.to_be_bytes()].concat();
                // Two rows of one transaction: a snapshot has both or none.
                let twin = [key.clone(), b"twin".to_vec()].concat();
                done(&*store, puts(&[(&key, b"1"), (&twin, b"1")])).await;
                assert!(get(&*store, &key).await.is_some());
                let all = keys(&*store, &range(b"", b"\xff"), usize::MAX).await;
                assert!(all.contains(&twin));
                assert_eq!(all.len() % 2, 0);
            }
        }
    })
    .await;
}
