//! What a store lists.

use mlwm_spec::Digest;

/// One object as a store lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Path below the URI that was listed, with `/`.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Entity tag, where the store has one.
    pub etag: Option<String>,
    /// Modification time in nanoseconds since 1970-01-01.
    pub modified: i128,
}

/// What a listing amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Digest over path, size and entity tag (else modification time) of every object.
    pub digest: Digest,
    /// Number of objects.
    pub objects: u64,
    /// Bytes in all.
    pub bytes: u64,
}

impl Listed {
    /// What changes when the object does: its entity tag, where there is none its modification time.
    pub(crate) fn version(&self) -> String {
        match &self.etag {
            Some(etag) => etag.clone(),
            None => self.modified.to_string(),
        }
    }
}

impl Listing {
    /// What these objects, ordered by path, amount to.
    pub fn of(objects: &[Listed]) -> Self {
        let mut text = String::new();
        for object in objects {
            let (path, size, version) = (&object.path, object.size, object.version());
            text.push_str(&format!("{path}\t{size}\t{version}\n"));
        }
        Self {
            digest: Digest::of(text),
            objects: objects.len() as u64,
            bytes: objects.iter().map(|object| object.size).sum(),
        }
    }
}
