//! Images as archives: out of an engine, and into it.

use std::io;
use std::time::Duration;

use bollard::query_parameters::ImportImageOptionsBuilder;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc::Sender;

use crate::connect::Engine;
use crate::error::{Error, one_line};

/// Time within which the engine must have begun to answer; it first takes the whole archive.
const TIMEOUT: Duration = Duration::from_secs(6 * 3600);

impl Engine {
    /// Sends the archive that `docker save` writes of the image with this reference to `pieces`;
    /// stops when nobody takes them any more.
    pub async fn save(&self, reference: &str, pieces: Sender<Bytes>) -> Result<(), Error> {
        let docker = self.docker.clone().with_timeout(TIMEOUT);
        let mut answer = std::pin::pin!(docker.export_image(reference));
        while let Some(piece) = answer.next().await {
            let failed = |error| Error::from_engine(format!("save image `{reference}`"), error);
            if pieces.send(piece.map_err(failed)?).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Takes the images of an archive in, as `docker load` does. An error of the archive breaks it
    /// off.
    pub async fn load(
        &self,
        archive: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), Error> {
        let docker = self.docker.clone().with_timeout(TIMEOUT);
        let options = ImportImageOptionsBuilder::default().quiet(true).build();
        let mut answer = docker.import_image_stream(options, archive, None);
        while let Some(message) = answer.next().await {
            let message = message.map_err(|error| Error::from_engine("load an image", error))?;
            if let Some(problem) = message.error_detail.and_then(|detail| detail.message) {
                return Err(Error::Refused {
                    action: "load an image".to_owned(),
                    message: one_line(&problem),
                });
            }
        }
        Ok(())
    }
}
