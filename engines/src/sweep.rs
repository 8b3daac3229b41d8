//! Containers that a killed mlwm left behind.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum as State};
use bollard::query_parameters::{
    InspectContainerOptions, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
};
use tokio::time::timeout;

use crate::connect::Engine;
use crate::created::REMOVAL_TIMEOUT;
use crate::error::{Error, status};
use crate::owner::{self, Owner};

/// What [`Engine::sweep`] found, by names of containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Removed, because the process that started them is dead, or because they have ended and
    /// that process cannot be seen from here.
    pub removed: Vec<String>,
    /// Left, because the engine cannot kill them: a process waits in the kernel.
    pub undead: Vec<String>,
    /// Left, because the process that started them lives.
    pub alive: Vec<String>,
    /// Left, because they run or wait to run, and the process that started them cannot be seen
    /// from here (it is on another host, or in a container). Whoever knows that it is dead removes
    /// them with `docker rm -f`.
    pub unknown: Vec<String>,
}

impl Engine {
    /// Removes the containers with all of these labels that a dead mlwm left behind, running or
    /// not. Nothing survives a `SIGKILL` of mlwm except its containers; so this comes before a
    /// task is run again.
    pub async fn sweep(&self, labels: &BTreeMap<String, String>) -> Result<Swept, Error> {
        let filter = labels
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&HashMap::<String, Vec<String>>::from([(
                "label".to_owned(),
                filter,
            )]))
            .build();
        let containers = self
            .docker
            .list_containers(Some(options))
            .await
            .map_err(|error| Error::from_engine("list containers", error))?;

        let mut swept = Swept::default();
        for container in containers {
            let name = name_of(&container);
            let label = container
                .labels
                .as_ref()
                .and_then(|labels| labels.get(owner::LABEL));
            let ended = matches!(container.state, Some(State::EXITED | State::DEAD));
            match owner::judge(label.map(String::as_str)) {
                Owner::Alive => swept.alive.push(name),
                Owner::Unknown if !ended => swept.unknown.push(name),
                Owner::Dead | Owner::Unknown => {
                    let id = container.id.as_deref().unwrap_or(&name);
                    match timeout(REMOVAL_TIMEOUT, self.remove(id)).await {
                        Ok(removed) => {
                            removed?;
                            swept.removed.push(name);
                        }
                        Err(_) => swept.undead.push(name),
                    }
                }
            }
        }
        Ok(swept)
    }

    /// Removes the container of this name if a dead process made it, or this one and it does not run, and says
    /// whether it is gone.
    pub(crate) async fn remove_ours(&self, name: &str) -> Result<bool, Error> {
        let options: Option<InspectContainerOptions> = None;
        let found = match self.docker.inspect_container(name, options).await {
            Ok(found) => found,
            Err(error) if status(&error) == Some(404) => return Ok(true),
            Err(error) => return Err(Error::from_engine(format!("look at `{name}`"), error)),
        };
        let runs = found.state.and_then(|state| state.running).unwrap_or(true);
        let labels = found.config.and_then(|config| config.labels);
        let owner = labels.and_then(|labels| labels.get(owner::LABEL).cloned());
        let ours = owner.is_some() && owner == owner::this_process();
        if (!ours || runs) && owner::judge(owner.as_deref()) != Owner::Dead {
            return Ok(false);
        }
        let removed = timeout(REMOVAL_TIMEOUT, self.remove(name)).await;
        Ok(matches!(removed, Ok(Ok(()))))
    }

    /// Removes a container, running or not. One that is gone already is no error.
    pub(crate) async fn remove(&self, id: &str) -> Result<(), Error> {
        remove(&self.docker, id).await
    }
}

/// See [`Engine::remove`].
pub(crate) async fn remove(docker: &bollard::Docker, id: &str) -> Result<(), Error> {
    let options = RemoveContainerOptionsBuilder::default()
        .force(true)
        .v(true)
        .build();
    match docker.remove_container(id, Some(options)).await {
        Ok(()) => Ok(()),
        // 404: gone; 409: another request is removing it.
        Err(error) if matches!(status(&error), Some(404 | 409)) => Ok(()),
        Err(error) => Err(Error::from_engine(
            format!("remove container `{id}`"),
            error,
        )),
    }
}

fn name_of(container: &ContainerSummary) -> String {
    let name = container.names.iter().flatten().next();
    name.map(|name| name.trim_start_matches('/').to_owned())
        .or_else(|| container.id.clone())
        .unwrap_or_default()
}
