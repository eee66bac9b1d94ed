//! Data directories of every format that was ever released open, read back in full, and go on.
//!
//! `fixtures/format-N` is what a server of format N had on disk when its power failed, each file compressed:
//! packs that are sealed and one that is open, small blobs in the metadata, long recipes, manifests, tags, referrers, uploads
//! half way. `contents.json` beside it says what has to come out; contents are known by their digests.
//!
//! The fixture of the current format is written anew by
//!
//! ```sh
//! cargo test -p dvcr --test format -- --ignored
//! ```
//!
//! which is right as long as no server has been released that writes it, and wrong from then on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use dvcr::{
    backend::{PackBackend as _, PackId, file::FileBackend},
    clock::ManualClock,
    data_dir::{DATA_FORMAT, DataDir},
    meta::{
        MetaStore as _, key,
        record::{PackRecord, PackState, Record as _},
        redb::{RedbMeta, RedbOptions},
    },
    registry::{Body, Principal, Registry, RegistryOptions, SessionId},
    store::{Store, StoreOptions},
};
use dvcr_core::oci::{Algorithm, Digest, Reference, RepositoryName};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};

const WHO: Principal = Principal::Anonymous;

/// When the fixture was written, by its own clock: milliseconds since 1970.
const WRITTEN_MS: u64 = 1_790_000_000_000;

/// When it is read: uploads have not expired.
const READ_MS: u64 = WRITTEN_MS + 3_600_000;

const LEVEL: i32 = 19;

#[derive(Default, Serialize, Deserialize)]
struct Contents {
    blobs: Vec<BlobEntry>,
    manifests: Vec<ManifestEntry>,
    tags: Vec<TagEntry>,
    /// What was deleted, as `repository@digest`.
    deleted_manifests: Vec<String>,
    uploads: Vec<UploadEntry>,
    /// Files with mode 0400.
    sealed_packs: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct BlobEntry {
    repository: String,
    digest: String,
    len: u64,
}

#[derive(Serialize, Deserialize)]
struct ManifestEntry {
    repository: String,
    digest: String,
    media_type: String,
    /// Digests of the manifests whose subject it is.
    referrers: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct TagEntry {
    repository: String,
    tag: String,
    digest: String,
}

#[derive(Serialize, Deserialize)]
struct UploadEntry {
    repository: String,
    session: String,
    /// The blob is `noise(seed, len)`, of which the server has this much.
    seed: u64,
    len: usize,
    offset: u64,
}

/// A server without HTTP.
struct Server {
    _data: DataDir,
    meta: Arc<RedbMeta>,
    packs: Arc<FileBackend>,
    store: Arc<Store>,
    registry: Registry,
}

impl Server {
    async fn open(path: &Path, now_ms: u64) -> Self {
        let data = DataDir::open(path).unwrap();
        let meta = Arc::new(RedbMeta::open(data.meta_path(), &RedbOptions::default()).unwrap());
        let packs = Arc::new(FileBackend::new(&data.packs_path(), 0).unwrap());
        let clock = Arc::new(ManualClock::new(now_ms));
        let options = StoreOptions::default();
        let store = Store::open(meta.clone(), packs.clone(), clock.clone(), options);
        let store = store.await.unwrap();
        let options = RegistryOptions::default();
        let registry = Registry::new(meta.clone(), store.clone(), clock, options);
        Self {
            _data: data,
            meta,
            packs,
            store,
            registry,
        }
    }

    async fn push(&self, repository: &str, digest: Digest, data: &[u8]) {
        self.registry
            .blob_push(&WHO, &name(repository), digest, body(data))
            .await
            .unwrap();
    }

    /// The bytes have the digest: that is all there is to know of them.
    async fn check_blob(&self, repository: &str, digest: &Digest, len: u64) {
        let reader = self
            .registry
            .blob_read(&WHO, &name(repository), digest)
            .await
            .unwrap();
        assert_eq!(reader.info().len, len, "{digest}");
        let frames: Vec<Bytes> = reader.body(0..len).try_collect().await.unwrap();
        assert_eq!(Digest::of(digest.algorithm(), &frames.concat()), *digest);
        // From the middle too: a range finds its part of the recipe.
        let half: Vec<Bytes> = reader.body(len / 2..len).try_collect().await.unwrap();
        assert!(frames.concat().ends_with(&half.concat()), "{digest}");
    }

