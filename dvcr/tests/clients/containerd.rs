//! containerd, what Kubernetes nodes pull with, driven by `ctr`.

use crate::{
    image::Image,
    site::{Engine, Site, succeed},
    support::random::Random,
};

/// Starts a containerd that touches nothing outside the site.
fn start(site: &Site) -> Engine {
    let [root, state, socket, ttrpc] =
        ["root", "state", "sock", "ttrpc"].map(|name| site.file(name));
    // The CRI plugin wants a network setup; `ctr` does without.
    let config = format!(
        "version = 2\nroot = {root:?}\nstate = {state:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
         [grpc]\naddress = {socket:?}\n[ttrpc]\naddress = {ttrpc:?}\n"
    );
    let config = site.write("containerd.toml", config.as_bytes());
    let ready = || site.command("ctr", &["--address", &socket, "version"]);
    site.engine(site.command("containerd", &["--config", &config]), ready)
}

fn ctr(site: &Site, arguments: &[&str]) -> String {
    let socket = site.file("sock");
    let mut command = site.command("ctr", &["--address", &socket]);
    command.args(arguments);
    succeed(command)
}

#[test]
fn an_image_is_pulled_unpacked_and_pushed_elsewhere() {
    let site = Site::new();
    let image = Image::plain(&mut Random::new(), "amd64");
    image.write_layout(&site.path("in"), "v1");
    let (first, second) = (site.reference("first:v1"), site.reference("second:v1"));
    site.ok("crane", &["push", &site.file("in"), &first]);

    let _engine = start(&site);
    // Unpacking checks every diff id.
    let pull = |reference: &str| {
        let platform = "--platform=linux/amd64";
        ctr(
            &site,
            &[
                "images",
                "pull",
                "--plain-http",
                "--snapshotter=native",
                platform,
                reference,
            ],
        )
    };
    pull(&first);
    for (digest, bytes) in &image.content {
        let socket = site.file("sock");
        let got = site.bytes("ctr", &["--address", &socket, "content", "get", digest]);
        assert!(got == *bytes, "{digest}");
    }
    ctr(&site, &["images", "tag", &first, &second]);
    ctr(&site, &["images", "push", "--plain-http", &second]);
    image.assert_stored(&site, "second", "v1");
    ctr(&site, &["images", "rm", "--sync", &first, &second]);
    pull(&second);
    let list = ctr(&site, &["images", "ls"]);
    assert!(list.contains(image.digest()), "{list}");
}
