//! The file of a variable and window: which members it includes, and what is known of them.
//!
//! `MLWM-ENS`, the version, then a header as JSON with its length before it and its crc32c after;
//! then, for every step and every block of points, the sections of the block: each with its length
//! and its crc32c before it, compressed by blosc. Numbers are little endian.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use mlwm_spec::{AnalysisTime, Digest};
use serde::{Deserialize, Serialize};

use super::EnsembleError;
use super::block::{Block, Kept};
use crate::blosc::{Blosc, OVERHEAD};
use crate::forecast_store::{FileInProgress, StoreError};

const MAGIC: &[u8; 8] = b"MLWM-ENS";

/// The version of the format.
const VERSION: u32 = 1;

/// A header longer than this is damaged.
const MAX_HEADER: u32 = 64 << 20;

/// What a file is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) analysis_time: AnalysisTime,
    pub(super) variable: String,
    pub(super) window: u64,
    /// The lead time of its first step in seconds.
    pub(super) first_lead: i64,
    pub(super) steps: u64,
    /// The shape of the plane of one step.
    pub(super) plane: Vec<u64>,
    pub(super) kept: Kept,
    /// The members that are included, with the digests of their content.
    pub(super) members: BTreeMap<u32, Digest>,
}

/// Compresses sections: one codec for each width.
pub(super) struct Codecs(BTreeMap<usize, Blosc>);

impl Codecs {
    pub(super) fn new(kept: &Kept) -> Result<Self, String> {
        let widths = kept.sections(1).into_iter().map(|(width, _)| width);
        widths
            .map(|width| Ok((width, Blosc::fast(width)?)))
            .collect::<Result<_, String>>()
            .map(Self)
    }

    fn of(&self, width: usize) -> Result<&Blosc, String> {
        self.0
            .get(&width)
            .ok_or_else(|| format!("no codec for values of {width} bytes"))
    }
}

/// A file being read, block by block.
pub(super) struct StateReader {
    path: PathBuf,
    file: BufReader<File>,
    pub(super) header: Header,
}

impl StateReader {
    /// Opens a file; none if there is none.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, EnsembleError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                let path = path.to_owned();
                return Err(EnsembleError::Read { path, source });
            }
        };
        let mut file = BufReader::with_capacity(1 << 20, file);
        let damaged = |reason: &str| EnsembleError::Damaged {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let mut start = [0; 16];
        read_exact(&mut file, &mut start, path)?;
        if &start[..8] != MAGIC {
            return Err(damaged("it does not begin with MLWM-ENS"));
        }
        let number = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|index| start[at + index]));
        if number(8) != VERSION {
            return Err(EnsembleError::Other {
                path: path.to_owned(),
                reason: format!("version {} of the format, not {VERSION}", number(8)),
            });
        }
        let length = number(12);
        if length > MAX_HEADER {
            return Err(damaged("its header is too long"));
        }
        let mut text = vec![0; length as usize];
        let mut checksum = [0; 4];
        read_exact(&mut file, &mut text, path)?;
        read_exact(&mut file, &mut checksum, path)?;
        if crc32c::crc32c(&text) != u32::from_le_bytes(checksum) {
            return Err(damaged("the checksum of its header is wrong"));
        }
        let header = serde_json::from_slice(&text).map_err(|error| damaged(&error.to_string()))?;
        Ok(Some(Self {
            path: path.to_owned(),
            file,
            header,
        }))
    }

    /// The next block, of so many points.
    pub(super) fn block(&mut self, points: usize, codecs: &Codecs) -> Result<Block, EnsembleError> {
        let kept = &self.header.kept;
        let members = self.header.members.len();
        let mut sections = Vec::new();
        for (width, count) in kept.sections(members) {
            let length = points * width * count;
            let mut start = [0; 8];
            read_exact(&mut self.file, &mut start, &self.path)?;
            let [packed, checksum] =
                [0, 4].map(|at| u32::from_le_bytes([0, 1, 2, 3].map(|index| start[at + index])));
            if u64::from(packed) > length as u64 + OVERHEAD {
                return Err(self.damaged("a section is too long".to_owned()));
            }
            let mut bytes = vec![0; packed as usize];
            read_exact(&mut self.file, &mut bytes, &self.path)?;
            if crc32c::crc32c(&bytes) != checksum {
                return Err(self.damaged("the checksum of a section is wrong".to_owned()));
            }
            let section = codecs
                .of(width)
                .and_then(|codec| codec.decompress(&bytes, length))
                .map_err(|reason| self.damaged(reason))?;
            sections.push(section);
        }
        Ok(Block::decode(kept, members, &sections))
    }

    /// Refuses a file that goes on after its last block.
    pub(super) fn end(mut self) -> Result<(), EnsembleError> {
        let mut more = [0];
        match self.file.read(&mut more) {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.damaged("it is too long".to_owned())),
            Err(source) => Err(EnsembleError::Read {
                path: self.path,
                source,
            }),
        }
    }

    fn damaged(&self, reason: String) -> EnsembleError {
        EnsembleError::Damaged {
            path: self.path.clone(),
            reason,
        }
    }
}

fn read_exact(file: &mut impl Read, bytes: &mut [u8], path: &Path) -> Result<(), EnsembleError> {
    file.read_exact(bytes)
        .map_err(|source| match source.kind() {
            ErrorKind::UnexpectedEof => EnsembleError::Damaged {
                path: path.to_owned(),
                reason: "it is too short".to_owned(),
            },
            _ => EnsembleError::Read {
                path: path.to_owned(),
                source,
            },
        })
}

/// A file being written, block by block. It replaces the one before when it is complete.
pub(super) struct StateWriter {
    file: FileInProgress,
    header: Header,
}

impl StateWriter {
    pub(super) fn create(path: &Path, header: Header) -> Result<Self, EnsembleError> {
        let text =
            serde_json::to_vec(&header).map_err(|error| compress(&header, error.to_string()))?;
        let mut file = FileInProgress::create(path).map_err(StoreError::write(path))?;
        let parts = [
            MAGIC.as_slice(),
            &VERSION.to_le_bytes(),
            &(text.len() as u32).to_le_bytes(),
            &text,
            &crc32c::crc32c(&text).to_le_bytes(),
        ];
        file.write(&parts.concat())
            .map_err(StoreError::write(path))?;
        Ok(Self { file, header })
    }

    /// Writes the next block.
    pub(super) fn block(&mut self, block: &Block, codecs: &Codecs) -> Result<(), EnsembleError> {
        let kept = &self.header.kept;
        let widths = kept.sections(self.header.members.len());
        for ((width, _), section) in widths.into_iter().zip(block.encode(kept)) {
            let bytes = codecs
                .of(width)
                .and_then(|codec| codec.compress(&section))
                .map_err(|reason| compress(&self.header, reason))?;
            let start = [bytes.len() as u32, crc32c::crc32c(&bytes)];
            let target = self.file.target().to_owned();
            self.file
                .write(&start.map(u32::to_le_bytes).concat())
                .and_then(|()| self.file.write(&bytes))
                .map_err(StoreError::write(&target))?;
        }
        Ok(())
    }

    pub(super) fn complete(self) -> Result<(), EnsembleError> {
        let target = self.file.target().to_owned();
        self.file.complete().map_err(StoreError::write(&target))?;
        Ok(())
    }
}

fn compress(header: &Header, reason: String) -> EnsembleError {
    let variable = header.variable.clone();
    StoreError::Compress { variable, reason }.into()
}
