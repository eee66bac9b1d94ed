//! What is to be brought over: everything that the source has, in an order that a registry accepts.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use dvcr_core::oci::{Descriptor, Digest, RepositoryName, Tag};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    Counters, Source, SourceError,
    report::{Failure, count},
};
use crate::registry::glob::RepositoryGlob;

/// The whole of it. Some hundred bytes a manifest and a blob: what a registry of a million manifests needs fits in a GiB.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Sorted by name; such without manifests are left out.
    pub repositories: Vec<RepositoryPlan>,
    /// Lengths of all blobs, each once.
    pub blobs: HashMap<Digest, u64>,
}

/// One repository.
#[derive(Clone, Debug)]
pub struct RepositoryPlan {
    /// Its name.
    pub name: RepositoryName,
    /// Children before their parents.
    pub manifests: Vec<ManifestPlan>,
}

/// One manifest or index.
#[derive(Clone, Debug)]
pub struct ManifestPlan {
    /// Its digest.
    pub digest: Digest,
    /// 0 for one without children, else one more than the highest of its children: manifests of one level do not need each other.
    pub level: usize,
    /// Manifests that must be there first.
    pub children: Vec<Digest>,
    /// Blobs that must be there first.
    pub blobs: Vec<Descriptor>,
    /// Tags that point to it. May be empty.
    pub tags: Vec<Tag>,
}

impl Plan {
    /// Bytes of all blobs, each counted once: what the source stores.
    pub fn blob_bytes(&self) -> u64 {
        self.blobs.values().sum()
    }
}

/// Reads what the globs choose from the source; everything if there are none. What cannot be read is noted as a failure and left out.
pub(super) async fn make(
    source: &Arc<Source>,
    globs: &[RepositoryGlob],
    parallel: usize,
    counters: &Arc<Counters>,
) -> Result<Plan, SourceError> {
    let mut names = Vec::new();
    let mut used = vec![false; globs.len()];
    for name in source.repositories().await? {
        let mut wanted = globs.is_empty();
        for (glob, used) in globs.iter().zip(&mut used) {
            let fits = glob.fits(&name);
            *used |= fits;
            wanted |= fits;
        }
        if !wanted {
            continue;
        }
        match name.parse::<RepositoryName>() {
            Ok(parsed) => names.push(parsed),
            Err(error) => counters.fail(Failure::new(&name, "repository", error.to_string())),
        }
    }
    // Most likely mistyped: what somebody wanted is not there.
    for (glob, _) in globs.iter().zip(used).filter(|(_, used)| !used) {
        let reason = "it fits no repository of the source; leave out the registry's host";
        let failure = Failure::new(glob.as_str(), "glob", reason.to_owned());
        counters.fail(failure);
    }
    let mut repositories: Vec<RepositoryPlan> = stream::iter(names)
        .map(|name| repository(source, name, parallel, counters))
        .buffer_unordered(parallel)
        .try_collect()
        .await?;
    repositories.retain(|repository| !repository.manifests.is_empty());
    repositories.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let blobs = repositories
        .iter()
        .flat_map(|repository| &repository.manifests)
        .flat_map(|manifest| &manifest.blobs)
        .map(|blob| (blob.digest, blob.size))
        .collect();
    let plan = Plan {
        repositories,
        blobs,
    };
    count(&counters.planned_bytes, plan.blob_bytes());
    count(&counters.planned_blobs, plan.blobs.len() as u64);
    Ok(plan)
}

/// What a manifest refers to.
struct Node {
    children: Vec<Digest>,
    blobs: Vec<Descriptor>,
}

