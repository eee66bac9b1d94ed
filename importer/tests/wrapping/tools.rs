//! What the usual tools make.

use std::{fs, io::Write};

use dvcr_importer::wrapping::Wrapping::{Bzip2, Gzip, Tar, Xz, Zstd};

use crate::{
    check,
    support::{Bench, Pattern, Random, run, text},
    unwrap, wrap,
};

#[test]
fn layers_by_the_usual_tools() {
    for layers in [
        &[][..],
        &[Gzip],
        &[Xz],
        &[Zstd],
        &[Bzip2],
        &[Tar],
        &[Tar, Gzip],
        &[Tar, Xz],
        &[Xz, Tar],
        &[Zstd, Tar, Bzip2],
        &[Gzip, Xz, Zstd, Bzip2],
        &[Xz, Tar, Gzip, Tar],
    ] {
        for (pattern, len) in [(Pattern::Mixed, (2 << 20) + 512), (Pattern::Empty, 1 << 20)] {
            let bench = Bench::new(pattern, len);
            let path = layers
                .iter()
                .fold(bench.raw.clone(), |path, layer| wrap(&path, *layer));
            let (wrappings, content) = unwrap(&fs::read(path).unwrap()).unwrap();
            assert!(wrappings.iter().eq(layers.iter().rev()), "{wrappings:?}");
            assert!(content == fs::read(&bench.raw).unwrap(), "{layers:?}");
        }
    }
}

#[test]
fn one_layer_too_many() {
    let bench = Bench::new(Pattern::Compressible, 4096);
    let path = [Gzip; 5].iter().fold(bench.raw.clone(), |path, layer| {
        let inner = wrap(&path, *layer);
        let next = bench.path("next");
        fs::rename(inner, &next).unwrap();
        next
    });
    check(&fs::read(path).unwrap(), "wrapped more than 4 times");
}

#[test]
fn several_members() {
    let bench = Bench::new(Pattern::Mixed, 1 << 20);
    let raw = fs::read(&bench.raw).unwrap();
    for wrapping in [Gzip, Xz, Zstd, Bzip2] {
        let parts: Vec<u8> = raw
            .chunks(300_001)
            .enumerate()
            .flat_map(|(i, part)| {
                let path = bench.path(&format!("{wrapping}{i}"));
                fs::write(&path, part).unwrap();
                fs::read(wrap(&path, wrapping)).unwrap()
            })
            .collect();
        assert!(unwrap(&parts).unwrap().1 == raw, "{wrapping}");
    }
    // Parallel tools: a skippable frame first, many blocks.
    let zstd = fs::read(wrap(&bench.raw, Zstd)).unwrap();
    let skippable = [
        &b"\x50\x2A\x4D\x18\x04\x00\x00\x00\x2A\x00\x00\x00"[..],
        &zstd,
    ]
    .concat();
    assert!(unwrap(&skippable).unwrap().1 == raw);
    let blocks = bench.path("blocks.xz");
    let script = format!(
        "xz -T2 --block-size=100000 -c {} > {}",
        text(&bench.raw),
        text(&blocks)
    );
    run("sh", &["-c", &script]);
    assert!(unwrap(&fs::read(blocks).unwrap()).unwrap().1 == raw);
}

#[test]
fn windows_are_bounded() {
    let bench = Bench::new(Pattern::Compressible, 1 << 20);
    let out = bench.path("out");
    let (raw, out) = (text(&bench.raw), text(&out));
    run(
        "sh",
        &["-c", &format!("xz --lzma2=dict=1GiB -c {raw} > {out}")],
    );
    check(&fs::read(out).unwrap(), "broken xz");
    run(
        "sh",
        &["-c", &format!("cat {raw} | zstd -q --long=31 -c > {out}")],
    );
    check(&fs::read(out).unwrap(), "broken zstd");
    run("sh", &["-c", &format!("xz -9e -c {raw} > {out}")]);
    assert_eq!(unwrap(&fs::read(out).unwrap()).unwrap().0, [Xz]);
    run(
        "sh",
        &["-c", &format!("cat {raw} | zstd -q --ultra -22 -c > {out}")],
    );
    assert_eq!(unwrap(&fs::read(out).unwrap()).unwrap().0, [Zstd]);
}

#[test]
fn plain_and_empty_streams() {
    let mut bytes = Random::new(1).bytes(100_000);
    bytes[0] = 1;
    let (wrappings, content) = unwrap(&bytes).unwrap();
    assert!(wrappings.is_empty() && content == bytes);
    let (wrappings, content) = unwrap(b"").unwrap();
    assert!(wrappings.is_empty() && content.is_empty());
    let mut gzip = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    gzip.write_all(b"").unwrap();
    let (wrappings, content) = unwrap(&gzip.finish().unwrap()).unwrap();
    assert_eq!(wrappings, [Gzip]);
    assert!(content.is_empty());
}
