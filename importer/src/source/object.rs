//! Files in object stores: S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage.

use std::{ops::Range, sync::Arc, time::Duration};

use async_trait::async_trait;
use dvcr_client::{HTTP_1, trust};
use futures::{StreamExt, TryStreamExt};
use object_store::{
    BackoffConfig, ClientOptions, Error, GetOptions, GetRange, ObjectStore, RetryConfig,
    aws::AmazonS3Builder,
    azure::MicrosoftAzureBuilder,
    client::{HttpClient, HttpConnector},
    gcp::GoogleCloudStorageBuilder,
    path::Path,
};
use reqwest::Url;

use super::{
    fetch::{Fetch, FetchError, Opened, Version},
    http::{CONNECT_TIMEOUT, STALL, USER_AGENT, bounded, chain},
};

/// How to talk to an object store. What is not given comes from the environment, as the providers' own tools read it
/// (`AWS_ACCESS_KEY_ID`, `GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_ACCOUNT_NAME` and so on).
#[derive(Clone, Default)]
pub struct ObjectOptions {
    /// Key id and secret key. In Azure: account, which is a part of where files are, and its key, empty if there is none.
    pub keys: Option<(String, String)>,
    /// Ask without credentials. Where there are none in the environment either, that is done in any case.
    pub anonymous: bool,
    /// Address of the service, if it is not the provider's own. Buckets are then part of the path.
    pub endpoint: Option<String>,
    /// Region of an S3 bucket.
    pub region: Option<String>,
    /// JSON of a Google service account.
    pub google_key: Option<String>,
    /// Certificates to trust beside those of the system, PEM bundles.
    pub ca: Vec<Vec<u8>>,
    /// Whether any certificate will do.
    pub insecure: bool,
    /// A connection without a byte for so long is broken.
    pub stall: Option<Duration>,
}

/// Variables that say where credentials for S3 come from.
const S3_CREDENTIALS: [&str; 5] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
];

/// The same for Google.
const GOOGLE_CREDENTIALS: [&str; 4] = [
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
];

/// The same for Azure.
const AZURE_CREDENTIALS: [&str; 5] = [
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_CLIENT_ID",
    "AZURE_STORAGE_TOKEN",
];

/// A file in an object store.
pub struct Object {
    store: Arc<dyn ObjectStore>,
    path: Path,
    address: String,
    host: String,
    stall: Duration,
}

impl Object {
    /// A file at `url`, `s3://`, `gs://` or `az://`; nothing is asked yet. What is wrong with the address or the options is final.
    pub fn new(url: &Url, options: &ObjectOptions) -> Result<Self, FetchError> {
        let wrong = |error: &dyn std::error::Error| FetchError::Final(chain(error));
        let bucket = url.host_str().unwrap_or_default();
        let path = Path::from_url_path(url.path()).map_err(|error| wrong(&error))?;
        let stall = options.stall.unwrap_or(STALL);
        let client = Connect {
            options: client(options, stall),
            trusting: Trusting::new(options, stall)?,
        };
        let store: Result<Arc<dyn ObjectStore>, Error> = match url.scheme() {
            "s3" => s3(bucket, options, client).map(|store| Arc::new(store) as _),
            "gs" => google(bucket, options, client).map(|store| Arc::new(store) as _),
            "az" => azure(bucket, options, client).map(|store| Arc::new(store) as _),
            other => {
                let reason = format!("{other}:// is no object store");
                return Err(FetchError::Final(reason));
            }
        };
        let store = store.map_err(|error| wrong(&error))?;
        Ok(Self {
            store,
            path,
            address: format!("{}://{bucket}{}", url.scheme(), url.path()),
            host: format!("{}://{bucket}", url.scheme()),
            stall,
        })
    }
}

fn client(options: &ObjectOptions, stall: Duration) -> ClientOptions {
    let plain = options.endpoint.as_deref().is_some_and(is_plain);
    ClientOptions::new()
        // A whole disk may come in one request: only a stall is too long.
        .with_timeout_disabled()
        .with_read_timeout(stall)
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_allow_http(plain)
        // A slim container has none, which is no reason to fail where none are needed.
        .with_no_system_certificates(plain)
        .with_allow_invalid_certificates(options.insecure)
}

/// Connections to servers that certificates vouch for which somebody names. The store's own options trust authorities only.
#[derive(Debug)]
struct Trusting(reqwest::Client);

impl Trusting {
    /// `None` if nothing is to be trusted beside the system's authorities.
    fn new(options: &ObjectOptions, stall: Duration) -> Result<Option<Self>, FetchError> {
        if options.ca.is_empty() || options.insecure {
            return Ok(None);
        }
        let builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .http1_only()
            .read_timeout(stall)
            .connect_timeout(CONNECT_TIMEOUT);
        let client = trust(builder, &options.ca, HTTP_1)
            .map_err(|error| FetchError::Final(error.to_string()))?
            .build()
            .map_err(|error| FetchError::Final(chain(&error)))?;
        Ok(Some(Self(client)))
    }
}

