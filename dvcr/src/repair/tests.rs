//! Registries in memory that lose their metadata.

use bytes::Bytes;
use dvcr_core::oci::{Digest, Reference};

use super::*;
use crate::{
    backend::PackBackend,
    clock::SystemClock,
    meta::{MetaStore as _, key},
    registry::{Registry, RegistryError, RegistryOptions},
    store::{
        Store, StoreOptions,
        pack::{BlobHead, Codec, PackBuilder, PackHeader, Record, RecordId},
        recipe::{Piece, RecipePart},
    },
    testing::{WHO, World, body, disk, image, name},
};

impl World {
    async fn tag(&self, tag: &str) -> Result<Digest, RegistryError> {
        let reference = Reference::Tag(tag.parse().unwrap());
        let repository = name("a");
        let found = self.registry.manifest_get(&WHO, &repository, &reference);
        Ok(found.await?.digest)
    }
}

#[tokio::test]
async fn what_a_checkpoint_knows_comes_back() {
    let world = World::new().await;
    let disks = [disk(1, 900_000), disk(2, 70_000), disk(3, 4_000)];
    for (n, data) in disks.iter().enumerate() {
        world.push(&format!("a:v{n}"), data).await;
    }
    let checkpoint = world.checkpoint().await;
    let (world, report) = world.rebuilt(Some(checkpoint)).await;
    assert!(report.is_whole(), "{report}");
    assert_eq!(
        (report.repositories, report.manifests, report.tags),
        (1, 3, 3)
    );
    assert_eq!((report.blobs, report.found_blobs.len()), (4, 0), "{report}");
    for (n, data) in disks.iter().enumerate() {
        let manifest = image(&[data]);
        let found = world.tag(&format!("v{n}")).await.unwrap();
        assert_eq!(found, Digest::sha256(&manifest));
        world.pull("a", data).await.unwrap();
    }
    world.pull("a", &Bytes::from_static(b"{}")).await.unwrap();
    // It takes pushes, which find what is stored.
    let stored = world.packs.list().unwrap().len();
    world.push("a:again", &disks[0]).await;
    assert_eq!(world.packs.list().unwrap().len(), stored);
    world.push("a:new", &disk(4, 100_000)).await;
    world.pull("a", &disk(4, 100_000)).await.unwrap();
}

#[tokio::test]
async fn what_is_newer_than_the_checkpoint_is_found_without_a_name() {
    let world = World::new().await;
    world.push("a:old", &disk(1, 300_000)).await;
    let checkpoint = world.checkpoint().await;
    let new = disk(2, 300_000);
    world.push("a:new", &new).await;
    let (world, report) = world.rebuilt(Some(checkpoint)).await;
    assert!(report.is_whole(), "{report}");
    assert!(world.tag("old").await.is_ok());
    assert!(world.tag("new").await.is_err());
    assert!(world.pull("a", &new).await.is_err());
    world.pull(FOUND_REPOSITORY, &new).await.unwrap();
    let found: Vec<_> = report
        .found_blobs
        .iter()
        .map(|found| found.digest)
        .collect();
    assert_eq!(found, [Digest::sha256(&new)]);
    // A push of the same image is whole again, and nothing is stored twice.
    let packs = world.packs.list().unwrap().len();
    world.push("a:new", &new).await;
    world.pull("a", &new).await.unwrap();
    assert_eq!(world.packs.list().unwrap().len(), packs);
}

#[tokio::test]
async fn without_a_checkpoint_blobs_are_found() {
    let world = World::new().await;
    let data = disk(1, 300_000);
    world.push("a:v1", &data).await;
    let (world, report) = world.rebuilt(None).await;
    assert!(!report.is_whole());
    assert!(
        report.to_string().contains("no whole checkpoint"),
        "{report}"
    );
    world.pull(FOUND_REPOSITORY, &data).await.unwrap();
    // Garbage collection gives people time.
    world.registry.gc().collect(false).await.unwrap();
    world.pull(FOUND_REPOSITORY, &data).await.unwrap();
}

