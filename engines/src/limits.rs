//! What a container may use, whether its configuration says it or not.

use mlwm_spec::configuration::Resources;

/// Processes and threads. Enough for several thread pools of a large node, too few for a fork
/// bomb to harm it.
const PROCESSES: u32 = 16 * 1024;
/// Size of `/tmp` where no limit of memory is set; else it is half of that limit, which it counts
/// against.
const TMP_BYTES: u64 = 1 << 30;
/// Size of `/dev/shm`, which is the engines' own.
const SHM_BYTES: u64 = 64 << 20;

/// The limits of a container that every container has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Processes and threads, those of the init process among them.
    pub processes: u32,
    /// Size of `/tmp` in bytes.
    pub tmp: u64,
    /// Size of `/dev/shm` in bytes.
    pub shm: u64,
}

impl Limits {
    /// Those of a container with these resources.
    pub fn of(resources: &Resources) -> Self {
        Self {
            processes: resources.processes.unwrap_or(PROCESSES),
            tmp: resources.memory.map_or(TMP_BYTES, |limit| limit.0 / 2),
            shm: resources.shm_size.map_or(SHM_BYTES, |size| size.0),
        }
    }
}
