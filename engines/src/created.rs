//! A container that exists, and that shall not outlive its use.

use std::time::Duration;

use bollard::Docker;
use bollard::models::{ContainerCreateBody, ContainerCreateResponse};
use bollard::query_parameters::CreateContainerOptionsBuilder;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::connect::Engine;
use crate::error::{Error, status};
use crate::request::Request;
use crate::run::missing;
use crate::sweep;

/// How often a removal is tried.
const REMOVALS: u32 = 3;
/// How long a removal may take. The engine waits without end for a process that cannot be killed.
pub(crate) const REMOVAL_TIMEOUT: Duration = Duration::from_secs(30);

/// A container that is removed when this is dropped.
pub(crate) struct Created<'a> {
    engine: &'a Engine,
    id: String,
    armed: bool,
}

impl<'a> Created<'a> {
    /// Creates the container of a request. One of its name that this process or a dead one made goes first: the
    /// engine's answer to its creation was lost, or it could not be removed.
    pub(crate) async fn create(
        engine: &'a Engine,
        request: &Request,
        body: ContainerCreateBody,
    ) -> Result<Self, Error> {
        match Self::try_create(engine, request, body.clone()).await {
            Err(Error::NameTaken { .. }) if engine.remove_ours(&request.name).await? => {
                Self::try_create(engine, request, body).await
            }
            created => created,
        }
    }

    async fn try_create(
        engine: &'a Engine,
        request: &Request,
        body: ContainerCreateBody,
    ) -> Result<Self, Error> {
        // A task of its own: if the caller is dropped while the engine creates the container, this
        // one still learns its identifier, and removes it.
        let (sender, receiver) = oneshot::channel();
        let (docker, name) = (engine.docker.clone(), request.name.clone());
        tokio::spawn(async move {
            let options = CreateContainerOptionsBuilder::default().name(&name).build();
            let result = docker.create_container(Some(options), body).await;
            if let Err(Ok(ContainerCreateResponse { id, .. })) = sender.send(result) {
                // Nobody is left to be told of a failure.
                let _ = sweep::remove(&docker, &id).await;
            }
        });
        match receiver.await {
            Ok(Ok(created)) => Ok(Self {
                engine,
                id: created.id,
                armed: true,
            }),
            Ok(Err(error)) => Err(refusal(request, error)),
            Err(_) => Err(Error::Cancelled {
                name: request.name.clone(),
            }),
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Removes the container, and says whether that succeeded.
    pub(crate) async fn remove(mut self) -> bool {
        for attempt in 0..REMOVALS {
            let removal = timeout(REMOVAL_TIMEOUT, self.engine.remove(&self.id));
            if let Ok(Ok(())) = removal.await {
                self.armed = false;
                return true;
            }
            sleep(Duration::from_secs(1 << attempt)).await;
        }
        self.armed = false;
        false
    }
}

/// Blocks until the container is removed: after a drop the process may end at any time, and the
/// runtime may be shutting down already, so the removal has a thread and a runtime of its own.
impl Drop for Created<'_> {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let Ok(docker) = self.engine.separate_client() else {
            return;
        };
        let id = std::mem::take(&mut self.id);
        let removal = std::thread::spawn(move || remove_now(&docker, &id));
        // Whatever fails here, the next sweep finds the container by its labels.
        let _ = removal.join();
    }
}

fn remove_now(docker: &Docker, id: &str) {
    if let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        // As in `drop`: the next sweep finds what could not be removed.
        let _ =
            runtime.block_on(async { timeout(REMOVAL_TIMEOUT, sweep::remove(docker, id)).await });
    }
}

fn refusal(request: &Request, error: bollard::errors::Error) -> Error {
    let code = status(&error);
    match Error::from_engine(format!("create container `{}`", request.name), error) {
        Error::Refused { .. } if code == Some(404) => missing(request),
        Error::Refused { message, .. } if message.contains("already in use") => Error::NameTaken {
            name: request.name.clone(),
        },
        Error::Refused { message, .. } if code == Some(400) => Error::Request {
            name: request.name.clone(),
            reason: message,
        },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use mlwm_spec::configuration::Resources;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
    use tokio::net::{UnixListener, UnixStream};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::connect::Endpoint;

    const DOCKER: &str = "/var/run/docker.sock";

    /// Docker, but for what it is asked to stop or to kill: it never answers that, and does not do it,
    /// as where a process waits in the kernel.
    async fn docker_that_cannot_kill(folder: &Path) -> PathBuf {
        let socket = folder.join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client));
            }
        });
        socket
    }

    async fn serve(client: UnixStream) {
        let docker = UnixStream::connect(DOCKER).await.unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_docker, mut to_docker) = docker.into_split();
        tokio::spawn(async move { copy(&mut from_docker, &mut to_client).await });
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
            let text = String::from_utf8_lossy(&buffer[..length]);
            let first = text.lines().next().unwrap_or_default();
            if first.starts_with("POST") && (first.contains("/kill") || first.contains("/stop")) {
                std::future::pending::<()>().await;
            }
            to_docker.write_all(&buffer[..length]).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_container_that_cannot_be_killed_is_told_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let socket = docker_that_cannot_kill(folder.path()).await;
        let engine = Engine::connect_to(Endpoint::Unix(socket)).await.unwrap();
        let name = format!("mlwm-undead-{}", std::process::id());
        let request = Request {
            name: name.clone(),
            image: "mlwm-base:bookworm".to_owned(), // made by `ci/setup`
            env: BTreeMap::new(),
            mounts: Vec::new(),
            resources: Resources::default(),
            timeout: None,
            labels: BTreeMap::new(),
            command: Some(
                ["bash", "-c", "echo up; sleep 600"]
                    .map(str::to_owned)
                    .into(),
            ),
            user: (65534, 65534),
            network: false,
            kill: CancellationToken::new(),
        };
        let kill = request.kill.clone();
        let mut print = |_| kill.cancel();
        let cancel = CancellationToken::new();
        let error = engine.run(&request, &mut print, &cancel).await.unwrap_err();
        assert!(matches!(error, Error::Undead { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(&name) && text.contains("state D"), "{text}");
        let filter = format!("name={name}");
        let listed = Command::new("docker")
            .args(["ps", "--all", "--quiet", "--filter", &filter])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&listed.stdout), "");
    }
}