async fn repository(
    source: &Source,
    name: RepositoryName,
    parallel: usize,
    counters: &Counters,
) -> Result<RepositoryPlan, SourceError> {
    let contents = match source.contents(&name).await {
        Err(error) if !error.is_fatal() => {
            counters.fail(Failure::new(name.as_str(), "repository", error.to_string()));
            return Ok(RepositoryPlan {
                name,
                manifests: Vec::new(),
            });
        }
        contents => contents?,
    };
    for (tag, reason) in contents.broken {
        counters.fail(Failure::new(name.as_str(), &format!("tag {tag}"), reason));
    }
    let mut nodes: HashMap<Digest, Node> = HashMap::new();
    let mut seen: BTreeSet<Digest> = contents.revisions;
    seen.extend(contents.tags.values());
    let mut wave: Vec<Digest> = seen.iter().copied().collect();
    while !wave.is_empty() {
        let mut reads = stream::iter(wave)
            .map(|digest| node(source, &name, digest))
            .buffer_unordered(parallel);
        let mut next = Vec::new();
        while let Some((digest, read)) = reads.next().await {
            match read {
                Ok((node, referrers)) => {
                    let more = node.children.iter().copied().chain(referrers);
                    next.extend(more.filter(|digest| seen.insert(*digest)));
                    nodes.insert(digest, node);
                    count(&counters.planned_manifests, 1);
                }
                Err(error) if error.is_fatal() => return Err(error),
                Err(error) => {
                    let item = format!("manifest {digest}");
                    counters.fail(Failure::new(name.as_str(), &item, error.to_string()));
                }
            }
        }
        wave = next;
    }
    let mut tags: BTreeMap<Digest, Vec<Tag>> = BTreeMap::new();
    for (tag, digest) in contents.tags {
        tags.entry(digest).or_default().push(tag);
    }
    let levels = levels(&nodes);
    let mut manifests: Vec<ManifestPlan> = nodes
        .into_iter()
        .map(|(digest, node)| ManifestPlan {
            digest,
            level: levels.get(&digest).copied().unwrap_or(0),
            children: node.children,
            blobs: node.blobs,
            tags: tags.remove(&digest).unwrap_or_default(),
        })
        .collect();
    manifests.sort_unstable_by_key(|manifest| (manifest.level, manifest.digest));
    // Tags of manifests that could not be read: said once for each, as people look for tags.
    for (digest, tags) in tags {
        for tag in tags {
            let reason = format!("its manifest {digest} cannot be read");
            counters.fail(Failure::new(name.as_str(), &format!("tag {tag}"), reason));
        }
    }
    Ok(RepositoryPlan { name, manifests })
}

async fn node(
    source: &Source,
    name: &RepositoryName,
    digest: Digest,
) -> (Digest, Result<(Node, Vec<Digest>), SourceError>) {
    let read = async {
        let raw = source.manifest(name, &digest).await?;
        let manifest = raw.parse()?;
        let blobs = manifest.blobs().map(slim).collect();
        let children = manifest.children.iter().map(|child| child.digest);
        let node = Node {
            blobs,
            children: children.collect(),
        };
        Ok((node, source.referrers(name, &digest).await?))
    };
    (digest, read.await)
}

/// Only what copying needs: annotations and embedded data can be megabytes.
fn slim(blob: &Descriptor) -> Descriptor {
    Descriptor {
        media_type: String::new(),
        digest: blob.digest,
        size: blob.size,
        urls: Vec::new(),
        annotations: BTreeMap::new(),
        artifact_type: None,
        platform: None,
        data: None,
    }
}

/// The level of each manifest. Digests make cycles impossible; were there one, it would get some level and be refused by the server.
fn levels(nodes: &HashMap<Digest, Node>) -> HashMap<Digest, usize> {
    let mut levels = HashMap::new();
    for start in nodes.keys() {
        // Manifests whose children are being looked at, with the number of the next child.
        let mut path = vec![(*start, 0)];
        while let Some((digest, next)) = path.pop() {
            let children = nodes.get(&digest).map_or(&[][..], |node| &node.children);
            match children.get(next) {
                Some(child) => {
                    path.push((digest, next + 1));
                    let open = path.iter().any(|(digest, _)| digest == child);
                    if !levels.contains_key(child) && !open {
                        path.push((*child, 0));
                    }
                }
                None => {
                    let highest = children.iter().filter_map(|child| levels.get(child)).max();
                    let level = highest.map_or(0, |level| level + 1);
                    levels.insert(digest, level);
                }
            }
        }
    }
    levels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_on_lower_levels() {
        let digest = |name: &str| Digest::sha256(name.as_bytes());
        let nodes: HashMap<Digest, Node> = [
            ("a", &[][..]),
            ("b", &["a", "gone"][..]),
            ("c", &["b", "a"][..]),
            ("d", &[][..]),
        ]
        .into_iter()
        .map(|(name, children)| {
            let children = children.iter().map(|name| digest(name)).collect();
            let blobs = Vec::new();
            (digest(name), Node { children, blobs })
        })
        .collect();
        let levels = levels(&nodes);
        let level = |name: &str| levels[&digest(name)];
        assert_eq!((level("a"), level("d")), (0, 0));
        assert_eq!((level("b"), level("c")), (1, 2));
    }
}
