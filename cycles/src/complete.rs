//! An output that is complete and not yet published: kept through a kill or a fault of its store, so
//! that the model does not run again only to be published.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;

use mlwm_spec::Digest;
use mlwm_spec::manifest::{InputRecord, ObjectRecord, content_digest};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::container::Ran;
use crate::plan::PlannedTask;
use crate::scratch::{Scratch, failed};

/// What is known of complete outputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Complete {
    /// Identity of the task that made them.
    pub(crate) identity: Digest,
    /// What it read.
    pub(crate) inputs: Vec<InputRecord>,
    /// How its container went.
    pub(crate) ran: Ran,
    /// The content of each output, by name; of one that is cut, that of its windows that are here.
    outputs: BTreeMap<String, Digest>,
    /// Of outputs that are cut, what their stores have of the windows that are here no more, by name.
    #[serde(default)]
    sent: BTreeMap<String, Vec<ObjectRecord>>,
}

impl Complete {
    /// Reads the outputs of a task, which are complete.
    pub(crate) async fn of(
        scratch: &Scratch,
        planned: &PlannedTask,
        identity: Digest,
        inputs: &[InputRecord],
        ran: &Ran,
        cancel: &CancellationToken,
    ) -> Result<Self, Error> {
        Ok(Self {
            identity,
            inputs: inputs.to_vec(),
            ran: ran.clone(),
            outputs: contents(scratch, planned, cancel).await?,
            sent: BTreeMap::new(),
        })
    }

    /// The same, of which stores have these already.
    pub(crate) fn and_sent(self, sent: BTreeMap<String, Vec<ObjectRecord>>) -> Self {
        Self { sent, ..self }
    }

    /// What the store of an output has already.
    pub(crate) fn sent(&self, output: &str) -> Vec<ObjectRecord> {
        self.sent.get(output).cloned().unwrap_or_default()
    }

    /// Notes that the outputs of a task are complete; on the disk when this returns.
    pub(crate) fn note(&self, scratch: &Scratch, planned: &PlannedTask) -> Result<(), Error> {
        let path = scratch.complete(planned);
        let folder = path.parent().unwrap_or(scratch.root());
        let text = serde_json::to_vec(self).map_err(Error::Json)?;
        let written = || {
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(&text)?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)
        };
        written().map_err(|source| failed(&path, source))?;
        Ok(())
    }

    /// Of outputs that are in their stores already: nothing is kept.
    pub(crate) fn unkept(identity: Digest, inputs: &[InputRecord], ran: &Ran) -> Self {
        Self {
            identity,
            inputs: inputs.to_vec(),
            ran: ran.clone(),
            outputs: BTreeMap::new(),
            sent: BTreeMap::new(),
        }
    }

    /// What an earlier attempt left that was killed or could not publish: all of it there and
    /// unchanged, which is read to be seen. What is not so is to be made again.
    pub(crate) async fn find(
        scratch: &Scratch,
        planned: &PlannedTask,
        cancel: &CancellationToken,
    ) -> Result<Option<Self>, Error> {
        let Ok(text) = fs::read(scratch.complete(planned)) else {
            return Ok(None);
        };
        let Ok(complete) = serde_json::from_slice::<Self>(&text) else {
            return Ok(None);
        };
        match contents(scratch, planned, cancel).await {
            Ok(contents) if contents == complete.outputs => Ok(Some(complete)),
            Err(error) if cancel.is_cancelled() => Err(error),
            _ => Ok(None),
        }
    }
}

async fn contents(
    scratch: &Scratch,
    planned: &PlannedTask,
    cancel: &CancellationToken,
) -> Result<BTreeMap<String, Digest>, Error> {
    let mut contents = BTreeMap::new();
    for output in &planned.outputs {
        // Beside what is published of them, windows may have anything.
        let objects = match planned.is_cut() {
            true => {
                let folder = scratch.windows(planned).join(&output.name);
                mlwm_storage::kept_objects(&folder, cancel).await?
            }
            false => {
                let folder = scratch.output(planned, &output.name);
                mlwm_storage::local_objects(&folder, cancel).await?
            }
        };
        contents.insert(output.name.clone(), content_digest(&objects));
    }
    Ok(contents)
}
