//! Stores, data and manifests to test with.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use mlwm_spec::manifest::{MANIFEST_VERSION, Manifest, NamedDigest, ObjectRecord, RunRecord};
use mlwm_spec::{AnalysisTime, Digest};
use mlwm_storage::{
    Error, GcsAccess, Options, Progress, Published, S3Access, Scheme, Staged, Store, Uri,
};
use mlwm_tests::gcs::GcsServer;
use mlwm_tests::s3::{Key, S3Server};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub(crate) static GARAGE: LazyLock<S3Server> = LazyLock::new(S3Server::garage);
pub(crate) static MOTO: LazyLock<S3Server> = LazyLock::new(S3Server::moto);
pub(crate) static GCS: LazyLock<GcsServer> = LazyLock::new(GcsServer::start);

/// Short, so that the tests are.
pub(crate) const WATCH: Duration = Duration::from_millis(100);

/// A place to publish to and stage from.
pub(crate) struct Place {
    pub(crate) store: Store,
    pub(crate) uri: Uri,
    /// What the store was opened with.
    pub(crate) options: Options,
    /// The folder of a `file://` place.
    pub(crate) folder: Option<TempDir>,
}

impl Place {
    pub(crate) async fn file() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let uri: Uri = folder
            .path()
            .join("forecasts/out.zarr")
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        let options = Options {
            watch: WATCH,
            ..Options::default()
        };
        let store = Store::open_with(&uri, options.clone()).await.unwrap();
        Self {
            store,
            uri,
            options,
            folder: Some(folder),
        }
    }

    pub(crate) async fn s3(server: &S3Server, bucket: &str) -> Self {
        server.bucket(bucket);
        Self::at(&server.endpoint, server.region, &server.key, bucket).await
    }

    pub(crate) async fn at(endpoint: &str, region: &str, key: &Key, bucket: &str) -> Self {
        let uri: Uri = format!("s3://{bucket}/forecasts/out.zarr").parse().unwrap();
        let access = S3Access::with_key(endpoint, region, &key.id, &key.secret).unwrap();
        let options = Options {
            s3: Some(access),
            stall: Duration::from_secs(2),
            retry_for: Duration::from_secs(4),
            watch: WATCH,
            ..Options::default()
        };
        let store = Store::open_with(&uri, options.clone()).await.unwrap();
        Self {
            store,
            uri,
            options,
            folder: None,
        }
    }

    pub(crate) async fn gcs(endpoint: &str, bucket: &str) -> Self {
        let uri: Uri = format!("gs://{bucket}/forecasts/out.zarr").parse().unwrap();
        let options = Options {
            gcs: Some(GcsAccess::emulator(endpoint).unwrap()),
            stall: Duration::from_secs(2),
            retry_for: Duration::from_secs(4),
            watch: WATCH,
            ..Options::default()
        };
        let store = Store::open_with(&uri, options.clone()).await.unwrap();
        Self {
            store,
            uri,
            options,
            folder: None,
        }
    }

    /// One of each kind; `name` is part of the bucket's.
    pub(crate) async fn all(name: &str) -> Vec<Self> {
        vec![
            Self::file().await,
            Self::s3(&GARAGE, &format!("garage-{name}")).await,
            Self::s3(&MOTO, &format!("moto-{name}")).await,
            Self::gcs(&GCS.endpoint, &GCS.bucket(&format!("gcs-{name}"))).await,
        ]
    }

    pub(crate) async fn publish(&self, local: &Path, task: Digest) -> Result<Published, Error> {
        self.publish_until(local, task, &CancellationToken::new())
            .await
    }

    pub(crate) async fn publish_until(
        &self,
        local: &Path,
        task: Digest,
        cancel: &CancellationToken,
    ) -> Result<Published, Error> {
        let make = |objects| manifest(task, &self.uri, objects);
        self.store
            .publish(
                local.into(),
                &self.uri,
                task,
                make,
                &Progress::none(),
                cancel,
            )
            .await
    }

    pub(crate) async fn republish(
        &self,
        local: &Path,
        task: Digest,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<Published, Error> {
        let make = |objects| manifest(task, &self.uri, objects);
        self.store
            .republish(local.into(), &self.uri, task, make, progress, cancel)
            .await
    }

    pub(crate) async fn stage(&self, dest: &Path) -> Result<Staged, Error> {
        let cancel = CancellationToken::new();
        self.store
            .stage(&self.uri, dest, &Progress::none(), &cancel)
            .await
    }

    pub(crate) async fn verify(&self) -> Result<mlwm_storage::Verified, Error> {
        self.store
            .verify(&self.uri, &Progress::none(), &CancellationToken::new())
            .await
    }

    /// Puts one object at `name` below the URI with the tools of the store itself.
    pub(crate) async fn plant(&self, name: &str, content: &[u8]) {
        self.plant_at(&format!("/{name}"), content).await;
    }

    /// Puts one object at the URI with `suffix`, with the tools of the store itself.
    pub(crate) async fn plant_at(&self, suffix: &str, content: &[u8]) {
        use object_store::ObjectStoreExt;
        let key = format!("forecasts/out.zarr{suffix}");
        if let Some(folder) = &self.folder {
            let path = folder.path().join(key);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        } else if let Some(server) = self.server() {
            let key = object_store::path::Path::parse(key).unwrap();
            let client = client(server, self.bucket());
            client.put(&key, content.to_vec().into()).await.unwrap();
        } else {
            // The emulator takes what Google calls the XML interface, too.
            let url = format!("{}/{}/{key}", GCS.endpoint, self.bucket());
            let put = reqwest::Client::new().put(url).body(content.to_vec());
            assert!(put.send().await.unwrap().status().is_success());
        }
    }

    /// The S3 server behind it.
    pub(crate) fn server(&self) -> Option<&'static S3Server> {
        match self.uri.scheme() {
            Scheme::S3 if self.bucket().starts_with("moto") => Some(&*MOTO),
            Scheme::S3 => Some(&*GARAGE),
            _ => None,
        }
    }

    /// The variables for a child process that is to use the same server.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        match self.uri.scheme() {
            Scheme::Gs => GCS.environment(),
            _ => self
                .server()
                .map_or_else(mlwm_tests::s3::bare_environment, S3Server::environment),
        }
    }

    pub(crate) fn bucket(&self) -> &str {
        self.uri.bucket().unwrap()
    }

    /// Whether there is an object named by the URI and this suffix.
    pub(crate) async fn has_sibling(&self, suffix: &str) -> bool {
        self.store
            .get(&self.uri.sibling_suffix(suffix), 1 << 20)
            .await
            .unwrap()
            .is_some()
    }
}

