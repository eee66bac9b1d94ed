//! Files on servers.

use std::sync::Arc;

use blake3::Hasher;

use super::{Import, ImportError, Imported, Nature, Phase, Way};
use crate::{
    input::{Input, Located},
    kept::{Limit, Received, WorkDir},
    source::{ReadAt as _, Remote, RemoteOptions, fetch::Fetch},
};

/// Where a file is kept as it is received.
const RECEIVED: &str = "received";

impl Import<'_> {
    pub(super) fn server(
        &self,
        fetch: Arc<dyn Fetch>,
        dir: &WorkDir,
    ) -> Result<Imported, ImportError> {
        self.progress.begin(Phase::Open, None);
        let address = fetch.address();
        let failed = |error| ImportError::source(&address, error);
        let options = RemoteOptions {
            received: self.progress.received.clone(),
            ..self.options.remote.clone()
        };
        let remote = Remote::open(fetch, self.runtime.clone(), options).map_err(failed)?;
        let in_dir = |error| ImportError::WorkDir {
            path: dir.path().to_owned(),
            error,
        };
        dir.keep_only(&address, remote.version()).map_err(in_dir)?;
        let ranged = remote.ranged();
        let nature = Nature::Server {
            ranges: ranged.is_some(),
        };
        let way = Way::of(nature, self.wish());
        if let (Way::AtRandom, Some(ranged)) = (way, ranged) {
            let len = ranged.len();
            if let Located::Disk(input) = Input::at_random(Arc::new(ranged), self.member())? {
                return self.at_random(&input.image, len, dir.path());
            }
        }
        let len = remote.length();
        let (Way::Receive { kept: true } | Way::AtRandom, Some(total)) = (way, len) else {
            let stream = remote.stream(0, Hasher::new());
            return self.stream(stream, len, dir.path(), None);
        };
        let path = dir.path().join(RECEIVED);
        let limit = Limit::Fail(self.options.work_bytes_max);
        let kept = Received::open(Arc::new(remote), &path, total, limit);
        self.stream(kept.map_err(in_dir)?, len, dir.path(), Some(&path))
    }
}
