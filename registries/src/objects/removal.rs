//! Removing from a folder or a bucket (`docs/registries.md` §6), so that no record loses its zip.
//!
//! Who removes a zip marks it and then looks at the records; who writes the record of a zip that
//! was there before looks for marks afterwards. So at least one of two sees the other.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use mlwm_spec::{ArtifactName, Digest, Tag};

use super::{AT_ONCE, Objects};
use crate::listing::Listing;
use crate::record::{self, OBJECTS, SIGNATURES, record_path};
use crate::removal::plan::{Inventory, ObjectEntry, SignatureEntry};
use crate::{Error, KeptObject, Publication, RemovalPlan};

/// What stands between the path of a zip and what makes a mark of its removal another one.
const MARK: &str = ".removing.";

impl Objects {
    /// Everything in the registry, or of one name and the contents it has.
    pub(crate) async fn inventory(
        &self,
        name: Option<&ArtifactName>,
        now: i128,
    ) -> Result<Inventory, Error> {
        // All records: signatures are shared between names.
        let (listing, claims) = self.records_and_claims(None).await?;
        let folder = match name {
            None => OBJECTS.to_owned(),
            Some(name) => format!("{OBJECTS}/{name}"),
        };
        let age = |modified: i128| {
            let nanoseconds = u64::try_from((now - modified).max(0)).unwrap_or(u64::MAX);
            Duration::from_nanos(nanoseconds)
        };
        let objects = self.listed(&folder).await?.into_iter().map(|listed| {
            let entry = ObjectEntry {
                size: listed.size,
                age: age(listed.modified),
            };
            (format!("{folder}/{}", listed.path), entry)
        });
        let signatures = self.listed(SIGNATURES).await?;
        let signatures = signatures.into_iter().filter_map(|listed| {
            let (digest, _) = record::signature_entry(&listed.path)?;
            Some(SignatureEntry {
                digest,
                name: None,
                age: age(listed.modified),
                path: format!("{SIGNATURES}/{}", listed.path),
            })
        });
        Ok(Inventory {
            listing,
            claims,
            objects: objects.collect(),
            signatures: signatures.collect(),
        })
    }

    /// Removes what was planned: records first, so that none is left without its zip.
    pub(crate) async fn carry_out(
        &self,
        plan: &RemovalPlan,
        removed: &mut RemovalPlan,
    ) -> Result<(), Error> {
        let records = plan.publications.iter();
        let records = records.map(|going| (record_path(&going.name, &going.tag), going.clone()));
        self.remove_each(records.collect(), |gone| removed.publications.push(gone))
            .await?;
        let faults = plan.faults.iter();
        let faults = faults.map(|going| (record_path(&going.name, &going.tag), going.clone()));
        self.remove_each(faults.collect(), |gone| removed.faults.push(gone))
            .await?;
        self.remove_each(with_itself(&plan.claims), |gone| removed.claims.push(gone))
            .await?;
        removed.kept.clone_from(&plan.kept);
        let (old_marks, objects): (Vec<String>, Vec<String>) = plan
            .objects
            .iter()
            .cloned()
            .partition(|path| path.contains(MARK));
        self.remove_each(with_itself(&old_marks), |gone| removed.objects.push(gone))
            .await?;
        if objects.is_empty() && plan.signatures.is_empty() {
            return Ok(());
        }
        let nonce = crate::random::text()?;
        let mark = |object: &String| format!("{object}{MARK}{nonce}");
        let marks: Vec<String> = objects.iter().map(mark).collect();
        let removing = async {
            self.put_each(&marks).await?;
            let left = self.records(None).await?;
            self.remove_objects(objects, &left, removed).await?;
            self.remove_signatures(plan, &left, removed).await
        };
        let done = removing.await;
        // Also after an error: whoever gives a zip another tag looks for marks.
        let unmarked = self.remove(&marks).await;
        done.and(unmarked)
    }

