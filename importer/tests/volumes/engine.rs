//! Container engines of a test's own.

use std::{path::PathBuf, process::Command};

use crate::site::{Engine, Site, succeed};

/// The docker engine. It leaves the machine's network alone; registries on loopback are spoken to in plain HTTP.
pub(crate) struct Docker {
    _engine: Engine,
    host: String,
}

impl Docker {
    pub(crate) fn start(site: &Site) -> Self {
        let host = format!("unix://{}", site.file("docker.sock"));
        let mut command = site.command("dockerd", &["--storage-driver=vfs", "--bridge=none"]);
        for (option, name) in [
            ("--data-root", "root"),
            ("--exec-root", "exec"),
            ("--pidfile", "pid"),
        ] {
            command.arg(option).arg(site.path(name));
        }
        command.args(["--host", &host, "--iptables=false", "--ip6tables=false"]);
        command.args(["--ip-forward=false", "--ip-masq=false"]);
        let engine = site.engine(command, || Self::command(site, &host, &["version"]));
        Self {
            _engine: engine,
            host,
        }
    }

    fn command(site: &Site, host: &str, arguments: &[&str]) -> Command {
        let mut command = site.command("docker", arguments);
        command.env("DOCKER_HOST", host).env("DOCKER_BUILDKIT", "0");
        command
    }

    /// Runs the client; what it said.
    pub(crate) fn ok(&self, site: &Site, arguments: &[&str]) -> String {
        succeed(Self::command(site, &self.host, arguments))
    }

    /// Builds a directory and pushes the image.
    pub(crate) fn build_and_push(&self, site: &Site, context: &str, reference: &str) {
        let context = site.file(context);
        self.ok(
            site,
            &[
                "build",
                "--quiet",
                "--network=none",
                "--tag",
                reference,
                &context,
            ],
        );
        self.ok(site, &["push", reference]);
    }
}

/// containerd, what Kubernetes nodes pull with.
pub(crate) struct Containerd {
    _engine: Engine,
    socket: String,
}

impl Containerd {
    pub(crate) fn start(site: &Site) -> Self {
        let [root, state, socket, ttrpc] =
            ["containerd", "state", "sock", "ttrpc"].map(|name| site.file(name));
        let config = format!(
            "version = 2\nroot = {root:?}\nstate = {state:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {socket:?}\n[ttrpc]\naddress = {ttrpc:?}\n"
        );
        let config = site.write("containerd.toml", config.as_bytes());
        let ready = || site.command("ctr", &["--address", &socket, "version"]);
        let engine = site.engine(site.command("containerd", &["--config", &config]), ready);
        Self {
            _engine: engine,
            socket,
        }
    }

    fn ok(&self, site: &Site, arguments: &[&str]) -> String {
        let mut command = site.command("ctr", &["--address", &self.socket]);
        command.args(arguments);
        succeed(command)
    }

    /// Pulls an image, which checks its digests, and unpacks it; the directory.
    pub(crate) fn unpack(&self, site: &Site, reference: &str) -> PathBuf {
        let pull = [
            "images",
            "pull",
            "--plain-http",
            "--snapshotter=native",
            "--platform=linux/amd64",
        ];
        self.ok(site, &[&pull[..], &[reference]].concat());
        // The native snapshotter keeps each layer as a directory.
        let snapshots = site.path("containerd/io.containerd.snapshotter.v1.native/snapshots");
        let mut entries = std::fs::read_dir(snapshots).unwrap();
        entries.next().unwrap().unwrap().path()
    }
}
