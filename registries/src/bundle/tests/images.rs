//! Images in bundles, beside artifacts.

use super::*;
use serde_json::json;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image of these layers.
fn image(name: &str, tag: &str, layers: &[Vec<u8>]) -> ImageSource {
    let diff_ids: Vec<Digest> = layers.iter().map(Digest::of).collect();
    let config = json!({"architecture": "amd64", "os": "linux", "config": {"Labels": {"a": name}},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = config.to_string().into_bytes();
    let blob = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len()});
    let blobs: Vec<_> = layers.iter().map(|layer| blob(LAYER, layer)).collect();
    let manifest = json!({"schemaVersion": 2, "mediaType": crate::manifest::MANIFEST,
        "config": blob("application/vnd.oci.image.config.v1+json", &config), "layers": blobs});
    let content = |layer: &Vec<u8>| Arc::new(BytesContent::new(layer.clone())) as Arc<dyn Content>;
    ImageSource {
        image: BundledImage {
            name: name.to_owned(),
            tag: tag.parse().unwrap(),
            manifest: manifest.to_string().into_bytes(),
            config,
        },
        layers: layers.iter().map(content).collect(),
    }
}

/// Two images with a common layer.
fn images() -> Vec<ImageSource> {
    let (base, one, other) = (noise(5, 60_000), noise(6, 1_000), noise(7, 512));
    vec![
        image("danra", "v1", &[base.clone(), one]),
        image("graph_lam", "latest", &[base, other]),
    ]
}

fn write_images(path: &Path, images: &[ImageSource]) -> Result<Written, Error> {
    let artifact = source("danra", "v1", &noise(1, 513));
    write(&[artifact], images, path, None, &Watch::default())
}

fn read(content: &dyn Content) -> Vec<u8> {
    let mut bytes = Vec::new();
    content.open().unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn what_goes_in_comes_out_and_common_layers_are_there_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    let mut images = images();
    let written = write_images(&path, &images).unwrap();
    assert!(written.size < 60_000 + 40_000, "{}", written.size);
    let bundle = Bundle::open(&path).unwrap();
    bundle.verify(&Watch::default()).unwrap();
    assert_eq!(bundle.artifacts().len(), 1);
    let described: Vec<_> = images.iter().map(|source| source.image.clone()).collect();
    assert_eq!(bundle.images(), described);
    for layer in images.iter().flat_map(|image| &image.layers) {
        let bytes = read(&**layer);
        let found = bundle.layer(Digest::of(&bytes)).unwrap();
        assert!(read(&*found) == bytes);
        assert_eq!(found.size(), bytes.len() as u64);
    }
    assert!(bundle.layer(Digest::of("none")).is_err());

    images.reverse();
    images.push(images[0].clone());
    let again = folder.path().join("b.tar");
    assert_eq!(
        write_images(&again, &images).unwrap().digest,
        written.digest
    );
    // Without an artifact, too.
    let alone = folder.path().join("c.tar");
    write(&[], &images, &alone, None, &Watch::default()).unwrap();
    check(&alone).unwrap();
}

#[test]
fn skopeo_reads_images_beside_artifacts_of_the_same_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    let images = images();
    write_images(&path, &images).unwrap();
    for source in &images {
        let copied = folder.path().join(&source.image.name);
        let from = format!(
            "oci-archive:{}:{}",
            path.display(),
            source.image.reference()
        );
        run(Command::new("skopeo")
            .args(["copy", "--quiet", "--insecure-policy", "--preserve-digests"])
            .arg(from)
            .arg(format!("dir:{}", copied.display())));
        let manifest = fs::read(copied.join("manifest.json")).unwrap();
        assert!(manifest == source.image.manifest);
        for layer in &source.layers {
            let bytes = read(&**layer);
            assert!(fs::read(copied.join(Digest::of(&bytes).hex())).unwrap() == bytes);
        }
    }
}

#[test]
fn every_flipped_byte_and_every_length_of_an_image_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    let image = image("a", "v1", &[noise(1, 700), noise(2, 512)]);
    write(&[], &[image], &path, None, &Watch::default()).unwrap();
    let good = fs::read(&path).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for (position, byte) in good.iter().enumerate() {
        let flipped = byte ^ 1 << (position % 8);
        file.write_all_at(&[flipped], position as u64).unwrap();
        assert!(check(&path).is_err(), "byte {position}");
        file.write_all_at(&[*byte], position as u64).unwrap();
    }
    check(&path).unwrap();
    for length in (0..good.len()).rev() {
        file.set_len(length as u64).unwrap();
        assert!(Bundle::open(&path).is_err(), "{length} bytes");
    }
}

