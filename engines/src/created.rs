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
/// How long a drop waits for the removal.
const DROP_TIMEOUT: Duration = Duration::from_secs(30);

/// A container that is removed when this is dropped.
pub(crate) struct Created<'a> {
    engine: &'a Engine,
    id: String,
    armed: bool,
}

impl<'a> Created<'a> {
    pub(crate) async fn create(
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
            if self.engine.remove(&self.id).await.is_ok() {
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
        let _ = runtime.block_on(async { timeout(DROP_TIMEOUT, sweep::remove(docker, id)).await });
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
