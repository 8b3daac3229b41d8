//! The records of the zip that mlwm writes, byte for byte (format §5).
//!
//! Names and sizes decide where everything lies; with the checksums they decide every byte that is
//! not content. Writing puts these records down, reading compares with them. Numbers of records
//! are those of PKWARE's APPNOTE.

/// From this size on, the content of a member starts at a multiple of [`ALIGNMENT`].
const ALIGNED_FROM: u64 = 64 << 10;
/// A page: what can be mapped into memory, and what direct reads ask for.
const ALIGNMENT: u64 = 4096;

const LOCAL_HEADER: u64 = 30;
/// Numbers from here on do not fit into 32 bits, of which all ones mean "see the zip64 field".
const WIDE: u64 = u32::MAX as u64;

/// Version 4.5 of the format is needed for zip64, 1.0 for anything else.
const VERSION: u16 = 10;
const VERSION_ZIP64: u16 = 45;
const MADE_BY_UNIX: u16 = 3 << 8;
/// Checksum and sizes follow the content: the zip is written in one pass.
pub(crate) const DESCRIPTOR_FLAG: u16 = 1 << 3;
const STORED: u16 = 0;
const MIDNIGHT: u16 = 0;
const DATE_1980: u16 = 0x21;
const PLAIN_FILE_0644: u32 = 0o100_644 << 16;
const ZIP64_FIELD: u16 = 1;
const ALIGNMENT_FIELD: u16 = 0xa11e;

/// A member and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) name: String,
    pub(crate) size: u64,
    /// Offset of its local header.
    pub(crate) header_at: u64,
    /// Offset of its content.
    pub(crate) data_at: u64,
}

/// Where everything in a zip lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) members: Vec<Placed>,
    pub(crate) directory_at: u64,
    directory_size: u64,
}

impl Plan {
    /// Places members of these names and sizes one after the other. `None` if the sum of the sizes
    /// is no number of bytes.
    pub(crate) fn new(members: impl IntoIterator<Item = (String, u64)>) -> Option<Self> {
        let mut placed = Vec::new();
        let (mut at, mut directory_size) = (0_u64, 0);
        for (name, size) in members {
            let member = Placed::new(name, size, at)?;
            at = member.end()?;
            directory_size += member.central(0).len() as u64;
            placed.push(member);
        }
        Some(Self {
            members: placed,
            directory_at: at,
            directory_size,
        })
    }

    /// Size of the zip.
    pub(crate) fn size(&self) -> u64 {
        self.directory_at + self.directory_size + self.end().len() as u64
    }

    /// The central directory and the end records, for members of these checksums.
    pub(crate) fn tail(&self, checksums: impl IntoIterator<Item = u32>) -> Vec<u8> {
        let mut tail = Vec::new();
        for (member, crc32) in self.members.iter().zip(checksums) {
            tail.extend(member.central(crc32));
        }
        tail.extend(self.end());
        tail
    }

    /// The end record (4.3.16), with its 64-bit form and the locator of that (4.3.14, 4.3.15)
    /// before it where an offset needs them.
    fn end(&self) -> Vec<u8> {
        let (size, offset) = (self.directory_size, self.directory_at);
        let count = self.members.len() as u64;
        let mut end = Record::default();
        if size >= WIDE || offset >= WIDE {
            end.bytes(b"PK\x06\x06")
                .u64(44)
                .u16(VERSION_ZIP64)
                .u16(VERSION_ZIP64)
                .u32(0)
                .u32(0)
                .u64(count)
                .u64(count)
                .u64(size)
                .u64(offset);
            end.bytes(b"PK\x06\x07").u32(0).u64(offset + size).u32(1);
        }
        // The format allows far fewer members than 65,535 (§6).
        let count = u16::try_from(count).unwrap_or(u16::MAX);
        end.bytes(b"PK\x05\x06")
            .u16(0)
            .u16(0)
            .u16(count)
            .u16(count)
            .u32(narrow(size))
            .u32(narrow(offset))
            .u16(0);
        end.0
    }
}

