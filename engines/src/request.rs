//! What to run, what it prints, and how it ended.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mlwm_spec::configuration::Resources;
use tokio_util::sync::CancellationToken;

use crate::error::Error;

/// A container to run.
///
/// Its `Debug` form shows the names of the environment variables, not their values.
#[derive(Clone)]
pub struct Request {
    /// Name of the container; letters, digits, `_`, `.` and `-`.
    pub name: String,
    /// Reference of the image, which the engine must have.
    pub image: String,
    /// The environment; `HOME` and its kin are added where absent (see
    /// [`crate::Engine::run`]).
    pub env: BTreeMap<String, String>,
    /// What of the host the container sees.
    pub mounts: Vec<Mount>,
    /// What it may use.
    pub resources: Resources,
    /// Time after which it is stopped, counted from its start.
    pub timeout: Option<Duration>,
    /// Labels of the container.
    pub labels: BTreeMap<String, String>,
    /// Arguments in the place of the image's command; its entry point stays.
    pub command: Option<Vec<String>>,
    /// User and group that it runs as.
    pub user: (u32, u32),
    /// Whether it reaches the network, by the engine's default one.
    pub network: bool,
    /// Cancelled by the caller where the container must end at once, without time to stop.
    pub kill: CancellationToken,
}

/// A file or folder of the host that the container sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Absolute path on the host; it must exist.
    pub source: PathBuf,
    /// Absolute path in the container.
    pub target: String,
    /// Whether the container may only read it.
    pub read_only: bool,
}

/// A line that a container printed, without its end.
///
/// A carriage return ends a line as a line feed does, so that progress bars come as they are
/// drawn. Bytes that are not UTF-8 are replaced by U+FFFD. A line longer than 64 KiB comes in
/// pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// On standard output.
    Stdout(String),
    /// On standard error.
    Stderr(String),
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Exit code of its first process; 128 + n if signal n ended it.
    pub exit_code: i64,
    /// Whether the kernel killed any of its processes for want of memory. A child may be killed
    /// and the first process live on, so this can stand beside any exit code. Podman does not see
    /// it on cgroups of version 1: exit code 137 of a container that nobody stopped is then all
    /// there is.
    pub oom_killed: bool,
    /// Whether it was stopped at its time limit.
    pub timed_out: bool,
    /// Whether it was stopped because the caller cancelled.
    pub cancelled: bool,
    /// When it started, by the engine's clock, RFC 3339.
    pub started: String,
    /// When it ended, by the engine's clock, RFC 3339.
    pub finished: String,
    /// The engine's identifier of the container.
    pub container_id: String,
    /// The largest memory in use (page cache that can be dropped not counted), in bytes, of
    /// samples taken every second; `None` if it ended before the first.
    pub peak_memory: Option<u64>,
    /// The most processes and threads at once, of the same samples.
    pub peak_processes: Option<u64>,
    /// Whether the container is gone; if not, [`crate::Engine::sweep`] will remove it.
    pub removed: bool,
}

impl Ended {
    /// Whether the container did all it was asked to: exit code 0, and nothing stopped it.
    pub fn succeeded(&self) -> bool {
        self.exit_code == 0 && !self.timed_out && !self.cancelled
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("name", &self.name)
            .field("image", &self.image)
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("mounts", &self.mounts)
            .field("resources", &self.resources)
            .field("timeout", &self.timeout)
            .field("labels", &self.labels)
            .field("command", &self.command)
            .field("user", &self.user)
            .finish()
    }
}

impl Request {
    /// Refuses what no engine could run, so that nothing is created for it.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let invalid = |reason: String| Error::Request {
            name: self.name.clone(),
            reason,
        };
        let name_ok = self.name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && self.name.len() > 1
            && self
                .name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
        if !name_ok {
            return Err(invalid("its name needs two or more of letters, digits, `_`, `.` and `-`, the first a letter or digit".into()));
        }
        for (name, value) in &self.env {
            // The engine would quote a malformed variable, and with it its value, in its error.
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(invalid(format!(
                    "`{name}` is not the name of an environment variable"
                )));
            }
            if value.contains('\0') {
                return Err(invalid(format!("the value of {name} holds a zero byte")));
            }
        }
        for (index, mount) in self.mounts.iter().enumerate() {
            if !mount.source.is_absolute() {
                return Err(invalid(format!(
                    "mount source {} is not absolute",
                    mount.source.display()
                )));
            }
            if mount.source.to_str().is_none() {
                return Err(invalid(format!(
                    "mount source {} is not UTF-8",
                    mount.source.display()
                )));
            }
            if !Path::new(&mount.target).is_absolute() || mount.target == "/" {
                return Err(invalid(format!(
                    "mount target `{}` is not an absolute path below the root",
                    mount.target
                )));
            }
            if self.mounts[..index]
                .iter()
                .any(|other| other.target == mount.target)
            {
                return Err(invalid(format!(
                    "two mounts have the target `{}`",
                    mount.target
                )));
            }
        }
        if let Some(cpus) = self.resources.cpus
            && !(cpus.is_finite() && cpus >= 0.01)
        {
            return Err(invalid(format!(
                "resources.cpus is {cpus}, and must be 0.01 or more"
            )));
        }
        Ok(())
    }

    /// Refuses paths that Podman cannot be told: it makes a comma-separated text of a mount.
    pub(crate) fn check_for_podman(&self) -> Result<(), Error> {
        let told = |mount: &Mount| format!("{}{}", mount.source.display(), mount.target);
        match self
            .mounts
            .iter()
            .find(|mount| told(mount).contains([',', '"']))
        {
            Some(mount) => Err(Error::Request {
                name: self.name.clone(),
                reason: format!(
                    "Podman cannot mount {} at `{}`: a path holds a comma or a quotation mark",
                    mount.source.display(),
                    mount.target
                ),
            }),
            None => Ok(()),
        }
    }

    /// Refuses sources that are not there. Docker's older mount syntax would make them, as root.
    pub(crate) fn check_sources(&self) -> Result<(), Error> {
        for mount in &self.mounts {
            std::fs::metadata(&mount.source).map_err(|source| Error::MountSource {
                path: mount.source.clone(),
                target: mount.target.clone(),
                source,
            })?;
        }
        Ok(())
    }
}
