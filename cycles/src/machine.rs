//! How much of this machine its containers may use at once.
//!
//! Tasks are prepared and published beside each other; their containers run when there is room for
//! what their `resources` ask for, in the order of the plan. One that does not say how many
//! processors and how much memory it needs runs alone, and so does one that asks for more than
//! there is. Of two that want GPUs without naming them only one runs: which ones the engine would
//! give them is not known.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mlwm_spec::configuration::{Gpus, Resources};
use tokio::sync::{Notify, Semaphore};

use crate::space::Disk;

/// What containers may use in all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Processors.
    pub cpus: f64,
    /// Memory in bytes.
    pub memory: u64,
    /// Space in the working folder, in bytes.
    pub disk: u64,
    /// Whether that was asked for, and is not all that there is: then no container may write more.
    pub is_disk_bound: bool,
    /// Space on the disk of the working folder that stays free, in bytes: a container is stopped
    /// before it takes that.
    pub reserve: u64,
    /// Containers.
    pub containers: usize,
}

/// The room that is taken.
#[derive(Debug)]
pub(crate) struct Machine {
    budget: Budget,
    state: Mutex<State>,
    changed: Notify,
    pub(crate) disk: Disk,
    /// The place of a converter: there is one, beside those of models. In the queue for theirs it would wait for
    /// ever for a container that serves several members, which waits for the inputs of the next.
    pub(crate) converter: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    running: Vec<(usize, Share)>,
    waiting: BTreeSet<usize>,
}

/// What one container uses.
#[derive(Clone, Debug, PartialEq)]
struct Share {
    cpus: f64,
    memory: u64,
    gpus: Devices,
}

#[derive(Clone, Debug, PartialEq)]
enum Devices {
    None,
    Any,
    Named(Vec<String>),
}

/// The room of one container; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Room<'a> {
    machine: &'a Machine,
    turn: usize,
}

/// A place in the queue, left when it is dropped.
struct Waiting<'a> {
    machine: &'a Machine,
    turn: usize,
}

impl Machine {
    pub(crate) fn new(budget: Budget) -> Self {
        Self {
            budget,
            state: Mutex::default(),
            changed: Notify::new(),
            disk: Disk::new(budget.disk),
            converter: Semaphore::new(1),
        }
    }

    /// What a container may write with its inputs, in bytes: what it says, or what the run may use.
    pub(crate) fn most_written(&self, resources: &Resources) -> u64 {
        match (resources.disk, self.budget.is_disk_bound) {
            (Some(stated), _) => stated.0,
            (None, true) => self.budget.disk,
            (None, false) => u64::MAX,
        }
    }