    /// Removes marked zips that nobody names.
    async fn remove_objects(
        &self,
        objects: Vec<String>,
        left: &Listing,
        removed: &mut RemovalPlan,
    ) -> Result<(), Error> {
        let mut unnamed = Vec::new();
        for object in objects {
            let tags = tags_of(left, &object);
            match tags.is_empty() {
                true => unnamed.push(object),
                false => removed.kept.push(KeptObject { object, tags }),
            }
        }
        let sizes = stream::iter(unnamed)
            .map(|object| async move {
                let size = self.object_size(&object).await?.unwrap_or(0);
                Ok::<_, Error>((object.clone(), (object, size)))
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        self.remove_each(sizes, |(object, size)| {
            removed.objects.push(object);
            removed.bytes += size;
        })
        .await
    }

    /// Removes signatures of contents that nothing has any more. What cannot be read may have any.
    async fn remove_signatures(
        &self,
        plan: &RemovalPlan,
        left: &Listing,
        removed: &mut RemovalPlan,
    ) -> Result<(), Error> {
        let needed = |path: &&String| {
            let below = path.strip_prefix(SIGNATURES).unwrap_or_default();
            let entry = record::signature_entry(below.trim_start_matches('/'));
            let of = |digest: Digest| left.publications.iter().any(|one| one.digest == digest);
            !left.faults.is_empty() || entry.is_none_or(|(digest, _)| of(digest))
        };
        let going = plan.signatures.iter().filter(|path| !needed(path));
        let going: Vec<String> = going.cloned().collect();
        self.remove_each(with_itself(&going), |gone| removed.signatures.push(gone))
            .await
    }

    /// Whether the zip of a record that was just written is there to stay. If not, the record is
    /// withdrawn: `before` is put back in its place, or it is removed.
    pub(crate) async fn still_there(
        &self,
        publication: &Publication,
        before: Option<&Publication>,
    ) -> Result<bool, Error> {
        let Publication {
            name, tag, object, ..
        } = publication;
        // In this order: a mark that is gone because the zip was removed shows by the zip.
        let folder = format!("{OBJECTS}/{name}");
        let mark = format!("{object}{MARK}");
        let listed = self.listed(&folder).await?;
        let mut listed = listed.iter().map(|one| format!("{folder}/{}", one.path));
        let marked = listed.any(|path| path.starts_with(&mark));
        if !marked && self.object_size(object).await? == Some(publication.size) {
            return Ok(true);
        }
        let there = self.record(name, tag).await?;
        if there.is_some_and(|there| there.object == *object) {
            match before {
                Some(before) => self.replace(before).await?,
                None => self.remove(&[record_path(name, tag)]).await?,
            }
        }
        Ok(false)
    }

    async fn put_each(&self, marks: &[String]) -> Result<(), Error> {
        stream::iter(marks.to_vec())
            .map(|path| async move {
                // Some stores list no objects without bytes.
                Ok(self
                    .store
                    .put(&self.at(&path)?, b"removing\n".to_vec())
                    .await?)
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    /// Removes objects by their paths, and tells each that is gone.
    async fn remove_each<T>(
        &self,
        objects: Vec<(String, T)>,
        mut gone: impl FnMut(T),
    ) -> Result<(), Error> {
        let mut removing = stream::iter(objects)
            .map(|(path, object)| async move {
                self.store.remove(&self.at(&path)?).await?;
                Ok::<T, Error>(object)
            })
            .buffer_unordered(AT_ONCE);
        while let Some(object) = removing.try_next().await? {
            gone(object);
        }
        Ok(())
    }
}

/// The tags that need a zip, or may: a record that cannot be read names one of its own name.
fn tags_of(left: &Listing, object: &str) -> Vec<Tag> {
    let named = left.publications.iter().filter(|one| one.object == object);
    let unread = left.faults.iter().filter(|fault| {
        let below = object.strip_prefix(&format!("{OBJECTS}/{}/", fault.name));
        below.is_some()
    });
    let named = named.map(|one| one.tag.clone());
    named.chain(unread.map(|fault| fault.tag.clone())).collect()
}

fn with_itself(paths: &[String]) -> Vec<(String, String)> {
    let paths = paths.iter();
    paths.map(|path| (path.clone(), path.clone())).collect()
}
