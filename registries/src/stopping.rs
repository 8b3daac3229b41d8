//! Reading that ends when it is called off: what nobody waits for any more would otherwise keep a
//! program from ending, or a disk busy.

use std::io::{self, Read, Write};
use std::sync::Arc;

use mlwm_artifacts::ReadAt;
use tokio_util::sync::CancellationToken;

use crate::Error;

/// What fails as soon as it is called off.
pub(crate) struct Stopping<T> {
    inner: T,
    stop: CancellationToken,
}

impl<T> Stopping<T> {
    pub(crate) fn new(inner: T, stop: &CancellationToken) -> Self {
        Self {
            inner,
            stop: stop.clone(),
        }
    }

    fn go_on(&self) -> io::Result<()> {
        match self.stop.is_cancelled() {
            true => Err(io::Error::other("it was called off")),
            false => Ok(()),
        }
    }
}

/// What came of work that reads, or that it was called off.
pub(crate) fn unless_stopped<T, E: Into<Error>>(
    stop: &CancellationToken,
    result: Result<T, E>,
) -> Result<T, Error> {
    result.map_err(|error| match stop.is_cancelled() {
        true => Error::Interrupted,
        false => error.into(),
    })
}

impl<R: Read> Read for Stopping<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.go_on()?;
        self.inner.read(buffer)
    }
}

impl<W: Write> Write for Stopping<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.go_on()?;
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl ReadAt for Stopping<Arc<dyn ReadAt>> {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.go_on()?;
        self.inner.read_at(buffer, offset)
    }
}