impl Placed {
    fn new(name: String, size: u64, header_at: u64) -> Option<Self> {
        let mut member = Self {
            name,
            size,
            header_at,
            data_at: 0,
        };
        let fields = if member.is_large() { 20 } else { 0 };
        let plain = LOCAL_HEADER + member.name.len() as u64 + fields;
        let plain_end = header_at.checked_add(plain)?;
        let padding = match plain_end % ALIGNMENT {
            0 => 0,
            _ if size < ALIGNED_FROM => 0,
            over if ALIGNMENT - over >= 6 => ALIGNMENT - over,
            // An alignment field has at least six bytes.
            over => 2 * ALIGNMENT - over,
        };
        member.data_at = plain_end.checked_add(padding)?;
        Some(member)
    }

    /// Whether its sizes need 64 bits.
    fn is_large(&self) -> bool {
        self.size >= WIDE
    }

    fn version(&self) -> u16 {
        match self.is_large() {
            true => VERSION_ZIP64,
            false => VERSION,
        }
    }

    /// Offset of what follows the member.
    fn end(&self) -> Option<u64> {
        let descriptor = self.descriptor(0).len() as u64;
        self.data_at.checked_add(self.size)?.checked_add(descriptor)
    }

    /// The local header (4.3.7) with all that stands before the content.
    pub(crate) fn local_header(&self) -> Vec<u8> {
        let plain_end = self.header_at + LOCAL_HEADER + self.name.len() as u64;
        let extra = self.data_at - plain_end;
        // With a descriptor, the sizes here are 0; beside a zip64 field they are all ones (4.5.3).
        let size = if self.is_large() { u32::MAX } else { 0 };
        let mut header = Record::default();
        header
            .bytes(b"PK\x03\x04")
            .u16(self.version())
            .u16(DESCRIPTOR_FLAG)
            .u16(STORED)
            .u16(MIDNIGHT)
            .u16(DATE_1980)
            .u32(0)
            .u32(size)
            .u32(size)
            .u16(self.name.len() as u16)
            .u16(extra as u16)
            .bytes(self.name.as_bytes());
        if self.is_large() {
            header.u16(ZIP64_FIELD).u16(16).u64(0).u64(0);
        }
        let padding = self.data_at - self.header_at - header.0.len() as u64;
        if padding > 0 {
            header
                .u16(ALIGNMENT_FIELD)
                .u16(padding as u16 - 4)
                .u16(ALIGNMENT as u16)
                .zeros(padding as usize - 6);
        }
        header.0
    }

    /// The descriptor (4.3.9) after the content.
    pub(crate) fn descriptor(&self, crc32: u32) -> Vec<u8> {
        let mut descriptor = Record::default();
        descriptor.bytes(b"PK\x07\x08").u32(crc32);
        if self.is_large() {
            descriptor.u64(self.size).u64(self.size);
        } else {
            descriptor.u32(narrow(self.size)).u32(narrow(self.size));
        }
        descriptor.0
    }

    /// The record in the central directory (4.3.12).
    fn central(&self, crc32: u32) -> Vec<u8> {
        let far = self.header_at >= WIDE;
        let fields = match (self.is_large(), far) {
            (true, true) => 28,
            (true, false) => 20,
            (false, true) => 12,
            (false, false) => 0,
        };
        let version = if fields > 0 { VERSION_ZIP64 } else { VERSION };
        let mut header = Record::default();
        header
            .bytes(b"PK\x01\x02")
            .u16(MADE_BY_UNIX | version)
            .u16(version)
            .u16(DESCRIPTOR_FLAG)
            .u16(STORED)
            .u16(MIDNIGHT)
            .u16(DATE_1980)
            .u32(crc32)
            .u32(narrow(self.size))
            .u32(narrow(self.size))
            .u16(self.name.len() as u16)
            .u16(fields)
            .u16(0)
            .u16(0)
            .u16(0)
            .u32(PLAIN_FILE_0644)
            .u32(narrow(self.header_at))
            .bytes(self.name.as_bytes());
        if fields > 0 {
            header.u16(ZIP64_FIELD).u16(fields - 4);
        }
        if self.is_large() {
            header.u64(self.size).u64(self.size);
        }
        if far {
            header.u64(self.header_at);
        }
        header.0
    }
}

/// A number in a field of 32 bits: itself, or all ones.
fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A record under way, little-endian.
#[derive(Default)]
struct Record(Vec<u8>);

