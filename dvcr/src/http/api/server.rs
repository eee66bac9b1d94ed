//! The server itself.

use std::{io, path::Path};

use axum::Json;
use dvcr_openapi::{ServerInfo, SettingsInForce, StorageInfo, Timestamp};
use serde_json::{Map, Value};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{extract::Call, problem::Failure};
use crate::{
    data_dir::DATA_FORMAT,
    http::{App, error::RequestError},
};

/// How the names of settings end that nobody is told.
const SECRET: [&str; 4] = ["password", "secret", "token", "credentials"];

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_server))
        .routes(routes!(get_settings))
}

/// What the server is, and where it stores.
#[utoipa::path(
    get, path = "/api/v1/server", tag = "server",
    responses((status = 200, description = "The server", body = ServerInfo)),
)]
async fn get_server(call: Call) -> Result<Json<ServerInfo>, Failure> {
    call.registry.may_administer(&call.who)?;
    let now = call.registry.now_ms();
    let facts = &call.facts;
    let storage = match facts.data.clone() {
        Some(data) => {
            let reserve_bytes = facts.reserve_bytes;
            // A file system may take its time.
            let asked = tokio::task::spawn_blocking(move || storage(&data, reserve_bytes)).await;
            let told = asked.map_err(io::Error::other).flatten();
            Some(told.map_err(|error| {
                RequestError::Internal(format!("ask how much space is free: {error}"))
            })?)
        }
        None => None,
    };
    Ok(Json(ServerInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        data_format: DATA_FORMAT,
        started_at: Timestamp(facts.started_ms),
        uptime_seconds: now.saturating_sub(facts.started_ms) / 1000,
        now: Timestamp(now),
        storage,
    }))
}

fn storage(data: &Path, reserve_bytes: u64) -> io::Result<StorageInfo> {
    let found = rustix::fs::statvfs(data)?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok(StorageInfo {
        directory: data.display().to_string(),
        total_bytes: bytes(found.f_blocks),
        free_bytes: bytes(found.f_bavail),
        reserve_bytes,
    })
}

/// The settings in force, with what is secret left out.
#[utoipa::path(
    get, path = "/api/v1/settings", tag = "server",
    responses((status = 200, description = "The settings", body = SettingsInForce)),
)]
async fn get_settings(call: Call) -> Result<Json<SettingsInForce>, Failure> {
    call.registry.may_administer(&call.who)?;
    let mut settings = call.facts.settings.clone();
    redact(&mut settings);
    Ok(Json(SettingsInForce { settings }))
}

fn redact(table: &mut Map<String, Value>) {
    for (key, value) in table {
        if SECRET.iter().any(|end| key.ends_with(end)) {
            *value = Value::from("(redacted)");
            continue;
        }
        match value {
            Value::Object(table) => redact(table),
            Value::Array(items) => items
                .iter_mut()
                .filter_map(Value::as_object_mut)
                .for_each(redact),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_told() {
        let Value::Object(mut settings) = serde_json::json!({
            "listen": "127.0.0.1:0",
            "s3": {"endpoint": "x", "access_secret": "s", "users": [{"password": "p", "name": "n"}]},
            "token": {"nested": "t"},
            "tls": {"key": "/etc/tls.key"},
        }) else {
            panic!("an object is an object");
        };
        redact(&mut settings);
        assert_eq!(
            Value::Object(settings),
            serde_json::json!({
                "listen": "127.0.0.1:0",
                "s3": {"endpoint": "x", "access_secret": "(redacted)", "users": [{"password": "(redacted)", "name": "n"}]},
                "token": "(redacted)",
                "tls": {"key": "/etc/tls.key"},
            })
        );
    }
}
