//! GPUs: from what a configuration asks for to what an engine is told.
//!
//! Two ways lead to a GPU. Docker's own driver `nvidia` takes a number or UUIDs, and needs
//! NVIDIA's container runtime or its hook. CDI takes names of devices, `nvidia.com/gpu=0`, and
//! needs a specification that `nvidia-ctk cdi generate` writes. An engine that knows neither must
//! not be asked: Docker fails only when the container starts, and Podman before 5.4 starts it
//! without a GPU and says nothing (containers/podman#25171).

use bollard::models::DeviceRequest;
use mlwm_spec::configuration::Gpus;

use crate::info::{Info, Kind};

/// What CDI calls an NVIDIA GPU.
const NVIDIA_CDI: &str = "nvidia.com/gpu";

/// The request for these GPUs, or why this engine cannot be asked. `None` if none are wanted.
pub(crate) fn request(gpus: Option<&Gpus>, info: &Info) -> Result<Option<DeviceRequest>, String> {
    let wanted = match gpus {
        None | Some(Gpus::Count(0)) => return Ok(None),
        Some(Gpus::Count(count)) => Wanted::Count(*count),
        Some(Gpus::One(text)) if text == "all" => Wanted::All,
        Some(Gpus::One(text)) => devices(std::slice::from_ref(text))?,
        Some(Gpus::Devices(names)) if names.is_empty() => return Ok(None),
        Some(Gpus::Devices(names)) => devices(names)?,
    };
    let ways = Ways::of(info);
    let request = match wanted {
        Wanted::Cdi(names) => cdi_request(names, info, &ways)?,
        _ if ways.nvidia => nvidia_request(wanted),
        Wanted::All => cdi_request(vec![format!("{NVIDIA_CDI}=all")], info, &ways)?,
        Wanted::Count(count) => {
            let names = (0..count).map(|index| format!("{NVIDIA_CDI}={index}"));
            cdi_request(names.collect(), info, &ways)?
        }
        Wanted::Uuids(uuids) => {
            let names = uuids.iter().map(|uuid| format!("{NVIDIA_CDI}={uuid}"));
            cdi_request(names.collect(), info, &ways)?
        }
    };
    Ok(Some(request))
}

/// What was asked for, in words.
pub(crate) fn describe(gpus: &Gpus) -> String {
    match gpus {
        Gpus::Count(count) => count.to_string(),
        Gpus::One(text) => text.clone(),
        Gpus::Devices(names) => names.join(", "),
    }
}

enum Wanted {
    All,
    Count(u32),
    Uuids(Vec<String>),
    Cdi(Vec<String>),
}

fn devices(names: &[String]) -> Result<Wanted, String> {
    let is_cdi = |name: &String| {
        name.split_once('=')
            .is_some_and(|(kind, _)| kind.contains('/'))
    };
    let is_uuid = |name: &String| name.starts_with("GPU-") || name.starts_with("MIG-");
    if names.iter().all(is_cdi) {
        Ok(Wanted::Cdi(names.to_vec()))
    } else if names.iter().all(is_uuid) {
        Ok(Wanted::Uuids(names.to_vec()))
    } else {
        Err("write a number, `all`, UUIDs as `nvidia-smi -L` prints them (`GPU-…`, `MIG-…`), or CDI names (`nvidia.com/gpu=0`), not a mixture".into())
    }
}

/// The ways that an engine knows.
struct Ways {
    nvidia: bool,
    cdi: bool,
}

impl Ways {
    fn of(info: &Info) -> Self {
        match info.kind {
            Kind::Docker => Self {
                nvidia: info.nvidia_hook || info.runtimes.iter().any(|name| name == "nvidia"),
                cdi: !info.cdi_spec_dirs.is_empty(),
            },
            // Podman lists runtimes whether they are installed or not, and ignores requests to
            // the driver `nvidia`.
            Kind::Podman => Self {
                nvidia: false,
                cdi: version_of(&info.version) >= (5, 4),
            },
        }
    }
}

