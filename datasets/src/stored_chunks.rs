//! Writing numbers as they are stored, chunk by chunk.

use std::path::PathBuf;
use std::sync::Arc;

use zarrs::array::{Array, ArrayBytes, ArrayMetadata, CodecOptions};
use zarrs::filesystem::FilesystemStore;

use crate::{Error, StoredDefinition, Writer, ZarrFormat};

/// A variable being written.
pub(crate) struct StoredTarget {
    pub(crate) definition: StoredDefinition,
    pub(crate) array: Array<FilesystemStore>,
}

impl Writer {
    /// Adds a variable whose numbers come as they are stored.
    ///
    /// # Errors
    /// [`Error::Definition`] if the definition contradicts itself or another variable's.
    pub fn define_stored(&mut self, definition: &StoredDefinition) -> Result<(), Error> {
        let name = &definition.name;
        let refuse = |reason: String| self.refuse(name, reason);
        definition.check(self.format).map_err(refuse)?;
        self.check_against_others(name, &definition.dims, &definition.shape)
            .map_err(refuse)?;
        let metadata = match self.format {
            ZarrFormat::V2 => {
                serde_json::from_value(definition.document_v2()).map(ArrayMetadata::V2)
            }
            ZarrFormat::V3 => {
                serde_json::from_value(definition.document_v3()).map(ArrayMetadata::V3)
            }
        };
        let metadata = metadata.map_err(|error| refuse(error.to_string()))?;
        let storage = Arc::clone(&self.storage);
        let array = Array::new_with_metadata(storage, &format!("/{name}"), metadata)
            .map_err(|error| refuse(error.to_string()))?;
        let target = StoredTarget {
            definition: definition.clone(),
            array,
        };
        self.stored.insert(name.clone(), target);
        Ok(())
    }

    /// Writes a chunk (of a variable with shards, a shard) from numbers in the byte order of the machine: a whole
    /// one, also where the variable ends within it. Chunks may be written in parallel; each is compressed in the
    /// thread that writes it, so that the same numbers always become the same bytes.
    ///
    /// # Errors
    /// [`Error::Definition`] for a variable that is not defined or another number of bytes, [`Error::Write`].
    pub fn write_stored_chunk(&self, name: &str, chunk: &[u64], bytes: &[u8]) -> Result<(), Error> {
        let target = self.stored_target(name)?;
        let definition = &target.definition;
        let expected = definition.file_chunks().iter().product::<u64>() * definition.form.size();
        if bytes.len() as u64 != expected {
            let reason = format!("a chunk has {} bytes instead of {expected}", bytes.len());
            return Err(self.refuse(name, reason));
        }
        let options = CodecOptions::default()
            .with_concurrent_target(1)
            .with_store_empty_chunks(true);
        let array = &target.array;
        array
            .store_chunk_opt(chunk, ArrayBytes::new_flen(bytes), &options)
            .map_err(|error| Error::Write {
                path: self.path.join(array.chunk_key(chunk).as_str()),
                reason: error.to_string(),
            })
    }

    /// The file that a chunk will be in: who has it already, with the same bytes, may put it there.
    ///
    /// # Errors
    /// [`Error::Definition`] for a variable that is not defined.
    pub fn stored_chunk_file(&self, name: &str, chunk: &[u64]) -> Result<PathBuf, Error> {
        let array = &self.stored_target(name)?.array;
        Ok(self.path.join(array.chunk_key(chunk).as_str()))
    }

    /// One value as it stands in chunks beyond the end of the variable, in the byte order of the machine.
    ///
    /// # Errors
    /// [`Error::Definition`] for a variable that is not defined.
    pub fn stored_fill(&self, name: &str) -> Result<Vec<u8>, Error> {
        let array = &self.stored_target(name)?.array;
        Ok(array.fill_value().as_ne_bytes().to_vec())
    }

    fn stored_target(&self, name: &str) -> Result<&StoredTarget, Error> {
        self.stored
            .get(name)
            .ok_or_else(|| self.refuse(name, "it has not been defined".to_owned()))
    }
}
