//! What the readers take of memory, and that they say so before they begin.

use std::path::Path;

use crate::common::{peak_memory, refused};
use crate::{python, step};

/// 250 fields of 100,000 points, which are small in their files, as GRIB and as NetCDF.
const MAKE: &str = r#"
import sys, eccodes, netCDF4, numpy
with open(sys.argv[1] + "/large.grib", "wb") as file:
    handle = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib2")
    for key, value in [("Ni", 400), ("Nj", 250), ("iDirectionIncrementInDegrees", 0.9), ("jDirectionIncrementInDegrees", 0.5),
                       ("latitudeOfFirstGridPointInDegrees", 60), ("latitudeOfLastGridPointInDegrees", -64.5),
                       ("longitudeOfFirstGridPointInDegrees", 0), ("longitudeOfLastGridPointInDegrees", 359.1), ("paramId", 167)]:
        eccodes.codes_set(handle, key, value)
    eccodes.codes_set_values(handle, numpy.full(100000, 280.0))
    for hour in range(250):
        eccodes.codes_set(handle, "step", hour)
        eccodes.codes_write(handle, file)
with netCDF4.Dataset(sys.argv[1] + "/large.nc", "w") as file:
    file.createDimension("time", None)
    file.createDimension("x", 100000)
    time = file.createVariable("time", "i4", ("time",))
    time.units = "hours since 2020-01-01"
    time[:] = numpy.arange(250)
    air = file.createVariable("t2m", "f4", ("time", "x"), zlib=True, complevel=1, chunksizes=(1, 100000))
    air[:] = numpy.arange(250, dtype="f4")[:, None] + numpy.zeros(100000, "f4")
print("{}")
"#;

#[test]
fn readers_keep_to_their_memory_or_say_how_much_they_need() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    python(MAKE, &[folder.path().to_str().unwrap()]);
    for (reader, input) in [("grib2zarr", "large.grib"), ("nc2zarr", "large.nc")] {
        for chunk in ["time=-1", "time=40", "time=100"] {
            let there = path("there");
            let command = |memory: &str| {
                let mut command = step(&[reader, "--chunk", chunk, "--memory", memory]);
                command.arg(path(input)).arg(&there);
                command
            };
            let (code, message) = refused(&mut command("64MiB"));
            assert_eq!(code, 10, "{message}");
            assert!(
                message.contains("`t2m`") && message.contains("64MiB"),
                "{message}"
            );
            assert!(!there.exists() && !is_begun(folder.path()));
            let least = message.split("give at least ").nth(1).unwrap();
            let least = least.split(',').next().unwrap();
            let limit: u64 = least.trim_end_matches("MiB").parse().unwrap();
            let below = format!("{}MiB", limit - 1);
            assert_eq!(refused(&mut command(&below)).0, 10);
            let peak = peak_memory(&mut command(least));
            assert!(
                (1 << 20..=limit << 20).contains(&peak),
                "{reader} of {chunk}: {} MiB of {limit}",
                peak >> 20
            );
            std::fs::remove_dir_all(&there).unwrap();
        }
        // What it has if nothing is said is enough for a chunk of each time.
        let there = path(reader);
        assert!(peak_memory(step(&[reader]).arg(path(input)).arg(&there)) < 1 << 30);
    }
}

fn is_begun(folder: &Path) -> bool {
    let mut entries = folder.read_dir().unwrap();
    entries.any(|entry| {
        entry
            .unwrap()
            .file_name()
            .to_string_lossy()
            .starts_with('.')
    })
}
