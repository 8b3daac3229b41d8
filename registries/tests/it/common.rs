//! Registries and small artifacts to test with.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use mlwm_artifacts::{BuildRequest, build, prepare};
use mlwm_registries::{PushContent, PushRequest, Registry, RegistryOptions};
use mlwm_spec::Tag;
use mlwm_storage::{GcsAccess, Options, S3Access};
use mlwm_tests::counting_proxy::CountingProxy;
use mlwm_tests::gcs::GcsServer;
use mlwm_tests::registry::Registry as OciServer;
use mlwm_tests::s3::S3Server;
use tempfile::TempDir;

pub(crate) static GARAGE: LazyLock<S3Server> = LazyLock::new(S3Server::garage);
pub(crate) static MOTO: LazyLock<S3Server> = LazyLock::new(S3Server::moto);
pub(crate) static GCS: LazyLock<GcsServer> = LazyLock::new(GcsServer::start);
pub(crate) static OCI: LazyLock<OciServer> = LazyLock::new(OciServer::open);

/// Name of all test artifacts.
pub(crate) const NAME: &str = "tiny-graph-lam";

/// The artifacts of this test process, by what makes their content different.
static BUILT: LazyLock<(TempDir, Mutex<BTreeMap<u32, PathBuf>>)> =
    LazyLock::new(|| (mlwm_tests::scratch::folder(), Mutex::default()));

/// A registry, and what belongs to it.
pub(crate) struct Place {
    pub(crate) uri: String,
    pub(crate) options: RegistryOptions,
    folder: TempDir,
}

impl Place {
    fn new(uri: impl FnOnce(&Path) -> String, storage: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            uri: uri(folder.path()),
            options: RegistryOptions {
                transfers: Some(folder.path().join("transfers")),
                storage: Options {
                    stall: Duration::from_secs(10),
                    retry_for: Duration::from_secs(20),
                    ..storage
                },
                ..RegistryOptions::default()
            },
            folder,
        }
    }

    pub(crate) fn directory() -> Self {
        let uri = |folder: &Path| folder.join("models").to_str().unwrap().to_owned();
        Self::new(uri, Options::default())
    }

    fn s3(server: &S3Server, bucket: &str) -> Self {
        Self::s3_at(&server.endpoint, server, bucket)
    }

    fn s3_at(endpoint: &str, server: &S3Server, bucket: &str) -> Self {
        server.bucket(bucket);
        let key = &server.key;
        let access = S3Access::with_key(endpoint, server.region, &key.id, &key.secret).unwrap();
        let storage = Options {
            s3: Some(access),
            ..Options::default()
        };
        Self::new(|_| format!("s3://{bucket}/models"), storage)
    }

    /// One with conditional writes that is not a folder.
    pub(crate) fn moto(test: &str) -> Self {
        Self::s3(&MOTO, &format!("moto-{test}"))
    }

    fn gcs(bucket: &str) -> Self {
        Self::gcs_at(&GCS.endpoint, bucket)
    }

    fn gcs_at(endpoint: &str, bucket: &str) -> Self {
        GCS.bucket(bucket);
        let storage = Options {
            gcs: Some(GcsAccess::emulator(endpoint).unwrap()),
            ..Options::default()
        };
        Self::new(|_| format!("gs://{bucket}/models"), storage)
    }

    pub(crate) fn oci(path: &str) -> Self {
        Self::oci_at(&OCI.host, path)
    }

    pub(crate) fn oci_at(host: &str, path: &str) -> Self {
        Self::new(|_| format!("oci://{host}/{path}"), Options::default())
    }

    /// One of each kind that has a server, whose requests are counted.
    pub(crate) fn counted(test: &str) -> Vec<(Self, CountingProxy)> {
        let garage = CountingProxy::to(&GARAGE.endpoint);
        let moto = CountingProxy::to(&MOTO.endpoint);
        let gcs = CountingProxy::to(&GCS.endpoint);
        let oci = CountingProxy::to(&OCI.endpoint());
        let host = oci.endpoint["http://".len()..].to_owned();
        vec![
            (
                Self::s3_at(&garage.endpoint, &GARAGE, &format!("garage-{test}")),
                garage,
            ),
            (
                Self::s3_at(&moto.endpoint, &MOTO, &format!("moto-{test}")),
                moto,
            ),
            (Self::gcs_at(&gcs.endpoint, &format!("gcs-{test}")), gcs),
            (Self::oci_at(&host, &format!("oci-{test}")), oci),
        ]
    }

    /// Stores without conditional writes, and what their claims are made with.
    pub(crate) fn claimed(test: &str) -> Vec<Self> {
        vec![
            Self::s3(&GARAGE, &format!("garage-{test}")),
            Self::gcs(&format!("gcs-{test}")),
        ]
    }

    /// One of each kind; `test` is part of their names.
    pub(crate) fn all(test: &str) -> Vec<Self> {
        vec![
            Self::directory(),
            Self::s3(&GARAGE, &format!("garage-{test}")),
            Self::moto(test),
            Self::gcs(&format!("gcs-{test}")),
            Self::oci(&format!("oci-{test}")),
        ]
    }

    pub(crate) async fn open(&self) -> Registry {
        Registry::open(&self.uri, self.options.clone())
            .await
            .unwrap()
    }

    /// The same registry, used by somebody else.
    pub(crate) async fn open_elsewhere(&self, who: &str) -> Registry {
        let options = RegistryOptions {
            transfers: Some(self.folder.path().join(who)),
            ..self.options.clone()
        };
        Registry::open(&self.uri, options).await.unwrap()
    }

    pub(crate) fn scratch(&self) -> &Path {
        self.folder.path()
    }
}

/// The bundled training run, with training arguments that nobody else has.
pub(crate) fn build_request(variant: u32, folder: &Path) -> BuildRequest {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/neural-lam");
    let arguments = case.join("train/training_cli_args.yaml");
    let text = fs::read_to_string(arguments).unwrap();
    let arguments = folder.join(format!("arguments-{variant}.yaml"));
    // A file that is written again would not be the same source any more.
    if !arguments.exists() {
        fs::write(&arguments, format!("{text}\n# variant {variant}\n")).unwrap();
    }
    BuildRequest {
        name: NAME.into(),
        nl_config: Some(case.join("train/config.yaml")),
        configs: Vec::new(),
        training_args: Some(arguments),
        onnx: Some(case.join("onnx/graph_lam.onnx")),
        interface: Some(case.join("onnx/graph_lam.json")),
        output: folder.join(format!("{variant}.zip")),
        ..BuildRequest::default()
    }
}

/// A small artifact; each variant has another content.
pub(crate) fn zip(variant: u32) -> PathBuf {
    let (folder, built) = &*BUILT;
    let mut built = built.lock().unwrap();
    let path = built.entry(variant).or_insert_with(|| {
        let built = build(&build_request(variant, folder.path())).unwrap();
        built.path
    });
    path.clone()
}

pub(crate) fn packing(variant: u32, folder: &Path) -> mlwm_artifacts::Packing {
    prepare(&build_request(variant, folder)).unwrap()
}

pub(crate) fn push_of(zip: PathBuf, tag: &str) -> PushRequest {
    PushRequest {
        content: PushContent::File(zip),
        publish_as: None,
        tag: tag.parse::<Tag>().unwrap(),
        provenance: Some("host: node\n".into()),
        signatures: Vec::new(),
    }
}

pub(crate) fn name() -> mlwm_spec::ArtifactName {
    NAME.parse().unwrap()
}

pub(crate) fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}
