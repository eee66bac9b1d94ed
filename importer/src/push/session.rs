//! The upload of a layer, noted so that another process goes on with it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use dvcr_client::{Error, Repository, Upload};
use dvcr_core::oci::{Algorithm, Digest};

/// Where the session is noted.
const LOCATION: &str = "upload";

/// Where the digest of the layer is noted that the session is for, if it is known from the start.
const LAYER: &str = "upload.layer";

/// Where the digest of a layer is noted of which everything was sent.
const WHOLE: &str = "upload.whole";

/// Where the hashes of what was sent are noted.
const BLOCKS: &str = "upload.blocks";

/// What a directory knows of an upload. All of it is a hint: the registry says what it has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Session<'a> {
    dir: &'a Path,
}

impl<'a> Session<'a> {
    pub(super) fn in_dir(dir: &'a Path) -> Self {
        Self { dir }
    }

    /// The upload that was begun, if the registry still knows it, or a new one.
    pub(super) async fn open(self, repository: &Repository) -> Result<Upload, Error> {
        match self.noted(repository).await? {
            Some(upload) => Ok(upload),
            None => self.begin(repository).await,
        }
    }

    /// The upload of this layer that was begun, or a new one.
    pub(super) async fn open_for(
        self,
        repository: &Repository,
        layer: &Digest,
    ) -> Result<Upload, Error> {
        let upload = self.open(repository).await?;
        if upload.offset() == 0 || self.digest(LAYER) == Some(*layer) {
            self.write(LAYER, &layer.to_string());
            return Ok(upload);
        }
        let upload = self.begin_anew(repository, upload).await?;
        self.write(LAYER, &layer.to_string());
        Ok(upload)
    }

    async fn noted(self, repository: &Repository) -> Result<Option<Upload>, Error> {
        let Ok(location) = fs::read_to_string(self.dir.join(LOCATION)) else {
            return Ok(None);
        };
        let location = location.trim();
        let upload = repository
            .resume_upload(location, Algorithm::Sha256)
            .await?;
        Ok(upload.map(|upload| self.follow(upload)))
    }

    async fn begin(self, repository: &Repository) -> Result<Upload, Error> {
        let upload = repository.upload(Algorithm::Sha256).await?;
        self.forget();
        Ok(self.follow(upload))
    }

    /// Another upload instead of this one, which is of something else.
    pub(super) async fn begin_anew(
        self,
        repository: &Repository,
        upload: Upload,
    ) -> Result<Upload, Error> {
        upload.cancel().await;
        self.begin(repository).await
    }

    /// Remembers where the upload is, from now on.
    fn follow(self, mut upload: Upload) -> Upload {
        let dir = self.dir.to_owned();
        upload.follow(move |location| Session::in_dir(&dir).write(LOCATION, location));
        upload
    }

    /// The layer that was last about to be whole.
    pub(super) fn whole(self) -> Option<Digest> {
        self.digest(WHOLE)
    }

    /// Remembers that everything of a layer was sent.
    pub(super) fn note_whole(self, layer: &Digest) {
        self.write(WHOLE, &layer.to_string());
    }

    fn digest(self, name: &str) -> Option<Digest> {
        let text = fs::read_to_string(self.dir.join(name)).ok()?;
        text.trim().parse().ok()
    }

    /// Where the hashes of what was sent belong.
    pub(super) fn blocks(self) -> PathBuf {
        self.dir.join(BLOCKS)
    }

    /// Without the note another process begins anew: no reason to fail. A torn one would lead nowhere, and leave the session
    /// behind in the registry.
    fn write(self, name: &str, text: &str) {
        let (path, next) = (self.dir.join(name), self.dir.join("upload.next"));
        let _ = fs::write(&next, text).and_then(|()| fs::rename(next, path));
    }

    /// The session is over: there is nothing to go on with. What was sent is not forgotten.
    pub(super) fn forget(self) {
        for name in [LOCATION, LAYER, BLOCKS] {
            // What is not there is forgotten.
            let _ = fs::remove_file(self.dir.join(name));
        }
    }

    /// Tells the registry, too.
    pub(super) async fn cancel(self, repository: &Repository) {
        if let Ok(Some(upload)) = self.noted(repository).await {
            upload.cancel().await;
        }
        self.forget();
    }
}

/// Hashes of the blocks of an upload, each written down before the block is sent: whoever makes the same bytes again can tell
/// whether they are the ones that the registry has.
#[derive(Debug)]
pub(super) struct Blocks {
    file: fs::File,
    noted: Vec<[u8; 32]>,
}

impl Blocks {
    /// Those of an earlier try.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut options = fs::File::options();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let noted = fs::read(path)?.as_chunks::<32>().0.to_vec();
        Ok(Self { file, noted })
    }

    /// Whether block `number` was these bytes when it was sent.
    pub(super) fn was(&self, number: usize, block: &[u8]) -> bool {
        self.noted.get(number) == Some(blake3::hash(block).as_bytes())
    }

    /// Notes the next block, and forgets what was noted behind it.
    pub(super) fn note(&mut self, number: usize, block: &[u8]) -> io::Result<()> {
        use std::os::unix::fs::FileExt as _;
        self.noted.truncate(number);
        let hash = *blake3::hash(block).as_bytes();
        self.noted.push(hash);
        let at = 32 * number as u64;
        self.file.set_len(at)?;
        self.file.write_all_at(&hash, at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blocks");
        let open = || Blocks::open(&path).unwrap();
        let mut blocks = open();
        for (number, block) in ["one", "two", "three"].into_iter().enumerate() {
            assert!(!blocks.was(number, block.as_bytes()));
            blocks.note(number, block.as_bytes()).unwrap();
        }
        let mut blocks = open();
        assert!(blocks.was(0, b"one") && blocks.was(2, b"three") && !blocks.was(1, b"one"));
        // From here on it is another disk.
        blocks.note(1, b"other").unwrap();
        let blocks = open();
        assert!(blocks.was(0, b"one") && blocks.was(1, b"other") && !blocks.was(2, b"three"));
        assert_eq!(fs::metadata(&path).unwrap().len(), 64);
    }
}
