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

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use crate::testing::files;
    use crate::{
        Compressor, Dataset, Definition, Element, Error, StoredDefinition, Values, Writer,
        ZarrFormat,
    };

    /// A store of one variable of (5, 4) in chunks of (2, 4), whose form others take over.
    fn store(path: &std::path::Path) -> Dataset {
        let mut writer = Writer::create(path, ZarrFormat::V2, Map::new()).unwrap();
        let definition = Definition::new("a", &[("y", 5), ("x", 4)], Element::F32);
        writer
            .define(&definition.chunks(&[2, 4]).attribute("units", "K"))
            .unwrap();
        let values = ndarray::ArrayD::from_shape_fn(vec![5, 4], |at| (at[0] * 4 + at[1]) as f32);
        writer.write("a", Values::F32(values)).unwrap();
        writer.finish().unwrap();
        Dataset::open(path).unwrap()
    }

    fn definition(dataset: &Dataset) -> StoredDefinition {
        let variable = dataset.variable("a").unwrap();
        let form = variable.form().unwrap().clone();
        let mut attributes = variable.attributes().clone();
        attributes.remove("_FillValue");
        StoredDefinition {
            name: "a".to_owned(),
            dims: variable.dims().to_vec(),
            shape: variable.shape().to_vec(),
            chunks: vec![2, 4],
            shards: None,
            compressor: form.compressor().unwrap(),
            form,
            attributes,
        }
    }

    #[test]
    fn chunks_written_as_they_are_stored_make_the_same_files() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        let dataset = store(&one);
        let mut writer = Writer::create(&other, ZarrFormat::V2, Map::new()).unwrap();
        writer.define_stored(&definition(&dataset)).unwrap();
        let variable = dataset.variable("a").unwrap();
        assert_eq!(variable.chunk_counts(), [3, 1]);
        for row in 0..3 {
            let bytes = variable.read_stored_chunk(&[row, 0]).unwrap();
            writer.write_stored_chunk("a", &[row, 0], &bytes).unwrap();
        }
        writer.finish().unwrap();
        assert_eq!(files(&one), files(&other));
    }

    #[test]
    fn shards_hold_whole_chunks_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let dataset = store(&folder.path().join("one"));
        let path = folder.path().join("sharded");
        let mut writer = Writer::create(&path, ZarrFormat::V3, Map::new()).unwrap();
        let sharded = StoredDefinition {
            shards: Some(vec![6, 4]),
            compressor: Compressor::FAST,
            ..definition(&dataset)
        };
        writer.define_stored(&sharded).unwrap();
        let mut bytes = dataset
            .variable("a")
            .unwrap()
            .read_stored_range(&[0..5, 0..4])
            .unwrap();
        bytes.extend(writer.stored_fill("a").unwrap().repeat(4));
        writer.write_stored_chunk("a", &[0, 0], &bytes).unwrap();
        writer.finish().unwrap();
        let read = Dataset::open(&path).unwrap();
        let variable = read.variable("a").unwrap();
        assert_eq!(variable.inner_chunk_shape(), Some(vec![2, 4]));
        assert_eq!(
            variable.form().unwrap().compressor(),
            Some(Compressor::FAST)
        );
        assert_eq!(
            variable.read().unwrap(),
            dataset.variable("a").unwrap().read().unwrap()
        );
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let dataset = store(&folder.path().join("one"));
        let good = definition(&dataset);
        let path = folder.path().join("bad");
        let mut writer = Writer::create(&path, ZarrFormat::V2, Map::new()).unwrap();
        for bad in [
            StoredDefinition {
                shards: Some(vec![4, 4]),
                ..good.clone()
            },
            StoredDefinition {
                chunks: vec![0, 4],
                ..good.clone()
            },
            StoredDefinition {
                chunks: vec![1 << 20, 1 << 20],
                ..good.clone()
            },
            StoredDefinition {
                name: "../a".to_owned(),
                ..good.clone()
            },
            StoredDefinition {
                shape: vec![5],
                ..good.clone()
            },
        ] {
            let refused = writer.define_stored(&bad);
            assert!(matches!(refused, Err(Error::Definition { .. })), "{bad:?}");
        }
        writer.define_stored(&good).unwrap();
        assert!(writer.define_stored(&good).is_err());
        assert!(writer.write_stored_chunk("a", &[0, 0], &[0; 31]).is_err());
        assert!(writer.write_stored_chunk("b", &[0, 0], &[0; 32]).is_err());
        // Two chunks are not there.
        writer.write_stored_chunk("a", &[0, 0], &[0; 32]).unwrap();
        assert!(matches!(writer.finish(), Err(Error::Definition { .. })));
        let text = json!(good.document(ZarrFormat::V2));
        assert_eq!(text["fill_value"], "NaN");
    }
}
