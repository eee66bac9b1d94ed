//! Referrers: the manifests whose subject is a given one.

use std::collections::BTreeMap;

use dvcr_core::oci::{Digest, Manifest, Reference, RepositoryName, Tag};
use serde_json::Value;

use super::{
    Inner, PAGE_TEXT_BYTES_MAX, Page, Principal, Registry, RegistryError, manifest,
    policy::{self, Action},
};
use crate::meta::{MetaError, key};

/// Rows read at once while filtering.
const SCAN_PAGE: usize = 1_000;

impl Registry {
    /// Up to `n` descriptors of the manifests whose subject is `subject`, in the order of their digests, after `last`, and
    /// only those of an artifact type if one is given. What clients once listed under the fallback tag is part of it. Fewer where
    /// they are long: a descriptor has the annotations of its manifest.
    pub async fn referrers(
        &self,
        who: &Principal,
        repository: &RepositoryName,
        subject: &Digest,
        artifact_type: Option<&str>,
        last: Option<&Digest>,
        n: usize,
    ) -> Result<Page<Value>, RegistryError> {
        policy::authorize(who, Some(repository), Action::Pull)?;
        let inner = &self.0;
        let fits = |d: &Value| artifact_type.is_none_or(|wanted| d["artifactType"] == wanted);
        // With the bytes of each.
        let mut found: BTreeMap<Digest, (usize, Value)> = BTreeMap::new();
        for (digest, descriptor) in inner.fallback_referrers(repository, subject).await? {
            if last.is_none_or(|last| digest > *last) && fits(&descriptor) {
                found.insert(digest, (descriptor.to_string().len(), descriptor));
            }
        }
        let all = key::referrers(repository, subject);
        let range = match last {
            Some(last) => key::after(all.clone(), &key::referrer(repository, subject, last)),
            None => all.clone(),
        };
        // Without a filter one row more than asked for tells whether there are more.
        let rows_at_once = match artifact_type {
            Some(_) => SCAN_PAGE,
            None => SCAN_PAGE.min(n + 1),
        };
        let mut pages = inner.pages(range, rows_at_once);
        let (mut rows_found, mut bytes_found) = (0, 0);
        // The page ends before the last of these rows, so what lies behind them is not missed: it has up to `n` items, and of those
        // that are longer than a page together no more than one. That takes two rows.
        while rows_found <= n
            && (rows_found < 2 || bytes_found <= PAGE_TEXT_BYTES_MAX)
            && let Some(rows) = pages.next().await?
        {
            for (key, value) in rows {
                let corrupt = |what| MetaError::Corrupt {
                    key: hex::encode(&key),
                    what,
                };
                let digest = Digest::from_key(key::last_field(&all, &key))
                    .map_err(|_| corrupt("a digest"))?;
                let descriptor =
                    serde_json::from_slice(&value).map_err(|_| corrupt("a descriptor"))?;
                if fits(&descriptor) {
                    found.insert(digest, (value.len(), descriptor));
                    rows_found += 1;
                    bytes_found += value.len();
                }
            }
        }
        let (mut items, mut bytes) = (Vec::new(), 0);
        let mut found = found.into_values().peekable();
        while items.len() < n
            && let Some((len, descriptor)) =
                found.next_if(|(len, _)| items.is_empty() || bytes + len <= PAGE_TEXT_BYTES_MAX)
        {
            bytes += len;
            items.push(descriptor);
        }
        let more = found.peek().is_some();
        Ok(Page { items, more })
    }
}

impl Inner {
    /// The list under the tag that clients use with registries that have no referrers API
    /// (OCI distribution spec, "Referrers Tag Schema").
    async fn fallback_referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
    ) -> Result<Vec<(Digest, Value)>, RegistryError> {
        let hex = subject.hex();
        let name = format!(
            "{}-{}",
            subject.algorithm().as_str(),
            &hex[..hex.len().min(64)]
        );
        let Ok(tag) = name.parse::<Tag>() else {
            return Ok(Vec::new());
        };
        let registry_view = self
            .manifest_by_tag(repository, &Reference::Tag(tag))
            .await?;
        let Some((media_type, bytes)) = registry_view else {
            return Ok(Vec::new());
        };
        let Ok(index) = Manifest::parse(Some(&media_type), &bytes) else {
            return Ok(Vec::new());
        };
        if !manifest::is_index(&index) {
            return Ok(Vec::new());
        }
        let mut document: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let Value::Array(entries) = document["manifests"].take() else {
            return Ok(Vec::new());
        };
        let with_digest = |d: Value| Some((d["digest"].as_str()?.parse().ok()?, d));
        Ok(entries.into_iter().filter_map(with_digest).collect())
    }

    async fn manifest_by_tag(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Option<(String, bytes::Bytes)>, RegistryError> {
        use crate::meta::record::{ManifestRecord, TagRecord};
        let Reference::Tag(tag) = reference else {
            return Ok(None);
        };
        let Some(tag) = self
            .get_record::<TagRecord>(&key::tag(repository, tag.as_str()))
            .await?
        else {
            return Ok(None);
        };
        let manifest: Option<ManifestRecord> = self
            .get_record(&key::manifest(repository, &tag.digest))
            .await?;
        Ok(manifest.map(|m| (m.media_type, m.bytes)))
    }
}
