//! What all cells share: the images, the servers, each made when it is first needed, and the program.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::runtime::Runtime;

use crate::{
    blackbox::process::{Finished, run},
    cells::Cell,
    formats::{Format, Image, Images},
    once::Once,
    registries::{Dvcr, Login, Peer},
    sources::{Served, Source},
    stores::{Kind, Store},
    support::text,
    wrappings::{Files, Wrapping},
};

/// No cell takes a tenth of it on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);

pub(crate) struct Place {
    pub(crate) runtime: Runtime,
    images: Images,
    files: Files,
    put: Once<(Source, Format, Wrapping), String>,
    s3: OnceLock<Store>,
    google: OnceLock<Store>,
    azure: OnceLock<Store>,
    basic: OnceLock<Peer>,
    token: OnceLock<Peer>,
    dvcr: OnceLock<Dvcr>,
    /// The layer that each disk became, by its hash; equal disks become equal layers.
    pub(crate) layers: Mutex<HashMap<[u8; 32], String>>,
    /// Manifests that were read back.
    pub(crate) checked: Once<String, ()>,
    paths: AtomicU64,
    dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("dvcr-m-")
            .tempdir()
            .unwrap();
        Self {
            runtime: Runtime::new().unwrap(),
            images: Images::new(dir.path().join("images")),
            files: Files::new(dir.path().join("files")),
            put: Once::default(),
            s3: OnceLock::new(),
            google: OnceLock::new(),
            azure: OnceLock::new(),
            basic: OnceLock::new(),
            token: OnceLock::new(),
            dvcr: OnceLock::new(),
            layers: Mutex::default(),
            checked: Once::default(),
            paths: AtomicU64::new(0),
            dir,
        }
    }

    pub(crate) fn image(&self, format: Format) -> Image {
        self.images.get(format)
    }

    pub(crate) fn file(&self, format: Format, wrapping: Wrapping) -> PathBuf {
        self.files.get(&self.images, format, wrapping)
    }

    pub(crate) fn store(&self, kind: Kind) -> &Store {
        let place = match kind {
            Kind::S3 => &self.s3,
            Kind::Google => &self.google,
            Kind::Azure => &self.azure,
        };
        place.get_or_init(|| Store::start(kind))
    }

    pub(crate) fn peer(&self, login: Login) -> &Peer {
        let place = match login {
            Login::Basic => &self.basic,
            Login::Token => &self.token,
        };
        place.get_or_init(|| Peer::start(login))
    }

    pub(crate) fn dvcr(&self) -> &Dvcr {
        self.dvcr.get_or_init(Dvcr::start)
    }

    /// Where a cell's file is on its server; `put` brings it there for all targets.
    pub(crate) fn put(&self, cell: Cell, put: impl FnOnce() -> String) -> String {
        let key = (cell.source, cell.format, cell.wrapping);
        self.put.get(key, put)
    }

    /// What a cell's file is called on servers.
    pub(crate) fn name(&self, cell: Cell) -> String {
        format!("{:?}-{:?}-{:?}", cell.source, cell.format, cell.wrapping).to_lowercase()
    }

    /// A path where nothing is.
    pub(crate) fn new_path(&self, name: &str) -> PathBuf {
        let number = self.paths.fetch_add(1, Ordering::Relaxed);
        self.dir.path().join(format!("{name}-{number}"))
    }

    /// Runs `dvcr-importer`.
    pub(crate) fn importer(&self, served: &Served, args: &[&str]) -> Finished {
        let program = env!("CARGO_BIN_EXE_dvcr-importer");
        let mut command = match &served.input {
            // A pipe: the program must not be able to seek.
            Some(input) => {
                let mut shell = Command::new("sh");
                let script = "cat \"$0\" | \"$@\"";
                shell.args(["-c", script, text(input), program]);
                shell
            }
            None => Command::new(program),
        };
        command
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path())
            .env("TMPDIR", self.dir.path())
            .envs(served.variables.iter().map(|(name, value)| (name, value)));
        run(command, LIMIT)
    }

    /// Runs `dvcr-importer`, which must succeed.
    pub(crate) fn ok(&self, args: &[&str]) {
        let finished = self.importer(&Served::default(), args);
        assert!(finished.success, "{args:?}: {}", finished.log);
    }
}

/// A directory that is there as long as this value.
pub(crate) struct Directory(pub(crate) PathBuf);

impl Directory {
    pub(crate) fn new(place: &Place) -> Self {
        let path = place.new_path("target");
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
