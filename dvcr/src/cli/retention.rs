//! `dvcr retention`.

use std::{io::Read as _, path::PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use dvcr_openapi::{RetentionItem, RetentionPlanRequest, RetentionRules, all};

use super::{ServerArgs, repository, table};
use crate::{
    registry::{glob::RepositoryGlob, retention::RetentionSet},
    settings::read_toml,
};

pub(super) const EXAMPLES: &str = "Examples:
  dvcr retention rules                              the rules in force, as TOML
  dvcr retention test                               what the next round keeps and removes, and by which rule
  dvcr retention test --repository 'vi/**' --rules new.toml
                                                    what rules would do that are not in force yet

docs/retention.md says what rules mean. Nothing of this changes anything.";

/// What to do about tags that are held.
const HELD: &str =
    "held: a round removes at most half of ten or more tags of a repository, and never all that it has.
If they are to go, let them go once with `dvcr gc run --force`, or always with `allow_mass_removal = true` in the rule.";

/// Longest file of rules, as of settings.
const FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Args)]
pub(super) struct RetentionArgs {
    #[command(subcommand)]
    command: RetentionCommand,
}

#[derive(Debug, Subcommand)]
enum RetentionCommand {
    /// Show the rules in force.
    Rules {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show for each tag, and each manifest that nothing needs, whether it stays and why.
    Test {
        /// Only repositories that this glob fits.
        #[arg(long, value_name = "GLOB", value_parser = repository::<RepositoryGlob>)]
        repository: Option<RepositoryGlob>,
        /// A TOML file with [[retention]] and [[immutable]] to try instead of the rules in force. A whole settings file will do.
        #[arg(long, value_name = "FILE")]
        rules: Option<PathBuf>,
        /// Only what would go, or is held.
        #[arg(long)]
        removed: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
}

pub(super) async fn run(args: RetentionArgs) -> anyhow::Result<()> {
    match args.command {
        RetentionCommand::Rules { server } => rules(&server).await,
        RetentionCommand::Test {
            repository,
            rules,
            removed,
            server,
        } => {
            let rules = rules.map(|path| read(&path)).transpose()?;
            let repository = repository.map(String::from);
            let request = RetentionPlanRequest { repository, rules };
            test(&server, &request, removed).await
        }
    }
}

async fn rules(server: &ServerArgs) -> anyhow::Result<()> {
    let rules = server.client()?.retention_rules().await?;
    if server.json {
        return table::print_json(&rules);
    }
    table::write(&toml::to_string_pretty(&rules).context("write the rules")?)
}

/// The rules of a file; other settings in it do not matter here.
fn read(path: &std::path::Path) -> anyhow::Result<RetentionRules> {
    let context = || format!("read rules from {}", path.display());
    let mut text = String::new();
    std::fs::File::open(path)
        .with_context(context)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .with_context(context)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        bail!("{} is longer than {FILE_BYTES_MAX} bytes", path.display());
    }
    // The server would refuse them as well, but knows no line.
    read_toml::<RetentionSet>(&text)
        .map_err(anyhow::Error::msg)
        .with_context(context)?;
    let rules: RetentionRules = read_toml(&text)
        .map_err(anyhow::Error::msg)
        .with_context(context)?;
    if rules == RetentionRules::default() {
        bail!(
            "{} has neither [[retention]] nor [[immutable]]: with it nothing would go",
            path.display()
        );
    }
    Ok(rules)
}

async fn test(
    server: &ServerArgs,
    request: &RetentionPlanRequest,
    removed: bool,
) -> anyhow::Result<()> {
    let client = server.client()?;
    let mut items = all(async |page| client.retention_plan(request, &page).await).await?;
    let held = items.iter().filter(|item| item.held).count();
    let gone = items.iter().filter(|item| !item.kept).count();
    let kept = items.len() - held - gone;
    items.retain(|item| !removed || !item.kept || item.held);
    if server.json {
        return table::print_json(&items);
    }
    let mut rows = table::table(&["REPOSITORY", "TAG", "VERDICT", "SINCE", "REASON"]);
    rows.add_rows(items.iter().map(row));
    table::print(&rows)?;
    println!("{kept} stay, {gone} go");
    if held > 0 {
        println!("{held} {HELD}");
    }
    Ok(())
}

fn row(item: &RetentionItem) -> [String; 5] {
    let RetentionItem {
        repository,
        tag,
        digest,
        since,
        kept,
        held,
        due_at,
        rule: _,
        reason,
    } = item;
    let verdict = match (kept, due_at) {
        _ if *held => "held".to_owned(),
        (true, None) => "stays".to_owned(),
        (true, Some(due)) => format!("stays until {due}"),
        (false, _) => "goes".to_owned(),
    };
    let name = tag.clone().unwrap_or_else(|| format!("@{digest}"));
    [
        repository.clone(),
        name,
        verdict,
        since.to_string(),
        reason.clone(),
    ]
}
