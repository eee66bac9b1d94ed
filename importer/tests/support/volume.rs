//! Block devices to write to.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

/// Runs a program that the tests need; its absence is a failure.
fn run(program: &str, args: &[&str]) {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| {
            panic!("{program}: {error}; `tools/install.sh clients` installs what the tests need")
        });
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {log}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A loop device on a file of its own, detached when dropped. Needs root.
pub(crate) struct LoopDevice {
    device: PathBuf,
    file: PathBuf,
}

impl LoopDevice {
    /// A device of `len` bytes, full of `fill`.
    pub(crate) fn new(dir: &Path, len: u64, fill: u8) -> Self {
        let file = dir.join(format!("device-{len}-{fill}"));
        fs::write(&file, vec![fill; len as usize]).unwrap();
        Self::on(file)
    }

    pub(crate) fn on(file: PathBuf) -> Self {
        let output = Command::new("losetup")
            .env("PATH", admin_path())
            .args(["--find", "--show", text(&file)])
            .output()
            .unwrap_or_else(|error| panic!("losetup: {error}; it is part of mount and util-linux"));
        let device = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success() && device.starts_with("/dev/"),
            "this test attaches a loop device, which needs root: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Self {
            device: device.trim().into(),
            file,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.device
    }

    /// The file behind the device.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup")
            .env("PATH", admin_path())
            .args(["--detach", text(&self.device)])
            .status();
    }
}

fn admin_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/sbin:/sbin")
}

/// Whether two disks have the same content; what one has behind the other's end must be zeros.
pub(crate) fn same_disk(format: &str, one: &Path, raw: &Path) {
    let args = ["compare", "-q", "-f", format, "-F", "raw"];
    run("qemu-img", &[&args[..], &[text(one), text(raw)]].concat());
}

/// Bytes that a file takes on its file system.
pub(crate) fn allocated(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    File::open(path).unwrap().metadata().unwrap().blocks() * 512
}