/// A client that is not mlwm's.
pub(crate) fn client(server: &S3Server, bucket: &str) -> object_store::aws::AmazonS3 {
    object_store::aws::AmazonS3Builder::new()
        .with_endpoint(&server.endpoint)
        .with_allow_http(true)
        .with_region(server.region)
        .with_bucket_name(bucket)
        .with_access_key_id(&server.key.id)
        .with_secret_access_key(&server.key.secret)
        .build()
        .unwrap()
}

pub(crate) fn task(name: &str) -> Digest {
    Digest::of(name)
}

pub(crate) fn manifest(task: Digest, uri: &Uri, objects: Vec<ObjectRecord>) -> Manifest {
    let named = |name: &str| NamedDigest {
        name: name.to_owned(),
        digest: Digest::of(name),
    };
    Manifest {
        version: MANIFEST_VERSION,
        task,
        output: "prediction".to_owned(),
        uri: uri.to_string(),
        analysis_time: AnalysisTime::from_unix_seconds(1_649_300_400).unwrap(),
        forecast_duration: None,
        member: 0,
        seed: 7,
        deterministic: false,
        configuration: named("configuration"),
        image: named("image"),
        artifact: None,
        inputs: Vec::new(),
        plan: serde_json::Value::Null,
        grib: None,
        ensemble: None,
        replaces: Vec::new(),
        removed: None,
        run: RunRecord {
            mlwm: "test".to_owned(),
            engine: "none".to_owned(),
            started: "2026-01-01T00:00:00Z".to_owned(),
            finished: "2026-01-01T00:01:00Z".to_owned(),
            host: None,
            gpus: Vec::new(),
        },
        objects,
    }
}

/// A small Zarr-like output: empty and odd names too, and one object of more than one part.
pub(crate) fn output(salt: u8) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: Vec<u8>| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    write("zarr.json", vec![b'{', salt, b'}']);
    write(".zattrs", b"{}".to_vec());
    write("temperature/zarr.json", b"{\"shape\": []}".to_vec());
    write("temperature/c/0/0", noise(u64::from(salt), 20_000_003));
    write("temperature/c/0/1", Vec::new());
    write("temperature/c/1 ø%20+&=~#1/0", vec![salt; 17]);
    for index in 0..20 {
        write(
            &format!("wind/c/{index}"),
            noise(index * 3 + u64::from(salt), 5_000),
        );
    }
    folder
}

/// Bytes that look random.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Every file below a folder with its content.
pub(crate) fn tree(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path
                    .strip_prefix(folder)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    files
}
