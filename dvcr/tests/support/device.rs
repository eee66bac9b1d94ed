//! Small devices to fill up, for tests in a [`namespace`](super::namespace).

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::process::run;

const LIMIT: Duration = Duration::from_secs(60);

/// Runs a command that must succeed.
pub(crate) fn command(program: &str, arguments: &[&str]) {
    let mut command = Command::new(program);
    // Where administrators' programs live, which an ordinary user's PATH may lack.
    let path = std::env::var("PATH").unwrap_or_default();
    command
        .args(arguments)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"));
    let finished = run(command, LIMIT);
    assert!(
        finished.success,
        "{program} {arguments:?}:\n{}",
        finished.log
    );
}

/// A tmpfs that can be given more room.
pub(crate) struct Device(tempfile::TempDir);

impl Device {
    pub(crate) fn new(mib: u64) -> Self {
        let directory = tempfile::Builder::new().prefix("dvcr-device-").tempdir();
        let device = Self(directory.expect("a temporary directory"));
        let size = format!("size={mib}m");
        command(
            "mount",
            &["-t", "tmpfs", "-o", &size, "tmpfs", device.text()],
        );
        device
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    fn text(&self) -> &str {
        self.path().to_str().expect("temporary names are text")
    }

    pub(crate) fn grow(&self, mib: u64) {
        let size = format!("remount,size={mib}m");
        command("mount", &["-o", &size, self.text()]);
    }

    /// Fills what is left with a file of somebody else; its path.
    pub(crate) fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = fs::File::create(&path).expect("create the filler");
        let mut piece = vec![1; 1 << 20];
        while !piece.is_empty() {
            if file.write_all(&piece).is_err() {
                piece.truncate(piece.len() / 2);
            }
        }
        path
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        unmount(self.path());
    }
}

/// A file system of 1 GiB in a sparse file on a device that is smaller: what the file system takes, the device may not be able
/// to hold, which shows when it is written back.
pub(crate) struct Thin {
    device: Device,
    mounted: tempfile::TempDir,
}

impl Thin {
    /// `mib` is the length of the device. Needs root, as loop devices do.
    pub(crate) fn new(mib: u64) -> Self {
        let device = Device::new(mib);
        let mounted = tempfile::Builder::new().prefix("dvcr-thin-").tempdir();
        let thin = Self {
            device,
            mounted: mounted.expect("a temporary directory"),
        };
        let file = fs::File::create(thin.image()).expect("create the image");
        file.set_len(1 << 30).expect("a sparse file");
        command("mkfs.ext4", &["-q", "-F", "-m", "0", &thin.image()]);
        thin.mount();
        thin
    }

    fn image(&self) -> String {
        format!("{}/image", self.device.text())
    }

    pub(crate) fn path(&self) -> &Path {
        self.mounted.path()
    }

    fn mount(&self) {
        let path = self.path().to_str().expect("temporary names are text");
        // A file system that goes on after errors is the harder case.
        command(
            "mount",
            &["-o", "loop,errors=continue", &self.image(), path],
        );
    }

    /// Unmounts, gives the device more room, checks the file system and mounts it again.
    pub(crate) fn repair(&self, mib: u64) {
        command("umount", &[self.path().to_str().expect("text")]);
        self.device.grow(mib);
        let mut check = Command::new("e2fsck");
        let path = std::env::var("PATH").unwrap_or_default();
        check
            .args(["-f", "-y", &self.image()])
            .env("PATH", format!("{path}:/usr/sbin:/sbin"));
        println!("{}", run(check, LIMIT).log);
        self.mount();
    }
}

impl Drop for Thin {
    fn drop(&mut self) {
        unmount(self.path());
    }
}

/// What is still in use ends with the namespace.
fn unmount(path: &Path) {
    let mut command = Command::new("umount");
    command.arg("--lazy").arg(path);
    run(command, LIMIT);
}
