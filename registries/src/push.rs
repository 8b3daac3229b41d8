//! Publishing an artifact (`docs/registries.md` §5).

use std::sync::Arc;

use mlwm_spec::{ArtifactName, Digest, Tag};
use mlwm_storage::ByteRange;
use sha2::{Digest as _, Sha256};

use crate::bundle::FromStart;
use crate::claims::Outcome;
use crate::objects::Objects;
use crate::outgoing::{Known, Outgoing, PushContent};
use crate::policy::{StoredSignature, Trust};
use crate::record::REGISTRY_VERSION;
use crate::registry::{Backend, Registry, blocking, now};
use crate::stopping::{Stopping, unless_stopped};
use crate::transfers::Ticket;
use crate::{Error, Publication, RemovalPlan};

/// How much of an object is read back at once.
const READ_BACK: u64 = 8 << 20;

/// What is to be published.
#[derive(Clone, Debug)]
pub struct PushRequest {
    /// The zip.
    pub content: PushContent,
    /// The name it is published under, if that is not the artifact's own.
    pub publish_as: Option<ArtifactName>,
    /// The tag.
    pub tag: Tag,
    /// Where, when and from what it was built, as YAML. What is packed on its way brings its own.
    pub provenance: Option<String>,
    /// Detached minisign signatures of the zip: the content of `.minisig` files.
    pub signatures: Vec<String>,
}

/// What came of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The publication.
    pub publication: Publication,
    /// Whether this push made it; `false`: the same content was published before.
    pub new: bool,
}

/// An artifact that goes out, as it was asked for.
struct ToSend<'a> {
    name: ArtifactName,
    request: &'a PushRequest,
    outgoing: Outgoing,
    signatures: Vec<StoredSignature>,
}

impl Registry {
    /// Publishes an artifact, which must be one whose files have hashes. Every byte is verified
    /// while it is sent. The same content again changes nothing; other content under a name and
    /// tag that are taken is refused. When it is interrupted, the same call continues.
    pub async fn push(&self, request: PushRequest) -> Result<Pushed, Error> {
        self.check_tag(&request.tag)?;
        let (content, tag) = (request.content.clone(), &request.tag);
        // What still reads when this ends, as after a refusal of the store, must end too.
        let stop = self.options.cancel.child_token();
        let _stopped_at_the_end = stop.clone().drop_guard();
        let outgoing = blocking(move || Outgoing::of(content, stop)).await?;
        let name = self.published_name(&outgoing, request.publish_as.as_ref())?;
        let parse = |text: &String| StoredSignature::parse(text, "the signature to be pushed");
        let signatures: Vec<StoredSignature> = request
            .signatures
            .iter()
            .map(parse)
            .collect::<Result<_, _>>()?;

        // All tags of a name share the blobs of an OCI registry.
        let target = match &self.backend {
            Backend::Objects(_) => format!("{}:{tag}", self.named(&name, None)),
            Backend::Oci(_) => self.named(&name, None),
        };
        let cancel = &self.options.cancel;
        let fingerprint = outgoing.content.fingerprint();
        let mut ticket = self.transfers.ticket(&target, &fingerprint, cancel).await?;
        let there = match self.look(&name, tag, &outgoing, &signatures).await {
            Ok(there) => there,
            Err(refused) => {
                if ticket.is_unused() {
                    ticket.finish()?;
                }
                return Err(refused);
            }
        };
        if let Some(there) = there {
            let result = self
                .push_again(&there, &outgoing, &signatures, &mut ticket)
                .await;
            match &result {
                Ok(_) | Err(Error::Conflict { .. }) if ticket.continued => {
                    self.discard(&name, &ticket, Some(&there)).await?;
                    ticket.finish()?;
                }
                Ok(_) | Err(Error::Conflict { .. }) => ticket.finish()?,
                Err(Error::Unsigned { .. } | Error::Signature { .. }) if ticket.is_unused() => {
                    ticket.finish()?;
                }
                Err(_) => {}
            }
            return result;
        }
        let to_send = ToSend {
            name,
            request: &request,
            outgoing,
            signatures,
        };
        let mut pushed = self.send_and_publish(&to_send, &mut ticket).await;
        if let Ok(None) = pushed {
            // Under a key that nobody knows it stays.
            ticket.begin_anew()?;
            pushed = self.send_and_publish(&to_send, &mut ticket).await;
        }
        let name = &to_send.name;
        match &pushed {
            Ok(Some(Pushed { publication, .. })) => {
                self.discard(name, &ticket, Some(publication)).await?;
                ticket.finish()?;
            }
            Err(Error::Conflict { .. }) => {
                self.discard(name, &ticket, None).await?;
                ticket.finish()?;
            }
            // An OCI registry that takes nothing from this user has nothing to continue.
            Err(Error::Storage(mlwm_storage::Error::RegistryAccess { .. }))
                if ticket.is_unused() =>
            {
                ticket.finish()?;
            }
            // The same command may yet publish what has been sent.
            Ok(None) | Err(_) => {}
        }
        pushed?.ok_or_else(|| Error::Damaged {
            publication: self.named(name, Some(tag)),
            why: "its zip was removed while it was published".to_owned(),
        })
    }

