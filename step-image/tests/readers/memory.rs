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
# Chunks of all times, or of half of them, of which the library holds whole ones.
for name, times in [("whole", 1000), ("halves", 500)]:
    with netCDF4.Dataset(f"{sys.argv[1]}/{name}.nc", "w") as file:
        file.createDimension("time", 1000)
        file.createDimension("x", 20000)
        time = file.createVariable("time", "i4", ("time",))
        time.units = "hours since 2020-01-01"
        time[:] = numpy.arange(1000)
        air = file.createVariable("t2m", "f4", ("time", "x"), zlib=True, complevel=1, chunksizes=(times, 20000))
        air[:] = numpy.arange(1000, dtype="f4")[:, None] + numpy.zeros(20000, "f4")
with netCDF4.Dataset(sys.argv[1] + "/static.nc", "w") as file:
    file.createDimension("x", 6000000)
    file.createVariable("height", "f8", ("x",))[:] = numpy.arange(6000000.0)
print("{}")
"#;

#[test]
fn readers_keep_to_their_memory_or_say_how_much_they_need() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    python(MAKE, &[folder.path().to_str().unwrap()]);
    for (reader, input) in [("grib2zarr", "large.grib"), ("nc2zarr", "large.nc")] {
        for chunk in ["time=-1", "time=40", "time=100"] {
            keeps_to_its_memory(folder.path(), reader, input, "t2m", &["--chunk", chunk]);
        }
        // What it has if nothing is said is enough for a chunk of each time.
        let there = path(reader);
        assert!(peak_memory(step(&[reader]).arg(path(input)).arg(&there)) < 1 << 30);
    }
}

#[test]
fn what_files_hold_at_once_counts() {
    let folder = tempfile::tempdir().unwrap();
    python(MAKE, &[folder.path().to_str().unwrap()]);
    for (input, variable, least) in [
        ("whole.nc", "t2m", 240),
        ("halves.nc", "t2m", 180),
        ("static.nc", "height", 190),
    ] {
        let needed = keeps_to_its_memory(folder.path(), "nc2zarr", input, variable, &[]);
        assert!(needed > least, "{input}: {needed}");
    }
}

/// Runs a reader with too little memory, which it says, and with as much as it asks for, which it does not exceed; how
/// many MiB that is.
fn keeps_to_its_memory(
    folder: &Path,
    reader: &str,
    input: &str,
    variable: &str,
    options: &[&str],
) -> u64 {
    let there = folder.join("there");
    let command = |memory: &str| {
        let mut command = step(&[reader, "--memory", memory]);
        command.args(options).arg(folder.join(input)).arg(&there);
        command
    };
    let (code, message) = refused(&mut command("64MiB"));
    assert_eq!(code, 10, "{message}");
    assert!(
        message.contains(&format!("`{variable}`")) && message.contains("64MiB"),
        "{message}"
    );
    assert!(!there.exists() && !is_begun(folder));
    let least = message.split("give at least ").nth(1).unwrap();
    let least = least.split(',').next().unwrap();
    let limit: u64 = least.trim_end_matches("MiB").parse().unwrap();
    let below = format!("{}MiB", limit - 1);
    assert_eq!(refused(&mut command(&below)).0, 10);
    let peak = peak_memory(&mut command(least));
    assert!(
        (1 << 20..=limit << 20).contains(&peak),
        "{reader} of {input} {options:?}: {} MiB of {limit}",
        peak >> 20
    );
    std::fs::remove_dir_all(&there).unwrap();
    limit
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
