//! Manifests, tags, and the list of repositories.

use bytes::Bytes;
use mlwm_spec::Digest;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, LINK};
use reqwest::{Method, Url};
use serde::Deserialize;

use super::connection::{Connection, Fetched};
use super::token::Access;
use super::uri::OciUri;
use super::{OciOptions, Repository};
use crate::Error;

/// What registries take at most (chapter "Pushing Manifests").
const MANIFEST_LIMIT: usize = 4 << 20;

/// A page of a listing; pages are as long as the registry likes.
const PAGE_LIMIT: usize = 16 << 20;

/// More pages than any registry has; one that always names a next page is not followed for ever.
const PAGES: usize = 100_000;

/// The kinds of manifests that are understood, the preferred first.
const KINDS: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

/// A manifest as a registry keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// What kind it is, such as `application/vnd.oci.image.manifest.v1+json`.
    pub media_type: String,
    /// Its bytes, which are JSON.
    pub bytes: Bytes,
}

/// A page of the tags of a repository, or of the repositories of a registry.
#[derive(Deserialize)]
struct Page {
    /// Some registries write `null` for none.
    #[serde(alias = "tags", alias = "repositories")]
    names: Option<Vec<String>>,
}

impl Repository {
    /// The manifest that has this tag or digest (`sha256:…`), `None` if there is none. It is
    /// checked against the digest.
    pub async fn manifest(&self, reference: &str) -> Result<Option<Manifest>, Error> {
        let connection = &self.connection;
        let url = connection.url(&format!("manifests/{reference}"), &[]);
        let accept = |request: reqwest::RequestBuilder| request.header(ACCEPT, KINDS);
        let fetched = connection
            .fetch(&Access::Pull, &url, MANIFEST_LIMIT, accept)
            .await?;
        let Some(Fetched { headers, bytes, .. }) = fetched else {
            return Ok(None);
        };
        let said = said_digest(&headers);
        let media_type = headers.get(CONTENT_TYPE);
        let media_type = media_type.and_then(|value| value.to_str().ok());
        let media_type = media_type.unwrap_or_default().to_owned();
        let digest = Digest::of(&bytes);
        let asked = reference.parse::<Digest>().ok();
        if asked.or(said).is_some_and(|expected| expected != digest) {
            return Err(Error::NotExpected {
                uri: self.named(reference),
                reason: format!("the manifest has the digest {digest}"),
            });
        }
        Ok(Some(Manifest {
            digest,
            media_type,
            bytes,
        }))
    }

    /// Writes a manifest under a tag or its own digest, over what the tag named before. What it
    /// refers to must be there.
    pub async fn push_manifest(
        &self,
        reference: &str,
        media_type: &str,
        bytes: impl Into<Bytes>,
    ) -> Result<Digest, Error> {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        let url = self.connection.url(&format!("manifests/{reference}"), &[]);
        let with_body = |request: reqwest::RequestBuilder| {
            let request = request.header(CONTENT_TYPE, media_type);
            request.body(bytes.clone())
        };
        let response = self
            .connection
            .ask(&Access::Push, Method::PUT, &url, &[200, 201], with_body)
            .await?;
        match said_digest(response.headers()) {
            Some(said) if said != digest => Err(Error::NotExpected {
                uri: self.named(reference),
                reason: format!("the registry stored {said} instead of {digest}"),
            }),
            _ => Ok(digest),
        }
    }

    /// Removes a manifest and, with most registries, every tag that names it; whether it was
    /// there.
    pub async fn delete_manifest(&self, digest: &Digest) -> Result<bool, Error> {
        self.delete(&digest.to_string()).await
    }

    /// Removes a tag and leaves what it names; whether it was there. Many registries cannot.
    pub async fn delete_tag(&self, tag: &str) -> Result<bool, Error> {
        self.delete(tag).await
    }

    async fn delete(&self, reference: &str) -> Result<bool, Error> {
        let url = self.connection.url(&format!("manifests/{reference}"), &[]);
        let statuses = [200, 202, 204, 404];
        let response = self
            .connection
            .ask(&Access::Delete, Method::DELETE, &url, &statuses, |r| r)
            .await?;
        Ok(response.status() != 404)
    }

    /// The tags, sorted; none if there is no such repository.
    pub async fn tags(&self) -> Result<Vec<String>, Error> {
        let url = self.connection.url("tags/list", &[("n", "1000")]);
        list(&self.connection, &Access::Pull, url).await
    }