    /// What is published, before anything is sent; if nothing is, refuses what is not signed as it
    /// must be.
    async fn look(
        &self,
        name: &ArtifactName,
        tag: &Tag,
        outgoing: &Outgoing,
        signatures: &[StoredSignature],
    ) -> Result<Option<Publication>, Error> {
        let there = self.record(name, tag).await?;
        if there.is_none() {
            self.check_signed(outgoing, signatures).await?;
        }
        Ok(there)
    }

    /// Sends a zip and makes it a publication; `None` if somebody removed it meanwhile, who took it
    /// for what a killed push had left.
    async fn send_and_publish(
        &self,
        to_send: &ToSend<'_>,
        ticket: &mut Ticket,
    ) -> Result<Option<Pushed>, Error> {
        let ToSend {
            name,
            request,
            outgoing,
            signatures,
        } = to_send;
        let known = self.send(outgoing, name, ticket).await?;
        let provenance = match (&request.content, &request.provenance) {
            (PushContent::Packing(packing), None) => {
                let packing = Arc::clone(packing);
                Some(blocking(move || Ok(packing.provenance(known.digest)?)).await?)
            }
            (_, given) => given.clone(),
        };
        let publication = Publication {
            format: REGISTRY_VERSION,
            name: name.clone(),
            tag: request.tag.clone(),
            digest: known.digest,
            set_digest: known.set_digest,
            size: outgoing.content.size(),
            files: known.files,
            published_at: now(),
            object: match &self.backend {
                Backend::Objects(objects) => objects.object(name, &ticket.state.key),
                Backend::Oci(_) => String::new(),
            },
            provenance,
        };
        let pushed = self.publish(publication, signatures).await?;
        match &self.backend {
            Backend::Objects(objects)
                if pushed.new
                    && ticket.continued
                    && !objects.still_there(&pushed.publication, None).await? =>
            {
                Ok(None)
            }
            _ => Ok(Some(pushed)),
        }
    }

    fn published_name(
        &self,
        outgoing: &Outgoing,
        publish_as: Option<&ArtifactName>,
    ) -> Result<ArtifactName, Error> {
        let name = publish_as.unwrap_or(&outgoing.own_name);
        if let Backend::Oci(oci) = &self.backend {
            oci.check_name(name)?;
        }
        Ok(name.clone())
    }

    /// Refuses what is not signed as it must be, before anything is sent.
    async fn check_signed(
        &self,
        outgoing: &Outgoing,
        signatures: &[StoredSignature],
    ) -> Result<(), Error> {
        let trust = self.trust().await?;
        trust.expect(&outgoing.label, signatures)?;
        match signatures.is_empty() {
            true => Ok(()),
            false => self.check_new(trust, outgoing, signatures).await,
        }
    }

