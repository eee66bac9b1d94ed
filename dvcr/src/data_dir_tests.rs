#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::os::unix::fs::PermissionsExt;

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn an_absent_directory_is_set_up() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("above").join("data");
    let data = DataDir::open(&path).unwrap();
    assert_eq!(data.path(), path);
    assert_eq!(data.packs_path(), path.join("packs"));
    assert_eq!(data.meta_path(), path.join("meta.redb"));
    assert_eq!(names(&path), ["FORMAT", "LOCK", "packs"]);
    assert_eq!(
        fs::read_to_string(path.join("FORMAT")).unwrap(),
        "dvcr data directory, format 1\n"
    );
    assert_eq!(
        [
            mode(&path),
            mode(&path.join("packs")),
            mode(&path.join("FORMAT"))
        ],
        [0o700, 0o700, 0o600]
    );
}

#[test]
fn a_directory_is_taken_again() {
    let temp = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let data = DataDir::open(temp.path()).unwrap();
        fs::write(data.meta_path(), b"rows").unwrap();
        fs::write(data.packs_path().join("0000000000000001.pack"), b"bytes").unwrap();
    }
    assert_eq!(names(temp.path()), ["FORMAT", "LOCK", "meta.redb", "packs"]);
}

#[test]
fn a_second_server_learns_who_is_there() {
    let temp = tempfile::tempdir().unwrap();
    let data = DataDir::open(temp.path()).unwrap();
    let error = DataDir::open(temp.path()).unwrap_err();
    assert!(
        matches!(error, DataDirError::InUse { pid: Some(pid), .. } if pid == std::process::id())
    );
    let text = error.to_string();
    assert!(
        text.contains(&format!("in use by process {}", std::process::id())),
        "{text}"
    );
    // Nor did the attempt change anything for the first.
    DataDir::open(temp.path()).unwrap_err();
    drop(data);
    DataDir::open(temp.path()).unwrap();
}

#[test]
fn a_lock_that_is_being_taken_names_nobody() {
    let temp = tempfile::tempdir().unwrap();
    let data = DataDir::open(temp.path()).unwrap();
    fs::write(temp.path().join("LOCK"), b"").unwrap();
    let error = DataDir::open(temp.path()).unwrap_err();
    assert!(matches!(error, DataDirError::InUse { pid: None, .. }));
    assert!(error.to_string().contains("in use by another process"));
    drop(data);
}

#[test]
fn a_longer_process_id_is_overwritten() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("LOCK"), b"99999999999999999999\n").unwrap();
    let _data = DataDir::open(temp.path()).unwrap();
    assert_eq!(
        fs::read_to_string(temp.path().join("LOCK")).unwrap(),
        format!("{}\n", std::process::id())
    );
}

#[test]
fn a_newer_format_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    drop(DataDir::open(temp.path()).unwrap());
    fs::write(
        temp.path().join("FORMAT"),
        "dvcr data directory, format 12\n",
    )
    .unwrap();
    let error = DataDir::open(temp.path()).unwrap_err();
    assert!(matches!(error, DataDirError::Newer { found: 12, .. }));
    let text = error.to_string();
    assert!(
        text.contains("has format 12") && text.contains("formats up to 1"),
        "{text}"
    );
    assert!(text.contains("run the version that wrote it"), "{text}");
}

#[test]
fn a_format_that_makes_no_sense_is_refused() {
    for text in [
        "",
        "dvcr data directory, format 1",
        "dvcr data directory, format 0\n",
        "dvcr data directory, format -1\n",
        "dvcr data directory, format +1\n",
        "dvcr data directory, format \n",
        "dvcr data directory, format 1\n\n",
        "dvcr data directory, format 99999999999\n",
        "something else\n",
    ] {
        let temp = tempfile::tempdir().unwrap();
        drop(DataDir::open(temp.path()).unwrap());
        fs::write(temp.path().join("FORMAT"), text).unwrap();
        let error = DataDir::open(temp.path()).unwrap_err();
        assert!(
            matches!(error, DataDirError::Damaged { .. }),
            "{text:?}: {error}"
        );
    }
    // However long it is, little of it is read.
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("FORMAT"), vec![b'x'; 1 << 20]).unwrap();
    assert!(DataDir::open(temp.path()).unwrap_err().to_string().len() < 1_000);
}