#[tokio::test]
async fn a_lost_pack_is_told_with_the_tags_that_need_it() {
    let world = World::new().await;
    let (kept, gone) = (disk(1, 300_000), disk(2, 300_000));
    world.push("a:kept", &kept).await;
    world.registry.store().close().await.unwrap();
    let packs = world.packs.list().unwrap();
    let world = world.restart().await;
    let manifest = world.push("a:gone", &gone).await;
    world.registry.store().close().await.unwrap();
    let checkpoint = world.checkpoint().await;
    for pack in world.packs.list().unwrap() {
        if !packs.contains(&pack) {
            world.packs.delete(pack).unwrap();
        }
    }
    let (world, report) = world.rebuilt(Some(checkpoint)).await;
    assert!(!report.is_whole());
    let [lost] = &report.lost_blobs[..] else {
        panic!("one blob is lost: {report}");
    };
    assert_eq!(lost.digest, Digest::sha256(&gone));
    assert_eq!(lost.repositories, [name("a")]);
    assert_eq!(lost.manifests.len(), 1);
    assert_eq!(lost.manifests[0].digest, manifest);
    assert_eq!(lost.manifests[0].tags, ["gone"]);
    assert!(report.to_string().contains("(tags: gone)"), "{report}");
    world.pull("a", &kept).await.unwrap();
    assert!(matches!(
        world.pull("a", &gone).await,
        Err(RegistryError::BlobUnknown(_))
    ));
    // Its tag is still there, so a push of its blob makes it whole.
    world.push_blob("a", &gone).await;
    world.pull("a", &gone).await.unwrap();
    assert_eq!(world.tag("gone").await.unwrap(), manifest);
}

/// A sealed pack of chunks, recipe parts and blob heads.
fn pack(packs: &dyn PackBackend, id: u64, records: Vec<Record>) {
    let pack = PackId(id);
    let header = PackHeader { pack, nonce: id };
    let mut slices = Vec::new();
    let mut builder = PackBuilder::new(header, &mut slices);
    for record in records {
        builder.push(record, &mut slices).unwrap();
    }
    slices.push(builder.footer());
    packs.create(pack).unwrap();
    packs.append(pack, 0, &slices).unwrap();
    packs.seal(pack, packs.len(pack).unwrap()).unwrap();
}

fn record(id: RecordId, payload: Bytes) -> Record {
    Record::new(id, Codec::Raw, payload.len(), vec![payload]).unwrap()
}

fn chunk(data: &Bytes) -> (Piece, Record) {
    let id = dvcr_core::chunk::ChunkId::of(data);
    let piece = Piece::Chunk {
        id,
        len: data.len() as u32,
    };
    (piece, record(RecordId::Chunk(id), data.clone()))
}

/// The recipe part and the blob head of a blob of one chunk.
fn books(recipe: u64, data: &Bytes, piece: Piece) -> [Record; 2] {
    let part = RecipePart {
        start: 0,
        pieces: vec![piece],
    };
    let head = BlobHead {
        digest: Digest::sha256(data),
        len: data.len() as u64,
        recipe,
        parts: 1,
        created_unix_ms: 7,
    };
    [
        record(RecordId::RecipePart { recipe, part: 0 }, part.encode()),
        record(RecordId::BlobHead { recipe }, head.encode().into()),
    ]
}

#[tokio::test]
async fn of_two_versions_of_a_recipe_the_one_that_makes_the_digest_counts() {
    // An upload broke off and went on with other bytes, in a pack that was begun before the first one.
    let (right, wrong) = (disk(1, 9_000), disk(2, 9_000));
    let ((right_piece, right_chunk), (wrong_piece, wrong_chunk)) = (chunk(&right), chunk(&wrong));
    for order in [[1, 2], [2, 1]] {
        let world = World::new().await;
        let [part, head] = books(5, &right, right_piece);
        pack(
            &*world.packs,
            order[0],
            vec![right_chunk.clone(), part, head],
        );
        let [part, _] = books(5, &wrong, wrong_piece);
        pack(&*world.packs, order[1], vec![wrong_chunk.clone(), part]);
        let (world, report) = world.rebuilt(None).await;
        assert_eq!(report.found_blobs.len(), 1, "{report}");
        world.pull(FOUND_REPOSITORY, &right).await.unwrap();
    }
}

