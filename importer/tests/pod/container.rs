//! What the kubelet does for a container: a root file system of its own, volumes at their places, an environment, a termination log.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::tls::Authority;

/// Who runs in pods of CDI and Deckhouse.
const USER: u32 = 107;

/// Names that servers of these tests have in there.
const HOSTS: &str =
    "127.0.0.1 localhost files.test mirror.test registry.test dvcr.test auth.test\n";

/// Enters the root that was prepared. What is mounted goes away with the namespace.
const ENTER: &str = r#"
set -eu
mount --bind /usr "$DVCR_TEST_ROOT/usr"
mount --bind /proc "$DVCR_TEST_ROOT/proc"
mount --bind /dev/null "$DVCR_TEST_ROOT/dev/null"
mount --bind /dev/urandom "$DVCR_TEST_ROOT/dev/urandom"
mount --bind "$DVCR_TEST_PROGRAM" "$DVCR_TEST_ROOT/importer"
if [ -n "$DVCR_TEST_DEVICE" ]; then
    touch "$DVCR_TEST_ROOT/dev/cdi-block-volume"
    mount --bind "$DVCR_TEST_DEVICE" "$DVCR_TEST_ROOT/dev/cdi-block-volume"
fi
if [ -n "$DVCR_TEST_ROOM" ]; then
    mount -t tmpfs -o "size=$DVCR_TEST_ROOM,mode=777" tmpfs "$DVCR_TEST_ROOT/data"
fi
exec chroot --userspec="$DVCR_TEST_USER" "$DVCR_TEST_ROOT" /importer "$@"
"#;

/// A container that can be started, also several times.
pub(crate) struct Container {
    root: tempfile::TempDir,
    device: Option<PathBuf>,
    room: Option<&'static str>,
    secrets: Vec<String>,
}

/// How a container ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    /// What it left in the termination log.
    pub(crate) message: String,
    /// What it wrote to standard error and output.
    pub(crate) log: String,
}

impl Ended {
    /// The message of a container that has done its work.
    pub(crate) fn done(&self) -> serde_json::Value {
        assert_eq!(self.code, Some(0), "{}", self.log);
        serde_json::from_str(&self.message).unwrap_or_else(|_| panic!("{}", self.log))
    }

    /// It failed for good, saying this.
    pub(crate) fn failed(&self, part: &str) {
        assert_eq!(self.code, Some(1), "{}", self.log);
        assert!(self.log.contains(part), "no {part:?} in {}", self.log);
    }
}

impl Container {
    /// With an empty volume at `/data`.
    pub(crate) fn new() -> Self {
        let container = Self {
            root: tempfile::Builder::new()
                .prefix("dvcr-pod-")
                .tempdir()
                .unwrap(),
            device: None,
            room: None,
            secrets: vec![],
        };
        let root = container.root.path();
        fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
        for dir in ["usr", "proc", "dev", "etc", "data", "work"] {
            fs::create_dir(root.join(dir)).unwrap();
        }
        for dir in ["bin", "lib", "lib64"] {
            symlink(format!("usr/{dir}"), root.join(dir)).unwrap();
        }
        for file in ["importer", "dev/null", "dev/urandom"] {
            fs::write(root.join(file), "").unwrap();
        }
        container.file("etc/hosts", HOSTS);
        container.file("etc/nsswitch.conf", "hosts: files\n");
        for dir in ["data", "work"] {
            chown(root.join(dir), Some(USER), Some(USER)).unwrap();
        }
        container
    }

    /// With a block device as its volume, at `/dev/cdi-block-volume`.
    pub(crate) fn with_device(device: &Path) -> Self {
        Self {
            device: Some(device.to_owned()),
            ..Self::new()
        }
    }

    /// With a volume at `/data` that has no more room, as `mount` writes sizes.
    pub(crate) fn with_room(self, room: &'static str) -> Self {
        Self {
            room: Some(room),
            ..self
        }
    }

    /// With an authority that the system trusts.
    pub(crate) fn trusting(self, authority: &Authority) -> Self {
        self.file("etc/ssl/certs/ca-certificates.crt", authority.pem());
        self
    }

    /// A text that is to be seen nowhere.
    pub(crate) fn secret(mut self, text: &str) -> Self {
        self.secrets.push(text.to_owned());
        self
    }

    /// A path in there.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    /// Mounts a file, as Kubernetes mounts one of a secret or a configuration: by way of links beside it.
    pub(crate) fn file(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        let (dir, name) = (path.parent().unwrap(), path.file_name().unwrap());
        let data = dir.join("..data");
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join(name), content).unwrap();
        let _ = fs::remove_file(&path);
        symlink(Path::new("..data").join(name), &path).unwrap();
    }

    /// Starts the program with these variables and arguments.
    pub(crate) fn start(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Child {
        let log = self.path("dev/termination-log");
        fs::write(&log, "").unwrap();
        fs::set_permissions(log, fs::Permissions::from_mode(0o666)).unwrap();
        // Who owns a device node on this machine is not ours to change.
        let user = if self.device.is_some() { 0 } else { USER };
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("unshare");
        command
            .args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                ENTER,
                "sh",
            ])
            .args(arguments)
            .env_clear()
            .env("PATH", format!("{path}:/usr/sbin:/sbin"))
            .env("DVCR_TEST_ROOT", self.root.path())
            .env("DVCR_TEST_PROGRAM", env!("CARGO_BIN_EXE_dvcr-importer"))
            .env("DVCR_TEST_DEVICE", self.device.clone().unwrap_or_default())
            .env("DVCR_TEST_ROOM", self.room.unwrap_or_default())
            .env("DVCR_TEST_USER", format!("{user}:{user}"))
            .env("DVCR_METRICS_ADDRESS", "127.0.0.1:0")
            .env("DVCR_WORK_DIR", "/work")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
            .spawn()
            .unwrap_or_else(|error| panic!("unshare: {error}; it is part of util-linux"))
    }

    /// Waits for the program's end.
    pub(crate) fn end(&self, child: Child) -> Ended {
        let output = child.wait_with_output().unwrap();
        let message = fs::read_to_string(self.path("dev/termination-log")).unwrap();
        let log = [output.stderr, output.stdout].concat();
        let log = String::from_utf8_lossy(&log).into_owned();
        assert!(message.len() <= 4096, "{message}");
        assert!(log.contains(&message), "{log}");
        for secret in &self.secrets {
            assert!(!log.contains(secret), "a secret is told: {log}");
        }
        Ended {
            code: output.status.code(),
            message,
            log,
        }
    }

    /// Runs it as a pod does: there are only variables.
    pub(crate) fn run(&self, variables: &[(&str, &str)]) -> Ended {
        let ended = self.end(self.start(variables, &[]));
        assert!(!ended.message.is_empty(), "{}", ended.log);
        ended
    }

    /// Runs it as a person does.
    pub(crate) fn command(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Ended {
        self.end(self.start(variables, arguments))
    }
}