impl HttpConnector for Trusting {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

/// How a store is connected to.
struct Connect {
    options: ClientOptions,
    trusting: Option<Trusting>,
}

fn is_plain(endpoint: &str) -> bool {
    endpoint.starts_with("http://")
}

/// Failures are counted in one place, ours; this is for the requests that get credentials.
fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: 1,
        retry_timeout: Duration::from_secs(30),
    }
}

fn none_of(variables: &[&str]) -> bool {
    !variables
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

fn s3(bucket: &str, options: &ObjectOptions, client: Connect) -> Result<impl ObjectStore, Error> {
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_client_options(client.options)
        .with_retry(retry());
    if let Some(endpoint) = &options.endpoint {
        // Buckets in host names need names in a DNS that few own services have.
        builder = builder
            .with_endpoint(endpoint.trim_end_matches('/'))
            .with_virtual_hosted_style_request(false)
            .with_allow_http(is_plain(endpoint));
    }
    if let Some(trusting) = client.trusting {
        builder = builder.with_http_connector(trusting);
    }
    if let Some(region) = &options.region {
        builder = builder.with_region(region);
    }
    if let Some((key, secret)) = &options.keys {
        builder = builder
            .with_access_key_id(key)
            .with_secret_access_key(secret);
    }
    let anonymous = options.anonymous || options.keys.is_none() && none_of(&S3_CREDENTIALS);
    builder.with_skip_signature(anonymous).build()
}

fn google(
    bucket: &str,
    options: &ObjectOptions,
    client: Connect,
) -> Result<impl ObjectStore, Error> {
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(bucket)
        .with_client_options(client.options)
        .with_retry(retry());
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_base_url(endpoint.trim_end_matches('/'));
    }
    if let Some(trusting) = client.trusting {
        builder = builder.with_http_connector(trusting);
    }
    if let Some(key) = &options.google_key {
        builder = builder.with_service_account_key(key);
    }
    let none = options.google_key.is_none() && none_of(&GOOGLE_CREDENTIALS);
    builder
        .with_skip_signature(options.anonymous || none)
        .build()
}

fn azure(
    container: &str,
    options: &ObjectOptions,
    client: Connect,
) -> Result<impl ObjectStore, Error> {
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_container_name(container)
        .with_client_options(client.options)
        .with_retry(retry());
    if let Some(endpoint) = &options.endpoint {
        builder = builder
            .with_endpoint(endpoint.trim_end_matches('/').to_owned())
            .with_allow_http(is_plain(endpoint));
    }
    if let Some(trusting) = client.trusting {
        builder = builder.with_http_connector(trusting);
    }
    let mut has_key = false;
    if let Some((account, key)) = &options.keys {
        builder = builder.with_account(account);
        has_key = !key.is_empty();
        if has_key {
            builder = builder.with_access_key(key);
        }
    }
    let none = !has_key && none_of(&AZURE_CREDENTIALS);
    builder
        .with_skip_signature(options.anonymous || none)
        .build()
}

#[async_trait]
impl Fetch for Object {
    async fn open(
        &self,
        range: Range<u64>,
        version: Option<&Version>,
    ) -> Result<Opened, FetchError> {
        let start = range.start;
        let options = GetOptions {
            if_match: version.and_then(|version| version.etag.clone()),
            range: Some(match range.end {
                u64::MAX => GetRange::Offset(start),
                _ => GetRange::Bounded(range),
            }),
            ..GetOptions::default()
        };
        let asking = self.store.get_opts(&self.path, options);
        let answer = tokio::time::timeout(self.stall, asking)
            .await
            .map_err(|_| FetchError::again(format!("no answer for {} s", self.stall.as_secs())))?
            .map_err(failed)?;
        let found = Version {
            len: Some(answer.meta.size),
            etag: answer.meta.e_tag.clone(),
            modified: Some(answer.meta.last_modified.to_rfc2822()),
            host: self.host.clone(),
        };
        if version.is_some_and(|version| !version.same(&found)) {
            return Err(changed());
        }
        if answer.range.start != start {
            let reason = "the server sends another part than it was asked for";
            return Err(FetchError::Final(reason.to_owned()));
        }
        let len = answer.range.end - answer.range.start;
        let chunks = answer.into_stream().map_err(failed).boxed();
        Ok(Opened {
            start,
            ranges: true,
            version: found,
            body: Box::pin(bounded(chunks, self.stall, Some(len))),
        })
    }

    fn address(&self) -> String {
        self.address.clone()
    }
}

fn changed() -> FetchError {
    FetchError::Final("the file was changed while it was read; import it again".to_owned())
}

fn failed(error: Error) -> FetchError {
    let reason = chain(&error);
    let what = match &error {
        Error::NotFound { .. } => "there is no such file, bucket or container: check the address",
        Error::PermissionDenied { .. } => "the store does not allow it",
        Error::Unauthenticated { .. } => {
            "the store does not take these keys; without any, it wants some"
        }
        Error::Precondition { .. } => return changed(),
        Error::InvalidPath { .. } | Error::NotSupported { .. } | Error::NotImplemented { .. } => {
            return FetchError::Final(reason);
        }
        _ if reason.contains("invalid peer certificate") => {
            "name the authority that signed the certificate, if it is one of your own, with --source-ca"
        }
        _ => return FetchError::again(reason),
    };
    FetchError::Final(format!("{what} ({reason})"))
}