    /// What is in the repository under this name, for errors.
    pub(super) fn named(&self, reference: &str) -> String {
        let separator = if reference.contains(':') { '@' } else { ':' };
        format!("{}{separator}{reference}", self.connection.place())
    }
}

/// The repositories of the registry whose names begin with the path of `below`, sorted. Registries that
/// keep many people's repositories do not tell.
pub async fn repositories(below: &OciUri, options: &OciOptions) -> Result<Vec<String>, Error> {
    let connection = Connection::open(below, options)?;
    let mut url = connection.root().clone();
    url.set_path("/v2/_catalog");
    url.set_query(Some("n=1000"));
    let mut names = list(&connection, &Access::Catalog, url).await?;
    let path = below.repository();
    names.retain(|name| {
        let rest = name.strip_prefix(path);
        path.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    Ok(names)
}

/// All pages of a listing (chapter "Listing Tags").
async fn list(
    connection: &Connection,
    access: &Access,
    mut url: Url,
) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for _ in 0..PAGES {
        let fetched = connection.fetch(access, &url, PAGE_LIMIT, |r| r).await?;
        let Some(fetched) = fetched else {
            return Ok(names);
        };
        let odd = |_| {
            let reason = "its listing is not one of the protocol".to_owned();
            connection.peer().service(reason)
        };
        let page: Page = serde_json::from_slice(&fetched.bytes).map_err(odd)?;
        names.extend(page.names.unwrap_or_default());
        match next_page(connection, &fetched)? {
            Some(next) => url = next,
            None => {
                names.sort();
                names.dedup();
                return Ok(names);
            }
        }
    }
    let reason = format!("its listing has more than {PAGES} pages");
    Err(connection.peer().service(reason))
}

/// `Link: </v2/a/tags/list?n=100&last=b>; rel="next"`. A listing of which a page cannot be had is
/// an error: what is missing could be taken for absent.
fn next_page(connection: &Connection, page: &Fetched) -> Result<Option<Url>, Error> {
    let Some(link) = page.headers.get(LINK) else {
        return Ok(None);
    };
    let unusable = || {
        let reason = "its listing goes on where it cannot be read".to_owned();
        connection.peer().service(reason)
    };
    let link = link.to_str().map_err(|_| unusable())?;
    if !link.replace('"', "").contains("rel=next") {
        return Ok(None);
    }
    let target = || link.trim().strip_prefix('<')?.split_once('>');
    let (target, _) = target().ok_or_else(unusable)?;
    let next = connection.joined(&page.url, target);
    let next = next.filter(|next| {
        let here = connection.is_own(next) || next.origin() == page.url.origin();
        here && *next != page.url
    });
    next.map(Some).ok_or_else(unusable)
}

fn said_digest(headers: &HeaderMap) -> Option<Digest> {
    let value = headers.get("docker-content-digest")?;
    value.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_next_page_is_followed_or_an_error() {
        let uri: OciUri = "oci://far:5000/a".parse().unwrap();
        let connection = Connection::open(&uri, &OciOptions::default()).unwrap();
        let after = |link: Option<&str>| {
            let headers = link.map(|link| (LINK, link.parse().unwrap()));
            let page = Fetched {
                url: connection.url("tags/list", &[]),
                headers: headers.into_iter().collect(),
                bytes: Bytes::new(),
            };
            next_page(&connection, &page).map(|next| next.map(String::from))
        };
        assert_eq!(after(None).unwrap(), None);
        assert_eq!(after(Some("</v2/b>; rel=\"prev\"")).unwrap(), None);
        let next = Some("https://far:5000/v2/a/tags/list?last=x".to_owned());
        for link in [
            "</v2/a/tags/list?last=x>; rel=\"next\"",
            "<https://far:5000/v2/a/tags/list?last=x>;rel=next",
            // The proxy before it does the encryption.
            "<http://far:5000/v2/a/tags/list?last=x>; rel=\"next\"",
        ] {
            assert_eq!(after(Some(link)).unwrap(), next, "{link}");
        }
        for link in [
            "<https://other/v2/a/tags/list?last=x>; rel=\"next\"",
            "<http://[x>; rel=\"next\"",
            "/v2/a/tags/list; rel=\"next\"",
            "</v2/a/tags/list>; rel=\"next\"",
        ] {
            after(Some(link)).unwrap_err();
        }
    }
}
