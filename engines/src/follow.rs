//! What can be seen of a container while it runs: its output, its memory, the kernel's kills.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::models::ContainerMemoryStats;
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, EventsOptionsBuilder, StatsOptionsBuilder,
};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::connect::Engine;
use crate::error::Error;
use crate::info::Kind;

/// Frames of output (of at most 32 KiB) that wait to be handed on. An engine that finds no reader
/// holds the container up while it runs, but drops what is left two seconds after its end.
const FRAMES: usize = 1024;
/// How long the word of a kill may take from the kernel to the engine's events.
const OOM_DELAY: Duration = Duration::from_millis(300);
const EVENTS_TIMEOUT: Duration = Duration::from_secs(5);

/// Follows one container. What it does in the background ends with it.
pub(crate) struct Follower {
    /// What the container prints.
    pub(crate) output: mpsc::Receiver<LogOutput>,
    peak_memory: Arc<AtomicU64>,
    peak_processes: Arc<AtomicU64>,
    tasks: JoinSet<()>,
}

impl Follower {
    pub(crate) async fn attach(docker: &Docker, id: &str) -> Result<Self, Error> {
        let options = AttachContainerOptionsBuilder::default()
            .stream(true)
            .stdout(true)
            .stderr(true)
            .build();
        let mut attached = docker
            .attach_container(id, Some(options))
            .await
            .map_err(|error| Error::from_engine(format!("attach to container `{id}`"), error))?;
        let (sender, output) = mpsc::channel(FRAMES);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Some(Ok(frame)) = attached.output.next().await {
                if sender.send(frame).await.is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            output,
            peak_memory: Arc::default(),
            peak_processes: Arc::default(),
            tasks,
        })
    }

    /// Begins to sample the memory in use and the number of processes, once a second.
    pub(crate) fn sample(&mut self, docker: &Docker, id: &str) {
        let (docker, id) = (docker.clone(), id.to_owned());
        let memory = Arc::clone(&self.peak_memory);
        let processes = Arc::clone(&self.peak_processes);
        self.tasks.spawn(async move {
            let options = StatsOptionsBuilder::default().stream(true).build();
            let mut samples = pin!(docker.stats(&id, Some(options)));
            while let Some(Ok(sample)) = samples.next().await {
                if let Some(used) = sample.memory_stats.as_ref().and_then(in_use) {
                    memory.fetch_max(used, Ordering::Relaxed);
                }
                if let Some(number) = sample.pids_stats.and_then(|pids| pids.current) {
                    processes.fetch_max(number, Ordering::Relaxed);
                }
            }
        });
    }

    pub(crate) fn peak_memory(&self) -> Option<u64> {
        Some(self.peak_memory.load(Ordering::Relaxed)).filter(|&peak| peak > 0)
    }

    pub(crate) fn peak_processes(&self) -> Option<u64> {
        Some(self.peak_processes.load(Ordering::Relaxed)).filter(|&peak| peak > 0)
    }
}

/// Memory in use, without the page cache that the kernel would drop first: what `docker stats`
/// shows.
fn in_use(memory: &ContainerMemoryStats) -> Option<u64> {
    let details = memory.stats.as_ref();
    let cache = ["total_inactive_file", "inactive_file"]
        .iter()
        .find_map(|name| details.and_then(|details| details.get(*name)))
        .copied()
        .unwrap_or(0);
    Some(memory.usage?.saturating_sub(cache))
}

/// Whether the engine remembers an event that the kernel killed a process of this container for
/// want of memory.
pub(crate) async fn saw_oom(engine: &Engine, id: &str) -> bool {
    if engine.info.kind == Kind::Podman {
        return false; // it has no such event
    }
    sleep(OOM_DELAY).await;
    let until = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |now| now.as_secs() + 1);
    let filters = HashMap::from([("container", vec![id]), ("event", vec!["oom"])]);
    let options = EventsOptionsBuilder::default()
        .since("1") // seconds, not RFC 3339; 0 would mean that no past event is wanted
        .until(&until.to_string())
        .filters(&filters)
        .build();
    let mut events = pin!(engine.docker.events(Some(options)));
    matches!(
        timeout(EVENTS_TIMEOUT, events.next()).await,
        Ok(Some(Ok(_)))
    )
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::connect::Endpoint;

    fn docker(arguments: &[&str]) -> String {
        let output = Command::new("docker").args(arguments).output().unwrap();
        assert!(
            !output.stdout.is_empty(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// The events alone tell of a kill, as they must when the inspection does not: that happens
    /// in one of ten containers or less, so a test of whole runs may not meet it.
    #[tokio::test]
    async fn events_tell_of_a_kill() {
        let socket = Endpoint::Unix("/var/run/docker.sock".into());
        let engine = Engine::connect_to(socket).await.unwrap();
        let base = "mlwm-base:bookworm"; // made by `ci/setup`
        for (command, killed) in [(&["tail", "/dev/zero"][..], true), (&["false"], false)] {
            let limited = ["run", "--detach", "--network=none", "--memory=64m", base];
            let id = docker(&[&limited, command].concat());
            docker(&["wait", &id]);
            let seen = saw_oom(&engine, &id).await;
            docker(&["rm", &id]);
            assert_eq!(seen, killed, "{command:?}");
        }
    }
}
