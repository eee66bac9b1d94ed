//! What refers to a manifest.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    bench::{Bench, Check, Outcome, manifest},
    data::{CONFIG, Data, IMAGE, INDEX, digest_of},
    expect::equal,
};
use crate::support::http::{Response, with_query};

pub const CHECKS: &[Check] = &[
    ("nothing refers to what is not there", nothing),
    ("a malformed digest is 400", malformed),
    (
        "each kind of referrer is listed, and found by its type",
        kinds,
    ),
    ("a subject may come last", subject_last),
    ("a deleted referrer is not listed", deleted),
    ("a referrer counts in its own repository only", elsewhere),
];

/// The path of the list of referrers.
fn path(repository: &str, subject: &str) -> String {
    format!("/v2/{repository}/referrers/{subject}")
}

/// The descriptors in an answer, which must be an image index.
fn entries(response: Response) -> Result<Vec<Value>, String> {
    let response = response.status(&[200])?;
    response.header("Content-Type", INDEX)?;
    let index = response.json()?;
    equal("schemaVersion", &index["schemaVersion"], &json!(2))?;
    equal("mediaType", &index["mediaType"], &json!(INDEX))?;
    let list = index["manifests"].as_array();
    list.cloned()
        .ok_or_else(|| "manifests is no list".to_owned())
}

/// Everything that refers to a subject, in the order of digests.
pub fn of(b: &Bench, repository: &str, subject: &str) -> Result<Vec<Value>, String> {
    let mut list = entries(b.get(&path(repository, subject))?)?;
    list.sort_by_key(digest_of);
    Ok(list)
}

/// The same of one artifact type.
fn of_type(b: &Bench, repository: &str, subject: &str, of: &str) -> Result<Vec<Value>, String> {
    let path = with_query(&path(repository, subject), "artifactType", of);
    let response = b.get(&path)?.status(&[200])?;
    response.header("OCI-Filters-Applied", "artifactType")?;
    let mut list = entries(response)?;
    list.sort_by_key(digest_of);
    Ok(list)
}

/// All that was pushed with a subject is listed as it must be, in whole and by type.
pub fn are_listed(b: &Bench, repository: &str, data: &Data<'_>) -> Outcome {
    let subjects: BTreeSet<&String> = data.referrers.iter().map(|(s, _)| s).collect();
    for subject in subjects {
        let of_subject = data.referrers.iter().filter(|(s, _)| s == subject);
        let mut wanted: Vec<Value> = of_subject.map(|(_, entry)| entry.clone()).collect();
        wanted.sort_by_key(digest_of);
        equal("referrers", &of(b, repository, subject)?, &wanted)?;
        let types = wanted.iter().filter_map(|e| e["artifactType"].as_str());
        let mut types: BTreeSet<&str> = types.collect();
        types.insert("application/vnd.example.nobody");
        for artifact_type in types {
            let same = |e: &&Value| e["artifactType"] == artifact_type;
            let wanted: Vec<Value> = wanted.iter().filter(same).cloned().collect();
            let found = of_type(b, repository, subject, artifact_type)?;
            equal("referrers of a type", &found, &wanted)?;
        }
    }
    Ok(())
}

fn nothing(b: &Bench) -> Outcome {
    let repository = b.repository();
    let subject = b.digest(&b.content(64));
    equal("referrers", of(b, &repository, &subject)?, vec![])?;
    let data = pushed(b, &repository, |d| drop(d.image(json!({}))))?;
    equal("referrers", of(b, &repository, &subject)?, vec![])?;
    equal(
        "referrers",
        of(b, &repository, &data.manifests[0].0)?,
        vec![],
    )
}

fn malformed(b: &Bench) -> Outcome {
    let subject = format!("{}:baddigeststring", b.algorithm.name());
    let response = b.get(&path(&b.repository(), &subject))?;
    response.status(&[400])?.errors()
}

