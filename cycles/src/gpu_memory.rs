//! Whether GPUs have the memory free that models need, before any container is begun.
//!
//! What they have is asked once, when the run begins: later its own models use it.

use std::process::Stdio;
use std::time::Duration;

use mlwm_spec::bytes::ByteSize;
use mlwm_spec::configuration::{Gpus, Resources};
use tokio::process::Command;

use crate::plan::Plan;

/// The program of NVIDIA's driver that says it.
const PROGRAM: &str = "nvidia-smi";

/// What it is asked.
const QUESTION: [&str; 2] = [
    "--query-gpu=index,uuid,name,memory.total,memory.free",
    "--format=csv,noheader,nounits",
];

/// A driver that does not answer in this time will not.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of the unit in which it answers.
const MIB: u64 = 1 << 20;

/// Why a model would not have the memory that it needs, or why that is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GpuMemoryError {
    /// Nobody says what is free.
    #[error(
        "`nvidia-smi`, which says whether GPUs have `resources.gpu_memory` free, {0}: install it with NVIDIA's driver and \
         have it in PATH, or take that key out; no container was started"
    )]
    NotAsked(String),
    /// An answer that is none.
    #[error(
        "`nvidia-smi` says `{0}` of a GPU, which is no index, UUID, name and two sizes: take `resources.gpu_memory` out; \
         no container was started"
    )]
    Answer(String),
    /// A GPU that is not listed.
    #[error(
        "GPU {wanted} is asked for with `resources.gpu_memory`, and `nvidia-smi` lists {found}: name others, or, for a part \
         of a GPU (MIG), take that key out; no container was started"
    )]
    NotListed {
        /// Which.
        wanted: String,
        /// Those that are.
        found: String,
    },
    /// A GPU of which it is not said.
    #[error(
        "`nvidia-smi` does not say how much memory GPU {0} has free: take `resources.gpu_memory` out; no container was \
         started"
    )]
    NotSaid(String),
    /// Too little is free.
    #[error(
        "GPU {gpu} has {free} MiB of {total} MiB free, and `resources.gpu_memory` says that the model needs {needed}: end \
         what uses it (`nvidia-smi` lists it), or use another one; no container was started"
    )]
    Short {
        /// Which.
        gpu: String,
        /// MiB that are free.
        free: u64,
        /// MiB that it has, as they are listed.
        total: String,
        /// What is needed.
        needed: ByteSize,
    },
}

/// The GPUs of this machine before the run's first container; `None` if nobody asks for their memory.
#[derive(Debug)]
pub(crate) struct GpuMemory(Option<Result<Vec<Gpu>, GpuMemoryError>>);

/// A GPU as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Gpu {
    index: String,
    uuid: String,
    name: String,
    /// In MiB.
    total: String,
    /// In MiB; `None` if the driver does not say it.
    free: Option<u64>,
}

impl GpuMemory {
    /// Asks, if a task of a plan needs to know.
    pub(crate) async fn look(plan: &Plan) -> Self {
        let mut tasks = plan.tasks.iter();
        let is_asked = tasks.any(|task| task.resources.gpu_memory.is_some());
        Self(match is_asked {
            true => Some(ask().await.and_then(|answer| read(&answer))),
            false => None,
        })
    }

    /// Whether each GPU that a container would get has enough.
    pub(crate) fn check(&self, resources: &Resources) -> Result<(), GpuMemoryError> {
        let (Some(found), Some(gpus), Some(needed)) =
            (&self.0, &resources.gpus, resources.gpu_memory)
        else {
            return Ok(());
        };
        let found = found.as_ref().map_err(Clone::clone)?;
        for gpu in wanted(gpus, found)? {
            let free = gpu
                .free
                .ok_or_else(|| GpuMemoryError::NotSaid(gpu.title()))?;
            if free.saturating_mul(MIB) < needed.0 {
                return Err(GpuMemoryError::Short {
                    gpu: gpu.title(),
                    free,
                    total: gpu.total.clone(),
                    needed,
                });
            }
        }
        Ok(())
    }
}

impl Gpu {
    /// What people call it.
    fn title(&self) -> String {
        format!("{} ({}, {})", self.index, self.name, self.uuid)
    }
}

/// Those that a container gets: by number the first ones, as the engine gives them.
fn wanted<'a>(gpus: &Gpus, found: &'a [Gpu]) -> Result<Vec<&'a Gpu>, GpuMemoryError> {
    let named = |names: &[String]| names.iter().map(|name| one(name, found)).collect();
    match gpus {
        Gpus::Count(count) => (0..*count)
            .map(|index| one(&index.to_string(), found))
            .collect(),
        Gpus::One(all) if all == "all" || all.ends_with("=all") => match found {
            [] => Err(not_listed(all, found)),
            found => Ok(found.iter().collect()),
        },
        Gpus::One(name) => named(std::slice::from_ref(name)),
        Gpus::Devices(names) => named(names),
    }
}

/// A GPU by its index, its UUID, or its name in CDI, which ends with one of these.
fn one<'a>(name: &str, found: &'a [Gpu]) -> Result<&'a Gpu, GpuMemoryError> {
    let device = name.split_once('=').map_or(name, |(_, device)| device);
    let is_meant = |gpu: &&Gpu| gpu.index == device || gpu.uuid == device;
    found
        .iter()
        .find(is_meant)
        .ok_or_else(|| not_listed(name, found))
}

fn not_listed(wanted: &str, found: &[Gpu]) -> GpuMemoryError {
    let titles: Vec<String> = found.iter().map(Gpu::title).collect();
    GpuMemoryError::NotListed {
        wanted: wanted.to_owned(),
        found: match titles.is_empty() {
            true => "none".to_owned(),
            false => titles.join(", "),
        },
    }
}

