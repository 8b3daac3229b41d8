//! What every transfer of one big object needs, whichever server is at the other end.
//!
//! * [`feed`]: content is read ahead on a thread into pooled buffers and hashed on the way;
//! * [`journal`]: what a later process must know to continue an upload;
//! * [`retry`]: which failures pass, and how long to wait for that;
//! * [`stall`]: the end of a connection that says nothing;
//! * [`http`]: the client, and what its errors mean;
//! * [`object`]: an object behind HTTP, read by ranges;
//! * [`upload`]: what an upload is given, and the comparison with what is there already;
//! * [`download`]: bringing an object to a file, continued where it was interrupted.

pub(crate) mod download;
pub(crate) mod feed;
pub(crate) mod http;
pub(crate) mod journal;
pub(crate) mod object;
pub(crate) mod retry;
pub(crate) mod stall;
pub(crate) mod upload;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use mlwm_spec::Digest;

use self::retry::Failure;

/// Which bytes of an object are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// `length` bytes from byte `start`; fewer where the object ends before.
    From {
        /// The first byte, counted from 0.
        start: u64,
        /// How many.
        length: u64,
    },
    /// The last bytes: all of them if the object has fewer.
    Last(u64),
}

/// Bytes of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangePart {
    /// The bytes.
    pub bytes: Bytes,
    /// Size of the whole object in bytes.
    pub object_size: u64,
    /// What changes when the object does, where the store says it.
    pub etag: Option<String>,
}

/// What a download must turn out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of all bytes.
    pub digest: Digest,
}

/// An object on a server that can be read from any byte on.
pub(crate) trait RangeSource: Send + Sync {
    /// Its name for people, without secrets.
    fn name(&self) -> String;

    /// Asks once for everything from byte `start` (below `size`) on; whoever calls repeats it.
    fn open_at(&self, start: u64, size: u64) -> BoxFuture<'_, Result<Arriving, Failure>>;
}

/// An object that is arriving.
pub(crate) struct Arriving {
    /// The byte the stream really begins with: 0 where a server ignored the range.
    pub(crate) start: u64,
    /// Size of the whole object, where the server said it.
    pub(crate) object_size: Option<u64>,
    /// What comes.
    pub(crate) bytes: BoxStream<'static, Result<Bytes, Failure>>,
}