    /// Refuses signatures that are not of what is pushed: they would be put in place of good ones.
    async fn check_new(
        &self,
        trust: Trust,
        outgoing: &Outgoing,
        signatures: &[StoredSignature],
    ) -> Result<(), Error> {
        let (outgoing, signatures) = (outgoing.clone(), signatures.to_vec());
        let stop = self.options.cancel.clone();
        blocking(move || {
            let (what, digest) = (&outgoing.label, outgoing.digest()?);
            let checked = trust.check_new(what, digest, &signatures, || outgoing.open());
            unless_stopped(&stop, checked)
        })
        .await
    }

    /// The same for what is published already.
    pub(crate) async fn check_new_of(
        &self,
        publication: &Publication,
        signatures: &[StoredSignature],
    ) -> Result<(), Error> {
        let trust = self.trust().await?;
        let what = self.named(&publication.name, Some(&publication.tag));
        let (source, digest) = (self.read_at(publication), publication.digest);
        let (signatures, stop) = (signatures.to_vec(), self.options.cancel.clone());
        blocking(move || {
            let open = || Ok(Stopping::new(FromStart::new(source.clone()), &stop));
            unless_stopped(&stop, trust.check_new(&what, digest, &signatures, open))
        })
        .await
    }

    /// Refuses the same content again that is not signed as it must be: by the signatures that are
    /// there, and new ones in place of those by the same keys.
    async fn check_signed_again(
        &self,
        there: &Publication,
        outgoing: &Outgoing,
        signatures: &[StoredSignature],
    ) -> Result<(), Error> {
        let trust = self.trust().await?;
        if !signatures.is_empty() {
            self.check_new(trust.clone(), outgoing, signatures).await?;
        }
        if trust.is_empty() {
            return Ok(());
        }
        let mut all = self.signatures(there).await?;
        all.retain(|old| signatures.iter().all(|new| new.key_id != old.key_id));
        all.extend_from_slice(signatures);
        let what = self.named(&there.name, Some(&there.tag));
        trust.expect(&what, &all)?;
        let (outgoing, stop) = (outgoing.clone(), self.options.cancel.clone());
        blocking(move || {
            let checked = trust.check(&what, &all, || outgoing.open());
            unless_stopped(&stop, checked).map(drop)
        })
        .await
    }

    /// Pushes to a name and tag that are published: the same content, or a conflict.
    async fn push_again(
        &self,
        there: &Publication,
        outgoing: &Outgoing,
        signatures: &[StoredSignature],
        ticket: &mut Ticket,
    ) -> Result<Pushed, Error> {
        let reader = outgoing.clone();
        let digest = blocking(move || reader.digest()).await?;
        if digest != there.digest {
            return Err(Error::Conflict {
                publication: self.named(&there.name, Some(&there.tag)),
                theirs: there.digest,
                ours: digest,
            });
        }
        self.check_signed_again(there, outgoing, signatures).await?;
        self.mend(there, outgoing, ticket).await?;
        self.put_signatures(there, signatures).await?;
        Ok(Pushed {
            publication: there.clone(),
            new: false,
        })
    }

    /// Sends the zip of a publication again, if its registry has lost it.
    async fn mend(
        &self,
        there: &Publication,
        outgoing: &Outgoing,
        ticket: &mut Ticket,
    ) -> Result<(), Error> {
        let journals = self.transfers.journals()?;
        let content = Arc::clone(&outgoing.content);
        match &self.backend {
            Backend::Objects(objects) => {
                if objects.object_size(&there.object).await? == Some(there.size) {
                    return Ok(());
                }
                let sent = objects.upload(&there.object, content, &journals).await?;
                outgoing.known(sent)?;
            }
            Backend::Oci(oci) => {
                oci.upload(&there.name, content, Some(there.digest), &journals, ticket)
                    .await?;
            }
        }
        Ok(())
    }

