//! What images come wrapped in, made by the usual tools.

use std::{fs, path::PathBuf};

use crate::{
    formats::{Format, Images},
    once::Once,
    support::{run, text},
};

use clap::ValueEnum;
/// What is around an image.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug, ValueEnum)]
pub(crate) enum Wrapping {
    None,
    Gzip,
    Xz,
    Zstd,
    Bzip2,
    Tar,
    TarGzip,
    /// Two members in a row.
    GzipMembers,
    GzipInXz,
}

impl Wrapping {
    /// From the file `$1` to the file `$2`.
    fn script(self) -> &'static str {
        match self {
            Self::None => "ln $1 $2",
            Self::Gzip => "gzip -1 <$1 >$2",
            Self::Xz => "xz -0 <$1 >$2",
            Self::Zstd => "zstd -q -1 <$1 >$2",
            Self::Bzip2 => "bzip2 -1 <$1 >$2",
            Self::Tar => "tar -C ${1%/*} -cf $2 ${1##*/}",
            Self::TarGzip => "tar -C ${1%/*} -c ${1##*/} | gzip -1 >$2",
            Self::GzipMembers => {
                "head -c 300001 $1 | gzip -1 >$2; tail -c +300002 $1 | gzip -1 >>$2"
            }
            Self::GzipInXz => "gzip -1 <$1 | xz -0 >$2",
        }
    }

    /// Whether nothing of what is inside can be read before what comes before it.
    pub(crate) fn is_compressed(self) -> bool {
        !matches!(self, Self::None | Self::Tar)
    }
}

/// Every image in every wrapping, each made when it is asked for.
pub(crate) struct Files {
    dir: PathBuf,
    files: Once<(Format, Wrapping), PathBuf>,
}

impl Files {
    pub(crate) fn new(dir: PathBuf) -> Self {
        fs::create_dir(&dir).unwrap();
        Self {
            dir,
            files: Once::default(),
        }
    }

    pub(crate) fn get(&self, images: &Images, format: Format, wrapping: Wrapping) -> PathBuf {
        self.files.get((format, wrapping), || {
            let image = images.get(format).path;
            let file = self.dir.join(format!("{format:?}-{wrapping:?}"));
            let script = format!("set -e; {}", wrapping.script());
            run("sh", &["-c", &script, "sh", text(&image), text(&file)]);
            file
        })
    }
}
