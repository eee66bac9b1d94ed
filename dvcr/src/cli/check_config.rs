//! `dvcr check-config`.

use std::io::Write as _;

use anyhow::Context as _;

use super::SettingsArgs;

pub(super) const EXAMPLES: &str = "Examples:
  dvcr check-config > dvcr.toml
      A file with every setting and its default, to start from.

  dvcr check-config --config dvcr.toml
      Is the file right, and what would `dvcr serve --config dvcr.toml` use, with DVCR_... variables over it?

Exits with 1 and says what is wrong if the server would not start with these settings.";

pub(super) fn run(args: SettingsArgs) -> anyhow::Result<()> {
    let settings = args.load()?;
    let text = settings.to_toml().context("write settings as TOML")?;
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("print settings")
}
