//! Settings from the environment and the shared AWS files.

use std::fs;

use mlwm_spec::ExitCode;
use mlwm_storage::Uri;
use mlwm_tests::s3::bare_environment;

use crate::child::{command, printed};
use crate::common::{GARAGE, MOTO, Place};

fn uri(bucket: &str) -> Uri {
    format!("s3://{bucket}/forecasts/out.zarr").parse().unwrap()
}

fn list(bucket: &str, environment: &[(&str, String)]) -> String {
    let output = command("list", &uri(bucket), "/".as_ref(), environment)
        .output()
        .unwrap();
    printed(&output, "JOB")
}

#[tokio::test]
async fn keys_in_variables() {
    let place = Place::s3(&GARAGE, "garage-env-keys").await;
    place.plant("a", b"1").await;
    assert_eq!(list("garage-env-keys", &GARAGE.environment()), "ok 1");
}

#[tokio::test]
async fn a_profile_in_the_shared_files() {
    let place = Place::s3(&GARAGE, "garage-env-profile").await;
    place.plant("a", b"1").await;
    let folder = tempfile::tempdir().unwrap();
    let (config, credentials) = (
        folder.path().join("config"),
        folder.path().join("credentials"),
    );
    let (id, secret) = (&GARAGE.key.id, &GARAGE.key.secret);
    fs::write(
        &credentials,
        format!("[met]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n"),
    )
    .unwrap();
    let endpoint = &GARAGE.endpoint;
    for settings in [
        format!("[profile met]\nregion = garage\nendpoint_url = {endpoint}\n"),
        format!(
            "[profile met]\nregion = garage\nservices = local\n\
             [services local]\ns3 =\n  endpoint_url = {endpoint}\n"
        ),
    ] {
        fs::write(&config, settings).unwrap();
        let mut environment = bare_environment();
        environment.extend([
            ("AWS_CONFIG_FILE", config.to_str().unwrap().to_owned()),
            (
                "AWS_SHARED_CREDENTIALS_FILE",
                credentials.to_str().unwrap().to_owned(),
            ),
            ("AWS_PROFILE", "met".to_owned()),
        ]);
        assert_eq!(list("garage-env-profile", &environment), "ok 1");
    }
}

#[tokio::test]
async fn the_endpoint_of_the_service_goes_before_the_general_one() {
    let place = Place::s3(&GARAGE, "garage-env-endpoint").await;
    place.plant("a", b"1").await;
    let mut environment = GARAGE.environment();
    environment.push(("AWS_ENDPOINT_URL", "http://127.0.0.1:1".to_owned()));
    environment.push(("AWS_ENDPOINT_URL_S3", GARAGE.endpoint.clone()));
    assert_eq!(list("garage-env-endpoint", &environment), "ok 1");
}

#[tokio::test]
async fn without_credentials_the_error_says_what_to_do() {
    let mut environment = bare_environment();
    environment.push(("AWS_ENDPOINT_URL", MOTO.endpoint.clone()));
    let answer = list("moto-env-none", &environment);
    let code = ExitCode::StorageFailed.number();
    assert!(
        answer.starts_with(&format!("failed {code}: no AWS credentials")),
        "{answer}"
    );
    assert!(answer.contains("AWS_SKIP_SIGNATURE=true"), "{answer}");

    environment.push(("AWS_PROFILE", "nobody".to_owned()));
    let answer = list("moto-env-none", &environment);
    assert!(answer.contains("AWS_PROFILE is `nobody`"), "{answer}");
}

#[tokio::test]
async fn a_public_bucket_is_read_anonymously_when_asked_for() {
    let place = Place::s3(&MOTO, "moto-env-public").await;
    place.plant("a", b"1").await;
    let mut environment = bare_environment();
    environment.push(("AWS_ENDPOINT_URL", MOTO.endpoint.clone()));
    environment.push(("AWS_SKIP_SIGNATURE", "true".to_owned()));
    assert_eq!(list("moto-env-public", &environment), "ok 1");
    // Garage knows no public buckets: the request must have come without a signature.
    environment.push(("AWS_ENDPOINT_URL", GARAGE.endpoint.clone()));
    let answer = list("garage-env-public", &environment);
    assert!(answer.contains("AccessDenied"), "{answer}");
}

#[tokio::test]
async fn wrong_settings_are_named_without_their_secrets() {
    for (name, value, expected) in [
        (
            "AWS_ENDPOINT_URL",
            "http://user:PLANTED@127.0.0.1:1",
            "must not hold a user",
        ),
        (
            "AWS_ENDPOINT_URL",
            "http://127.0.0.1:1/?sig=PLANTED",
            "must not have a query",
        ),
        (
            "AWS_ENDPOINT_URL",
            "ftp://127.0.0.1",
            "neither http:// nor https://",
        ),
        ("AWS_ENDPOINT_URL", "PLANTED", "is not a URL"),
        ("AWS_SKIP_SIGNATURE", "perhaps", "must be `true` or `false`"),
    ] {
        let mut environment = GARAGE.environment();
        environment.push((name, value.to_owned()));
        let answer = list("garage-env-wrong", &environment);
        let code = ExitCode::BadConfiguration.number();
        assert!(answer.starts_with(&format!("failed {code}:")), "{answer}");
        assert!(answer.contains(expected), "{answer}");
        assert!(!answer.contains("PLANTED"), "{answer}");
    }
    let mut environment = GARAGE.environment();
    environment.push(("AWS_ENDPOINT_URL", "https://127.0.0.1:1".to_owned()));
    environment.push(("AWS_CA_BUNDLE", "/nonexistent/ca.pem".to_owned()));
    let answer = list("garage-env-wrong", &environment);
    assert!(
        answer.contains("AWS_CA_BUNDLE names /nonexistent/ca.pem"),
        "{answer}"
    );
}
