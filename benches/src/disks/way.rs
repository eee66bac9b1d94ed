//! The ways of a disk, ours and others'.

use crate::registry::Kind;

/// Where a disk goes from and to.
pub(super) struct Route {
    pub(super) title: &'static str,
    pub(super) note: &'static str,
    /// Ours first.
    pub(super) ways: &'static [Way],
}

/// One way to go there.
pub(super) struct Way {
    pub(super) name: &'static str,
    /// A shell script. `$URL` is the disk on a web server, `$REFERENCE` the image in our registry, `$LAYER` the URL of its layer, `$HEX` its digest;
    /// `$OUT` is the raw file to be made, `$REGISTRY` an empty registry, `$SCRATCH` an empty directory. It ends with its target durable.
    pub(super) script: &'static str,
    /// The registry that it fills.
    pub(super) fills: Option<Kind>,
}

pub(super) const ROUTES: [Route; 3] = [
    Route {
        title: "From a web server into a registry",
        note: "Into an empty registry each time. Ours stores the disk deduplicated and compressed; processor time has the registry's in it.",
        ways: &[
            Way {
                name: "dvcr-importer import",
                script: "exec \"$IMPORTER\" import \"$URL\" $REGISTRY/bench/disk:1 --work-dir $SCRATCH",
                fills: Some(Kind::Dvcr),
            },
            Way {
                name: "curl, qemu-img convert, tar, oras push to distribution",
                script: "mkdir $SCRATCH/disk && curl -sfo $SCRATCH/source $URL && \
                         qemu-img convert -O qcow2 $SCRATCH/source $SCRATCH/disk/disk.qcow2 && tar -C $SCRATCH -cf $SCRATCH/layer.tar disk && \
                         cd $SCRATCH && oras push --plain-http $REGISTRY/bench/disk:1 layer.tar:application/vnd.oci.image.layer.v1.tar",
                fills: Some(Kind::Distribution3),
            },
            Way {
                name: "curl, tar, oras push to distribution: as it came",
                script: "mkdir $SCRATCH/disk && curl -sfo $SCRATCH/disk/disk.qcow2 $URL && tar -C $SCRATCH -cf $SCRATCH/layer.tar disk && \
                         cd $SCRATCH && oras push --plain-http $REGISTRY/bench/disk:1 layer.tar:application/vnd.oci.image.layer.v1.tar",
                fills: Some(Kind::Distribution3),
            },
        ],
    },
    Route {
        title: "From a web server to a raw file",
        note: "",
        ways: &[
            Way {
                name: "dvcr-importer populate",
                script: "exec \"$IMPORTER\" populate \"$URL\" $OUT",
                fills: None,
            },
            Way {
                name: "curl, qemu-img convert",
                script: "curl -sfo $SCRATCH/source $URL && qemu-img convert -O raw $SCRATCH/source $OUT && sync $OUT",
                fills: None,
            },
        ],
    },
    Route {
        title: "From the registry to a raw file",
        note: "",
        ways: &[
            Way {
                name: "dvcr-importer populate",
                script: "exec \"$IMPORTER\" populate $REFERENCE $OUT",
                fills: None,
            },
            Way {
                name: "skopeo copy, tar, qemu-img convert",
                script: "skopeo --insecure-policy copy -q --src-tls-verify=false docker://$REFERENCE dir:$SCRATCH/copy && \
                         zstd -q -dc $SCRATCH/copy/$HEX | tar -x -C $SCRATCH && \
                         qemu-img convert -O raw $SCRATCH/disk/disk.qcow2 $OUT && sync $OUT",
                fills: None,
            },
            Way {
                name: "stream into scratch, qemu-img convert (CDI's way)",
                script: "curl -sf $LAYER | zstd -q -dc | tar -x -C $SCRATCH && \
                         qemu-img convert -O raw $SCRATCH/disk/disk.qcow2 $OUT && sync $OUT",
                fills: None,
            },
        ],
    },
];
