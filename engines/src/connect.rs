//! The way to an engine: where to look, who answers, which API to speak.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, ClientVersion, Docker};
use mlwm_spec::patience::{DEFAULT_PATIENCE, PATIENCE, patience};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::error::{Attempt, Error, Problem};
use crate::info::Info;

/// The oldest API with all that mlwm uses (device requests).
const OLDEST_API: ClientVersion = ClientVersion {
    major_version: 1,
    minor_version: 40,
};
/// Seconds that the engine has to begin an answer.
const ANSWER_SECONDS: u64 = 120;
/// The longest header of an answer to a ping.
const PING_BYTES: u64 = 16 * 1024;
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// A container engine that answers.
#[derive(Clone)]
pub struct Engine {
    pub(crate) docker: Docker,
    pub(crate) endpoint: Endpoint,
    pub(crate) info: Info,
    /// How long it may be away while a container runs.
    pub(crate) patience: Duration,
}

/// Where an engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A socket of this host.
    Unix(PathBuf),
    /// `host:port`, without encryption.
    Tcp(String),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("endpoint", &self.endpoint)
            .field("info", &self.info)
            .finish()
    }
}

impl Engine {
    /// Connects to the engine that `DOCKER_HOST` or `CONTAINER_HOST` names (`unix://…` or
    /// `tcp://…`); without them, to the first that answers of `/var/run/docker.sock`,
    /// `$XDG_RUNTIME_DIR/podman/podman.sock` and `/run/podman/podman.sock`. `MLWM_PATIENCE` says
    /// how long it may be away while a container runs.
    pub async fn connect() -> Result<Self, Error> {
        let env = |name: &str| std::env::var(name).ok();
        let patience = patience_of(env)?;
        let mut attempts = Vec::new();
        for candidate in candidates(env)? {
            match Self::connect_to(candidate.endpoint).await {
                Ok(engine) => return Ok(Self { patience, ..engine }),
                Err(Error::Unreachable(failed)) => {
                    attempts.extend(failed.into_iter().map(|attempt| match candidate.variable {
                        Some(variable) => Attempt {
                            place: format!("{variable}={}", attempt.place),
                            ..attempt
                        },
                        None => attempt,
                    }));
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::Unreachable(attempts))
    }

    /// Connects to the engine at one place.
    pub async fn connect_to(endpoint: Endpoint) -> Result<Self, Error> {
        let version = tokio::time::timeout(PING_TIMEOUT, ping(&endpoint))
            .await
            .unwrap_or_else(|elapsed| Err(Problem::Silent(elapsed.into())))
            .map_err(|problem| {
                Error::Unreachable(vec![Attempt {
                    place: endpoint.to_string(),
                    problem,
                }])
            })?;
        if version < OLDEST_API {
            return Err(Error::TooOld {
                endpoint: endpoint.to_string(),
                version: version.to_string(),
            });
        }
        let docker = client(&endpoint, &version)?;
        let info = Info::ask(&docker, &endpoint).await?;
        Ok(Self {
            docker,
            endpoint,
            info,
            patience: DEFAULT_PATIENCE,
        })
    }

    /// What the engine is and can do, as it was when connecting.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Where the engine listens.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// A second client of the same engine, for use on another runtime.
    pub(crate) fn separate_client(&self) -> Result<Docker, Error> {
        client(&self.endpoint, &self.docker.client_version())
    }
}

fn client(endpoint: &Endpoint, version: &ClientVersion) -> Result<Docker, Error> {
    let newest = if version < API_DEFAULT_VERSION {
        version
    } else {
        API_DEFAULT_VERSION
    };
    match endpoint {
        Endpoint::Unix(path) => {
            Docker::connect_with_unix(&path.to_string_lossy(), ANSWER_SECONDS, newest)
        }
        Endpoint::Tcp(address) => {
            Docker::connect_with_http(&format!("tcp://{address}"), ANSWER_SECONDS, newest)
        }
    }
    .map_err(|error| Error::from_engine("connect", error))
}

struct Candidate {
    /// The environment variable that names it, if one does.
    variable: Option<&'static str>,
    endpoint: Endpoint,
}

fn patience_of(env: impl Fn(&str) -> Option<String>) -> Result<Duration, Error> {
    let value = env(PATIENCE).unwrap_or_default();
    patience(Some(&value)).map_err(|reason| Error::Host {
        variable: PATIENCE,
        host: value,
        reason,
    })
}

/// Where to look for an engine, given the environment.
fn candidates(env: impl Fn(&str) -> Option<String>) -> Result<Vec<Candidate>, Error> {
    for variable in ["DOCKER_HOST", "CONTAINER_HOST"] {
        if let Some(host) = env(variable).filter(|host| !host.is_empty()) {
            let tls = env("DOCKER_TLS_VERIFY").is_some_and(|value| !value.is_empty());
            let endpoint = parse_host(variable, &host, tls)?;
            return Ok(vec![Candidate {
                variable: Some(variable),
                endpoint,
            }]);
        }
    }
    let mut paths = vec![PathBuf::from("/var/run/docker.sock")];
    if let Some(dir) = env("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        paths.push(PathBuf::from(dir).join("podman/podman.sock"));
    }
    paths.push(PathBuf::from("/run/podman/podman.sock"));
    Ok(paths
        .into_iter()
        .map(|path| Candidate {
            variable: None,
            endpoint: Endpoint::Unix(path),
        })
        .collect())
}

fn parse_host(variable: &'static str, host: &str, tls: bool) -> Result<Endpoint, Error> {
    let refuse = |reason| {
        Err(Error::Host {
            variable,
            host: host.to_owned(),
            reason,
        })
    };
    match host.split_once("://") {
        Some(("unix", path)) if path.starts_with('/') => Ok(Endpoint::Unix(path.into())),
        Some(("tcp" | "http", _)) if tls => refuse(
            "DOCKER_TLS_VERIFY asks for TLS; forward the engine's socket instead (`ssh -L /tmp/engine.sock:/var/run/docker.sock HOST`) and name it as unix://…",
        ),
        Some(("tcp" | "http", address)) if !address.is_empty() => {
            Ok(Endpoint::Tcp(address.trim_end_matches('/').to_owned()))
        }
        Some(("ssh", _)) => refuse(
            "forward the engine's socket (`ssh -L /tmp/engine.sock:/var/run/docker.sock HOST`) and name it as unix://…",
        ),
        _ => refuse("write unix:///path/to/socket or tcp://host:port"),
    }
}

/// Asks for the API version without speaking any: an engine refuses requests of a version that is
/// newer than its own, even the request for its version.
async fn ping(endpoint: &Endpoint) -> Result<ClientVersion, Problem> {
    let header = match endpoint {
        Endpoint::Unix(path) => exchange(UnixStream::connect(path).await.map_err(problem)?).await,
        Endpoint::Tcp(address) => {
            exchange(TcpStream::connect(address).await.map_err(problem)?).await
        }
    }
    .map_err(Problem::Silent)?;
    api_version(&header)
        .ok_or_else(|| Problem::Foreign(header.lines().next().unwrap_or_default().to_owned()))
}

fn problem(error: io::Error) -> Problem {
    match error.kind() {
        ErrorKind::NotFound => Problem::Absent,
        ErrorKind::PermissionDenied => Problem::Denied,
        _ => Problem::Silent(error),
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<String> {
    let request = b"GET /_ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await?;
    let mut answer = Vec::new();
    stream.take(PING_BYTES).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The `Api-Version` of an answer to `/_ping`.
fn api_version(answer: &str) -> Option<ClientVersion> {
    let mut lines = answer.lines();
    if lines.next()?.split_whitespace().nth(1)? != "200" {
        return None;
    }
    let value = lines.take_while(|line| !line.is_empty()).find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("api-version")
            .then(|| value.trim())
    })?;
    let (major, minor) = value.split_once('.')?;
    Some(ClientVersion {
        major_version: major.parse().ok()?,
        minor_version: minor.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked_for(env: &[(&str, &str)]) -> Result<Vec<String>, Error> {
        let found = candidates(|name| {
            env.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })?;
        Ok(found
            .iter()
            .map(|candidate| candidate.endpoint.to_string())
            .collect())
    }

    #[test]
    fn places_follow_the_environment() {
        assert_eq!(
            looked_for(&[("XDG_RUNTIME_DIR", "/run/user/7"), ("DOCKER_HOST", "")]).unwrap(),
            [
                "/var/run/docker.sock",
                "/run/user/7/podman/podman.sock",
                "/run/podman/podman.sock"
            ]
        );
        assert_eq!(
            looked_for(&[
                ("DOCKER_HOST", "tcp://node:2375/"),
                ("CONTAINER_HOST", "unix:///b")
            ])
            .unwrap(),
            ["tcp://node:2375"]
        );
        assert_eq!(
            looked_for(&[("CONTAINER_HOST", "unix:///b")]).unwrap(),
            ["/b"]
        );
        for bad in [
            &[("DOCKER_HOST", "ssh://node")][..],
            &[("DOCKER_HOST", "node:2375")],
            &[("DOCKER_HOST", "unix://relative")],
            &[
                ("DOCKER_HOST", "tcp://node:2376"),
                ("DOCKER_TLS_VERIFY", "1"),
            ],
        ] {
            assert!(
                matches!(looked_for(bad), Err(Error::Host { .. })),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn version_comes_from_the_header_of_the_ping() {
        let answer = "HTTP/1.1 200 OK\r\nServer: Docker\r\napi-version: 1.41\r\n\r\nOK";
        assert_eq!(
            api_version(answer),
            Some(ClientVersion {
                major_version: 1,
                minor_version: 41
            })
        );
        assert_eq!(
            api_version("HTTP/1.1 404 Not Found\r\nApi-Version: 1.41\r\n\r\n"),
            None
        );
        assert_eq!(
            api_version("HTTP/1.1 200 OK\r\n\r\nApi-Version: 1.41"),
            None
        );
    }

    #[tokio::test]
    async fn says_what_is_wrong_with_a_place() {
        let dir = tempfile::tempdir().unwrap();
        let absent = dir.path().join("absent.sock");
        let error = Engine::connect_to(Endpoint::Unix(absent))
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains("absent.sock: no such socket"),
            "{error}"
        );

        let dead = dir.path().join("dead.sock");
        drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
        let error = Engine::connect_to(Endpoint::Unix(dead)).await.unwrap_err();
        assert!(error.to_string().contains("nothing listens"), "{error}");
        assert!(
            error.to_string().contains("systemctl start docker"),
            "{error}"
        );

        let denied = Attempt {
            place: "/var/run/docker.sock".into(),
            problem: problem(ErrorKind::PermissionDenied.into()),
        };
        assert!(denied.to_string().contains("-aG docker"), "{denied}");
    }
}
