//! Images of every format, cut off.

use crate::sample::{read_all, sample};

/// Cut anywhere, an image is refused, or everything was there before the cut.
#[test]
fn truncated_images() {
    for (format, options) in [
        ("qcow2", &[][..]),
        ("qcow2", &["-c"]),
        ("qcow2", &["-c", "-o", "compression_type=zstd"]),
        ("qcow2", &["-o", "extended_l2=on"]),
        ("vmdk", &["-o", "subformat=monolithicSparse"]),
        ("vmdk", &["-o", "subformat=streamOptimized"]),
        ("vdi", &[]),
        ("vpc", &["-o", "subformat=dynamic,force_size=on"]),
        ("vhdx", &["-o", "block_size=1M"]),
    ] {
        let image = sample(format, options);
        let whole = read_all(&image).unwrap();
        let mut errors = 0;
        let step = image.len() / 400;
        for len in (8..image.len())
            .step_by(step)
            .chain(image.len() - 600..image.len())
        {
            // Shorter, it is a raw disk for all that anybody can see.
            if format == "vdi" && len < 0x44 {
                continue;
            }
            match read_all(&image[..len]) {
                Ok(disk) => assert!(disk == whole, "{format} {options:?} cut at {len}"),
                Err(_) => errors += 1,
            }
        }
        assert!(errors > 100, "{format} {options:?}: {errors}");
    }
}