async fn ask() -> Result<String, GpuMemoryError> {
    let asked = Command::new(PROGRAM)
        .args(QUESTION)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let not_asked = |why: String| Err(GpuMemoryError::NotAsked(why));
    match tokio::time::timeout(PATIENCE, asked).await {
        Err(_) => not_asked(format!("did not answer in {} s", PATIENCE.as_secs())),
        Ok(Err(error)) => not_asked(format!("cannot be run ({error})")),
        Ok(Ok(output)) if !output.status.success() => {
            // It says there, not on standard error, that it does not reach the driver.
            let said = String::from_utf8_lossy(&output.stdout);
            let said = said.lines().next().unwrap_or_default().trim().to_owned();
            not_asked(format!("ended with {} and said `{said}`", output.status))
        }
        Ok(Ok(output)) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
    }
}

fn read(answer: &str) -> Result<Vec<Gpu>, GpuMemoryError> {
    let lines = answer.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| gpu(line).ok_or_else(|| GpuMemoryError::Answer(line.trim().to_owned())))
        .collect()
}

fn gpu(line: &str) -> Option<Gpu> {
    let (index, rest) = line.split_once(',')?;
    let (uuid, rest) = rest.split_once(',')?;
    let (rest, free) = rest.rsplit_once(',')?;
    // The name is between, and may have commas.
    let (name, total) = rest.rsplit_once(',')?;
    let free = free.trim();
    index.trim().parse::<u32>().ok()?;
    Some(Gpu {
        index: index.trim().to_owned(),
        uuid: uuid.trim().to_owned(),
        name: name.trim().to_owned(),
        total: total.trim().to_owned(),
        free: match free.starts_with('[') {
            // `[N/A]`
            true => None,
            false => Some(free.parse().ok()?),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "\
0, GPU-aaaa, NVIDIA H100 80GB HBM3, 81559, 81008
1, GPU-bbbb, NVIDIA H100 80GB HBM3, 81559, 38146
";

    fn resources(json: &str) -> Resources {
        serde_json::from_str(json).unwrap()
    }

    fn check(answer: &str, json: &str) -> Result<(), GpuMemoryError> {
        GpuMemory(Some(read(answer))).check(&resources(json))
    }

    #[test]
    fn each_gpu_that_a_container_gets_must_have_enough() {
        for enough in [
            r#"{"gpus": 1, "gpu_memory": "40GB"}"#,
            // 38146 MiB are a little less than 40 GB.
            r#"{"gpus": 2, "gpu_memory": "38146MiB"}"#,
            r#"{"gpus": ["GPU-aaaa"], "gpu_memory": "79GiB"}"#,
            r#"{"gpus": "nvidia.com/gpu=0", "gpu_memory": "79GiB"}"#,
            r#"{"gpus": ["nvidia.com/gpu=GPU-aaaa"], "gpu_memory": "79GiB"}"#,
            r#"{"gpus": 2}"#,
        ] {
            assert_eq!(check(TWO, enough), Ok(()), "{enough}");
        }
        for short in [
            r#"{"gpus": 2, "gpu_memory": "40GB"}"#,
            r#"{"gpus": "all", "gpu_memory": "40GB"}"#,
            r#"{"gpus": "nvidia.com/gpu=all", "gpu_memory": "40GB"}"#,
            r#"{"gpus": "GPU-bbbb", "gpu_memory": "40GB"}"#,
            r#"{"gpus": ["GPU-aaaa", "GPU-bbbb"], "gpu_memory": "40GB"}"#,
            r#"{"gpus": ["nvidia.com/gpu=1"], "gpu_memory": "40GB"}"#,
        ] {
            assert_eq!(
                check(TWO, short),
                Err(GpuMemoryError::Short {
                    gpu: "1 (NVIDIA H100 80GB HBM3, GPU-bbbb)".to_owned(),
                    free: 38146,
                    total: "81559".to_owned(),
                    needed: ByteSize(40_000_000_000),
                }),
                "{short}"
            );
        }
    }

    #[test]
    fn gpus_that_are_not_listed_are_said() {
        for (answer, wanted, gpus) in [
            (TWO, "2", "3"),
            (TWO, "MIG-1", r#""MIG-1""#),
            ("", "all", r#""all""#),
            ("", "0", "1"),
        ] {
            let json = format!(r#"{{"gpus": {gpus}, "gpu_memory": "1GB"}}"#);
            let error = check(answer, &json).unwrap_err();
            assert!(
                matches!(&error, GpuMemoryError::NotListed { wanted: said, .. } if said == wanted),
                "{error}"
            );
        }
    }

    #[test]
    fn answers_are_read_as_drivers_write_them() {
        let json = r#"{"gpus": 1, "gpu_memory": "1GB"}"#;
        assert_eq!(check("0, GPU-a, One, two, 5000, 4000\n\n", json), Ok(()));
        assert_eq!(
            check("0, GPU-a, NVIDIA GB10, [N/A], [N/A]\n", json),
            Err(GpuMemoryError::NotSaid("0 (NVIDIA GB10, GPU-a)".to_owned()))
        );
        for wrong in ["No devices were found", "0, GPU-a, One, 5000, much"] {
            assert_eq!(
                check(wrong, json),
                Err(GpuMemoryError::Answer(wrong.to_owned()))
            );
        }
    }

    #[test]
    fn what_nobody_asks_for_is_not_looked_at() {
        let unknown = || Some(Err(GpuMemoryError::NotAsked("is not there".to_owned())));
        let cpu = resources("{}");
        assert_eq!(GpuMemory(unknown()).check(&cpu), Ok(()));
        let gpu = resources(r#"{"gpus": 1, "gpu_memory": "1GB"}"#);
        assert!(GpuMemory(unknown()).check(&gpu).is_err());
    }
}
