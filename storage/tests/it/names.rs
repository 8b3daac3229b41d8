//! Names that would leave the destination, or cannot exist together there.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use mlwm_spec::ExitCode;
use mlwm_storage::{Error, Uri};
use mlwm_tests::s3::Key;

use crate::common::{GARAGE, MOTO, Place};

/// Writes an object under a name that `object_store` cannot express, such as `a/`. moto asks for
/// no signature.
fn put_raw(bucket: &str, key: &str, content: &str) {
    let host = &MOTO.endpoint["http://".len()..];
    let mut stream = TcpStream::connect(host).unwrap();
    let length = content.len();
    let request = format!(
        "PUT /{bucket}/{key} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{content}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// A hostile server: whatever it is asked, it answers that it holds an object of this name.
fn hostile_server(key: &'static str) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 8192];
            let length = stream.read(&mut request).unwrap_or(0);
            // It lists this name, and has no object.
            if !String::from_utf8_lossy(&request[..length]).contains("list-type") {
                let gone =
                    "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
                let _ = stream.write_all(gone.as_bytes());
                continue;
            }
            let body = format!(
                "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>{key}</Key>\
                 <LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>\"1\"</ETag>\
                 <Size>1</Size></Contents></ListBucketResult>"
            );
            let length = body.len();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nConnection: close\r\n\
                 Content-Length: {length}\r\n\r\n{body}"
            );
        }
    });
    endpoint
}

#[tokio::test]
async fn names_that_would_escape_are_refused() {
    for key in [
        "forecasts/out.zarr/../evil",
        "forecasts/out.zarr/a/../../evil",
        "forecasts/out.zarr/a//b",
        "forecasts/out.zarr//etc/passwd",
        "forecasts/out.zarr/./a",
        "forecasts/out.zarr/a&#10;b",
        "forecasts/out.zarr/a&#133;b",
    ] {
        let key_pair = Key {
            id: "id".to_owned(),
            secret: "secret".to_owned(),
        };
        let place = Place::at(&hostile_server(key), "us-east-1", &key_pair, "bucket").await;
        let parent = tempfile::tempdir().unwrap();
        let error = place.stage(&parent.path().join("in")).await.unwrap_err();
        assert!(matches!(error, Error::UnsafeName { .. }), "{key}: {error}");
        assert_eq!(error.exit_code(), ExitCode::InputCorrupt);
        assert!(!error.to_string().contains(char::is_control), "{error}");
        assert_eq!(
            fs::read_dir(parent.path()).unwrap().count(),
            0,
            "nothing was written"
        );
    }
}

#[tokio::test]
async fn names_outside_the_prefix_are_not_staged() {
    let key_pair = Key {
        id: "id".to_owned(),
        secret: "secret".to_owned(),
    };
    let server = hostile_server("elsewhere/a");
    let place = Place::at(&server, "us-east-1", &key_pair, "bucket").await;
    let parent = tempfile::tempdir().unwrap();
    let error = place.stage(&parent.path().join("in")).await.unwrap_err();
    assert!(matches!(error, Error::NothingAt { .. }), "{error}");
}

#[tokio::test]
async fn an_object_and_a_folder_of_one_name_are_refused() {
    for name in ["a", "x/y"] {
        let place = Place::s3(&GARAGE, &format!("garage-collide-{}", name.len())).await;
        place.plant(name, b"1").await;
        place.plant(&format!("{name}-between"), b"1").await;
        place.plant(&format!("{name}/b"), b"2").await;
        let parent = tempfile::tempdir().unwrap();
        let error = place.stage(&parent.path().join("in")).await.unwrap_err();
        assert!(
            matches!(&error, Error::UnsafeName { name: n, .. } if n == name),
            "{error}"
        );
    }
}

#[tokio::test]
async fn empty_objects_that_stand_for_folders_are_left_out() {
    let place = Place::s3(&MOTO, "moto-placeholders").await;
    place.plant("a/b", b"1").await;
    place.plant("empty", b"").await;
    for key in [
        "forecasts/out.zarr/",
        "forecasts/out.zarr/a/",
        "forecasts/out.zarr/c/",
    ] {
        put_raw(place.bucket(), key, "");
    }
    let listed = place.store.list(&place.uri).await.unwrap();
    let names: Vec<_> = listed.iter().map(|object| object.path.as_str()).collect();
    assert_eq!(names, ["a/b", "empty"]);
    let dest = tempfile::tempdir().unwrap();
    place.stage(dest.path()).await.unwrap();
    assert_eq!(crate::common::tree(dest.path()).len(), 2);
}

#[tokio::test]
async fn links_in_a_local_store_are_refused() {
    let place = Place::file().await;
    place.plant("a", b"1").await;
    let link = place.uri.local_path().unwrap().join("link");
    std::os::unix::fs::symlink("/etc/passwd", link).unwrap();
    let dest = tempfile::tempdir().unwrap();
    let error = place.stage(dest.path()).await.unwrap_err();
    assert!(
        matches!(&error, Error::UnsafeName { name, .. } if name == "link"),
        "{error}"
    );
}

#[tokio::test]
async fn a_store_refuses_the_uris_of_another() {
    let place = Place::file().await;
    let other: Uri = "s3://bucket/x".parse().unwrap();
    let error = place.store.list(&other).await.unwrap_err();
    assert!(matches!(error, Error::InvalidUri { .. }), "{error}");
}
