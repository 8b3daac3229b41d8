//! Registries of every kind, with a real server behind each and a proxy in between that counts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::any::Any;
use std::fs;
use std::path::Path;

use crate::counting_proxy::CountingProxy;
use crate::gcs::GcsServer;
use crate::registry::Registry;
use crate::s3::S3Server;
use crate::site::Site;

/// A registry.
pub struct Place {
    /// Its URI.
    pub uri: String,
    /// What stands between `mlwm` and the server; `None` for a folder.
    pub proxy: Option<CountingProxy>,
    environment: Vec<(&'static str, String)>,
    /// The `config.json` of Docker, if the server wants to know who asks.
    docker_config: Option<String>,
    _server: Box<dyn Any>,
}

impl Place {
    /// A folder.
    pub fn directory() -> Self {
        let folder = crate::scratch::folder();
        Self {
            uri: folder.path().join("models").display().to_string(),
            proxy: None,
            environment: Vec::new(),
            docker_config: None,
            _server: Box::new(folder),
        }
    }

    /// S3 by Garage, which has no conditional write.
    pub fn garage() -> Self {
        Self::s3(S3Server::garage())
    }

    /// S3 by moto, which has the conditional write.
    pub fn moto() -> Self {
        Self::s3(S3Server::moto())
    }

    fn s3(server: S3Server) -> Self {
        let bucket = server.bucket("registry");
        let proxy = CountingProxy::to(&server.endpoint);
        let mut environment = server.environment();
        environment.push(("AWS_ENDPOINT_URL", proxy.endpoint.clone()));
        Self {
            uri: format!("s3://{bucket}/models"),
            proxy: Some(proxy),
            environment,
            docker_config: None,
            _server: Box::new(server),
        }
    }

    /// Google Cloud Storage by its emulator, which has no conditional write.
    pub fn gcs() -> Self {
        let server = GcsServer::start();
        let bucket = server.bucket("registry");
        let proxy = CountingProxy::to(&server.endpoint);
        let mut environment = server.environment();
        environment.push(("STORAGE_EMULATOR_HOST", proxy.endpoint.clone()));
        Self {
            uri: format!("gs://{bucket}/models"),
            proxy: Some(proxy),
            environment,
            docker_config: None,
            _server: Box::new(server),
        }
    }

    /// Debian's docker-registry, open to everybody.
    pub fn oci() -> Self {
        Self::of_oci(Registry::open(), false)
    }

    /// Debian's docker-registry with a password.
    pub fn oci_with_password() -> Self {
        Self::of_oci(Registry::with_password(), true)
    }

    /// Debian's docker-registry with a token server whose tokens are good for so many seconds.
    pub fn oci_with_tokens(seconds: f64) -> Self {
        Self::of_oci(Registry::with_tokens(seconds, 300), true)
    }

    fn of_oci(server: Registry, login: bool) -> Self {
        let proxy = CountingProxy::to(&server.endpoint());
        let host = proxy.endpoint["http://".len()..].to_owned();
        let docker_config = login.then(|| {
            let file = server.logins(&[&host]);
            fs::read_to_string(file).unwrap()
        });
        Self {
            uri: format!("oci://{host}/models"),
            proxy: Some(proxy),
            environment: vec![("NO_PROXY", "127.0.0.1,localhost".to_owned())],
            docker_config,
            _server: Box::new(server),
        }
    }

    /// A working folder whose commands can reach the registry.
    pub fn site(&self) -> Site {
        let mut site = Site::new();
        self.enter(&mut site);
        site
    }

    /// Lets the commands of a working folder reach the registry.
    pub fn enter(&self, site: &mut Site) {
        for (name, value) in &self.environment {
            site.env(name, value);
        }
        if let Some(config) = &self.docker_config {
            fs::create_dir_all(site.path("docker")).unwrap();
            fs::write(site.path("docker/config.json"), config).unwrap();
        }
    }

    /// Whether the server wants to know who asks.
    pub fn needs_login(&self) -> bool {
        self.docker_config.is_some()
    }

    /// The reference of an artifact in the registry.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.uri)
    }

    /// How many requests were sent since the counts were reset; 0 for a folder.
    pub fn requests(&self) -> usize {
        self.proxy
            .as_ref()
            .map_or(0, |proxy| proxy.counts().requests.len())
    }
}

/// The size of a file.
pub fn size(path: &Path) -> u64 {
    fs::metadata(path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .len()
}