/// Pushes content; the blobs first, then the manifests in order.
fn pushed<'b>(
    b: &'b Bench,
    repository: &str,
    fill: impl FnOnce(&mut Data<'b>),
) -> Result<Data<'b>, String> {
    let mut data = Data::new(b);
    fill(&mut data);
    data.push_blobs(repository)?;
    for (digest, document) in &data.manifests {
        b.push_manifest(repository, digest, document, digest)?;
    }
    Ok(data)
}

const TYPE_A: &str = "application/vnd.nhl.peanut.butter.bagel";
const TYPE_B: &str = "application/vnd.nba.strawberry.jam.croissant";
const TYPE_INDEX: &str = "application/vnd.food.stand";

/// An image whose type is that of its config, and an artifact, of each of two types; and an index.
fn refer(d: &mut Data<'_>, subject: &Value) {
    let mut first = Vec::new();
    for artifact_type in [TYPE_A, TYPE_B] {
        let content = d.annotations().to_string().into_bytes();
        let config = d.blob(artifact_type, content);
        let layer = d.layer();
        let document = json!({ "mediaType": IMAGE, "config": config, "layers": [layer] });
        let more = json!({ "subject": subject, "annotations": { "n": "config" } });
        first.push(d.manifest(document, more));
        let more = json!({ "subject": subject, "annotations": { "n": "layer" } });
        d.artifact(artifact_type, more);
    }
    let more = json!({
        "artifactType": TYPE_INDEX, "subject": subject, "annotations": { "n": "index" },
    });
    d.index(&first, more);
}

fn kinds(b: &Bench) -> Outcome {
    let repository = b.repository();
    let data = pushed(b, &repository, |d| {
        let subject = d.image(json!({}));
        refer(d, &subject);
        // An image of the ordinary kind is of its config's type, too.
        d.image(json!({ "subject": subject }));
    })?;
    let types = data
        .referrers
        .iter()
        .map(|(_, entry)| &entry["artifactType"]);
    let types: Vec<&Value> = types.collect();
    // As the specification says: the config's type stands in, but an index has no config.
    let wanted = [TYPE_A, TYPE_A, TYPE_B, TYPE_B, TYPE_INDEX, CONFIG];
    equal("types", types, wanted.map(Value::from).iter().collect())?;
    are_listed(b, &repository, &data)
}

fn subject_last(b: &Bench) -> Outcome {
    let repository = b.repository();
    // The order of pushing is turned around: first what refers, then the subject.
    let mut data = Data::new(b);
    let subject = data.image(json!({}));
    let image = data.manifests.remove(0);
    refer(&mut data, &subject);
    data.manifests.push(image);
    data.push_blobs(&repository)?;
    for (digest, document) in &data.manifests {
        b.push_manifest(&repository, digest, document, digest)?;
        if document.subject.is_none() {
            continue;
        }
        let listed = of(b, &repository, &digest_of(&subject))?;
        let found = listed.iter().any(|entry| digest_of(entry) == *digest);
        equal("listed at once", found, true)?;
    }
    are_listed(b, &repository, &data)
}

fn deleted(b: &Bench) -> Outcome {
    let repository = b.repository();
    let data = pushed(b, &repository, |d| {
        let subject = d.image(json!({}));
        refer(d, &subject);
    })?;
    let subject = &data.referrers[0].0;
    for n in (0..5).rev() {
        b.deletes(&manifest(&repository, &data.manifests[n + 1].0))?;
        equal("referrers", of(b, &repository, subject)?.len(), n)?;
    }
    b.head(&manifest(&repository, subject))?.status(&[200])?;
    Ok(())
}

fn elsewhere(b: &Bench) -> Outcome {
    let (here, there) = (b.repository(), b.repository());
    let data = pushed(b, &here, |d| {
        let subject = d.nowhere(IMAGE);
        refer(d, &subject);
    })?;
    let subject = &data.referrers[0].0;
    equal("referrers", of(b, &here, subject)?.len(), 5)?;
    equal("referrers", of(b, &there, subject)?, vec![])
}
