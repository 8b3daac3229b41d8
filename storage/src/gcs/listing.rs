//! Listing a bucket.

use serde::{Deserialize, Deserializer};

use super::Gcs;
use super::wire::Ask;
use crate::transfer::http::encode;
use crate::{Error, Listed, Uri};

/// An object as the server describes it.
#[derive(Deserialize)]
pub(super) struct ObjectRecord {
    name: String,
    #[serde(deserialize_with = "number")]
    size: u64,
    pub(super) generation: Option<String>,
    updated: Option<jiff::Timestamp>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    #[serde(default)]
    items: Vec<ObjectRecord>,
    next_page_token: Option<String>,
}

/// Google writes large numbers as texts.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Text(String),
        Number(u64),
    }
    match Number::deserialize(deserializer)? {
        Number::Number(number) => Ok(number),
        Number::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

impl ObjectRecord {
    /// As a store lists it. The generation takes the place of the entity tag: it changes when the
    /// content does, and not when only the metadata do.
    pub(super) fn listed(self, path: String) -> Listed {
        Listed {
            path,
            size: self.size,
            etag: self.generation,
            modified: self.updated.map_or(0, |time| time.as_nanosecond()),
        }
    }
}

impl Gcs {
    /// Every object below `uri`, ordered by path.
    pub(crate) async fn list(&self, uri: &Uri) -> Result<Vec<Listed>, Error> {
        let prefix = match uri.key() {
            "" => String::new(),
            key => format!("{key}/"),
        };
        let mut listed = Vec::new();
        let mut token = None;
        loop {
            let page: Page = self
                .persist(uri, || self.page(uri, &prefix, token.as_deref()))
                .await?;
            for object in page.items {
                // An empty object named like a folder is what some tools make one of.
                let stands_for_folder = object.name.ends_with('/') && object.size == 0;
                if let Some(path) = object.name.strip_prefix(&prefix)
                    && !stands_for_folder
                {
                    let path = path.to_owned();
                    listed.push(object.listed(path));
                }
            }
            match page.next_page_token {
                Some(next) if !next.is_empty() && token.as_ref() != Some(&next) => {
                    token = Some(next);
                }
                _ => break,
            }
        }
        listed.sort_by(|a: &Listed, b: &Listed| a.path.cmp(&b.path));
        Ok(listed)
    }

    async fn page(
        &self,
        uri: &Uri,
        prefix: &str,
        token: Option<&str>,
    ) -> Result<Page, crate::transfer::retry::Failure> {
        let mut query = format!(
            "fields=nextPageToken,items(name,size,generation,updated)&prefix={}",
            encode(prefix, false)
        );
        if let Some(token) = token {
            query.push_str(&format!("&pageToken={}", encode(token, false)));
        }
        let ask = Ask::listing(uri, &query);
        self.ask_json(ask).await.map_err(|refusal| {
            if refusal.is(404) {
                // A listing is never missing, only the bucket is.
                return crate::transfer::retry::Failure::permanent(Error::BucketMissing {
                    uri: uri.to_string(),
                    endpoint: self.peer("").endpoint.to_owned(),
                });
            }
            refusal.failure
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read() {
        let text = r#"{"kind": "storage#objects", "nextPageToken": "t", "items": [
            {"name": "a/b", "size": "12345678901", "generation": "17",
             "updated": "2026-01-02T03:04:05.678Z", "other": null},
            {"name": "a/c", "size": 5}]}"#;
        let page: Page = serde_json::from_str(text).unwrap();
        assert_eq!(page.next_page_token.as_deref(), Some("t"));
        let listed: Vec<Listed> = page
            .items
            .into_iter()
            .map(|object| object.listed("x".to_owned()))
            .collect();
        assert_eq!(listed[0].size, 12_345_678_901);
        assert_eq!(listed[0].etag.as_deref(), Some("17"));
        assert_eq!(listed[0].modified, 1_767_323_045_678_000_000);
        assert_eq!((listed[1].size, listed[1].modified), (5, 0));
        assert!(serde_json::from_str::<Page>("{}").unwrap().items.is_empty());
    }
}
