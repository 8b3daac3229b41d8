//! What `mlwm-step fetch` and steps take from a real S3 store: one object, all below a place, or what is named alike.

use std::fs;

use mlwm_tests::s3::S3Server;
use mlwm_tests::scripted::{image, no_container_left};
use mlwm_tests::site::{Ran, Site, ran, sha256};

/// A server with a month of files, and a site whose commands reach it.
struct Archive {
    server: S3Server,
    bucket: String,
    site: Site,
}

/// What is in the archive, by key.
const OBJECTS: [&str; 6] = [
    "land/2020-01/a b.grib",
    "land/2020-01/b.grib",
    "land/2020-01/b.grib.index",
    "land/2020-01/c.zarr/t2m/0.0",
    "land/2020-01/c.zarr/zarr.json",
    "land/2020-010/other.grib",
];

impl Archive {
    fn new(name: &str) -> Self {
        let server = S3Server::garage();
        let bucket = server.bucket(name);
        let mut site = Site::new();
        for (name, value) in server.environment() {
            site.env(name, &value);
        }
        for (number, key) in OBJECTS.iter().enumerate() {
            let path = site.path("archive").join(key);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            // Of some the store sends several parts.
            let length = if number == 1 {
                20_000_000
            } else {
                1000 + number
            };
            let bytes: Vec<u8> = (0..length).map(|at| (at % 251 + number) as u8).collect();
            fs::write(path, bytes).unwrap();
        }
        let archive = site.path("archive/land");
        server.objects(&["put", archive.to_str().unwrap(), &bucket, "land"]);
        Self {
            server,
            bucket,
            site,
        }
    }

    fn uri(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.bucket)
    }

    fn step(&self, arguments: &[&str]) -> Ran {
        ran(&self
            .site
            .command_of("mlwm-step", arguments)
            .output()
            .unwrap())
    }

    /// Fails unless a folder has these objects, by their paths in it, and nothing else.
    #[track_caller]
    fn assert_came(&self, folder: &str, expected: &[(&str, &str)]) {
        let names: Vec<&str> = expected.iter().map(|(name, _)| *name).collect();
        assert_eq!(self.site.files(folder), names);
        for (name, key) in expected {
            let came = fs::read(self.site.path(folder).join(name)).unwrap();
            let there = fs::read(self.site.path("archive").join(key)).unwrap();
            assert!(came == there, "{name} is not {key}");
        }
    }
}

#[test]
fn objects_places_and_patterns_come_whole() {
    let archive = Archive::new("fetched");
    let month = archive.uri("land/2020-01");

    archive
        .step(&[
            "fetch",
            &format!("{month}/b.grib"),
            "one",
            "--report",
            "one.json",
        ])
        .expect(0, &[]);
    archive.assert_came("one", &[("b.grib", OBJECTS[1])]);
    let came: serde_json::Value =
        serde_json::from_slice(&fs::read(archive.site.path("one.json")).unwrap()).unwrap();
    assert_eq!(came[0]["uri"], format!("{month}/b.grib"));
    assert_eq!(came[0]["bytes"], 20_000_000);
    let digest = sha256(&archive.site.path("archive").join(OBJECTS[1]));
    assert_eq!(came[0]["sha256"], digest);

    // All below a place, and nothing of one whose name begins alike.
    archive.step(&["fetch", &month, "all"]).expect(0, &[]);
    let below = |key: &'static str| key.strip_prefix("land/").unwrap();
    let all: Vec<(&str, &str)> = OBJECTS[..5].iter().map(|&key| (below(key), key)).collect();
    archive.assert_came("all", &all);

    archive
        .step(&["fetch", &format!("{month}/*.grib"), "grib"])
        .expect(0, &[]);
    archive.assert_came("grib", &[("a b.grib", OBJECTS[0]), ("b.grib", OBJECTS[1])]);
    archive
        .step(&["fetch", &format!("{month}/*"), "each"])
        .expect(0, &[]);
    let each: Vec<(&str, &str)> = OBJECTS[..5]
        .iter()
        .map(|&key| (key.strip_prefix("land/2020-01/").unwrap(), key))
        .collect();
    archive.assert_came("each", &each);

    // The same of files: a path, a URI, and both with a pattern.
    let folder = archive.site.path("archive/land/2020-01");
    let folder = folder.to_str().unwrap();
    archive
        .step(&[
            "fetch",
            &format!("{folder}/a b.grib"),
            "archive/land/2020-01/c.zarr",
            "files",
        ])
        .expect(0, &[]);
    let zarr = [
        ("c.zarr/t2m/0.0", OBJECTS[3]),
        ("c.zarr/zarr.json", OBJECTS[4]),
    ];
    archive.assert_came("files", &[("a b.grib", OBJECTS[0]), zarr[0], zarr[1]]);
    archive
        .step(&["fetch", "archive/land/2020-01/c*", "some"])
        .expect(0, &[]);
    archive.assert_came("some", &zarr);
    archive
        .step(&["fetch", &format!("file://{folder}/a*"), "encoded"])
        .expect(0, &[]);
    archive.assert_came("encoded", &[("a b.grib", OBJECTS[0])]);
}

