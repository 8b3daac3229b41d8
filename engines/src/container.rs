//! What an engine is told about a container: the isolation that the container contract promises.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, DeviceRequest, HostConfig, HostConfigLogConfig, Mount as EngineMount,
    MountType,
};

use crate::info::{Info, Kind};
use crate::limits::Limits;
use crate::owner;
use crate::request::Request;

/// What the engine itself keeps of a container's output, in case mlwm is killed.
const LOG_FILE_SIZE: &str = "16m";

/// Where programs look for a home. The user of the host has none in the image, so without these
/// PyTorch, Matplotlib and others would write to the root or fail to find the user's name.
const HOME: [(&str, &str); 8] = [
    ("HOME", "/tmp"),
    ("TMPDIR", "/tmp"),
    ("USER", "mlwm"),
    ("LOGNAME", "mlwm"),
    ("XDG_CACHE_HOME", "/tmp/.cache"),
    ("XDG_CONFIG_HOME", "/tmp/.config"),
    ("XDG_DATA_HOME", "/tmp/.local/share"),
    ("XDG_STATE_HOME", "/tmp/.local/state"),
];

/// The container for a request.
pub(crate) fn body(
    request: &Request,
    gpus: Option<DeviceRequest>,
    info: &Info,
) -> ContainerCreateBody {
    let mut labels: HashMap<String, String> = request.labels.clone().into_iter().collect();
    if let Some(owner) = owner::this_process() {
        labels.insert(owner::LABEL.to_owned(), owner);
    }
    ContainerCreateBody {
        image: Some(request.image.clone()),
        cmd: request.command.clone(),
        env: Some(environment(request)),
        user: Some(user(request, info)),
        labels: Some(labels),
        stop_signal: Some("SIGTERM".into()),
        attach_stdin: Some(false),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(false),
        host_config: Some(host_config(request, gpus, info)),
        ..Default::default()
    }
}

fn environment(request: &Request) -> Vec<String> {
    let home = HOME
        .iter()
        .filter(|(name, _)| !request.env.contains_key(*name));
    home.map(|(name, value)| format!("{name}={value}"))
        .chain(
            request
                .env
                .iter()
                .map(|(name, value)| format!("{name}={value}")),
        )
        .collect()
}

/// The user in the container who is the caller on the host. Rootless Docker maps its own user,
/// the caller, to root; rootless Podman is told to keep the caller's number.
fn user(request: &Request, info: &Info) -> String {
    if info.rootless && info.kind == Kind::Docker {
        return "0:0".to_owned();
    }
    format!("{}:{}", request.user.0, request.user.1)
}

fn host_config(request: &Request, gpus: Option<DeviceRequest>, info: &Info) -> HostConfig {
    let resources = &request.resources;
    let memory = resources.memory.map(|size| size.0);
    let Limits {
        processes,
        tmp,
        shm,
    } = Limits::of(resources);
    HostConfig {
        // Without a mode, the engine's default network.
        network_mode: (!request.network).then(|| "none".into()),
        readonly_rootfs: Some(true),
        // Not `noexec`: just-in-time compilers load what they write here.
        tmpfs: Some(HashMap::from([(
            "/tmp".to_owned(),
            format!("rw,exec,nosuid,nodev,mode=1777,size={tmp}"),
        )])),
        cap_drop: Some(vec!["ALL".into()]),
        security_opt: Some(vec!["no-new-privileges".into()]),
        pids_limit: Some(i64::from(processes)),
        memory: memory.map(bytes),
        // The sum of memory and swap: no swap.
        memory_swap: memory.map(bytes),
        nano_cpus: resources.cpus.map(|cpus| (cpus * 1e9).round() as i64),
        shm_size: Some(bytes(shm)),
        init: Some(true),
        auto_remove: Some(false),
        mounts: Some(request.mounts.iter().map(mount).collect()),
        device_requests: gpus.map(|request| vec![request]),
        userns_mode: (info.rootless && info.kind == Kind::Podman).then(|| "keep-id".to_owned()),
        log_config: Some(log_config(info.kind)),
        ..Default::default()
    }
}

/// Mounts, not `binds`: a bind is one text in which a path may not hold a colon, and its source is
/// made, as root, where it is missing.
fn mount(mount: &crate::request::Mount) -> EngineMount {
    EngineMount {
        typ: Some(MountType::BIND),
        source: Some(mount.source.to_string_lossy().into_owned()),
        target: Some(mount.target.clone()),
        read_only: Some(mount.read_only),
        ..Default::default()
    }
}

/// The engine's own copy of the output is small and bounded: mlwm writes the log of a task.
/// Docker's other drivers keep all of it, and so does Podman's unless it is told a size.
fn log_config(kind: Kind) -> HostConfigLogConfig {
    let mut config = HashMap::from([("max-size".to_owned(), LOG_FILE_SIZE.to_owned())]);
    let driver = match kind {
        Kind::Docker => {
            config.insert("max-file".to_owned(), "2".to_owned());
            "local"
        }
        Kind::Podman => "k8s-file",
    };
    HostConfigLogConfig {
        typ: Some(driver.into()),
        config: Some(config),
    }
}

/// A size as the engine's API has it; what does not fit is no limit on any machine.
fn bytes(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