    async fn check(&self, contents: &Contents) {
        for BlobEntry {
            repository,
            digest,
            len,
        } in &contents.blobs
        {
            self.check_blob(repository, &digest.parse().unwrap(), *len)
                .await;
        }
        for ManifestEntry {
            repository,
            digest,
            media_type,
            referrers,
        } in &contents.manifests
        {
            let expected: Digest = digest.parse().unwrap();
            let found = self
                .registry
                .manifest_get(&WHO, &name(repository), &Reference::Digest(expected))
                .await
                .unwrap();
            assert_eq!(Digest::of(expected.algorithm(), &found.bytes), expected);
            assert_eq!(found.media_type, *media_type);
            let page = self
                .registry
                .referrers(&WHO, &name(repository), &expected, None, None, 100)
                .await
                .unwrap();
            let found: Vec<_> = page.items.iter().map(|d| d["digest"].as_str()).collect();
            let expected: Vec<_> = referrers.iter().map(|d| Some(d.as_str())).collect();
            assert_eq!(found, expected, "referrers of {digest}");
        }
        for TagEntry {
            repository,
            tag,
            digest,
        } in &contents.tags
        {
            let reference = Reference::Tag(tag.parse().unwrap());
            let found = self
                .registry
                .manifest_get(&WHO, &name(repository), &reference)
                .await
                .unwrap();
            assert_eq!(found.digest.to_string(), *digest, "{tag}");
        }
        for (repository, tags) in tags_by_repository(contents) {
            let found = self
                .registry
                .tags(&WHO, &name(repository), None, 100)
                .await
                .unwrap()
                .items;
            assert_eq!(found.iter().map(|t| t.as_str()).collect::<Vec<_>>(), tags);
        }
        for deleted in &contents.deleted_manifests {
            let (repository, digest) = deleted.split_once('@').unwrap();
            let reference = Reference::Digest(digest.parse().unwrap());
            self.registry
                .manifest_get(&WHO, &name(repository), &reference)
                .await
                .unwrap_err();
        }
    }

    /// Sends what the uploads lack.
    async fn finish_uploads(&self, contents: &Contents) {
        for upload in &contents.uploads {
            let id: SessionId = upload.session.parse().unwrap();
            let repository = name(&upload.repository);
            let status = self
                .registry
                .upload_status(&WHO, &repository, &id)
                .await
                .unwrap();
            assert_eq!(status.offset, upload.offset, "{}", upload.session);
            let data = noise(upload.seed, upload.len);
            let (digest, rest) = (Digest::sha256(&data), &data[status.offset as usize..]);
            self.registry
                .upload_finish(&WHO, &repository, &id, None, digest, body(rest))
                .await
                .unwrap();
            self.check_blob(&upload.repository, &digest, upload.len as u64)
                .await;
        }
    }

