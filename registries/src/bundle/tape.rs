//! The entries of the tar. Each header has exactly one form, which is written, and required on
//! reading: a file of mode 0644, owner 0, time 0. So a link, a device, a name that is told twice or a
//! size that lies has no way in.

/// What headers and contents are padded to.
pub(super) const BLOCK: u64 = 512;
/// Two empty blocks end a tar.
pub(super) const END: u64 = 2 * BLOCK;

/// The header of the file `name`, of at most 100 bytes.
pub(super) fn header(name: &str, size: u64) -> [u8; BLOCK as usize] {
    let mut header = tar::Header::new_gnu();
    let field = &mut header.as_old_mut().name;
    for (to, from) in field.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    // Six digits, NUL, space, as every other tar writes it.
    header.set_cksum();
    let checksum = &mut header.as_old_mut().cksum;
    checksum.rotate_left(1);
    checksum[7] = b' ';
    *header.as_bytes()
}

/// What follows content of this size up to the next block.
pub(super) fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK
}

/// Size of a whole entry.
pub(super) fn entry_size(size: u64) -> u64 {
    BLOCK + size + padding(size)
}

pub(super) fn append(tar: &mut Vec<u8>, name: &str, content: &[u8]) {
    let size = content.len() as u64;
    tar.extend_from_slice(&header(name, size));
    tar.extend_from_slice(content);
    tar.resize(tar.len() + padding(size) as usize, 0);
}

/// Takes the next entry off a tar in memory: its name and content.
pub(super) fn take<'a>(tar: &mut &'a [u8]) -> Result<(&'a str, &'a [u8]), String> {
    let cut_off = || "it is cut off in its head".to_owned();
    let (block, rest) = tar.split_at_checked(BLOCK as usize).ok_or_else(cut_off)?;
    let (name, size) = parse(block)?;
    let padded = size.checked_add(padding(size)).ok_or_else(cut_off)?;
    let (content, rest) = usize::try_from(padded)
        .ok()
        .and_then(|padded| rest.split_at_checked(padded))
        .ok_or_else(cut_off)?;
    let (content, pad) = content.split_at(size as usize);
    if pad.iter().any(|byte| *byte != 0) {
        return Err(format!("something is hidden behind its entry {name}"));
    }
    *tar = rest;
    Ok((name, content))
}

/// Name and size in a header that is as it would be written.
pub(super) fn parse(block: &[u8]) -> Result<(&str, u64), String> {
    let other = || "it has an entry that no mlwm wrote: it is damaged, or not a bundle".to_owned();
    let length = block.iter().take(100).take_while(|b| **b != 0).count();
    let name = std::str::from_utf8(&block[..length]).map_err(|_| other())?;
    let size = tar::Header::from_byte_slice(block)
        .entry_size()
        .map_err(|_| other())?;
    match header(name, size) == block {
        true => Ok((name, size)),
        false => Err(other()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_back_and_nothing_else_is() {
        let mut tar = Vec::new();
        append(&mut tar, "a", b"content");
        append(&mut tar, "b", &[7; 512]);
        append(&mut tar, "c", b"");
        assert_eq!(
            tar.len() as u64,
            entry_size(7) + entry_size(512) + entry_size(0)
        );
        let mut rest = tar.as_slice();
        assert_eq!(take(&mut rest), Ok(("a", b"content".as_slice())));
        assert_eq!(take(&mut rest), Ok(("b", [7; 512].as_slice())));
        assert_eq!(take(&mut rest), Ok(("c", b"".as_slice())));
        assert!(rest.is_empty());

        for position in (0..512).chain(519..1024) {
            let mut changed = tar.clone();
            changed[position] ^= 1;
            assert!(take(&mut changed.as_slice()).is_err(), "byte {position}");
        }
        for length in 0..1024 {
            assert!(take(&mut &tar[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn sizes_above_eight_gigabytes_fit() {
        for size in [0, 0o77777777777, 1 << 33, 1 << 45] {
            assert_eq!(parse(&header("zip", size)), Ok(("zip", size)));
        }
        let mut link = tar::Header::from_byte_slice(&header("a", 0)).clone();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_cksum();
        assert!(parse(link.as_bytes()).is_err());
    }
}
