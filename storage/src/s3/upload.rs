//! Bringing local files to a bucket.

use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};
use mlwm_spec::Digest;
use object_store::path::Path as Key;
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::{S3, plain_etag};
use crate::progress::Counter;
use crate::store::{PARTS_AT_ONCE, Store, Uploaded, parts};
use crate::tree::LocalFile;
use crate::{Error, Uri, pool};

impl S3 {
    /// Brings a local file to `target`, in parts if it is big.
    pub(crate) async fn upload(
        &self,
        store: &Store,
        target: &Uri,
        source: LocalFile,
        counter: &Counter,
        cancel: &CancellationToken,
    ) -> Result<Uploaded, Error> {
        let key = self.key(target, "")?;
        if source.size > self.part_bytes {
            return self
                .upload_parts(store, target, &key, source, counter, cancel)
                .await;
        }
        let memory = pool::unless_cancelled(target, cancel, async {
            Ok(store.memory(source.size).await)
        })
        .await?;
        let size = source.size;
        let (bytes, sha256) = pool::blocking(target, move || {
            let mut file = source.open()?;
            let bytes = source.read_next(&mut file, source.size)?;
            source.check_unchanged(&file)?;
            let sha256 = Digest::of(&bytes);
            Ok((bytes, sha256))
        })
        .await?;
        let put = async {
            let put = self.sender.put(&key, PutPayload::from(bytes)).await;
            put.map_err(|error| self.fault(target, &error))
        };
        let answer = pool::unless_cancelled(target, cancel, put).await?;
        drop(memory);
        counter.bytes(size);
        Ok(Uploaded {
            sha256,
            version: answer.e_tag.as_deref().map(plain_etag),
        })
    }

    async fn upload_parts(
        &self,
        store: &Store,
        target: &Uri,
        key: &Key,
        source: LocalFile,
        counter: &Counter,
        cancel: &CancellationToken,
    ) -> Result<Uploaded, Error> {
        let begin = async {
            let begun = self.sender.put_multipart(key).await;
            begun.map_err(|error| self.fault(target, &error))
        };
        let mut upload = pool::unless_cancelled(target, cancel, begin).await?;
        let sent = pool::unless_cancelled(
            target,
            cancel,
            self.send_parts(store, target, upload.as_mut(), source, counter),
        )
        .await;
        if sent.is_err() {
            // Parts that stay behind cost space; if this fails too, the bucket's rule for
            // incomplete uploads is what remains.
            let _ = upload.abort().await;
        }
        sent
    }

    async fn send_parts(
        &self,
        store: &Store,
        target: &Uri,
        upload: &mut dyn MultipartUpload,
        source: LocalFile,
        counter: &Counter,
    ) -> Result<Uploaded, Error> {
        let part_bytes = self.part_bytes_of(source.size);
        let mut on_the_way = FuturesUnordered::new();
        let mut reading = pool::blocking(target, move || {
            let file = source.open()?;
            Ok((source, file, Sha256::new()))
        })
        .await?;
        for (_, length) in parts(reading.0.size, part_bytes) {
            if on_the_way.len() == PARTS_AT_ONCE {
                on_the_way.try_next().await?;
            }
            // Parts under way must go on while this waits for memory that they hold.
            let memory = {
                let wanted = store.memory(length);
                tokio::pin!(wanted);
                loop {
                    tokio::select! {
                        memory = &mut wanted => break memory,
                        Some(sent) = on_the_way.next(), if !on_the_way.is_empty() => {
                            let sent: Result<(), Error> = sent;
                            sent?;
                        }
                    }
                }
            };
            let part;
            (reading, part) = pool::blocking(target, move || {
                let (source, mut file, mut hasher) = reading;
                let part = source.read_next(&mut file, length)?;
                hasher.update(&part);
                Ok(((source, file, hasher), part))
            })
            .await?;
            let sending = upload.put_part(PutPayload::from(part));
            on_the_way.push(async move {
                let sent = sending.await;
                drop(memory);
                sent.map_err(|error| self.fault(target, &error))?;
                counter.bytes(length);
                Ok(())
            });
        }
        while on_the_way.try_next().await?.is_some() {}
        let (source, file, hasher) = reading;
        source.check_unchanged(&file)?;
        let answer = upload
            .complete()
            .await
            .map_err(|error| self.fault(target, &error))?;
        Ok(Uploaded {
            sha256: Digest::from_hasher(hasher),
            version: answer.e_tag.as_deref().map(plain_etag),
        })
    }
}
