//! Which process a container belongs to, so that one whose owner is dead can be told from one that
//! is being run.

use std::fs;

/// The label that names the owner.
pub(crate) const LABEL: &str = "io.mlwm.owner";

/// Whether the process that started a container still lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Alive,
    Dead,
    /// It cannot be told: another host, or another PID namespace of this one.
    Unknown,
}

/// This process, as the value of [`LABEL`]: boot, PID namespace, PID and start time. `None` where
/// the system does not tell them (`/proc` is not Linux's).
pub(crate) fn this_process() -> Option<String> {
    let pid = std::process::id();
    Some(format!("{} {pid} {}", pid_space()?, start_time(pid)?))
}

/// Judges the owner that a label names.
pub(crate) fn judge(label: Option<&str>) -> Owner {
    let Some((space, pid, started)) = label.and_then(parse) else {
        return Owner::Unknown;
    };
    if pid_space().as_deref() != Some(space) {
        return Owner::Unknown;
    }
    match start_time(pid) {
        Some(now) if now == started => Owner::Alive,
        _ => Owner::Dead,
    }
}

fn parse(label: &str) -> Option<(&str, u32, u64)> {
    let (rest, started) = label.rsplit_once(' ')?;
    let (space, pid) = rest.rsplit_once(' ')?;
    Some((space, pid.parse().ok()?, started.parse().ok()?))
}

/// Where a PID means something: one boot of one host, and one PID namespace of it.
fn pid_space() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{} {}", boot.trim(), namespace.display()))
}

/// Start time of a process in clock ticks since boot: field 22 of `/proc/<pid>/stat`, counted
/// behind the command's name, which may hold spaces and parentheses.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None; // dead, and only waiting to be reaped
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_living_from_the_dead() {
        let this = this_process().unwrap();
        assert_eq!(judge(Some(&this)), Owner::Alive);

        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let label = format!(
            "{} {} {}",
            pid_space().unwrap(),
            child.id(),
            start_time(child.id()).unwrap()
        );
        assert_eq!(judge(Some(&label)), Owner::Alive);
        child.kill().unwrap();
        while judge(Some(&label)) == Owner::Alive {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert_eq!(judge(Some(&label)), Owner::Dead, "a zombie is dead");
        child.wait().unwrap();
        assert_eq!(judge(Some(&label)), Owner::Dead);
    }

    #[test]
    fn a_pid_used_again_is_another_owner() {
        let label = format!("{} {} 1", pid_space().unwrap(), std::process::id());
        assert_eq!(judge(Some(&label)), Owner::Dead);
    }

    #[test]
    fn other_hosts_cannot_be_judged() {
        assert_eq!(judge(Some("other-boot pid:[1] 1 1")), Owner::Unknown);
        assert_eq!(judge(Some("nonsense")), Owner::Unknown);
        assert_eq!(judge(None), Owner::Unknown);
    }
}
