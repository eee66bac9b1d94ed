use std::fmt::Write as _;

use super::*;
use crate::oci::Digest;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OPAQUE: &str = "application/vnd.example.thing.v1+json";

fn descriptor(media_type: &str, content: &str) -> String {
    let digest = Digest::sha256(content.as_bytes());
    format!(
        r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{}}}"#,
        content.len()
    )
}

fn image(media_type: &str) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{media_type}","config":{},"layers":[{},{}]}}"#,
        descriptor(CONFIG, "c"),
        descriptor(LAYER, "l1"),
        descriptor(LAYER, "l2")
    )
}

fn index(media_type: &str) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{media_type}","manifests":[{}]}}"#,
        descriptor(media_type::OCI_IMAGE, "m")
    )
}

/// The kind, type, and digests of config, layers, children and subject as the contents they were made of.
fn summary(manifest: &Manifest) -> String {
    let content = |digest: Digest| {
        ["c", "l1", "l2", "f", "m", "m2", "s"]
            .into_iter()
            .find(|c| Digest::sha256(c.as_bytes()) == digest)
            .unwrap_or("?")
    };
    let list = |descriptors: &[Descriptor]| {
        descriptors
            .iter()
            .map(|d| content(d.digest))
            .collect::<Vec<_>>()
            .join(",")
    };
    format!(
        "{:?} config={} layers={} children={} subject={}",
        manifest.kind,
        list(manifest.config.as_slice()),
        list(&manifest.layers),
        list(&manifest.children),
        list(manifest.subject.as_slice())
    )
}