    /// Sends the zip, and verifies every byte of it meanwhile.
    async fn send(
        &self,
        outgoing: &Outgoing,
        name: &ArtifactName,
        ticket: &mut Ticket,
    ) -> Result<Known, Error> {
        let reader = outgoing.clone();
        let verifying = blocking(move || reader.verify());
        let sending = async {
            match &self.backend {
                Backend::Objects(objects) => {
                    self.send_object(objects, outgoing, name, ticket).await
                }
                Backend::Oci(oci) => {
                    let journals = self.transfers.journals()?;
                    let reader = outgoing.clone();
                    // It may have arrived as a whole when the push was killed.
                    let whole = ticket.continued && !oci.is_split(outgoing.content.size());
                    let known = match (outgoing.known, whole) {
                        (None, true) => Some(blocking(move || reader.digest()).await?),
                        (known, _) => known,
                    };
                    let content = Arc::clone(&outgoing.content);
                    oci.upload(name, content, known, &journals, ticket).await
                }
            }
        };
        let ((), sent) = tokio::try_join!(verifying, sending)?;
        let reader = outgoing.clone();
        let known = blocking(move || reader.known(sent)).await;
        match known {
            Ok(_) => ticket.arrived(sent)?,
            Err(Error::Changed { .. }) => {
                self.discard(name, ticket, None).await?;
                ticket.begin_anew()?;
            }
            Err(_) => {}
        }
        known
    }

    async fn send_object(
        &self,
        objects: &Objects,
        outgoing: &Outgoing,
        name: &ArtifactName,
        ticket: &Ticket,
    ) -> Result<Digest, Error> {
        let object = objects.object(name, &ticket.state.key);
        let size = outgoing.content.size();
        let arrived = ticket.continued && objects.object_size(&object).await? == Some(size);
        match (arrived, ticket.state.digest) {
            (true, Some(digest)) => Ok(digest),
            // The push was killed when all had arrived, before that was noted.
            (true, None) => self.read_back(objects, &object, size).await,
            (false, _) => {
                let content = Arc::clone(&outgoing.content);
                objects
                    .upload(&object, content, &self.transfers.journals()?)
                    .await
            }
        }
    }

    async fn read_back(&self, objects: &Objects, object: &str, size: u64) -> Result<Digest, Error> {
        let mut hasher = Sha256::new();
        let mut start = 0;
        while start < size {
            if self.options.cancel.is_cancelled() {
                return Err(Error::Interrupted);
            }
            let length = READ_BACK.min(size - start);
            hasher.update(
                objects
                    .range(object, ByteRange::From { start, length })
                    .await?,
            );
            start += length;
        }
        Ok(Digest::from_hasher(hasher))
    }

    /// Makes the publication visible; its signatures come before it.
    async fn publish(
        &self,
        mut publication: Publication,
        signatures: &[StoredSignature],
    ) -> Result<Pushed, Error> {
        let outcome = match &self.backend {
            Backend::Objects(objects) => {
                objects
                    .put_signatures(publication.digest, signatures)
                    .await?;
                objects.publish(&publication).await?
            }
            Backend::Oci(oci) => oci.publish(&mut publication, signatures).await?,
        };
        match outcome {
            Outcome::Written => Ok(Pushed {
                publication,
                new: true,
            }),
            Outcome::Same(there) => {
                // The subject of those in an OCI registry must be the manifest that is there.
                self.put_signatures(&there, signatures).await?;
                Ok(Pushed {
                    publication: *there,
                    new: false,
                })
            }
        }
    }

    /// Removes the zip of this push, unless `published` is what it was sent for, or another tag
    /// names it: it may have been given one since an earlier process published it.
    async fn discard(
        &self,
        name: &ArtifactName,
        ticket: &Ticket,
        published: Option<&Publication>,
    ) -> Result<(), Error> {
        let Backend::Objects(objects) = &self.backend else {
            // Blobs that no manifest names are the registry's to clean up.
            return Ok(());
        };
        let object = objects.object(name, &ticket.state.key);
        let needed = published.is_some_and(|published| published.object == object);
        if needed || !objects.may_discard().await? {
            return Ok(());
        }
        let plan = RemovalPlan {
            objects: vec![object],
            ..RemovalPlan::default()
        };
        objects.carry_out(&plan, &mut RemovalPlan::default()).await
    }
}
