//! Files in an object store: a real S3 server, asked with keys, with wrong ones, and without.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    env, fs,
    io::Read,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use dvcr_importer::source::{
    ReadAt, Remote, RemoteOptions,
    object::{Object, ObjectOptions},
    retry::{RetryPolicy, SourceError},
};
use support::Random;
use tokio::runtime::Runtime;

/// A server that is not ready after this long has failed; Python on a busy machine needs some seconds.
const START_LIMIT: Duration = Duration::from_secs(90);

/// An S3 server, killed when dropped.
struct S3 {
    child: Child,
    endpoint: String,
    _dir: tempfile::TempDir,
}

impl S3 {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let tools = env::var_os("DVCR_TOOLS_DIR")
            .map(PathBuf::from)
            .or_else(|| {
                let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
                let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".cache"));
                Some(cache.or_else(home)?.join("dvcr-tools"))
            });
        let program = tools.unwrap().join("bin/moto_server");
        let child = Command::new(&program)
            .args(["-H", "127.0.0.1", "-p", "0"])
            .stdin(Stdio::null())
            .stdout(fs::File::create(&log).unwrap())
            .stderr(fs::File::options().append(true).open(&log).unwrap())
            .spawn()
            .unwrap_or_else(|error| {
                let program = program.display();
                panic!(
                    "{program}: {error}; `tools/install.sh clients` installs what the tests need"
                )
            });
        let mut server = Self {
            child,
            endpoint: String::new(),
            _dir: dir,
        };
        let deadline = Instant::now() + START_LIMIT;
        while server.endpoint.is_empty() {
            let log = fs::read_to_string(&log).unwrap();
            if let Some(at) = log.find("http://127.0.0.1:") {
                let url: String = log[at..]
                    .chars()
                    .take_while(|c| !c.is_whitespace())
                    .collect();
                server.endpoint = url;
            }
            assert!(
                Instant::now() < deadline,
                "the S3 server does not start: {log}"
            );
            thread::sleep(Duration::from_millis(50));
        }
        server
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn s3() {
    let server = S3::start();
    let runtime = Runtime::new().unwrap();
    let file = Random::new(5).bytes((9 << 20) + 77);
    let put = |key: &str, bytes: Vec<u8>, public: bool| {
        runtime.block_on(async {
            let http = reqwest::Client::new();
            let bucket = format!("{}/bucket", server.endpoint);
            http.put(&bucket).send().await.unwrap();
            let mut put = http.put(format!("{bucket}/{key}")).body(bytes);
            put = if public {
                put.header("x-amz-acl", "public-read")
            } else {
                // Who owns an object may replace it. The server looks no closer.
                let key = "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, \
                           SignedHeaders=host, Signature=0";
                put.header("authorization", key)
            };
            let status = put.send().await.unwrap().status();
            assert!(status.is_success(), "{status}");
        });
    };
    let options = |keys: Option<(&str, &str)>| ObjectOptions {
        keys: keys.map(|(key, secret)| (key.to_owned(), secret.to_owned())),
        endpoint: Some(format!("{}/", server.endpoint)),
        anonymous: keys.is_none(),
        ..ObjectOptions::default()
    };
    let open = |url: &str, options: &ObjectOptions| {
        let object = Object::new(&url.parse().unwrap(), options).unwrap();
        let remote = RemoteOptions {
            retry: RetryPolicy {
                first: Duration::from_millis(1),
                longest: Duration::from_millis(4),
                budget: Duration::from_millis(40),
                budget_at_start: Duration::from_millis(10),
            },
            ..RemoteOptions::default()
        };
        Remote::open(Arc::new(object), runtime.handle().clone(), remote)
    };
    let with_keys = options(Some(("key", "secret")));

    put("a%20b/disk.img", file.clone(), false);
    let remote = open("s3://bucket/a%20b/disk.img", &with_keys).unwrap();
    assert_eq!(remote.length(), Some(file.len() as u64));
    let mut found = vec![];
    let mut stream = remote.stream(0, blake3::Hasher::new());
    stream.read_to_end(&mut found).unwrap();
    assert!(found == file);
    let ranged = remote.ranged().unwrap();
    let mut random = Random::new(9);
    for _ in 0..20 {
        let at = random.below(file.len() as u64) as usize;
        let mut buf = vec![0; (random.below(2 << 20) as usize).min(file.len() - at)];
        ranged.read_at(at as u64, &mut buf).unwrap();
        assert!(buf == file[at..at + buf.len()]);
    }

    // Another file in its place is not mixed with the first.
    let mut changed = file.clone();
    changed[0] ^= 1;
    put("a%20b/disk.img", changed, false);
    let fresh = remote.ranged().unwrap();
    let error = fresh.read_at(5 << 20, &mut [0; 10]).unwrap_err();
    assert!(error.to_string().contains("changed"), "{error}");

    put("public.img", file.clone(), true);
    let remote = open("s3://bucket/public.img", &options(None)).unwrap();
    let mut buf = [0; 100];
    remote.ranged().unwrap().read_at(1000, &mut buf).unwrap();
    assert_eq!(buf, file[1000..1100]);

    for (url, what) in [
        ("s3://bucket/nothing.img", "no such file"),
        ("s3://nothing/disk.img", "no such file"),
    ] {
        let error = open(url, &with_keys).unwrap_err();
        let SourceError::Final(text) = &error else {
            panic!("{error:?}");
        };
        assert!(text.contains(what), "{text}");
    }
}
