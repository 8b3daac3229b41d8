//! The copy itself, by several threads.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::copy::copy_part;
use super::plan::window;
use super::{Block, Sink, Source};
use crate::Fault;

/// One way from a source to a sink.
pub(crate) struct Pass<'a> {
    pub(crate) source: &'a dyn Source,
    pub(crate) sink: &'a dyn Sink,
    /// The size of a value in bytes.
    pub(crate) size: usize,
    /// The cells of the source in the order in which they are read.
    pub(crate) order: Vec<usize>,
    /// Where in the order all that was begun has to be finished before more is read.
    pub(crate) batches: Vec<usize>,
    pub(crate) workers: usize,
}

/// A cell of the sink that is being filled.
struct Begun {
    bytes: Vec<u8>,
    whole: Block,
    block: Block,
    /// How many of its values are not there yet.
    remaining: u64,
}

#[derive(Default)]
struct State {
    next: usize,
    under_way: BTreeSet<usize>,
    begun: HashMap<usize, Arc<Mutex<Begun>>>,
    /// Buffers to be used again.
    free: Vec<Vec<u8>>,
    fault: Option<Fault>,
}

struct Run<'a> {
    pass: &'a Pass<'a>,
    state: Mutex<State>,
    changed: Condvar,
}

/// Copies everything.
///
/// # Errors
/// The first that any thread meets.
pub(crate) fn run(pass: &Pass<'_>) -> Result<(), Fault> {
    let run = Run {
        pass,
        state: Mutex::default(),
        changed: Condvar::new(),
    };
    std::thread::scope(|scope| {
        for worker in 1..pass.workers {
            let run = &run;
            scope.spawn(move || run.work(worker));
        }
        run.work(0);
    });
    let state = run
        .state
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    match state.fault {
        Some(fault) => Err(fault),
        None => Ok(()),
    }
}

impl Run<'_> {
    fn work(&self, worker: usize) {
        let mut bytes = Vec::new();
        while let Some(at) = self.take() {
            let done = Done { run: self, at };
            if let Err(fault) = self.deal_with(self.pass.order[at], worker, &mut bytes) {
                lock(&self.state).fault.get_or_insert(fault);
            }
            drop(done);
        }
    }

    /// The next place in the order; none at its end or after a fault.
    fn take(&self) -> Option<usize> {
        let mut state = lock(&self.state);
        loop {
            if state.fault.is_some() || state.next == self.pass.order.len() {
                return None;
            }
            let next = state.next;
            let may_begin = match state.under_way.first() {
                None => true,
                Some(&oldest) => {
                    let batch = |at| self.pass.batches.partition_point(|&end| end <= at);
                    next < oldest + window(self.pass.workers) && batch(oldest) == batch(next)
                }
            };
            if may_begin {
                state.next += 1;
                state.under_way.insert(next);
                return Some(next);
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn deal_with(&self, cell: usize, worker: usize, bytes: &mut Vec<u8>) -> Result<(), Fault> {
        let (source, sink) = (self.pass.source, self.pass.sink);
        let held = source.read(cell, bytes)?;
        let block = source.grid().block(cell);
        let mut targets = sink.grid().overlapping(&block);
        // Threads begin at different ones, so as not to wait for each other.
        let shift = targets.len() * worker / self.pass.workers;
        targets.rotate_left(shift);
        for target in targets {
            let begun = self.begun(target);
            let mut begun = lock(&begun);
            let part = block.common(&begun.block);
            let Begun {
                bytes: to, whole, ..
            } = &mut *begun;
            copy_part((bytes, &held), (to, whole), &part, self.pass.size);
            begun.remaining -= part.len();
            if begun.remaining == 0 {
                sink.write(target, &begun.bytes)?;
                let bytes = std::mem::take(&mut begun.bytes);
                let mut state = lock(&self.state);
                state.begun.remove(&target);
                state.free.push(bytes);
            }
        }
        Ok(())
    }

    /// The buffer of a cell of the sink.
    fn begun(&self, target: usize) -> Arc<Mutex<Begun>> {
        let mut state = lock(&self.state);
        if let Some(begun) = state.begun.get(&target) {
            return Arc::clone(begun);
        }
        let sink = self.pass.sink;
        let (whole, block) = (sink.whole(target), sink.grid().block(target));
        let length = whole.len() as usize * self.pass.size;
        let mut bytes = match state.free.pop() {
            Some(bytes) => bytes,
            None => Vec::with_capacity(sink.grid().largest() as usize * self.pass.size),
        };
        bytes.resize(length, 0);
        let begun = Arc::new(Mutex::new(Begun {
            remaining: block.len(),
            bytes,
            whole,
            block,
        }));
        state.begun.insert(target, Arc::clone(&begun));
        let mut filled = lock(&begun);
        drop(state);
        if filled.whole != filled.block {
            let fill = sink.fill();
            for value in filled.bytes.chunks_exact_mut(fill.len()) {
                value.copy_from_slice(fill);
            }
        }
        drop(filled);
        begun
    }
}

/// Says that a place in the order is dealt with, also when its thread panics.
struct Done<'a> {
    run: &'a Run<'a>,
    at: usize,
}

impl Drop for Done<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.run.state);
        state.under_way.remove(&self.at);
        self.run.changed.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