#[test]
fn images_that_cannot_be_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    let layer = noise(1, 700);
    let good = image("a", "v1", std::slice::from_ref(&layer));
    let with = |change: &dyn Fn(&mut ImageSource)| {
        let mut changed = good.clone();
        change(&mut changed);
        vec![changed]
    };
    let replaced = |from: &str, to: &str| {
        with(&|changed| {
            let manifest = String::from_utf8(changed.image.manifest.clone()).unwrap();
            assert!(manifest.contains(from), "{manifest}");
            changed.image.manifest = manifest.replace(from, to).into_bytes();
        })
    };
    let config = Digest::of(&good.image.config).to_string();
    let mut doubled = good.clone();
    doubled.image.tag = "v2".parse().unwrap();
    doubled.image.manifest.push(b' ');
    let mut other = replaced("\"size\":700", "\"size\":699");
    other[0].image.name = "b".to_owned();
    other.push(good.clone());
    for (images, word) in [
        (
            with(&|changed| changed.image.name = "../a".to_owned()),
            "cannot be called",
        ),
        (
            with(&|changed| changed.image.name = String::new()),
            "cannot be called",
        ),
        (
            with(&|changed| changed.image.manifest = b"{".to_vec()),
            "invalid",
        ),
        (
            with(&|changed| changed.image.config.push(b' ')),
            "not the one it names",
        ),
        (with(&|changed| drop(changed.layers.pop())), "no source for"),
        (
            with(&|changed| changed.layers[0] = Arc::new(BytesContent::new(vec![0; 700]))),
            "has the digest",
        ),
        (
            vec![good.clone(), image("a", "v1", &[])],
            "images/a:v1 twice",
        ),
        (
            replaced("\"size\":700", "\"size\":701"),
            "fewer than 701 bytes",
        ),
        (
            replaced("image.manifest.v1", "image.index.v1"),
            "is not an image",
        ),
        (
            replaced(&Digest::of(&layer).to_string(), &config),
            "is none",
        ),
        (other, "different things"),
    ] {
        let error = write(&[], &images, &path, None, &Watch::default()).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(word), "{error} instead of {word}");
        assert_eq!(names_in(folder.path()), [""; 0]);
    }
    write(&[], &[good, doubled], &path, None, &Watch::default()).unwrap();
}

#[test]
fn a_forged_head_with_images_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (path, changed) = (folder.path().join("a.tar"), folder.path().join("b.tar"));
    write(
        &[],
        &[image("a", "v1", &[noise(1, 700)])],
        &path,
        None,
        &Watch::default(),
    )
    .unwrap();
    let good = fs::read(&path).unwrap();
    fs::write(&changed, forged(&good, |_| ())).unwrap();
    check(&changed).unwrap();
    for (from, to, word) in [
        ("images/a:v1", "images/../a:v1", "cannot be called"),
        ("images/a:v1", "images/a:../v1", "without `images/"),
        ("images/a:v1", "a:v1", "without `images/"),
        ("images/a:v1", "images/b:v1", "size"),
        ("image.manifest.v1", "image.index.v1", "more, or other"),
        ("\"size\":", "\"size\":1", "more, or other"),
    ] {
        let forged = forged(&good, |entries| {
            let index = String::from_utf8(entries[1].1.clone()).unwrap();
            assert!(index.contains(from), "{index}");
            entries[1].1 = index.replacen(from, to, 1).into_bytes();
        });
        fs::write(&changed, forged).unwrap();
        match (Bundle::open(&changed), word) {
            // Another name is another bundle: nothing in it says what it was.
            (Ok(bundle), "size") => assert_eq!(bundle.images()[0].name, "b"),
            (opened, word) => {
                let error = opened.unwrap_err().to_string();
                assert!(error.contains(word), "{error} instead of {word}");
            }
        }
    }
    // A layer that the manifest names and the bundle has not.
    let cut = forged(&good[..head_size(&good)], |_| ());
    fs::write(&changed, [cut.as_slice(), &[0; 1024]].concat()).unwrap();
    assert!(Bundle::open(&changed).is_err());
}
