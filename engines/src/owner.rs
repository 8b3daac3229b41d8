//! Which process something belongs to (a container, a claim), so that what a dead one left behind can
//! be told from what is in use.

use std::fs;

/// The label that names the owner.
pub(crate) const LABEL: &str = "io.mlwm.owner";

/// Whether the process that owns something still lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// It lives.
    Alive,
    /// It does not.
    Dead,
    /// It cannot be told: another host, or another PID namespace of this one.
    Unknown,
}

/// This process, as a text to be judged later: boot, PID namespace, PID and start time. `None` where
/// the system does not tell them (`/proc` is not Linux's).
pub fn this_process() -> Option<String> {
    let pid = std::process::id();
    Some(format!("{} {pid} {}", pid_space()?, start_time(pid)?))
}

/// Judges the owner that such a text names.
pub fn judge(label: Option<&str>) -> Owner {
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

/// Whether such a text names a process of another boot than this one, or of another host.
pub fn is_of_other_boot(label: &str) -> bool {
    let boot = parse(label).and_then(|(space, ..)| Some(space.split_once(' ')?.0));
    boot.is_some_and(|boot| this_boot().is_some_and(|this| this != boot))
}

fn parse(label: &str) -> Option<(&str, u32, u64)> {
    let (rest, started) = label.rsplit_once(' ')?;
    let (space, pid) = rest.rsplit_once(' ')?;
    Some((space, pid.parse().ok()?, started.parse().ok()?))
}

/// Where a PID means something: one boot of one host, and one PID namespace of it.
fn pid_space() -> Option<String> {
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{} {}", this_boot()?, namespace.display()))
}

fn this_boot() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(boot.trim().to_owned())
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
        assert!(is_of_other_boot("other-boot pid:[1] 1 1"));
        assert!(!is_of_other_boot(&this_process().unwrap()));
        assert!(!is_of_other_boot("nonsense"));
    }
}