    /// How many tasks to have under way: as many as may run, and one that is prepared meanwhile.
    pub(crate) fn tasks_at_once<'a>(&self, tasks: impl Iterator<Item = &'a Resources>) -> usize {
        let fitting = tasks.map(|resources| {
            let share = self.share(resources);
            let cpus = self.budget.cpus / share.cpus.max(0.001);
            let memory = self.budget.memory / share.memory.max(1);
            (cpus as usize).min(usize::try_from(memory).unwrap_or(usize::MAX))
        });
        fitting
            .max()
            .unwrap_or(1)
            .clamp(1, self.budget.containers.max(1))
            + 1
    }

    /// Waits until there is room for a container. Of those that wait, the one with the lowest `turn`
    /// is next; no two may have the same.
    pub(crate) async fn room(&self, turn: usize, resources: &Resources) -> Room<'_> {
        let share = self.share(resources);
        self.state().waiting.insert(turn);
        let waiting = Waiting {
            machine: self,
            turn,
        };
        loop {
            // Registered before looking, so that no change between the two is missed.
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.enter(turn, &share) {
                drop(waiting);
                return Room {
                    machine: self,
                    turn,
                };
            }
            changed.await;
        }
    }

    fn enter(&self, turn: usize, share: &Share) -> bool {
        let mut state = self.state();
        let next = state.waiting.first() == Some(&turn);
        if !next || !self.fits(&state, share) {
            return false;
        }
        state.running.push((turn, share.clone()));
        true
    }

    fn fits(&self, state: &State, share: &Share) -> bool {
        if state.running.is_empty() {
            return true;
        }
        let used = || state.running.iter().map(|(_, share)| share);
        state.running.len() < self.budget.containers
            && used().map(|share| share.cpus).sum::<f64>() + share.cpus <= self.budget.cpus
            && used().map(|share| share.memory).sum::<u64>() + share.memory <= self.budget.memory
            && !used().any(|other| other.gpus.overlap(&share.gpus))
    }

    fn share(&self, resources: &Resources) -> Share {
        let memory = resources.memory.map(|memory| memory.0);
        Share {
            cpus: resources
                .cpus
                .unwrap_or(self.budget.cpus)
                .min(self.budget.cpus),
            memory: memory.unwrap_or(self.budget.memory).min(self.budget.memory),
            gpus: match &resources.gpus {
                None | Some(Gpus::Count(0)) => Devices::None,
                Some(Gpus::Count(_)) => Devices::Any,
                Some(Gpus::One(all)) if all == "all" => Devices::Any,
                Some(Gpus::One(device)) => Devices::Named(vec![device.clone()]),
                Some(Gpus::Devices(devices)) => Devices::Named(devices.clone()),
            },
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Devices {
    fn overlap(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, _) | (_, Self::None) => false,
            (Self::Named(some), Self::Named(others)) => {
                some.iter().any(|device| others.contains(device))
            }
            _ => true,
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.machine.state().waiting.remove(&self.turn);
        self.machine.changed.notify_waiters();
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        let mut state = self.machine.state();
        state.running.retain(|(turn, _)| *turn != self.turn);
        drop(state);
        self.machine.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn machine() -> Machine {
        Machine::new(Budget {
            cpus: 8.0,
            memory: 16 << 30,
            disk: 100 << 30,
            is_disk_bound: false,
            reserve: 0,
            containers: 4,
        })
    }

    fn needs(yaml: &str) -> Resources {
        serde_json::from_str(yaml).unwrap()
    }

    async fn has_room(machine: &Machine, turn: usize, resources: &Resources) -> bool {
        let room = machine.room(turn, resources);
        tokio::time::timeout(Duration::from_millis(20), room)
            .await
            .map(std::mem::forget)
            .is_ok()
    }

    #[tokio::test]
    async fn containers_run_beside_each_other_while_they_fit() {
        let machine = machine();
        let small = needs(r#"{"cpus": 2, "memory": "4GiB"}"#);
        let first = machine.room(0, &small).await;
        assert!(has_room(&machine, 1, &small).await);
        assert!(!has_room(&machine, 2, &needs(r#"{"cpus": 5, "memory": "1GiB"}"#)).await);
        assert!(!has_room(&machine, 3, &needs(r#"{"cpus": 1, "memory": "9GiB"}"#)).await);
        assert!(
            !has_room(&machine, 4, &needs(r#"{"cpus": 1}"#)).await,
            "unknown memory"
        );
        assert!(has_room(&machine, 5, &small).await);
        assert!(has_room(&machine, 6, &needs(r#"{"cpus": 0.5, "memory": "1GiB"}"#)).await);
        let tiny = needs(r#"{"cpus": 0.1, "memory": "1MiB"}"#);
        assert!(!has_room(&machine, 7, &tiny).await, "four run");
        drop(first);
        assert!(has_room(&machine, 8, &tiny).await);
    }

    #[tokio::test]
    async fn what_says_nothing_or_asks_too_much_runs_alone() {
        for alone in ["{}", r#"{"cpus": 64, "memory": "1TiB"}"#] {
            let machine = machine();
            let room = machine.room(0, &needs(alone)).await;
            let small = needs(r#"{"cpus": 0.1, "memory": "1MiB"}"#);
            assert!(!has_room(&machine, 1, &small).await);
            drop(room);
            assert!(has_room(&machine, 1, &small).await);
            assert!(!has_room(&machine, 2, &needs(alone)).await);
        }
    }

    #[tokio::test]
    async fn gpus_are_not_shared() {
        let machine = machine();
        let gpu = |gpus: &str| {
            needs(&format!(
                r#"{{"cpus": 1, "memory": "1GiB", "gpus": {gpus}}}"#
            ))
        };
        assert!(has_room(&machine, 0, &gpu(r#"["GPU-a", "GPU-b"]"#)).await);
        assert!(!has_room(&machine, 1, &gpu(r#""GPU-b""#)).await);
        assert!(!has_room(&machine, 2, &gpu("1")).await);
        assert!(!has_room(&machine, 3, &gpu(r#""all""#)).await);
        assert!(has_room(&machine, 4, &gpu(r#""GPU-c""#)).await);
        assert!(has_room(&machine, 5, &gpu("0")).await);
    }

    #[tokio::test]
    async fn a_big_one_is_not_passed_by_those_behind_it() {
        let machine = machine();
        let small = needs(r#"{"cpus": 2, "memory": "1GiB"}"#);
        let all = needs(r#"{"cpus": 8, "memory": "1GiB"}"#);
        let first = machine.room(0, &small).await;
        let order = Mutex::new(Vec::new());
        let enter = async |turn: usize, resources: &Resources| {
            let room = machine.room(turn, resources).await;
            order.lock().unwrap().push(turn);
            tokio::task::yield_now().await;
            drop(room);
        };
        let begin = async {
            tokio::task::yield_now().await;
            drop(first);
        };
        tokio::join!(enter(1, &all), enter(2, &small), begin);
        assert_eq!(*order.lock().unwrap(), [1, 2]);
    }

    #[tokio::test]
    async fn who_gives_up_waiting_does_not_stop_those_behind() {
        let machine = machine();
        let all = needs("{}");
        let first = machine.room(0, &all).await;
        assert!(!has_room(&machine, 1, &all).await);
        drop(first);
        assert!(has_room(&machine, 2, &all).await);
    }
}
