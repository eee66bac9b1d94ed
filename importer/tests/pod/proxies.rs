//! Proxies, as the environment names them: tinyproxy, in front of servers with and without TLS.

use std::{fs, net::TcpListener, process::Command, time::Duration};

use crate::{
    container::Container,
    images::Images,
    site::{Manners, Site},
    support::process::{Process, find},
    tls::Authority,
    volume::same_disk,
};

/// It is ready at once; on a machine busy with other tests, a little later.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running proxy, killed when dropped.
struct Proxy {
    process: Process,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Proxy {
    fn start(more: &str) -> Self {
        let program =
            find("tinyproxy").expect("tinyproxy is not installed: run tools/install.sh clients");
        // It takes no port 0: one that was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let dir = tempfile::tempdir().unwrap();
        let (config, hosts) = (dir.path().join("config"), dir.path().join("hosts"));
        let text = format!(
            "Port {port}\nListen 127.0.0.1\nAllow 127.0.0.1\nLogLevel Info\nMaxClients 50\n{more}\n"
        );
        fs::write(&config, text).unwrap();
        fs::write(&hosts, "127.0.0.1 localhost files.test\n").unwrap();
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg("mount --bind \"$2\" /etc/hosts && exec \"$0\" -d -c \"$1\"")
            .args([&program, &config, &hosts]);
        let mut process = Process::start(command);
        process.wait_for(START_LIMIT, |_| {
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Self {
            process,
            port,
            _dir: dir,
        }
    }

    fn url(&self, user: &str) -> String {
        format!("http://{user}127.0.0.1:{}", self.port)
    }

    /// Whether it was asked for something like this.
    fn was_asked(&self, what: &str) -> bool {
        self.process.log().contains(what)
    }
}

#[test]
fn proxies() {
    let images = Images::new(31);
    let site = Site::new(images.qcow2(), Manners::default());
    let address = site.url["http://".len()..].trim_end_matches("/disk.img");
    let port = address.rsplit(':').next().unwrap();
    let plain = format!("http://files.test:{port}/disk.img");
    let authority = Authority::new();
    let front = authority.front(address);
    let secure = format!("https://{}/disk.img", front.at("files.test"));
    let fetch = |endpoint: &str, proxies: &[(&str, &str)]| {
        let container = Container::new().secret("very-secret");
        container.file("certs/ca.crt", authority.pem());
        let source = [
            ("IMPORTER_ENDPOINT", endpoint),
            ("IMPORTER_CERT_DIR", "/certs"),
        ];
        let ended = container.run(&[&source, proxies].concat());
        if ended.code == Some(0) {
            same_disk("raw", &container.path("data/disk.img"), &images.raw());
        }
        ended
    };

    let open = Proxy::start("");
    let url = open.url("");
    let both = [("http_proxy", url.as_str()), ("https_proxy", url.as_str())];
    let without = [&both[..], &[("no_proxy", "localhost,.test")]].concat();
    for (endpoint, asked) in [
        (&plain, "GET http://files.test"),
        (&secure, "CONNECT files.test"),
    ] {
        fetch(endpoint, &without).done();
        assert!(!open.was_asked(asked), "{}", open.process.log());
        fetch(endpoint, &both).done();
        assert!(open.was_asked(asked), "{}", open.process.log());
    }

    let closed = Proxy::start("BasicAuth me very-secret");
    let good = closed.url("me:very-secret@");
    for (endpoint, variable) in [(&plain, "http_proxy"), (&secure, "https_proxy")] {
        fetch(endpoint, &[(variable, &good)]).done();
        let ended = fetch(endpoint, &[(variable, &closed.url(""))]);
        ended.failed("the proxy wants a user and a password");
    }
    // Registries are asked by way of a proxy, too; but not those on this machine. (What answers is none.)
    let container = Container::new().trusting(&authority);
    for (host, asked) in [(front.at("files.test"), true), (address.to_owned(), false)] {
        let image = format!("{host}/vi/disk:1");
        let before = open.process.log().len();
        let ended = container.command(&both, &["inspect", &image]);
        assert_ne!(ended.code, Some(0));
        let log = open.process.log().split_off(before);
        assert_eq!(log.contains(&host), asked, "{image}: {log}");
    }
}