#[tokio::test]
async fn a_chunk_in_two_packs_counts_where_it_reads_right() {
    let data = disk(1, 9_000);
    let (piece, good) = chunk(&data);
    // The header is right and so is the checksum: only BLAKE3 tells.
    let bad = record(good.header().id(), disk(2, 9_000));
    let books = books(5, &data, piece);
    for records in [[&bad, &good], [&good, &bad]] {
        let world = World::new().await;
        pack(&*world.packs, 1, vec![records[0].clone()]);
        pack(&*world.packs, 2, vec![records[1].clone()]);
        pack(&*world.packs, 3, books.to_vec());
        let (world, _) = world.rebuilt(None).await;
        world.pull(FOUND_REPOSITORY, &data).await.unwrap();
    }
}

#[tokio::test]
async fn a_blob_without_one_of_its_chunks_is_not_brought_back() {
    let data = disk(1, 9_000);
    let (piece, chunk) = chunk(&data);
    let books = books(5, &data, piece).to_vec();
    for is_there in [true, false] {
        let world = World::new().await;
        pack(&*world.packs, 1, books.clone());
        if is_there {
            pack(&*world.packs, 2, vec![chunk.clone()]);
        }
        let (_, report) = world.rebuilt(None).await;
        assert_eq!(report.found_blobs.len(), usize::from(is_there), "{report}");
    }
}

#[tokio::test]
async fn numbers_are_never_used_twice() {
    let world = World::new().await;
    world.push("a:v1", &disk(1, 100_000)).await;
    let (world, _) = world.rebuilt(None).await;
    let recipe = world.registry.store().next_recipe().await.unwrap();
    assert!(recipe > 1 << 32, "{recipe}");
    let (world, _) = world.rebuilt(None).await;
    let later = world.registry.store().next_recipe().await.unwrap();
    assert!(later >= 1 << 32, "{later}");
}

#[tokio::test]
async fn uploads_that_were_going_on_are_given_up() {
    let world = World::new().await;
    let repository = name("a");
    let upload = world.registry.upload_start(&WHO, &repository, None).await;
    let id = upload.unwrap().id;
    let data = disk(1, 300_000);
    let append = world
        .registry
        .upload_append(&WHO, &repository, &id, None, body(&data));
    append.await.unwrap();
    let checkpoint = world.checkpoint().await;
    let (world, report) = world.rebuilt(Some(checkpoint)).await;
    assert_eq!(report.found_blobs.len(), 0);
    let status = world.registry.upload_status(&WHO, &repository, &id).await;
    assert!(matches!(status, Err(RegistryError::UploadUnknown)));
    // Nothing is left of it in the metadata, and garbage collection finds its bytes.
    let recipes = world.meta.scan(&key::recipes(), 10).await.unwrap();
    assert!(recipes.is_empty());
    world.registry.gc().collect(true).await.unwrap();
    assert!(world.packs.list().unwrap().is_empty());
}

/// A data directory with an image, as a server leaves it when it stops.
async fn directory() -> (tempfile::TempDir, Bytes) {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::open(dir.path()).unwrap();
    let meta = Arc::new(RedbMeta::open(data.meta_path(), &RedbOptions::default()).unwrap());
    let packs = Arc::new(FileBackend::new(&data.packs_path(), 0).unwrap());
    let clock = Arc::new(SystemClock);
    let store = Store::open(meta.clone(), packs, clock.clone(), StoreOptions::default());
    let store = store.await.unwrap();
    let options = RegistryOptions::default();
    let registry = Registry::new(meta.clone(), store.clone(), clock.clone(), options);
    let bytes = disk(1, 300_000);
    let digest = Digest::sha256(&bytes);
    let repository = name("a");
    let push = registry.blob_push(&WHO, &repository, digest, body(&bytes));
    push.await.unwrap();
    store.close().await.unwrap();
    let checkpoints =
        crate::checkpoint::Checkpoints::new(data.checkpoints_path(), meta.clone(), clock, 3, 0);
    checkpoints.take().await.unwrap();
    meta.close().await;
    (dir, bytes)
}

async fn run(dir: &tempfile::TempDir, options: RepairOptions) -> Result<RepairReport, RepairError> {
    repair(dir.path(), options, &SystemClock, &mut ()).await
}

async fn check(dir: &tempfile::TempDir, bytes: &Bytes) {
    let data = DataDir::open(dir.path()).unwrap();
    let meta = RedbMeta::open(data.meta_path(), &RedbOptions::default()).unwrap();
    let digest = Digest::sha256(bytes);
    let hold = key::hold(&name("a"), &digest);
    let rows = meta.get(&[key::blob(&digest), hold]).await.unwrap();
    assert!(rows.iter().all(Option::is_some));
    meta.close().await;
}

