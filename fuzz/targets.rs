//! The bodies of the fuzz targets of `dvcr-core`: bytes from the network in, no panic, and what always holds asserted.
//!
//! Included by `fuzz_targets/*.rs` (libFuzzer) and by `core/tests/fuzz_corpus.rs` (plain tests over the corpora).

use dvcr_core::{
    chunk::{BLOCKS_MAX, CHUNK_BYTES_MAX, Cut, Cutter, FRAMES_BEFORE_MEAN, is_zero},
    oci::{DESCRIPTORS_MAX, Manifest, RANGES_MAX, Ranges, Route, parse_content_range, parse_range},
};

/// A request path. What parses is the same after a round trip through its parts.
pub(crate) fn route(data: &[u8]) {
    let Ok(path) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(route) = Route::parse(path) else {
        return;
    };
    assert!(!route.methods().is_empty());
    let again = match &route {
        Route::Ping => "/v2/".to_owned(),
        Route::Catalog => "/v2/_catalog".to_owned(),
        Route::ExtDiscover => "/v2/_oci/ext/discover".to_owned(),
        Route::Tags(name) => format!("/v2/{name}/tags/list"),
        Route::Blob(name, digest) => format!("/v2/{name}/blobs/{digest}"),
        Route::UploadStart(name) => format!("/v2/{name}/blobs/uploads/"),
        Route::Upload(name, session) => format!("/v2/{name}/blobs/uploads/{session}"),
        Route::Manifest(name, reference) => format!("/v2/{name}/manifests/{reference}"),
        Route::Referrers(name, digest) => format!("/v2/{name}/referrers/{digest}"),
    };
    assert_eq!(Route::parse(&again), Ok(route));
}

/// A blob's length in eight little-endian bytes, then a header.
pub(crate) fn range(data: &[u8]) {
    let Some((len, header)) = data.split_first_chunk() else {
        return;
    };
    let len = u64::from_le_bytes(*len);
    let Ok(header) = std::str::from_utf8(header) else {
        return;
    };
    if let Ranges::Satisfiable(ranges) = parse_range(header, len) {
        assert!(!ranges.is_empty() && ranges.len() <= RANGES_MAX);
        assert!(
            ranges
                .iter()
                .all(|range| range.start < range.end && range.end <= len)
        );
        let total: u128 = ranges
            .iter()
            .map(|range| u128::from(range.end - range.start))
            .sum();
        assert!(total <= u128::from(len));
    }
    if let Some((first, last)) = parse_content_range(header) {
        assert!(first <= last && last < u64::MAX);
    }
}

/// A document, with a Content-Type before the first line feed, if there is one.
pub(crate) fn manifest(data: &[u8]) {
    let (content_type, document) = match data.iter().position(|byte| *byte == b'\n') {
        Some(end) => (std::str::from_utf8(&data[..end]).ok(), &data[end + 1..]),
        None => (None, data),
    };
    let Ok(manifest) = Manifest::parse(content_type, document) else {
        return;
    };
    assert!(manifest.layers.len() + manifest.children.len() <= DESCRIPTORS_MAX);
    // CVE-2021-41190: never both.
    assert!(
        manifest.children.is_empty() || manifest.config.is_none() && manifest.layers.is_empty()
    );
    assert!(manifest.blobs().count() <= manifest.layers.len() + 1);
    let _ = manifest.referrer_artifact_type();
    // What it is served with is accepted again and read alike.
    let again = Manifest::parse(Some(&manifest.media_type), document)
        .expect("its own type fits a document");
    assert_eq!(again, manifest);
}

/// One byte that chooses slices, then a blob. The chunks add up, are bounded, and do not depend on the slices.
pub(crate) fn cutter(data: &[u8]) {
    let Some((choice, blob)) = data.split_first() else {
        return;
    };
    let whole = cut_in_slices(blob, blob.len().max(1));
    assert_eq!(whole.iter().map(|cut| cut.len).sum::<usize>(), blob.len());
    let slice = 1 + usize::from(*choice) * 37;
    assert_eq!(cut_in_slices(blob, slice), whole);
}

/// The chunks of a blob that arrives in slices, adjacent zero runs joined; the cutter is restored after each.
fn cut_in_slices(blob: &[u8], slice: usize) -> Vec<Cut> {
    let mut cutter = Cutter::new();
    let mut cuts: Vec<Cut> = Vec::new();
    let (mut from, mut to) = (0, 0);
    loop {
        let end = to == blob.len();
        let given = &blob[from..to];
        let Some(cut) = cutter.next(given, end) else {
            if end {
                assert!(given.is_empty(), "the end must be cut");
                return cuts;
            }
            assert!(given.len() < CHUNK_BYTES_MAX, "this is enough for a cut");
            to = blob.len().min(to + slice);
            continue;
        };
        assert!(0 < cut.len && cut.len <= given.len() && (cut.zero || cut.len <= CHUNK_BYTES_MAX));
        assert!(!cut.zero || is_zero(&given[..cut.len]));
        match cuts.last_mut() {
            Some(last) if last.zero && cut.zero => last.len += cut.len,
            _ => cuts.push(cut),
        }
        from += cut.len;
        cutter = Cutter::restore(&cutter.state(), from as u64).expect("a state can be restored");
    }
}

/// A blob of zstd frames. Where the cutter sees a frame, libzstd sees it end at the same byte; and what libzstd decodes, the
/// cutter sees as a frame.
pub(crate) fn frames(blob: &[u8]) {
    let mut cutter = Cutter::new();
    let mut rest = blob;
    // From the next one on the cutter may give up frames because they are small.
    for before in 0..FRAMES_BEFORE_MEAN - 1 {
        let Some(cut) = cutter.next(rest, true) else {
            assert!(rest.is_empty(), "the end must be cut");
            return;
        };
        let len = zstd::zstd_safe::find_frame_compressed_size(rest);
        if frames_seen(&cutter) != before + 1 {
            // A blob whose first frame is a skippable one is not taken for frames.
            let skippable = before == 0 && rest.get(1..4) == Some(b"\x2A\x4D\x18");
            assert!(skippable || !len.is_ok_and(|len| decodes(&rest[..len])));
            return;
        }
        // Libzstd refuses some that the cutter takes, for the size of their window, say. It never finds another end.
        assert!(len.is_err() || len == Ok(cut.len));
        rest = &rest[cut.len..];
    }
}

/// How many frames the cutter has seen; 0 once it cuts by content.
fn frames_seen(cutter: &Cutter) -> u64 {
    let state = cutter.state();
    let count = state[2..].first_chunk().expect("a state has two numbers");
    u64::from_le_bytes(*count)
}

/// Whether libzstd decodes a frame that is within all bounds of the cutter: of blocks, each at least three bytes, and of bytes
/// in a block, which libzstd checks only where it must.
fn decodes(frame: &[u8]) -> bool {
    const BLOCK_BYTES_MAX: usize = 128 << 10;
    frame.len() <= 3 * BLOCKS_MAX && zstd::bulk::decompress(frame, BLOCK_BYTES_MAX).is_ok()
}