    /// Stops as after SIGTERM; no pack is left open.
    async fn stop(self) {
        self.store.close().await.unwrap();
        for (key, row) in self.meta.scan(&key::packs(), 100).await.unwrap() {
            let row = PackRecord::decode(&key, &row).unwrap();
            let id = key::last_field(&key::packs(), &key).try_into().unwrap();
            let pack = PackId(u64::from_be_bytes(id));
            assert_eq!(row.state, PackState::Sealed, "{pack}");
            assert_eq!(row.bytes, self.packs.len(pack).unwrap(), "{pack}");
        }
        self.meta.close().await;
    }
}

fn tags_by_repository(contents: &Contents) -> Vec<(&str, Vec<&str>)> {
    let mut found: Vec<(&str, Vec<&str>)> = Vec::new();
    for entry in &contents.tags {
        match found
            .iter_mut()
            .find(|(repository, _)| *repository == entry.repository)
        {
            Some((_, tags)) => tags.push(&entry.tag),
            None => found.push((&entry.repository, vec![&entry.tag])),
        }
    }
    found
}

fn name(name: &str) -> RepositoryName {
    name.parse().unwrap()
}

fn body(data: &[u8]) -> Body {
    let frames: Vec<_> = data.chunks(100_000).map(Bytes::copy_from_slice).collect();
    stream::iter(frames.into_iter().map(Ok)).boxed()
}

/// Incompressible bytes, the same for ever: xorshift64.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn fixture(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/format-{format}"))
}

/// Puts the data directory of a fixture back together.
fn restore(format: u32, to: &Path) -> Contents {
    let from = fixture(format);
    let contents: Contents =
        serde_json::from_slice(&fs::read(from.join("contents.json")).unwrap()).unwrap();
    fs::create_dir_all(to.join("packs")).unwrap();
    fs::copy(from.join("FORMAT"), to.join("FORMAT")).unwrap();
    let unpack = |name: &str| {
        let packed = fs::File::open(from.join(format!("{name}.zst"))).unwrap();
        fs::write(to.join(name), zstd::decode_all(packed).unwrap()).unwrap();
    };
    unpack("meta.redb");
    for entry in fs::read_dir(from.join("packs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        unpack(&format!("packs/{}", name.strip_suffix(".zst").unwrap()));
    }
    for pack in &contents.sealed_packs {
        let path = to.join("packs").join(pack);
        fs::set_permissions(path, Permissions::from_mode(0o400)).unwrap();
    }
    contents
}

async fn check_format(format: u32) {
    let directory = tempfile::tempdir().unwrap();
    let contents = restore(format, directory.path());
    assert!(contents.blobs.len() > 5 && contents.uploads.len() > 1);

    let server = Server::open(directory.path(), READ_MS).await;
    server.check(&contents).await;
    server.finish_uploads(&contents).await;
    let new = noise(1000, 200_000);
    server.push("new", Digest::sha256(&new), &new).await;
    server.stop().await;

    // What was written to it since is as good.
    let server = Server::open(directory.path(), READ_MS).await;
    server.check(&contents).await;
    server
        .check_blob("new", &Digest::sha256(&new), new.len() as u64)
        .await;
    for upload in &contents.uploads {
        let digest = Digest::sha256(&noise(upload.seed, upload.len));
        server
            .check_blob(&upload.repository, &digest, upload.len as u64)
            .await;
    }
    server.stop().await;
}

#[tokio::test]
async fn format_1_reads_back_and_goes_on() {
    check_format(1).await;
}

#[test]
fn every_format_has_a_fixture() {
    for format in 1..=DATA_FORMAT {
        let text = fs::read_to_string(fixture(format).join("FORMAT")).unwrap();
        assert_eq!(text, format!("dvcr data directory, format {format}\n"));
    }
}

mod write {
    use super::*;

    const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";

    /// Pushes, and notes what was pushed.
    struct Writer {
        server: Server,
        contents: Contents,
    }

    impl Writer {
        async fn blob(&mut self, repository: &str, algorithm: Algorithm, data: &[u8]) -> Digest {
            let digest = Digest::of(algorithm, data);
            self.server.push(repository, digest, data).await;
            self.contents.blobs.push(BlobEntry {
                repository: repository.to_owned(),
                digest: digest.to_string(),
                len: data.len() as u64,
            });
            digest
        }

        async fn manifest(
            &mut self,
            repository: &str,
            reference: Option<&str>,
            media_type: &str,
            text: &str,
        ) -> Digest {
            let digest = Digest::sha256(text.as_bytes());
            let reference = reference.map_or(Reference::Digest(digest), |tag| {
                Reference::Tag(tag.parse().unwrap())
            });
            let bytes = Bytes::copy_from_slice(text.as_bytes());
            self.server
                .registry
                .manifest_put(&WHO, &name(repository), &reference, &[], None, bytes)
                .await
                .unwrap();
            self.contents.manifests.push(ManifestEntry {
                repository: repository.to_owned(),
                digest: digest.to_string(),
                media_type: media_type.to_owned(),
                referrers: Vec::new(),
            });
            digest
        }

        fn tag(&mut self, repository: &str, tag: &str, digest: Digest) {
            self.contents.tags.push(TagEntry {
                repository: repository.to_owned(),
                tag: tag.to_owned(),
                digest: digest.to_string(),
            });
        }

        async fn upload(&mut self, repository: &str, seed: u64, len: usize, sent: usize) {
            let registry = &self.server.registry;
            let repository_name = name(repository);
            let id = registry
                .upload_start(&WHO, &repository_name, None)
                .await
                .unwrap()
                .id;
            let data = noise(seed, len);
            registry
                .upload_append(&WHO, &repository_name, &id, None, body(&data[..sent]))
                .await
                .unwrap();
            self.contents.uploads.push(UploadEntry {
                repository: repository.to_owned(),
                session: id.to_string(),
                seed,
                len,
                offset: sent as u64,
            });
        }

        async fn delete(&mut self, repository: &str, digest: Digest) {
            let reference = Reference::Digest(digest);
            self.server
                .registry
                .manifest_delete(&WHO, &name(repository), &reference)
                .await
                .unwrap();
            let gone = digest.to_string();
            self.contents.manifests.retain(|m| m.digest != gone);
            self.contents
                .deleted_manifests
                .push(format!("{repository}@{digest}"));
        }
    }

    fn descriptor(media_type: &str, digest: &Digest, size: usize) -> String {
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}"#)
    }

    fn image(media_type: &str, config: &Digest, layers: &[&Digest], more: &str) -> String {
        let layers: Vec<_> = layers.iter().map(|d| descriptor("a/b", d, 1)).collect();
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{media_type}","config":{},"layers":[{}]{more}}}"#,
            descriptor("application/vnd.oci.image.config.v1+json", config, 2),
            layers.join(",")
        )
    }

    /// 4,200 frames of 4 KiB of noise, of which there are three: a recipe of two parts that takes three chunks.
    fn frames() -> Vec<u8> {
        let frames = [1, 2, 3].map(|seed| zstd::bulk::compress(&noise(seed, 4096), 1).unwrap());
        (0..4200).flat_map(|i| frames[i % 3].clone()).collect()
    }