fn version_of(text: &str) -> (u32, u32) {
    let mut numbers = text
        .split(['.', '-', '+'])
        .map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn nvidia_request(wanted: Wanted) -> DeviceRequest {
    let (count, device_ids) = match wanted {
        Wanted::Count(count) => (Some(i64::from(count)), None),
        Wanted::Uuids(ids) | Wanted::Cdi(ids) => (None, Some(ids)),
        Wanted::All => (Some(-1), None),
    };
    DeviceRequest {
        driver: Some("nvidia".into()),
        count,
        device_ids,
        capabilities: Some(vec![vec!["gpu".into()]]),
        options: None,
    }
}

fn cdi_request(names: Vec<String>, info: &Info, ways: &Ways) -> Result<DeviceRequest, String> {
    if !ways.cdi {
        return Err(match info.kind {
            Kind::Podman => format!(
                "Podman {} ignores requests for GPUs that come over its API; use Podman 5.4 or later, or Docker",
                info.version
            ),
            Kind::Docker => format!(
                "Docker {} has neither the runtime `nvidia` nor CDI devices; install nvidia-container-toolkit, run `sudo nvidia-ctk runtime configure --runtime=docker` and restart Docker",
                info.version
            ),
        });
    }
    if let Some(found) = &info.cdi_devices
        && let Some(missing) = names.iter().find(|name| !found.contains(name))
    {
        return Err(format!(
            "it has no device `{missing}`, only [{}]; `nvidia-ctk cdi generate` lists them anew",
            found.join(", ")
        ));
    }
    Ok(DeviceRequest {
        driver: Some("cdi".into()),
        count: None,
        device_ids: Some(names),
        capabilities: None,
        options: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn docker() -> Info {
        Info {
            kind: Kind::Docker,
            version: "28.3.0".into(),
            api_version: "1.51".into(),
            runtimes: vec!["runc".into()],
            cdi_spec_dirs: Vec::new(),
            cdi_devices: None,
            nvidia_hook: false,
            memory_limit: true,
            finds_layers: true,
            rootless: false,
        }
    }

    fn with_nvidia() -> Info {
        Info {
            runtimes: vec!["nvidia".into(), "runc".into()],
            ..docker()
        }
    }

    fn with_cdi(devices: &[&str]) -> Info {
        Info {
            cdi_spec_dirs: vec!["/etc/cdi".into()],
            cdi_devices: Some(devices.iter().map(|name| (*name).to_owned()).collect()),
            ..docker()
        }
    }

    fn podman(version: &str) -> Info {
        let runtimes = vec!["nvidia".into()];
        Info {
            kind: Kind::Podman,
            version: version.into(),
            runtimes,
            ..docker()
        }
    }

    fn ids(request: &DeviceRequest) -> Vec<&str> {
        request
            .device_ids
            .iter()
            .flatten()
            .map(String::as_str)
            .collect()
    }

    #[test]
    fn no_gpus_need_no_engine_support() {
        for none in [None, Some(Gpus::Count(0)), Some(Gpus::Devices(vec![]))] {
            assert_eq!(request(none.as_ref(), &docker()), Ok(None));
        }
    }

    #[test]
    fn the_nvidia_driver_takes_numbers_and_uuids() {
        let two = request(Some(&Gpus::Count(2)), &with_nvidia())
            .unwrap()
            .unwrap();
        assert_eq!(
            (two.driver.as_deref(), two.count),
            (Some("nvidia"), Some(2))
        );
        assert_eq!(two.capabilities, Some(vec![vec!["gpu".to_owned()]]));
        let all = request(Some(&Gpus::One("all".into())), &with_nvidia())
            .unwrap()
            .unwrap();
        assert_eq!(all.count, Some(-1));
        let uuids = Gpus::Devices(vec!["GPU-1".into(), "MIG-2".into()]);
        let by_uuid = request(Some(&uuids), &with_nvidia()).unwrap().unwrap();
        assert_eq!(
            (by_uuid.count, ids(&by_uuid)),
            (None, vec!["GPU-1", "MIG-2"])
        );
        let hook = Info {
            nvidia_hook: true,
            ..docker()
        };
        assert!(request(Some(&uuids), &hook).is_ok());
    }

    #[test]
    fn cdi_takes_names_and_the_rest_is_translated() {
        let info = with_cdi(&["nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=all"]);
        let named = Gpus::One("nvidia.com/gpu=1".into());
        let request_named = request(Some(&named), &info).unwrap().unwrap();
        assert_eq!(request_named.driver.as_deref(), Some("cdi"));
        assert_eq!(ids(&request_named), ["nvidia.com/gpu=1"]);
        let two = request(Some(&Gpus::Count(2)), &info).unwrap().unwrap();
        assert_eq!(ids(&two), ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]);
        let three = request(Some(&Gpus::Count(3)), &info).unwrap_err();
        assert!(three.contains("no device `nvidia.com/gpu=2`"), "{three}");
    }

    #[test]
    fn refuses_engines_that_cannot() {
        let named = Gpus::One("nvidia.com/gpu=0".into());
        for gpus in [Gpus::Count(1), Gpus::One("all".into()), named.clone()] {
            let reason = request(Some(&gpus), &docker()).unwrap_err();
            assert!(reason.contains("nvidia-ctk"), "{reason}");
            let reason = request(Some(&gpus), &podman("4.9.3")).unwrap_err();
            assert!(reason.contains("Podman 5.4"), "{reason}");
        }
        assert!(
            request(Some(&named), &with_nvidia()).is_err(),
            "a CDI name needs CDI"
        );
        let uuid = Gpus::One("GPU-7".into());
        let by_cdi = request(Some(&uuid), &podman("5.4.2")).unwrap().unwrap();
        assert_eq!(ids(&by_cdi), ["nvidia.com/gpu=GPU-7"]);
    }

    #[test]
    fn refuses_names_that_are_neither() {
        for bad in [
            Gpus::One("0".into()),
            Gpus::Devices(vec!["GPU-1".into(), "a/b=0".into()]),
        ] {
            assert!(
                request(Some(&bad), &with_nvidia())
                    .unwrap_err()
                    .contains("nvidia-smi -L")
            );
        }
    }
}