#[test]
fn a_directory_of_somebody_else_is_left_alone() {
    for name in ["holiday.jpg", "meta.redb", ".hidden"] {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join(name), b"").unwrap();
        let error = DataDir::open(temp.path()).unwrap_err();
        assert!(
            matches!(&error, DataDirError::Foreign { found, .. } if found == name),
            "{error}"
        );
        assert!(error.to_string().contains(name));
        assert_eq!(names(temp.path()), [name]);
    }
    // Packs without FORMAT are not an empty directory either.
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join("packs")).unwrap();
    fs::write(temp.path().join("packs/0000000000000001.pack"), b"").unwrap();
    assert!(matches!(
        DataDir::open(temp.path()),
        Err(DataDirError::Foreign { .. })
    ));
}

#[test]
fn the_root_of_a_new_volume_is_empty() {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join("lost+found")).unwrap();
    DataDir::open(temp.path()).unwrap();
}

#[test]
fn an_interrupted_setup_is_finished() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("LOCK"), b"1\n").unwrap();
    fs::create_dir(temp.path().join("packs")).unwrap();
    fs::write(
        temp.path().join("FORMAT.new"),
        b"dvcr data directory, format 1\nand more than that",
    )
    .unwrap();
    drop(DataDir::open(temp.path()).unwrap());
    assert_eq!(names(temp.path()), ["FORMAT", "LOCK", "packs"]);
    DataDir::open(temp.path()).unwrap();
}

#[test]
fn missing_packs_do_not_look_like_an_empty_registry() {
    let temp = tempfile::tempdir().unwrap();
    drop(DataDir::open(temp.path()).unwrap());
    fs::remove_dir(temp.path().join("packs")).unwrap();
    let error = DataDir::open(temp.path()).unwrap_err();
    assert!(matches!(error, DataDirError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("packs"));
}

#[test]
fn missing_metadata_does_not_look_like_an_empty_registry() {
    // A copy of a registry of small artifacts has no packs.
    for (dir, file) in [
        (PACKS, "0000000000000001.pack"),
        (CHECKPOINTS, "0000000000000001.checkpoint"),
    ] {
        let root = tempfile::tempdir().unwrap();
        drop(DataDir::open(root.path()).unwrap());
        // Set up, and stopped before the metadata was created.
        drop(DataDir::open(root.path()).unwrap());
        let dir = root.path().join(dir);
        fs::create_dir_all(&dir).unwrap();
        drop(DataDir::open(root.path()).unwrap());
        fs::write(dir.join(file), "").unwrap();
        let error = DataDir::open(root.path()).unwrap_err();
        assert!(
            matches!(&error, DataDirError::Damaged { what, .. } if what.contains(META)),
            "{error}"
        );
    }
}

#[test]
fn a_file_is_no_directory() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("file");
    fs::write(&path, b"").unwrap();
    let error = DataDir::open(&path).unwrap_err();
    assert!(
        matches!(
            error,
            DataDirError::Io {
                what: "create directory",
                ..
            }
        ),
        "{error}"
    );
    // Nor can there be a directory in it.
    assert!(matches!(
        DataDir::open(&path.join("data")),
        Err(DataDirError::Io { .. })
    ));
}

#[test]
fn an_existing_directory_keeps_its_mode() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("data");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
    DataDir::open(&path).unwrap();
    assert_eq!(mode(&path), 0o750);
}

#[test]
fn one_of_many_gets_it() {
    let temp = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let path = temp.path().join(round.to_string());
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| DataDir::open(&path)))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        for error in results.iter().filter_map(|result| result.as_ref().err()) {
            assert!(matches!(error, DataDirError::InUse { .. }), "{error}");
        }
    }
}