impl Record {
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn zeros(&mut self, count: usize) -> &mut Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }

    fn u16(&mut self, number: u16) -> &mut Self {
        self.bytes(&number.to_le_bytes())
    }

    fn u32(&mut self, number: u32) -> &mut Self {
        self.bytes(&number.to_le_bytes())
    }

    fn u64(&mut self, number: u64) -> &mut Self {
        self.bytes(&number.to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;
    use zip::write::SimpleFileOptions;
    use zip::{CompressionMethod, DateTime, System, ZipWriter};

    use super::*;

    fn ours(members: &[(String, Vec<u8>)]) -> Vec<u8> {
        let sizes = members
            .iter()
            .map(|(name, data)| (name.clone(), data.len() as u64));
        let plan = Plan::new(sizes).unwrap();
        let mut zip = Vec::new();
        let mut checksums = Vec::new();
        for (placed, (_, data)) in plan.members.iter().zip(members) {
            assert_eq!(placed.header_at, zip.len() as u64);
            zip.extend(placed.local_header());
            assert_eq!(placed.data_at, zip.len() as u64);
            zip.extend_from_slice(data);
            let crc32 = crc32fast::hash(data);
            zip.extend(placed.descriptor(crc32));
            checksums.push(crc32);
        }
        assert_eq!(plan.directory_at, zip.len() as u64);
        zip.extend(plan.tail(checksums));
        assert_eq!(plan.size(), zip.len() as u64);
        zip
    }

    /// The same zip as the crate `zip` writes it to a stream.
    fn theirs(members: &[(String, Vec<u8>)]) -> Vec<u8> {
        let mut zip = ZipWriter::new_stream(Vec::new());
        for (name, data) in members {
            let alignment = if data.len() as u64 >= ALIGNED_FROM {
                4096
            } else {
                1
            };
            let options = SimpleFileOptions::default()
                .compression_method(CompressionMethod::Stored)
                .last_modified_time(DateTime::DEFAULT)
                .unix_permissions(0o644)
                .system(System::Unix)
                .with_alignment(alignment);
            zip.start_file(name.as_str(), options).unwrap();
            zip.write_all(data).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_records_are_those_of_an_independent_writer(
            sizes in proptest::collection::vec((1_usize..40, prop_oneof![0_usize..100, 65_530_usize..65_545, 65_536_usize..80_000]), 1..6)
        ) {
            let members: Vec<(String, Vec<u8>)> = sizes
                .iter()
                .enumerate()
                .map(|(i, (name, size))| (format!("{i}{}", "n".repeat(*name)), vec![i as u8; *size]))
                .collect();
            prop_assert_eq!(ours(&members), theirs(&members));
        }
    }

    /// Wherever the header ends, also a few bytes before a page, the content starts at a page.
    #[test]
    fn large_members_are_aligned() {
        for first in 3900..4200 {
            let sizes = [("a".to_owned(), first), ("b".to_owned(), ALIGNED_FROM)];
            let plan = Plan::new(sizes).unwrap();
            let member = &plan.members[1];
            assert_eq!(member.data_at % ALIGNMENT, 0);
            assert_eq!(
                member.local_header().len() as u64,
                member.data_at - member.header_at
            );
        }
    }

    #[test]
    fn numbers_beyond_32_bits_are_written_where_they_belong() {
        let sizes = [("a".to_owned(), 5 << 30), ("b".to_owned(), 7)];
        let plan = Plan::new(sizes).unwrap();
        let [large, far] = &plan.members[..] else {
            panic!("two members");
        };
        assert_eq!(large.local_header().len() as u64, large.data_at);
        assert_eq!((large.data_at, large.descriptor(0).len()), (4096, 24));
        assert_eq!(
            (far.local_header().len(), far.descriptor(0).len()),
            (31, 16)
        );
        assert_eq!((large.central(0).len(), far.central(0).len()), (67, 59));
        assert_eq!(plan.end().len(), 56 + 20 + 22);
        assert_eq!(
            plan.tail([0, 0]).len() as u64,
            plan.size() - plan.directory_at
        );
        assert!(Plan::new([("a".to_owned(), u64::MAX)]).is_none());
    }
}
