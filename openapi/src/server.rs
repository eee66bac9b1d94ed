//! The server itself: what it is, where it stores, how it is set.

use reqwest::Method;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Client, Error, Timestamp};

/// What a server is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerInfo {
    /// Version of the program.
    pub version: String,
    /// Version of the layout of its data directory.
    pub data_format: u32,
    /// When it started.
    pub started_at: Timestamp,
    /// How long ago that was.
    pub uptime_seconds: u64,
    /// Its time now.
    pub now: Timestamp,
    /// Where it stores. Null for a server that stores nothing on a device.
    pub storage: Option<StorageInfo>,
}

/// Where a server stores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StorageInfo {
    /// The data directory.
    pub directory: String,
    /// Size of the file system.
    pub total_bytes: u64,
    /// What a server may still write there.
    pub free_bytes: u64,
    /// Of that, what uploads never take.
    pub reserve_bytes: u64,
}

/// The settings in force, as a settings file has them. What is secret reads `(redacted)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SettingsInForce {
    /// Every setting by its key; see docs/settings.md.
    #[schema(value_type = Object)]
    pub settings: serde_json::Map<String, serde_json::Value>,
}

impl Client {
    /// What the server is.
    pub async fn server(&self) -> Result<ServerInfo, Error> {
        self.call(Method::GET, "/api/v1/server").answer().await
    }

    /// The settings in force.
    pub async fn settings(&self) -> Result<SettingsInForce, Error> {
        self.call(Method::GET, "/api/v1/settings").answer().await
    }
}