#[test]
fn what_is_not_there_or_may_not_be_read_leaves_nothing() {
    let archive = Archive::new("refused");
    let refused = |arguments: &[&str], code: i32, texts: &[&str]| {
        archive.step(arguments).expect(code, texts);
        assert!(!archive.site.path("out").exists());
        assert!(!archive.site.path(".out.unfinished").exists());
    };
    let gone = archive.uri("land/2020-02/b.grib");
    refused(
        &["fetch", &archive.uri("land/2020-01"), &gone, "out"],
        11,
        &["there is nothing at", &gone],
    );
    let none = archive.uri("land/2020-01/*.nc");
    refused(
        &["fetch", &none, "out"],
        11,
        &[&none, "nothing there has such a name"],
    );
    let wide = archive.uri("land/*/b.grib");
    refused(
        &["fetch", &wide, "out"],
        10,
        &[&wide, "one `*`, in its last part"],
    );
    let two = [
        archive.uri("land/2020-01/b.grib"),
        archive.uri("land/2020-01/*.grib"),
    ];
    refused(
        &["fetch", &two[0], &two[1], "out"],
        10,
        &["another one would be called `b.grib`"],
    );
    let digest = format!("b.grib={}", "0".repeat(64));
    refused(
        &["fetch", &two[0], "out", "--sha256", &digest],
        12,
        &[&two[0], "its SHA-256 is"],
    );

    let stranger = archive.server.key_without_rights("stranger");
    let mut command = archive
        .site
        .command_of("mlwm-step", &["fetch", &two[0], "out"]);
    command.env("AWS_ACCESS_KEY_ID", &stranger.id);
    command.env("AWS_SECRET_ACCESS_KEY", &stranger.secret);
    let said = ran(&command.output().unwrap()).expect(30, &[&archive.bucket]);
    assert!(!said.stderr.contains(&stranger.secret), "{}", said.stderr);
    assert!(archive.site.files("out").is_empty());
}

#[test]
fn a_step_is_repeated_for_each_object_that_is_named_alike() {
    let archive = Archive::new("repeated");
    let place = archive.uri("land/2020-01");
    let shell = image("fetch", "eval \"$0\"");
    let configure = |pattern: &str| {
        let yaml = format!(
            "docker_image: {shell}
steps:
  - name: each
    foreach: file in {place}/{pattern}
    command: ['wc --bytes < {{inputs.file}} > {{outputs.size}}/size']
    inputs: {{file: {{uri: '{place}/{{file}}', internal_path: /in/file}}}}
    outputs: {{size: {{uri: './out/{{file.stem}}', internal_path: /out, format: files}}}}
"
        );
        archive.site.configure("land", &yaml);
        archive.site.mlwm(&[
            "run",
            "--analysis-time",
            "2023-01-01T00:00Z",
            "--model",
            "land",
        ])
    };
    configure("b*.grib").expect(0, &["land/each/b.grib"]);
    assert_eq!(archive.site.files("out"), ["b.manifest.json", "b/size"]);
    let size = fs::read_to_string(archive.site.path("out/b/size")).unwrap();
    assert_eq!(size.trim(), "20000000");
    configure("*.grib").expect(10, &["`a b.grib` is named like", "land/2020-01/*.grib"]);
    configure("*.nc").expect(10, &["no file is named like", "land/2020-01/*.nc"]);
    no_container_left(&archive.site);
}
