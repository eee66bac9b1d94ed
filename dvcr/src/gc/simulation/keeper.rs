//! A client whose repository rules keep small: the last two tags stay, and what nothing needs goes.
//!
//! Two things hold whatever retention and other deletions do meanwhile: **a tag that was among the last two at all times since it was
//! pushed is there, and reads back in full**; and **a push that finds a manifest can refer to it**.

use std::collections::BTreeSet;

use bytes::Bytes;
use dvcr_core::oci::{Digest, Manifest, Reference};

use super::{
    CLIENTS,
    client::{Client, STEPS},
    machine::Server,
};
use crate::{
    registry::{
        RegistryError,
        deletion::{DeletionOptions, Selection},
        glob::{RepositoryGlob, TagGlob},
        retention::{Keep, RetentionRule},
    },
    settings::Time,
    testing::{WHO, image, index, name},
};

const REPOSITORY: &str = "kept";

/// So many tags stay.
const LAST: usize = 2;

fn repositories() -> RepositoryGlob {
    REPOSITORY.parse().expect("it is a name")
}

/// The rule for the keeper's repository; no other one has any.
pub(super) fn rule() -> RetentionRule {
    RetentionRule {
        repository: repositories(),
        untagged_after: Some(Time::hours(1)),
        allow_mass_removal: true,
        keep: vec![Keep {
            tags: vec![TagGlob::every()],
            last: Some(LAST),
            within: None,
        }],
    }
}

pub(super) struct Keeper {
    /// Pushes blobs and reads back.
    client: Client,
    /// The tags that must be there, and what they name; the one that was pushed last comes last.
    sure: Vec<(String, Digest)>,
    /// Tags that a request was about which got no answer: where they are there, they may take a place among the last.
    unsure: BTreeSet<String>,
}

impl Keeper {
    pub(super) fn new(seed: u64) -> Self {
        let mut client = Client::new(seed, CLIENTS);
        client.repository = REPOSITORY.to_owned();
        Self {
            client,
            sure: Vec::new(),
            unsure: BTreeSet::new(),
        }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.client.dice.below(end)
    }

    pub(super) async fn work(&mut self, server: &Server) -> Result<(), RegistryError> {
        for _ in 0..STEPS {
            let _at_work = server.at_work.read().await;
            match self.below(10) {
                0..=4 => self.push(server).await?,
                5 => self.push_index(server).await?,
                6 => self.delete_tag(server).await?,
                7 => self.delete_image(server).await?,
                8 if self.client.dice.one_in(3) => self.delete_all(server).await?,
                _ => self.look(server).await?,
            }
        }
        Ok(())
    }

    async fn image(&mut self, server: &Server) -> Result<Bytes, RegistryError> {
        let data = self.client.disk();
        self.client.push_blob(server, data).await?;
        let config = Bytes::from_static(b"{}");
        self.client.push_blob(server, &config).await?;
        Ok(image(&[data]))
    }

    async fn push(&mut self, server: &Server) -> Result<(), RegistryError> {
        let manifest = self.image(server).await?;
        self.put_tag(server, manifest).await
    }

    /// Looks whether the images of an index are there, pushes those that are not, then the index.
    async fn push_index(&mut self, server: &Server) -> Result<(), RegistryError> {
        let mut children = Vec::new();
        for _ in 0..2 {
            let data = self.client.disk();
            let manifest = image(&[data]);
            let reference = Reference::Digest(Digest::sha256(&manifest));
            let repository = name(REPOSITORY);
            let found = server
                .registry
                .manifest_get(&WHO, &repository, &reference)
                .await;
            match found {
                Ok(_) => {}
                Err(RegistryError::ManifestUnknown(_)) => {
                    self.client.push_blob(server, data).await?;
                    let config = Bytes::from_static(b"{}");
                    self.client.push_blob(server, &config).await?;
                    server
                        .registry
                        .manifest_put(&WHO, &repository, &reference, &[], None, manifest.clone())
                        .await?;
                }
                Err(error) => return Err(error),
            }
            children.push(Digest::sha256(&manifest));
        }
        self.put_tag(server, index(&children)).await
    }

    async fn put_tag(&mut self, server: &Server, manifest: Bytes) -> Result<(), RegistryError> {
        let tag = format!("t{}", self.below(4));
        self.doubt(|sure, _| *sure == tag);
        self.unsure.insert(tag.clone());
        while self.sure.len() + self.unsure.len() > LAST && !self.sure.is_empty() {
            self.sure.remove(0);
        }
        // Tags that are pushed at once are ordered by name; this one is to be the last.
        server.machine.clock.advance_ms(1);
        let reference = Reference::Tag(tag.parse().unwrap());
        let put = server
            .registry
            .manifest_put(&WHO, &name(REPOSITORY), &reference, &[], None, manifest)
            .await?;
        self.unsure.remove(&tag);
        self.sure.push((tag, put.digest));
        Ok(())
    }

