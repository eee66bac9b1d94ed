//! Where a disk is, in the words of CDI: `IMPORTER_SOURCE` and `IMPORTER_ENDPOINT`.

use anyhow::{Context as _, bail};
use dvcr_importer::source::Location;

use super::Environment;

/// Names under which providers serve their own stores.
const PUBLIC: [&str; 3] = [
    "storage.googleapis.com",
    "storage.cloud.google.com",
    "s3.amazonaws.com",
];

/// A place to fetch a disk from.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Endpoint {
    /// Of which kind: a name of CDI's.
    pub(super) kind: &'static str,
    /// The place.
    pub(super) location: Location,
    /// Address of the object store, if it is not the provider's own.
    pub(super) service: Option<String>,
    /// Region of the bucket, if the address tells.
    pub(super) region: Option<String>,
}

impl Endpoint {
    pub(super) fn parse(environment: &Environment) -> anyhow::Result<Self> {
        let endpoint = environment.get("IMPORTER_ENDPOINT");
        let wanted = || endpoint.context("IMPORTER_ENDPOINT is not set");
        let of = |kind, location: &str| {
            anyhow::Ok(Self {
                kind,
                location: location.parse().context("IMPORTER_ENDPOINT")?,
                service: None,
                region: None,
            })
        };
        match environment.get("IMPORTER_SOURCE").unwrap_or("http") {
            "none" => of("none", "blank:"),
            "registry" => {
                let image = wanted()?.trim_start_matches("docker://");
                if image.starts_with("oci-archive:") {
                    bail!(
                        "oci-archive: is not read: push the archive into a registry, for example with skopeo copy"
                    );
                }
                of("registry", &format!("docker://{image}"))
            }
            "s3" => object("s3", "s3", wanted()?),
            "gcs" => object("gcs", "gs", wanted()?),
            "imageio" => bail!(
                "imports from oVirt are not done: download the disk there (ovirt-img download-disk), put it on a web server and \
                 import that address with IMPORTER_SOURCE=http"
            ),
            "vddk" => bail!(
                "imports from vSphere need VMware's VDDK, a proprietary library that this program has not got: export the machine \
                 as OVA (ovftool), put it on a web server and import that address with IMPORTER_SOURCE=http"
            ),
            // Also what CDI has a name for and no importer, and what it does not know.
            _ => of("http", wanted()?),
        }
    }
}

/// An object: CDI writes both `s3://bucket/key` and `https://service/bucket/key`.
fn object(kind: &'static str, scheme: &str, endpoint: &str) -> anyhow::Result<Endpoint> {
    let (location, service) = match endpoint.split_once("://") {
        Some((found, _)) if found == scheme => (endpoint.to_owned(), None),
        Some((http @ ("http" | "https"), rest)) => {
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            let service = (!PUBLIC.contains(&host)).then(|| format!("{http}://{host}"));
            (format!("{scheme}://{path}"), service)
        }
        _ => bail!(
            "IMPORTER_ENDPOINT is no address of an object: write {scheme}://BUCKET/NAME or https://SERVICE/BUCKET/NAME"
        ),
    };
    let region = service.as_deref().and_then(region);
    Ok(Endpoint {
        kind,
        location: location.parse().context("IMPORTER_ENDPOINT")?,
        service,
        region,
    })
}

/// The region in the name of one of Amazon's services.
fn region(service: &str) -> Option<String> {
    let (_, host) = service.split_once("://")?;
    let rest = host.strip_prefix("s3")?.strip_suffix(".amazonaws.com")?;
    let region = rest.strip_prefix(['.', '-'])?;
    (!region.contains('.')).then(|| region.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(source: &str, endpoint: &str) -> anyhow::Result<Endpoint> {
        let variables = [("IMPORTER_SOURCE", source), ("IMPORTER_ENDPOINT", endpoint)];
        Endpoint::parse(&Environment::from(variables))
    }

    #[test]
    fn places() {
        let http = "https://host/disk.img";
        for (source, endpoint, expected) in [
            ("", http, "http https://host/disk.img"),
            ("http", http, "http https://host/disk.img"),
            ("glance", http, "http https://host/disk.img"),
            ("none", "", "none blank:"),
            (
                "registry",
                "docker://host.example/disk:1",
                "registry docker://host.example/disk:1",
            ),
            (
                "registry",
                "host.example/disk:1",
                "registry docker://host.example/disk:1",
            ),
            ("s3", "s3://bucket/a/disk", "s3 s3://bucket/a/disk"),
            (
                "s3",
                "https://s3.amazonaws.com/bucket/a",
                "s3 s3://bucket/a",
            ),
            (
                "s3",
                "http://minio:9000/bucket/a",
                "s3 s3://bucket/a http://minio:9000",
            ),
            (
                "s3",
                "https://s3.eu-west-1.amazonaws.com/bucket/a",
                "s3 s3://bucket/a https://s3.eu-west-1.amazonaws.com eu-west-1",
            ),
            ("gcs", "gs://bucket/disk", "gcs gs://bucket/disk"),
            (
                "gcs",
                "https://storage.googleapis.com/bucket/disk",
                "gcs gs://bucket/disk",
            ),
        ] {
            let found = parse(source, endpoint).unwrap();
            let mut text = format!("{} {}", found.kind, found.location);
            for more in [found.service, found.region].into_iter().flatten() {
                text += &format!(" {more}");
            }
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn what_is_not_done() {
        for (source, endpoint, part) in [
            ("http", "", "IMPORTER_ENDPOINT is not set"),
            ("http", "https://me:secret@:/x", "no address"),
            ("s3", "ftp://host/x", "no address of an object"),
            ("imageio", "https://host", "ovirt-img"),
            ("vddk", "https://host", "proprietary"),
            ("registry", "oci-archive:disk.tar", "skopeo"),
        ] {
            let error = format!("{:#}", parse(source, endpoint).unwrap_err());
            assert!(error.contains(part) && !error.contains("secret"), "{error}");
        }
    }
}
