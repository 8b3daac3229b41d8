//! Asks Python (eccodes, cfgrib) to make GRIB files and to say what is in them.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The Python interpreter with eccodes and cfgrib: `MLWM_TEST_PYTHON`, or the one that the setup of
/// the project installs.
fn interpreter() -> PathBuf {
    match std::env::var_os("MLWM_TEST_PYTHON") {
        Some(path) => path.into(),
        None => PathBuf::from(std::env::var_os("HOME").expect("HOME is set"))
            .join(".cache/mlwm/python/bin/python"),
    }
}

/// Runs a script and returns the JSON that it printed; fails the test if it fails.
pub(crate) fn python(script: &str, arguments: &[&Path]) -> Value {
    let interpreter = interpreter();
    let output = Command::new(&interpreter)
        .arg("-c")
        .arg(script)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| {
            panic!(
                "cannot run {} ({error}): set MLWM_TEST_PYTHON to a Python with eccodes and cfgrib",
                interpreter.display()
            )
        });
    assert!(
        output.status.success(),
        "the script failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("the script prints JSON")
}

/// Makes a file of messages with Python. Each element of the JSON list is a message: the name of a
/// sample, the keys to set in their order, and its values: a function of the point's number, with a
/// missing one at each multiple of `gap`.
pub(crate) fn make(path: &Path, messages: &Value) {
    let script = r#"
import json, sys
import eccodes, numpy
with open(sys.argv[1], "wb") as file:
    for message in json.loads(sys.argv[2]):
        handle = eccodes.codes_grib_new_from_samples(message["sample"])
        for key, value in message["keys"]:
            if isinstance(value, list):
                eccodes.codes_set_array(handle, key, value)
            else:
                eccodes.codes_set(handle, key, value)
        points = message["points"]
        values = 270 + 20 * numpy.sin(numpy.arange(points) * message.get("wave", 0.1))
        gap = message.get("gap")
        if gap:
            eccodes.codes_set(handle, "bitmapPresent", 1)
            eccodes.codes_set(handle, "missingValue", 9999)
            values[::gap] = 9999
        eccodes.codes_set_values(handle, values)
        eccodes.codes_write(handle, file)
print("{}")
"#;
    python(script, &[path, Path::new(&messages.to_string())]);
}

/// What eccodes says about each message of a file. `null` stands for a key that is not there, and
/// for a missing value.
pub(crate) fn describe(path: &Path) -> Vec<Value> {
    let script = r#"
import json, sys
import eccodes, numpy
TEXTS = ["centre", "shortName", "name", "units", "typeOfLevel", "stepType", "gridType",
         "packingType", "dataType", "cfVarName", "cfName"]
NUMBERS = ["edition", "paramId", "dataDate", "dataTime", "number", "numberOfForecastsInEnsemble",
           "bitmapPresent", "bitsPerValue", "offset", "totalLength", "validityDate",
           "validityTime", "N", "isOctahedral", "numberOfDataPoints"]
REALS = ["level", "topLevel", "bottomLevel", "packingError"]
def get(handle, key, kind):
    try:
        return eccodes.codes_get(handle, key, kind)
    except eccodes.CodesInternalError:
        return None
messages = []
with open(sys.argv[1], "rb") as file:
    while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
        said = {key: get(handle, key, str) for key in TEXTS}
        said |= {key: get(handle, key, float) for key in REALS}
        eccodes.codes_set(handle, "stepUnits", "s")
        said |= {key: get(handle, key, int) for key in NUMBERS + ["startStep", "endStep"]}
        eccodes.codes_set(handle, "missingValue", 1e300)
        values = eccodes.codes_get_values(handle)
        said["values"] = [None if value == 1e300 else value for value in values.tolist()]
        for key in ["latitudes", "longitudes"]:
            said[key] = eccodes.codes_get_array(handle, key).tolist()
        if get(handle, "pl", int) is not None or said["gridType"] == "reduced_gg":
            said["pl"] = eccodes.codes_get_array(handle, "pl").tolist()
        messages.append(said)
print(json.dumps(messages))
"#;
    let Value::Array(messages) = python(script, &[path]) else {
        panic!("the script prints a list");
    };
    messages
}

/// Numbers of a JSON list; NaN for `null`.
pub(crate) fn numbers(list: &Value) -> Vec<f64> {
    let list = list.as_array().expect("it is a list");
    list.iter()
        .map(|number| number.as_f64().unwrap_or(f64::NAN))
        .collect()
}

/// Whether numbers are equal, NaN being equal to NaN.
pub(crate) fn same(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .all(|(a, b)| a == b || (a.is_nan() && b.is_nan()))
}