#[test]
fn every_known_type_is_read() {
    fn check(content_type: Option<&str>, document: &str, media_type: &str, expected: &str) {
        let manifest = Manifest::parse(content_type, document.as_bytes()).unwrap();
        assert_eq!(manifest.media_type, media_type);
        assert_eq!(summary(&manifest), expected, "{document}");
    }
    let image_is = "Image config=c layers=l1,l2 children= subject=";
    let index_is = "Index config= layers= children=m subject=";
    for media_type in [media_type::OCI_IMAGE, media_type::DOCKER_IMAGE] {
        check(Some(media_type), &image(media_type), media_type, image_is);
        check(None, &image(media_type), media_type, image_is);
        check(Some(""), &image(media_type), media_type, image_is);
        check(
            Some(&format!("{media_type}; charset=utf-8")),
            &image(media_type),
            media_type,
            image_is,
        );
    }
    for media_type in [media_type::OCI_INDEX, media_type::DOCKER_LIST] {
        check(Some(media_type), &index(media_type), media_type, index_is);
        check(None, &index(media_type), media_type, index_is);
    }
    // Without a type in the document.
    let bare = |document: String| document.replacen(r#","mediaType":"x/y""#, "", 1);
    check(
        Some(media_type::OCI_IMAGE),
        &bare(image("x/y")),
        media_type::OCI_IMAGE,
        image_is,
    );
    check(
        Some(media_type::DOCKER_LIST),
        &bare(index("x/y")),
        media_type::DOCKER_LIST,
        index_is,
    );
    check(None, &bare(image("x/y")), media_type::OCI_IMAGE, image_is);
    check(None, &bare(index("x/y")), media_type::OCI_INDEX, index_is);

    // Indexes without entries.
    let none = "Index config= layers= children= subject=";
    check(
        Some(media_type::OCI_INDEX),
        r#"{"schemaVersion":2}"#,
        media_type::OCI_INDEX,
        none,
    );
    check(
        Some(media_type::OCI_INDEX),
        r#"{"schemaVersion":2,"manifests":null}"#,
        media_type::OCI_INDEX,
        none,
    );
    check(
        None,
        r#"{"schemaVersion":2,"manifests":[]}"#,
        media_type::OCI_INDEX,
        none,
    );
    // Artifacts without layers.
    let no_layers = format!(
        r#"{{"schemaVersion":2,"config":{}}}"#,
        descriptor(CONFIG, "c")
    );
    check(
        Some(media_type::OCI_IMAGE),
        &no_layers,
        media_type::OCI_IMAGE,
        "Image config=c layers= children= subject=",
    );
    // Unknown and duplicate fields, nulls, a subject.
    let odd = format!(
        r#"{{"schemaVersion":1,"x":{{"y":[1]}},"config":{c},"layers":[{l}],"layers":[],"schemaVersion":2,"subject":{s},"manifests":null,"annotations":null}}"#,
        c = descriptor(CONFIG, "c"),
        l = descriptor(LAYER, "l1"),
        s = descriptor(media_type::OCI_IMAGE, "s")
    );
    check(
        Some(media_type::OCI_IMAGE),
        &odd,
        media_type::OCI_IMAGE,
        "Image config=c layers= children= subject=s",
    );
    let nested = format!(
        r#"{{"schemaVersion":2,"manifests":[{},{}],"subject":{}}}"#,
        descriptor(media_type::OCI_INDEX, "m"),
        descriptor(media_type::OCI_IMAGE, "m2"),
        descriptor(media_type::OCI_IMAGE, "s")
    );
    check(
        Some(media_type::OCI_INDEX),
        &nested,
        media_type::OCI_INDEX,
        "Index config= layers= children=m,m2 subject=s",
    );
}

#[test]
fn other_types_are_opaque_but_keep_what_they_refer_to() {
    fn check(document: &str, expected: &str) {
        let manifest = Manifest::parse(Some(OPAQUE), document.as_bytes()).unwrap();
        assert_eq!(manifest.media_type, OPAQUE);
        assert_eq!(summary(&manifest), expected, "{document}");
    }
    let nothing = "Image config= layers= children= subject=";
    check("{}", nothing);
    check(
        r#"{"config":"a text","layers":{"a":1},"blobs":[1,"x",{"size":1}],"subject":[],"annotations":7}"#,
        nothing,
    );
    check(r#"{"schemaVersion":7,"mediaType":null}"#, nothing);
    check(
        &image(OPAQUE),
        "Image config=c layers=l1,l2 children= subject=",
    );
    check(&index(OPAQUE), "Index config= layers= children=m subject=");
    let artifact = format!(
        r#"{{"blobs":[{}],"subject":{},"annotations":{{"a":"b","c":1}},"artifactType":"a/b"}}"#,
        descriptor(LAYER, "l1"),
        descriptor(media_type::OCI_IMAGE, "s")
    );
    check(&artifact, "Image config= layers=l1 children= subject=s");
    let manifest = Manifest::parse(Some(OPAQUE), artifact.as_bytes()).unwrap();
    assert_eq!(
        manifest.annotations,
        BTreeMap::from([("a".to_owned(), "b".to_owned())])
    );
    assert_eq!(manifest.referrer_artifact_type(), Some("a/b"));
    // A descriptor without a type can be kept all the same.
    let untyped = descriptor("", "l1").replace(r#""mediaType":"","#, "");
    check(
        &format!(r#"{{"layers":[{untyped}]}}"#),
        "Image config= layers=l1 children= subject=",
    );
}

#[test]
fn what_cannot_be_accepted_says_what_to_do() {
    fn check(content_type: Option<&str>, document: &str, expected: &str) {
        let error = Manifest::parse(content_type, document.as_bytes())
            .expect_err(document)
            .to_string();
        assert!(error.contains(expected), "{document}: {error}");
    }
    let config = descriptor(CONFIG, "c");
    let child = descriptor(media_type::OCI_IMAGE, "m");

    check(None, "", "not a JSON object");
    check(None, "[]", "not a JSON object");
    check(None, "2", "not a JSON object");
    check(None, "{", "not a JSON object");
    check(None, "{} x", "not a JSON object");
    check(None, "\u{feff}{}", "not a JSON object");
    check(
        None,
        &format!(r#"{{"a":{}{}}}"#, "[".repeat(200), "]".repeat(200)),
        "recursion limit",
    );
    check(
        None,
        &format!(r#"{{"a":{}"#, "[".repeat(150_000)),
        "recursion limit",
    );

    // Types.
    check(None, "{}", "as Content-Type");
    check(None, r#"{"schemaVersion":2}"#, "as Content-Type");
    check(Some("nonsense"), "{}", "as Content-Type");
    check(Some("a/b\r\nX-Evil: 1"), "{}", "as Content-Type");
    check(
        None,
        r#"{"mediaType":"a/b\r\nX-Evil: 1"}"#,
        "as Content-Type",
    );
    check(None, r#"{"mediaType":7}"#, "\"mediaType\" is invalid");
    check(
        Some(media_type::OCI_INDEX),
        &image(media_type::OCI_IMAGE),
        "send the manifest's mediaType",
    );
    check(
        Some(media_type::DOCKER_IMAGE),
        &image(media_type::OCI_IMAGE),
        "send the manifest's mediaType",
    );
    check(
        Some("application/json"),
        &image(media_type::OCI_IMAGE),
        "send the manifest's mediaType",
    );
    check(
        Some("application/x-www-form-urlencoded"),
        &index(media_type::OCI_INDEX),
        "send the manifest's mediaType",
    );

    // CVE-2021-41190.
    let both =
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":[],"manifests":[{child}]}}"#);
    for content_type in [
        None,
        Some(media_type::OCI_IMAGE),
        Some(media_type::OCI_INDEX),
        Some(OPAQUE),
    ] {
        check(content_type, &both, "ambiguous");
    }
    check(
        None,
        &format!(r#"{{"schemaVersion":2,"config":{config},"manifests":[]}}"#),
        "ambiguous",
    );
    check(
        None,
        r#"{"schemaVersion":2,"layers":[],"manifests":[]}"#,
        "ambiguous",
    );
    check(
        Some(media_type::OCI_IMAGE),
        r#"{"schemaVersion":2,"manifests":[]}"#,
        "ambiguous",
    );
    check(
        Some(media_type::OCI_INDEX),
        r#"{"schemaVersion":2,"layers":[]}"#,
        "ambiguous",
    );
    check(
        Some(media_type::DOCKER_LIST),
        &format!(r#"{{"schemaVersion":2,"config":{config}}}"#),
        "ambiguous",
    );

    // Schema versions.
    check(Some(media_type::DOCKER_SCHEMA1), "{}", "skopeo copy");
    check(
        Some(media_type::DOCKER_SCHEMA1_SIGNED),
        r#"{"schemaVersion":1,"fsLayers":[]}"#,
        "skopeo copy",
    );
    check(None, r#"{"schemaVersion":1,"fsLayers":[]}"#, "skopeo copy");
    check(
        Some("application/json"),
        r#"{"schemaVersion":1,"fsLayers":[]}"#,
        "skopeo copy",
    );
    check(
        Some(media_type::DOCKER_IMAGE),
        r#"{"schemaVersion":1}"#,
        "skopeo copy",
    );
    for version in ["3", "0", "\"2\"", "2.0", "null", "[]"] {
        check(
            Some(media_type::OCI_INDEX),
            &format!(r#"{{"schemaVersion":{version}}}"#),
            "schemaVersion must be 2",
        );
    }
    check(Some(media_type::OCI_INDEX), "{}", "schemaVersion must be 2");

    // Fields of known types.
    check(
        Some(media_type::OCI_IMAGE),
        r#"{"schemaVersion":2,"layers":[]}"#,
        "\"config\" is invalid",
    );
    check(
        Some(media_type::OCI_IMAGE),
        r#"{"schemaVersion":2,"config":{}}"#,
        "missing field `digest`",
    );
    check(
        Some(media_type::OCI_IMAGE),
        &format!(r#"{{"schemaVersion":2,"config":{config},"layers":{{}}}}"#),
        "\"layers\"",
    );
    check(
        Some(media_type::OCI_INDEX),
        r#"{"schemaVersion":2,"manifests":[1]}"#,
        "\"manifests\"",
    );
    check(
        Some(media_type::OCI_INDEX),
        r#"{"schemaVersion":2,"manifests":[null]}"#,
        "\"manifests\"",
    );
    check(
        Some(media_type::OCI_INDEX),
        r#"{"schemaVersion":2,"annotations":{"a":1}}"#,
        "\"annotations\"",
    );
    check(
        Some(media_type::OCI_INDEX),
        r#"{"schemaVersion":2,"subject":[]}"#,
        "\"subject\"",
    );
    check(
        None,
        &image(media_type::OCI_IMAGE).replace("sha256:", "sha256:A"),
        "wrong digest length",
    );
    check(
        None,
        &image(media_type::OCI_IMAGE).replace("sha256:", "md5:"),
        "unsupported digest algorithm",
    );
    check(
        None,
        &image(media_type::OCI_IMAGE).replace("\"size\":1", "\"size\":-1"),
        "\"config\"",
    );
    check(
        None,
        &image(media_type::OCI_IMAGE).replace(&format!("\"mediaType\":\"{LAYER}\","), ""),
        "must have a mediaType",
    );
    // An opaque document's descriptors must be kept, so their digests must be known.
    check(
        Some(OPAQUE),
        r#"{"layers":[{"digest":"blake3:00","size":1}]}"#,
        "unsupported digest algorithm",
    );

    let message = Manifest::parse(None, &[b' '; MANIFEST_BYTES_MAX + 1])
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("8388609 bytes, at most 8388608"),
        "{message}"
    );
    assert!(matches!(
        Manifest::parse(None, b"{\"a\":\"\xff\"}"),
        Err(ManifestError::Json(_))
    ));
}

#[test]
fn sizes_are_bounded() {
    fn check(document: &str, expected: Option<&str>) {
        assert!(document.len() <= MANIFEST_BYTES_MAX);
        let found = Manifest::parse(Some(media_type::OCI_INDEX), document.as_bytes())
            .err()
            .map(|e| e.to_string());
        match (&found, expected) {
            (None, None) => {}
            (Some(found), Some(expected)) => assert!(found.contains(expected), "{found}"),
            _ => panic!("{found:?}, expected {expected:?}"),
        }
    }
    let entries = |n: usize| {
        let entries = vec![descriptor(media_type::OCI_IMAGE, "m"); n];
        format!(
            r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
            entries.join(",")
        )
    };
    check(&entries(DESCRIPTORS_MAX), None);
    check(
        &entries(DESCRIPTORS_MAX + 1),
        Some("more than 10000 descriptors"),
    );
    check(
        &format!(r#"{{"schemaVersion":2,"x":[{}0]}}"#, "0,".repeat(4_000_000)),
        Some("JSON values"),
    );
    check(
        &format!(
            r#"{{"schemaVersion":2,"x":[{}0]}}"#,
            "[],".repeat(2_000_000)
        ),
        Some("JSON values"),
    );
    check(
        &format!(
            r#"{{"schemaVersion":2,"x":"{}\"{{"}}"#,
            ",[{\\\"".repeat(1_000_000)
        ),
        None,
    );

    // The conformance suite's large manifest: 390 annotations of 10,000 bytes.
    let mut annotations = String::new();
    for i in 0..390 {
        write!(
            annotations,
            r#"{}"key-{i}":"{}""#,
            if i == 0 { "" } else { "," },
            "x".repeat(10_000)
        )
        .unwrap();
    }
    check(
        &format!(r#"{{"schemaVersion":2,"manifests":[],"annotations":{{{annotations}}}}}"#),
        None,
    );
}

#[test]
fn foreign_layers_need_not_be_held() {
    fn check(media_type: &str, urls: &str, held: bool) {
        let layer =
            descriptor(media_type, "f").replace("\"size\"", &format!("\"urls\":{urls},\"size\""));
        let document = format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{},{layer}]}}"#,
            descriptor(CONFIG, "c"),
            descriptor(LAYER, "l1")
        );
        let manifest = Manifest::parse(None, document.as_bytes()).unwrap();
        let mut expected = vec![Digest::sha256(b"c"), Digest::sha256(b"l1")];
        expected.extend(held.then(|| Digest::sha256(b"f")));
        assert_eq!(
            manifest.blobs().map(|blob| blob.digest).collect::<Vec<_>>(),
            expected,
            "{media_type} {urls}"
        );
        assert_eq!(manifest.layers.len(), 2);
    }
    for urls in ["null", "[]", r#"["https://example.com/layer"]"#] {
        check(
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            urls,
            false,
        );
        check(
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            urls,
            false,
        );
        check(LAYER, urls, true);
    }
}

#[test]
fn referrers_have_an_artifact_type() {
    fn check(document: &str, expected: Option<&str>) {
        let manifest = Manifest::parse(None, document.as_bytes()).unwrap();
        assert_eq!(manifest.referrer_artifact_type(), expected, "{document}");
    }
    let with = |document: String| document.replacen('{', r#"{"artifactType":"a/b","#, 1);
    let with_empty = |document: String| document.replacen('{', r#"{"artifactType":"","#, 1);
    check(&image(media_type::OCI_IMAGE), Some(CONFIG));
    check(&with(image(media_type::OCI_IMAGE)), Some("a/b"));
    check(&with_empty(image(media_type::OCI_IMAGE)), Some(CONFIG));
    check(&index(media_type::OCI_INDEX), None);
    check(&with(index(media_type::OCI_INDEX)), Some("a/b"));
    check(&with_empty(index(media_type::OCI_INDEX)), None);
}