#[tokio::test]
async fn a_database_that_is_gone_is_made_anew() {
    let (dir, bytes) = directory().await;
    fs::remove_file(dir.path().join("meta.redb")).unwrap();
    let refused = DataDir::open(dir.path()).unwrap_err().to_string();
    assert!(refused.contains("dvcr repair"), "{refused}");
    let dry = RepairOptions {
        dry_run: true,
        ..RepairOptions::default()
    };
    let report = run(&dir, dry).await.unwrap();
    assert_eq!((report.dry_run, report.blobs), (true, 1));
    assert!(DataDir::open(dir.path()).is_err(), "nothing was changed");
    let report = run(&dir, RepairOptions::default()).await.unwrap();
    assert!(report.is_whole(), "{report}");
    assert_eq!(report.kept_aside, None);
    check(&dir, &bytes).await;
}

#[tokio::test]
async fn a_damaged_database_is_kept_aside() {
    let (dir, bytes) = directory().await;
    let path = dir.path().join("meta.redb");
    fs::write(&path, b"no database").unwrap();
    let report = run(&dir, RepairOptions::default()).await.unwrap();
    let aside = report.kept_aside.unwrap();
    assert_eq!(fs::read(aside).unwrap(), b"no database");
    check(&dir, &bytes).await;
    // What can be opened is replaced only on request.
    let refused = run(&dir, RepairOptions::default()).await;
    assert!(matches!(refused, Err(RepairError::NotNeeded(_))));
    let force = RepairOptions {
        force: true,
        ..RepairOptions::default()
    };
    assert!(run(&dir, force).await.unwrap().kept_aside.is_some());
    check(&dir, &bytes).await;
}

#[tokio::test]
async fn a_damaged_checkpoint_gives_way_to_the_one_before() {
    let (dir, bytes) = directory().await;
    let checkpoints = dir.path().join("checkpoints");
    let whole = fs::read(checkpoints.join("0000000000000001.checkpoint")).unwrap();
    let newer = checkpoints.join("0000000000000002.checkpoint");
    fs::write(&newer, &whole[..whole.len() - 1]).unwrap();
    fs::remove_file(dir.path().join("meta.redb")).unwrap();
    let report = run(&dir, RepairOptions::default()).await.unwrap();
    assert_eq!(report.checkpoint.unwrap().number, 1);
    assert_eq!(report.bad_checkpoints.len(), 1);
    check(&dir, &bytes).await;
}

#[tokio::test]
async fn a_directory_in_use_or_of_somebody_else_is_refused() {
    let (dir, _) = directory().await;
    let _server = DataDir::open(dir.path()).unwrap();
    let refused = run(&dir, RepairOptions::default()).await;
    let in_use = matches!(
        refused,
        Err(RepairError::DataDir(DataDirError::InUse { .. }))
    );
    assert!(in_use);
    let foreign = tempfile::tempdir().unwrap();
    assert!(run(&foreign, RepairOptions::default()).await.is_err());
    assert!(fs::read_dir(foreign.path()).unwrap().next().is_none());
}

#[tokio::test]
async fn packs_without_footer_are_walked() {
    let (dir, bytes) = directory().await;
    fs::remove_file(dir.path().join("meta.redb")).unwrap();
    // The footer's last byte: damage that costs nothing but a walk.
    let pack = fs::read_dir(dir.path().join("packs")).unwrap().next();
    let path = pack.unwrap().unwrap().path();
    let mut content = fs::read(&path).unwrap();
    let last = content.len() - 1;
    content[last] ^= 1;
    fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, &content).unwrap();
    fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
    let report = run(&dir, RepairOptions::default()).await.unwrap();
    assert_eq!(report.damaged_packs.len(), 1);
    assert_eq!((report.blobs, report.lost_blobs.len()), (1, 0), "{report}");
    check(&dir, &bytes).await;
}

#[tokio::test]
async fn an_empty_directory_is_an_empty_registry() {
    let world = World::new().await;

    let (_, report) = world.rebuilt(None).await;
    assert_eq!((report.packs, report.blobs, report.repositories), (0, 0, 0));
}
