//! What must hold before an image that is already made leaves this machine.

use crate::Error;
use crate::image::Image;
use crate::labels;
use crate::scan::{Allowed, refused, scan_config};

/// Refuses an image whose environment, labels, history or commands may hold secrets. What was allowed
/// when it was built is recorded in it, and nothing else is allowed: that could not be recorded
/// without making another image of it. Its layers were searched when they were built.
pub fn check_secrets(image: &Image, reference: &str) -> Result<(), Error> {
    let recorded = image.label(labels::ALLOWED).unwrap_or_default();
    let places = recorded.split(',').map(str::trim);
    let places = places.filter(|place| !place.is_empty());
    let allowed = Allowed::new(places.map(str::to_owned).collect());
    let (found, _) = refused(scan_config(&image.document()), &allowed);
    match found.is_empty() {
        true => Ok(()),
        false => Err(Error::MadeWithSecrets {
            image: reference.to_owned(),
            found,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{CONFIG, Descriptor, MANIFEST, Manifest};
    use serde_json::json;

    fn image(labels: serde_json::Value) -> Image {
        let token = ["ghp_", "Zq3vR8tLm5xW2nB7kD4jF9hG6sA1pC0eYuTi"].concat();
        let run = json!({"Env": [format!("API_TOKEN={token}"), "A=b"], "Labels": labels});
        let config = json!({"config": run, "rootfs": {"diff_ids": []}}).to_string();
        let parsed = Manifest {
            schema_version: 2,
            media_type: MANIFEST.to_owned(),
            config: Descriptor::of(CONFIG, config.as_bytes()),
            layers: Vec::new(),
            annotations: Default::default(),
        };
        let layer = |_: &Descriptor| unreachable!("it has no layers");
        Image::read(Vec::new(), parsed, config.into_bytes(), layer).unwrap()
    }

    #[test]
    fn only_what_the_image_itself_allows_may_leave() {
        for labels in [
            json!({}),
            json!({"io.mlwm.secrets.allowed": ""}),
            json!({"io.mlwm.secrets.allowed": "environment OTHER, file /a line 1"}),
        ] {
            let error = check_secrets(&image(labels), "host.org/a:v1").unwrap_err();
            let text = error.to_string();
            assert!(text.contains("environment API_TOKEN"), "{text}");
            assert!(
                text.contains("host.org/a:v1") && !text.contains("ghp_Z"),
                "{text}"
            );
        }
        let allowed = json!({"io.mlwm.secrets.allowed": "file /a line 1, environment API_TOKEN"});
        check_secrets(&image(allowed), "host.org/a:v1").unwrap();
    }
}
