//! Measurements, run by hand with `--ignored --nocapture`.

use std::fs;
use std::time::Instant;

use mlwm_storage::Store;

use crate::common::{GARAGE, Place, noise, task};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of a minute"]
#[expect(clippy::print_stdout, reason = "it is run to print")]
async fn ten_thousand_objects_of_50_kb() {
    let local = tempfile::tempdir().unwrap();
    for index in 0..10_000_u64 {
        let folder = local.path().join(format!("v{}/c", index % 10));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(index.to_string()), noise(index, 50_000)).unwrap();
    }
    let mut places = vec![Place::file().await];
    for in_flight in [32, 64, 128] {
        let mut place = Place::s3(&GARAGE, &format!("garage-measure-{in_flight}")).await;
        place.options.in_flight = in_flight;
        place.store = Store::open_with(&place.uri, place.options.clone())
            .await
            .unwrap();
        places.push(place);
    }
    for place in places {
        let started = Instant::now();
        place.publish(local.path(), task("a")).await.unwrap();
        let up = started.elapsed();
        let dest = tempfile::tempdir().unwrap();
        let started = Instant::now();
        place.stage(dest.path()).await.unwrap();
        let down = started.elapsed();
        let started = Instant::now();
        place.verify().await.unwrap();
        let verify = started.elapsed();
        println!(
            "{:?}: up {up:.1?}, down {down:.1?}, verify {verify:.1?}",
            place.store
        );
    }
}

#[test]
#[ignore = "a measurement of 2 GiB"]
#[expect(clippy::print_stdout, reason = "it is run to print")]
fn two_gibibytes_up_and_down() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let size = 2_u64 << 30;
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    let mut file = fs::File::create(&source).unwrap();
    let piece = noise(1, 64 << 20);
    for _ in 0..size / piece.len() as u64 {
        std::io::Write::write_all(&mut file, &piece).unwrap();
    }
    drop(file);
    let mut places = vec![runtime.block_on(Place::file())];
    places.push(runtime.block_on(Place::s3(&GARAGE, "garage-measure-big")));
    for place in places {
        let uri = place.uri.join("object").unwrap();
        let environment = place.environment();
        for job in ["upload", "download"] {
            let started = Instant::now();
            let child = crate::child::command(job, &uri, folder.path(), &environment).output();
            let child = child.unwrap();
            let digest = crate::child::printed(&child, "JOB ok");
            fs::write(folder.path().join("expected"), format!("{size} {digest}")).unwrap();
            println!(
                "{job} {uri}: {:.1?}, {} KiB more than at the start at the peak",
                started.elapsed(),
                crate::child::printed(&child, "PEAK"),
            );
        }
    }
}
