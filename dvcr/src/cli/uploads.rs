//! `dvcr uploads`.

use clap::Args;

use super::{ServerArgs, table};

pub(super) const EXAMPLES: &str = "Examples:
  dvcr uploads                      what is on its way, since when, how far it is, and when it is given up
  dvcr uploads --cancel 019aa7c54d1e7a7f8091a2b3c4d5e6f7

What a cancelled upload has sent goes with the next collection of garbage.";

#[derive(Debug, Args)]
pub(super) struct UploadsArgs {
    /// End this upload, whoever began it, instead of listing all.
    #[arg(long, value_name = "ID")]
    cancel: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn run(args: UploadsArgs) -> anyhow::Result<()> {
    let UploadsArgs { cancel, server } = args;
    let client = server.client()?;
    if let Some(id) = cancel {
        client.cancel_upload(&id).await?;
        if server.json {
            return table::print_json(&serde_json::json!({ "cancelled": id }));
        }
        println!("cancelled {id}");
        return Ok(());
    }
    let uploads = dvcr_openapi::all(async |page| client.uploads(&page).await).await?;
    if server.json {
        return table::print_json(&uploads);
    }
    let mut table = table::table(&[
        "ID",
        "REPOSITORY",
        "BY",
        "RECEIVED",
        "NOW",
        "BEGAN",
        "EXPIRES",
    ]);
    table.add_rows(uploads.into_iter().map(|upload| {
        let now = if upload.active { "active" } else { "idle" };
        [
            upload.id,
            upload.repository,
            upload.principal,
            table::bytes(upload.received_bytes),
            now.to_owned(),
            upload.began_at.map_or("?".to_owned(), |at| at.to_string()),
            upload.expires_at.to_string(),
        ]
    }));
    table::align_right(&mut table, 3);
    table::print(&table)
}
