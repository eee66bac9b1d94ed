//! Ping, and lists of tags and repositories.

use serde_json::json;

use super::{
    bench::{Bench, Check, Outcome, manifest, strings, tags},
    data::{Data, INDEX},
    expect::equal,
};
use crate::support::http::{Response, with_query};

pub const CHECKS: &[Check] = &[
    ("ping", ping),
    ("what is no endpoint is 404", nowhere),
    (
        "the tags of a repository that is not there are none",
        no_tags,
    ),
    ("tags are listed in order, whole", all_tags),
    ("tags page by page", tag_pages),
    ("as many tags as n", tag_count),
    ("an empty page of tags", no_page),
    ("no tag is lost to one that begins alike", alike),
    ("repositories are listed", catalog),
];

fn ping(b: &Bench) -> Outcome {
    for path in ["/v2/", "/v2"] {
        b.get(path)?.status(&[200, 301, 308])?;
    }
    b.get("/v2/")?.status(&[200])?;
    b.head("/v2/")?.status(&[200])?.body(b"")
}

fn nowhere(b: &Bench) -> Outcome {
    b.get(&format!("/v2/{}/nothing", b.repository()))?
        .status(&[404])?;
    Ok(())
}

fn no_tags(b: &Bench) -> Outcome {
    equal("tags", b.tags(&b.repository())?, vec![])
}

/// Makes a repository with these tags, all of one small manifest.
fn tagged(b: &Bench, names: &[&str]) -> Result<String, String> {
    let repository = b.repository();
    let mut data = Data::new(b);
    data.index(&[], json!({ "annotations": data.annotations() }));
    let (digest, document) = data.manifests.remove(0);
    equal("media type", document.media_type, INDEX)?;
    for name in names {
        let path = manifest(&repository, name);
        let response = b.put_manifest(&path, &document)?.status(&[201])?;
        response.header("Docker-Content-Digest", &digest)?;
    }
    Ok(repository)
}

/// In byte order, which is one of the two that the specification knows.
const NAMES: [&str; 7] = ["1.0", "1.0.1", "a", "a-b", "b", "latest", "v9"];

fn page(response: &Response) -> Result<Vec<String>, String> {
    strings(&response.json()?["tags"])
}

fn all_tags(b: &Bench) -> Outcome {
    let mut shuffled = NAMES;
    shuffled.swap(0, 5);
    shuffled.swap(1, 3);
    let repository = tagged(b, &shuffled)?;
    let response = b.get(&tags(&repository))?.status(&[200])?;
    response.header("Content-Type", "application/json")?;
    let list = response.json()?;
    equal("name", &list["name"], &json!(repository))?;
    equal("tags", &list["tags"], &json!(NAMES))
}

/// Where a `Link` to the next page leads.
fn next(link: &str) -> Result<String, String> {
    let (target, relation) = link.split_once(';').ok_or("no relation in Link")?;
    // Both forms are those of RFC 8288, section 3.
    if !["rel=\"next\"", "rel=next"].contains(&relation.trim()) {
        return Err(format!("relation {relation}, wanted next"));
    }
    let target = target.trim().strip_prefix('<');
    let target = target.and_then(|target| target.strip_suffix('>'));
    match target {
        Some(target) if target.starts_with('/') => Ok(target.to_owned()),
        _ => Err(format!("Link: {link} leads nowhere")),
    }
}

/// Follows `Link` from page to page.
fn tag_pages(b: &Bench) -> Outcome {
    let repository = tagged(b, &NAMES)?;
    for n in [1, 2, 3, 6, 7, 8] {
        let mut path = with_query(&tags(&repository), "n", &n.to_string());
        for (number, wanted) in NAMES.chunks(n).enumerate() {
            let response = b.get(&path)?.status(&[200])?;
            equal(
                "page",
                page(&response)?,
                Vec::from_iter(wanted.iter().map(|t| (*t).to_owned())),
            )?;
            let more = (number + 1) * n < NAMES.len();
            let link = response.get("Link");
            equal("there is a Link", link.is_some(), more)?;
            let Some(link) = link else { break };
            path = next(link)?;
        }
    }
    Ok(())
}

/// As the older suite does: half of the tags, then those after the last of these.
fn tag_count(b: &Bench) -> Outcome {
    let repository = tagged(b, &["test0", "test1", "test2", "test3"])?;
    let path = with_query(&tags(&repository), "n", "2");
    let first = page(&b.get(&path)?.status(&[200])?)?;
    equal(
        "first page",
        &first[..],
        &["test0".to_owned(), "test1".to_owned()][..],
    )?;
    let second = page(&b.get(&with_query(&path, "last", "test1"))?.status(&[200])?)?;
    equal(
        "second page",
        &second[..],
        &["test2".to_owned(), "test3".to_owned()][..],
    )?;
    // What was last need not be a tag.
    let after = page(
        &b.get(&with_query(&path, "last", "test1x"))?
            .status(&[200])?,
    )?;
    equal("page after no tag", after, second)
}

fn no_page(b: &Bench) -> Outcome {
    let repository = tagged(b, &["a", "b"])?;
    let response = b.get(&with_query(&tags(&repository), "n", "0"))?;
    let response = response.status(&[200])?;
    equal("tags", page(&response)?, vec![])?;
    equal("Link", response.get("Link"), None)
}

fn alike(b: &Bench) -> Outcome {
    let repository = tagged(b, &["v1", "v1.0", "v1.0.0", "v10"])?;
    b.deletes(&manifest(&repository, "v1.0"))?;
    let wanted = ["v1", "v1.0.0", "v10"].map(str::to_owned);
    equal("tags", b.tags(&repository)?, wanted.to_vec())
}

fn catalog(b: &Bench) -> Outcome {
    let mut made = [tagged(b, &["a"])?, tagged(b, &["a"])?];
    made.sort();
    // A page that begins just before the first of ours must hold it.
    let before = &made[0][..made[0].len() - 1];
    let path = with_query("/v2/_catalog", "last", before);
    let response = b.get(&with_query(&path, "n", "1"))?.status(&[200])?;
    let found = strings(&response.json()?["repositories"])?;
    equal("repositories", &found[..], &made[..1])
}
