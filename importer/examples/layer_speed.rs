//! How fast a disk becomes a layer and is read back: `cargo run --release -p dvcr-importer --example layer_speed IMAGE`.
//!
//! Bytes are those of data on the disk; the layer stays in memory.

use std::{env, error::Error, fs::File, sync::Arc, time::Instant};

use dvcr_importer::{
    format::{DiskImage, ExtentKind},
    layout::{Archive, Content, write_layer},
    source::FileSource,
};

fn main() -> Result<(), Box<dyn Error>> {
    let path = env::args().nth(1).ok_or("which image?")?;
    let source = Arc::new(FileSource::new(File::open(path)?)?);
    let image = DiskImage::open(source)?;

    let start = Instant::now();
    let content = Content::disk(&image)?;
    let data = content.file_len();
    report("scan", data, start);

    let mut layer = vec![];
    let start = Instant::now();
    let written = write_layer(&content, 2, &mut layer)?;
    report("write", data, start);
    println!(
        "{} bytes in {} {}",
        written.len,
        written.digest,
        image.format()
    );

    let start = Instant::now();
    let image = Archive::open(Arc::new(layer), Some(&written.index_digest))?.image()?;
    let mut buf = vec![0; 1 << 20];
    for extent in image.extents() {
        let extent = extent?;
        if extent.kind == ExtentKind::Zero {
            continue;
        }
        for at in (extent.offset..extent.offset + extent.len).step_by(buf.len()) {
            let len = (extent.offset + extent.len - at).min(buf.len() as u64);
            image.read_at(at, &mut buf[..len as usize])?;
        }
    }
    report("read, one thread", data, start);
    Ok(())
}

fn report(what: &str, bytes: u64, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    println!("{what}: {:.0} MB/s", bytes as f64 / 1e6 / seconds);
}