    async fn fill(writer: &mut Writer) {
        use Algorithm::{Sha256, Sha512};
        let text = "words that compress, and more of them; ".repeat(2000);
        let config = writer.blob("vi/debian", Sha256, b"{}").await;
        let empty = writer.blob("vi/debian", Sha256, b"").await;
        let inline = writer.blob("vi/debian", Sha512, &noise(10, 100)).await;
        let words = writer.blob("vi/debian", Sha256, text.as_bytes()).await;
        let mut holes = noise(11, 30_000);
        holes.resize(400_000, 0);
        holes.extend(noise(12, 20_000));
        let holes = writer.blob("vi/debian", Sha256, &holes).await;
        let long = writer.blob("vi/debian", Sha256, &frames()).await;
        let sha512 = writer.blob("vi/debian", Sha512, &noise(13, 20_000)).await;

        let old = image(IMAGE, &config, &[&words], "");
        let old = writer.manifest("vi/debian", Some("12"), IMAGE, &old).await;
        let layers = [&empty, &inline, &holes, &long, &sha512];
        let new = image(IMAGE, &config, &layers, "");
        let new = writer.manifest("vi/debian", Some("12"), IMAGE, &new).await;
        let docker = image(DOCKER, &config, &[&words], "");
        let docker = writer
            .manifest("vi/debian", Some("docker"), DOCKER, &docker)
            .await;
        let index = format!(
            r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{},{}]}}"#,
            descriptor(IMAGE, &new, 1),
            descriptor(DOCKER, &docker, 1)
        );
        let index = writer
            .manifest("vi/debian", Some("latest"), INDEX, &index)
            .await;
        let more = format!(
            r#","artifactType":"a/signature","subject":{},"annotations":{{"by":"nobody"}}"#,
            descriptor(IMAGE, &new, 1)
        );
        let signature = image(IMAGE, &config, &[&config], &more);
        let signature = writer.manifest("vi/debian", None, IMAGE, &signature).await;
        let subject = new.to_string();
        for manifest in &mut writer.contents.manifests {
            if manifest.digest == subject {
                manifest.referrers.push(signature.to_string());
            }
        }
        // In the order of a listing.
        writer.tag("vi/debian", "12", new);
        writer.tag("vi/debian", "docker", docker);
        writer.tag("vi/debian", "latest", index);
        writer.delete("vi/debian", old).await;

        let mounted = writer
            .server
            .registry
            .blob_mount(&WHO, &name("other"), &words, None)
            .await
            .unwrap();
        assert!(mounted);
        writer.contents.blobs.push(BlobEntry {
            repository: "other".to_owned(),
            digest: words.to_string(),
            len: text.len() as u64,
        });
    }

    fn compress(from: &Path, to: &Path) {
        let bytes = fs::read(from).unwrap();
        fs::write(to, zstd::encode_all(&bytes[..], LEVEL).unwrap()).unwrap();
    }

    #[tokio::test]
    #[ignore = "writes the fixture of the current format anew"]
    async fn current() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Writer {
            server: Server::open(directory.path(), WRITTEN_MS).await,
            contents: Contents::default(),
        };
        fill(&mut writer).await;
        writer.server.stop().await;

        // After a restart there is a pack that nobody seals, and there are uploads that nobody ends.
        writer.server = Server::open(directory.path(), WRITTEN_MS).await;
        let late = noise(20, 50_000);
        writer.blob("vi/debian", Algorithm::Sha256, &late).await;
        writer.upload("vi/debian", 21, 150_000, 100_000).await;
        writer.upload("vi/debian", 22, 3_000, 2_000).await;

        let to = fixture(DATA_FORMAT);
        if to.exists() {
            fs::remove_dir_all(&to).unwrap();
        }
        fs::create_dir_all(to.join("packs")).unwrap();
        let from = directory.path();
        fs::copy(from.join("FORMAT"), to.join("FORMAT")).unwrap();
        compress(&from.join("meta.redb"), &to.join("meta.redb.zst"));
        for entry in fs::read_dir(from.join("packs")).unwrap() {
            let entry = entry.unwrap();
            let pack = entry.file_name().into_string().unwrap();
            compress(&entry.path(), &to.join(format!("packs/{pack}.zst")));
            if entry.metadata().unwrap().permissions().mode() & 0o222 == 0 {
                writer.contents.sealed_packs.push(pack);
            }
        }
        writer.contents.sealed_packs.sort();
        let contents = serde_json::to_string_pretty(&writer.contents).unwrap();
        fs::write(to.join("contents.json"), contents + "\n").unwrap();
    }
}
