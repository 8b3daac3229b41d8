//! What an engine is and can do.

use std::path::Path;

use bollard::Docker;

use crate::connect::Endpoint;
use crate::error::Error;

/// What an engine is and can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Docker or Podman.
    pub kind: Kind,
    /// Its own version, such as `20.10.24` or `4.3.1`.
    pub version: String,
    /// The version of the API spoken with it.
    pub api_version: String,
    /// Names of the OCI runtimes it knows, sorted.
    pub runtimes: Vec<String>,
    /// Folders where it looks for CDI specifications; empty if CDI is off or the engine does not
    /// say.
    pub cdi_spec_dirs: Vec<String>,
    /// CDI devices it has found, such as `nvidia.com/gpu=0`; `None` if it does not list them
    /// (Docker before 28.2, Podman).
    pub cdi_devices: Option<Vec<String>>,
    /// Whether this host has the hook with which Docker gives GPUs to containers when no `nvidia`
    /// runtime is registered.
    pub nvidia_hook: bool,
    /// Whether it can limit the memory of a container.
    pub memory_limit: bool,
    /// Whether it runs without root.
    pub rootless: bool,
    /// Whether an archive that it loads may leave out layers that it has: Docker's own store looks
    /// for a layer before it opens its file.
    pub finds_layers: bool,
}

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Docker Engine, or something that answers like it.
    Docker,
    /// Podman's service.
    Podman,
}

impl Info {
    pub(crate) async fn ask(docker: &Docker, endpoint: &Endpoint) -> Result<Self, Error> {
        let failed = |error| Error::from_engine("describe itself", error);
        let version = docker.version().await.map_err(failed)?;
        let info = docker.info().await.map_err(failed)?;

        let components = version.components.unwrap_or_default();
        let podman = components
            .iter()
            .any(|component| component.name.starts_with("Podman"));
        let mut runtimes: Vec<String> = info.runtimes.unwrap_or_default().into_keys().collect();
        runtimes.sort();
        let cdi_devices = info.discovered_devices.map(|devices| {
            let cdi = devices
                .into_iter()
                .filter(|device| device.source.as_deref() == Some("cdi"));
            cdi.filter_map(|device| device.id).collect()
        });
        let security = info.security_options.unwrap_or_default();
        let of_containerd = |fact: &String| fact.starts_with("io.containerd.");
        let mut store = info.driver_status.iter().flatten().flatten();
        let own_store = !store.any(of_containerd);
        Ok(Self {
            kind: if podman { Kind::Podman } else { Kind::Docker },
            version: version.version.unwrap_or_default(),
            api_version: docker.client_version().to_string(),
            runtimes,
            cdi_spec_dirs: info.cdi_spec_dirs.unwrap_or_default(),
            cdi_devices,
            nvidia_hook: matches!(endpoint, Endpoint::Unix(_)) && has_nvidia_hook(),
            memory_limit: info.memory_limit.unwrap_or(false),
            rootless: security.iter().any(|option| option == "name=rootless"),
            finds_layers: !podman && own_store,
        })
    }
}

fn has_nvidia_hook() -> bool {
    ["/usr/bin", "/usr/local/bin"].iter().any(|dir| {
        Path::new(dir)
            .join("nvidia-container-runtime-hook")
            .exists()
    })
}
