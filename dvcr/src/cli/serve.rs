//! `dvcr serve`.

use anyhow::Context as _;

use super::SettingsArgs;
use crate::{logging, serve::serve};

pub(super) const EXAMPLES: &str = "Examples:
  dvcr serve
      Data in ./dvcr-data, http://127.0.0.1:5000, for clients on this machine.

  dvcr serve --data /srv/dvcr --listen 0.0.0.0:5000 --allow-anonymous everyone-may-read-and-write
      For everyone who reaches the machine. Without those words it refuses to listen beyond loopback.

  dvcr serve --tls-certificate tls.crt --tls-key tls.key
      HTTPS. Changed files are taken within ten seconds, or at once on SIGHUP.

  dvcr serve --config dvcr.toml --set limits.requests=200 --set drain=10s
      Settings from a file, some of them replaced.

/healthz says that the process lives, /readyz that it can answer, /metrics what it does.
SIGTERM lets running requests finish; a second one stops at once.";

pub(super) fn run(args: SettingsArgs) -> anyhow::Result<()> {
    let settings = args.load()?;
    logging::init(&settings.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start worker threads")?;
    runtime.block_on(serve(settings))
}