    /// A request begins that takes these tags away, or not if it gets no answer. Returns them.
    fn doubt(&mut self, which: impl Fn(&String, &Digest) -> bool) -> Vec<String> {
        let (doubted, sure) = std::mem::take(&mut self.sure)
            .into_iter()
            .partition::<Vec<_>, _>(|(tag, digest)| which(tag, digest));
        self.sure = sure;
        let tags: Vec<String> = doubted.into_iter().map(|(tag, _)| tag).collect();
        self.unsure.extend(tags.iter().cloned());
        tags
    }

    /// They are gone.
    fn settle(&mut self, tags: &[String]) {
        self.unsure.retain(|unsure| !tags.contains(unsure));
    }

    async fn delete_tag(&mut self, server: &Server) -> Result<(), RegistryError> {
        let tag = format!("t{}", self.below(4));
        let digests = self.sure.iter().filter(|(sure, _)| *sure == tag);
        let digest = digests.map(|(_, digest)| *digest).next();
        self.doubt(|sure, _| *sure == tag);
        let one = Selection::Tags {
            repositories: repositories(),
            tags: tag.parse().expect("it is a tag"),
        };
        self.delete(server, one).await?;
        self.settle(&[tag]);
        // Another tag keeps the image.
        match digest {
            Some(digest) if self.sure.iter().any(|(_, sure)| *sure == digest) => {
                self.client.read_back(server, &digest).await
            }
            _ => Ok(()),
        }
    }

    async fn delete_image(&mut self, server: &Server) -> Result<(), RegistryError> {
        let Some((_, digest)) = self.sure.last().cloned() else {
            return Ok(());
        };
        let before = (self.sure.clone(), self.unsure.clone());
        let doubted = self.doubt(|_, named| *named == digest);
        let one = Selection::Manifest {
            repository: name(REPOSITORY),
            digest,
        };
        match self.delete(server, one).await {
            // An index lists it: nothing of it went.
            Err(RegistryError::InUse(_)) => (self.sure, self.unsure) = before,
            deleted => {
                deleted?;
                self.settle(&doubted);
            }
        }
        Ok(())
    }

    async fn delete_all(&mut self, server: &Server) -> Result<(), RegistryError> {
        self.doubt(|_, _| true);
        let all = Selection::Repositories(repositories());
        self.delete(server, all).await?;
        self.unsure.clear();
        Ok(())
    }

    async fn delete(&mut self, server: &Server, what: Selection) -> Result<(), RegistryError> {
        let options = DeletionOptions {
            dry_run: false,
            measure: self.client.dice.one_in(2),
        };
        match server.registry.delete(&WHO, &what, options).await {
            Err(RegistryError::NameUnknown(_) | RegistryError::ManifestUnknown(_)) => Ok(()),
            Err(error) => Err(error),
            Ok(deletion) => {
                let off = server.machine.packs.power().is_off();
                assert!(off || deletion.failures.is_empty(), "{deletion:?}");
                Ok(())
            }
        }
    }

    /// Everything that must be there.
    async fn look(&mut self, server: &Server) -> Result<(), RegistryError> {
        for (tag, digest) in self.sure.clone() {
            let reference = Reference::Tag(tag.parse().unwrap());
            let found = server
                .registry
                .manifest_get(&WHO, &name(REPOSITORY), &reference)
                .await?;
            assert_eq!(found.digest, digest, "{tag}");
            self.read_back(server, &digest).await?;
        }
        Ok(())
    }

    /// A manifest and what it lists.
    async fn read_back(
        &self,
        server: &Server,
        digest: &Digest,
    ) -> Result<Vec<Bytes>, RegistryError> {
        let mut found = Vec::new();
        let mut next = vec![*digest];
        while let Some(digest) = next.pop() {
            self.client.read_back(server, &digest).await?;
            let stored = server
                .registry
                .manifest_get(&WHO, &name(REPOSITORY), &digest.into())
                .await?;
            let manifest = Manifest::parse(None, &stored.bytes)?;
            next.extend(manifest.children.iter().map(|child| child.digest));
            found.push(stored.bytes);
        }
        Ok(found)
    }

    /// What was promised is there, and whatever else is there is there in full. Returns all manifests.
    pub(super) async fn check(&mut self, server: &Server) -> Vec<Bytes> {
        if let Err(error) = self.look(server).await {
            panic!("{:?} does not read back: {error:?}", self.sure);
        }
        let repository = name(REPOSITORY);
        let tags = match server.registry.tags(&WHO, &repository, None, 100).await {
            Err(RegistryError::NameUnknown(_)) => return Vec::new(),
            tags => tags.unwrap().items,
        };
        let mut manifests = Vec::new();
        for tag in tags {
            let reference = Reference::Tag(tag.clone());
            let found = server
                .registry
                .manifest_get(&WHO, &repository, &reference)
                .await
                .unwrap();
            match self.read_back(server, &found.digest).await {
                Ok(found) => manifests.extend(found),
                Err(error) => panic!("{tag} does not read back: {error:?}"),
            }
        }
        manifests
    }
}
