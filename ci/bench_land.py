"""Data-pipeline steps against the Python stacks that do them today; see ci/bench.

Megabytes are those of the values as float32; ratios are of time. That results are the
same is looked at in samples, after the rounds."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from bench_lib import MLWM, ROOT, ROUNDS, WORK, python, watch

STEP, RUNNER = MLWM.parent / "mlwm-step", MLWM.parent / "mlwm-runner"
LAND, ORACLE = ROOT / "configurations/ai-land/python", ROOT / "tests/oracles/points.py"
FOLDER = WORK / "land"

MESSAGES, POINTS = 200, 654_400
# Messages of a field that is smooth but for noise, packed in 16 bits, as CCSDS packs them.
MAKE_GRIB = """
import sys, eccodes, numpy
path, messages, rows = sys.argv[1], int(sys.argv[2]), 400
counts = [20 + 4 * row for row in range(rows)]
counts += counts[::-1]
handle = eccodes.codes_grib_new_from_samples("reduced_gg_pl_32_grib2")
eccodes.codes_set(handle, "N", rows)
eccodes.codes_set_array(handle, "pl", counts)
for key, value in [("Nj", 2 * rows), ("numberOfDataPoints", sum(counts)), ("numberOfValues", sum(counts)), ("shortName", "2t"),
                   ("bitsPerValue", 16), ("packingType", "grid_ccsds"), ("dataDate", 20200101), ("stepUnits", 1)]:
    eccodes.codes_set(handle, key, value)
random = numpy.random.default_rng(0)
smooth = 280 + 20 * numpy.sin(numpy.linspace(0, 60, sum(counts)))
with open(path + ".part", "wb") as file:
    for message in range(messages):
        eccodes.codes_set(handle, "step", message)
        eccodes.codes_set_values(handle, smooth + message / 100 + random.normal(0, 0.5, sum(counts)))
        eccodes.codes_write(handle, file)
import os
os.replace(path + ".part", path)
os._exit(0)
"""
CFGRIB = """
import os, sys, xarray, dask
dask.config.set(scheduler="synchronous")
dataset = xarray.open_dataset(sys.argv[1], engine="cfgrib", chunks={"step": 1}, backend_kwargs={"indexpath": ""})
dataset = dataset.drop_vars([name for name in dataset.coords if name not in ("step", "values")])
for variable in dataset.variables.values():
    variable.attrs = {}
if sys.argv[3] == "3":
    dataset.to_zarr(sys.argv[2], mode="w", zarr_format=3)
else:
    import numcodecs
    lz4 = numcodecs.Blosc("lz4", clevel=5, shuffle=1)
    dataset.to_zarr(sys.argv[2], mode="w", zarr_format=2, encoding={name: {"compressors": lz4} for name in dataset.data_vars})
os._exit(0)
"""
SAME_GRIB = """
import sys, xarray, numpy
ours, theirs = (xarray.open_zarr(path) for path in sys.argv[1:3])
a, b = ours["t2m"], theirs["t2m"]
for i in range(0, a.shape[0], 37):
    assert a[i].values.tobytes() == b[i].values.astype("f4").tobytes(), i
"""

TIMES, WIDTH = 5840, 187_070
MAKE_CUBE = """
import sys, numpy, zarr, numcodecs
path, times, width = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
group = zarr.open_group(path, mode="w", zarr_format=2)
lz4 = numcodecs.Blosc("lz4", clevel=5, shuffle=1)
array = group.create_array("a", shape=(times, width), chunks=(10, width), dtype="f4", compressors=lz4)
array.attrs["_ARRAY_DIMENSIONS"] = ["time", "x"]
random = numpy.random.default_rng(0)
place = (280 + 10 * numpy.sin(numpy.linspace(0, 50, width))).astype("f4")
for start in range(0, times, 10):
    noise = random.integers(0, 4096, size=(10, width)).astype("f4") / 1024
    array[start : start + 10] = place + noise + numpy.float32(start / 1000)
zarr.consolidate_metadata(path)
"""
DASK = """
import sys, dask, dask.array, numcodecs, zarr
dask.config.set(scheduler="threads", num_workers=2)
source = zarr.open_group(sys.argv[1], mode="r")["a"]
target = zarr.open_group(sys.argv[2], mode="w", zarr_format=2)
array = dask.array.from_zarr(source).rechunk((source.shape[0], 2048))
lz4 = numcodecs.Blosc("lz4", clevel=5, shuffle=1)
out = target.create_array("a", shape=array.shape, chunks=(source.shape[0], 2048), dtype="f4", compressors=lz4)
dask.array.store(array, out, lock=False)
"""
SAME_CUBE = """
import sys, zarr
one, other = (zarr.open_group(path, mode="r")["a"] for path in sys.argv[1:3])
for x in range(0, one.shape[1], 20011):
    assert one[:, x : x + 7].tobytes() == other[:, x : x + 7].tobytes(), x
"""


def in_turn(target, commands):
    """Medians of seconds and memory of each command, which all write into `target`-NAME."""
    rounds = {name: [] for name in commands}
    for _ in range(min(ROUNDS, 3)):
        for name, command in commands.items():
            shutil.rmtree(f"{target}-{name}", ignore_errors=True)
            rounds[name].append(watch(*command))
    return {name: [statistics.median(column) for column in zip(*measured)] for name, measured in rounds.items()}


def grib():
    """GRIB of a global reduced grid to Zarr, a message in a chunk, on one core."""
    FOLDER.mkdir(exist_ok=True)
    source, target = FOLDER / "o400.grib", FOLDER / "grib"
    if not source.exists():
        python(MAKE_GRIB, source, MESSAGES)
    cfgrib = lambda name, version: (sys.executable, "-c", CFGRIB, source, f"{target}-{name}", version)
    one_core = ("taskset", "--cpu-list", "0")
    made = in_turn(target, {
        "mlwm": (*one_core, STEP, "grib2zarr", source, f"{target}-mlwm"),
        "zarr3": (*one_core, *cfgrib("zarr3", "3")),
        "zarr2": (*one_core, *cfgrib("zarr2", "2")),
        "both": (STEP, "grib2zarr", source, f"{target}-both"),
    })
    python(SAME_GRIB, f"{target}-mlwm", f"{target}-zarr3")
    megabytes = MESSAGES * POINTS * 4 / 1e6
    rate = lambda name: megabytes / made[name][0]
    on = f"{MESSAGES} messages of {POINTS} points, CCSDS"
    for name, what in (("zarr3", "cfgrib and xarray, Zarr 3"), ("zarr2", "cfgrib and xarray, Zarr 2, LZ4")):
        yield "GRIB to Zarr, one core", on, f"{rate('mlwm'):.0f} MB/s", what, f"{rate(name):.0f} MB/s", rate(name) / rate("mlwm")
    yield "the same, two cores", on, f"{rate('both'):.0f} MB/s", "one core", f"{rate('mlwm'):.0f} MB/s", rate("mlwm") / rate("both")
    own, theirs = made["mlwm"][1] / 2**20, made["zarr3"][1] / 2**20
    yield "peak memory of it", on, f"{own:.0f} MiB", "cfgrib and xarray", f"{theirs:.0f} MiB", own / theirs
    for name in made:
        shutil.rmtree(f"{target}-{name}")


def rechunking():
    """From all points at ten times to all times of 2048 points."""
    FOLDER.mkdir(exist_ok=True)
    source, target = FOLDER / "cube.zarr", FOLDER / "rechunked"
    if not (source / ".zmetadata").exists():
        python(MAKE_CUBE, source, TIMES, WIDTH)
    made = in_turn(target, {
        "mlwm": (STEP, "rechunk", "--chunk", "time=-1,x=2048", "--memory", "1GB", source, f"{target}-mlwm"),
        "dask": (sys.executable, "-c", DASK, source, f"{target}-dask"),
    })
    python(SAME_CUBE, source, f"{target}-mlwm")
    megabytes = TIMES * WIDTH * 4 / 1e6
    (own, own_rss), (theirs, their_rss) = made["mlwm"], made["dask"]
    on = f"{megabytes / 1e3:.2f} GB, within 1 GB"
    yield "rechunk", on, f"{megabytes / own:.0f} MB/s", "dask, without a limit", f"{megabytes / theirs:.0f} MB/s", own / theirs
    yield "peak memory of it", on, f"{own_rss / 2**20:.0f} MiB", "dask", f"{their_rss / 2**20:.0f} MiB", own_rss / their_rss
    for name in made:
        shutil.rmtree(f"{target}-{name}")


def rollout_of(artifact, store, steps, out):
    environment = os.environ | {
        "ANALYSIS_TIME": "2020-01-01T00:00Z",
        "NUM_EVAL_STEPS": str(steps),
        "MLWM_INPUTS": json.dumps({"land": str(store)}),
        "MLWM_OUTPUTS": json.dumps([{"name": "all", "path": str(out)}]),
        "ORT_DYLIB_PATH": os.environ["MLWM_ONNXRUNTIME"],
    }
    shutil.rmtree(out, ignore_errors=True)
    ran = subprocess.run([RUNNER, "--artifact", artifact], env=environment, check=True, capture_output=True, text=True)
    return json.loads(ran.stdout.splitlines()[-1].removeprefix("timing: "))


def notebook(store, steps):
    """Seconds of the loop over steps with XGBoost, as the notebook of the ai-land project has it."""
    import xgboost

    sys.path.insert(0, str(LAND))
    import land

    opened = land.open_store(store, land.FEATURES)
    array = land.values(opened, land.FEATURES, store)
    states = len(land.STATES)
    known = int((opened.time.values < np.datetime64("2022-01-01")).sum())
    state = array[:known, :, -states:]
    features = array[: known - 1].reshape(-1, len(land.FEATURES))
    gained = (state[1:] - state[:-1]).reshape(-1, states)
    # With several threads, ten rows wait for each other longer than they take.
    options = {"tree_method": "hist", "subsample": 0.6, "seed": 0, "nthread": 1}
    model = xgboost.train(options, xgboost.DMatrix(features, gained), 128)
    began = time.perf_counter()
    last = array[0, :, -states:]
    for step in range(steps):
        row = np.concatenate([array[step, :, :-states], last], axis=-1)
        last = np.maximum(0, last + model.inplace_predict(row))
    return time.perf_counter() - began


def points():
    """A model of points: 4382 steps on ten, and twenty on as many as the land of a globe has."""
    cases = Path(os.environ.get("MLWM_TEST_CASES", ROOT / "../shared/cases"))
    store = cases / "ai-land/ecland_cy49r2_2020_2022.zarr"
    if not store.exists():
        print(f"bench: no rollout of points without {store}", file=sys.stderr)
        return
    FOLDER.mkdir(exist_ok=True)
    steps, wide_steps, artifact, out = 4382, 20, FOLDER / "artifact", FOLDER / "out.zarr"
    shutil.rmtree(artifact, ignore_errors=True)
    subprocess.run([sys.executable, LAND / "train.py", store, artifact, "--until", "2022-01-01"], check=True)
    (artifact / "model.onnx").rename(artifact / "checkpoint.onnx")
    rounds = [(rollout_of(artifact, store, steps, out)["rollout_s"], notebook(store, steps)) for _ in range(min(ROUNDS, 3))]
    own, theirs = (statistics.median(column) for column in zip(*rounds))
    rolled = FOLDER / "rolled.npy"
    stores = json.dumps({"land": str(store)})
    subprocess.run([sys.executable, ORACLE, "roll", artifact, stores, "2020-01-01T00:00Z", str(steps), rolled], check=True)
    subprocess.run([sys.executable, ORACLE, "compare", rolled, artifact, out], check=True)
    yield "rollout of an emulator", f"{steps} steps, 10 points", f"{own:.2f} s", "the notebook's loop", f"{theirs:.2f} s", own / theirs
    wide = FOLDER / "wide.zarr"
    if not wide.exists():
        subprocess.run([sys.executable, ORACLE, "widen", store, wide, str(WIDTH), str(wide_steps)], check=True)
    timing = rollout_of(artifact, wide, wide_steps, out)
    rate = WIDTH * wide_steps / timing["rollout_s"]
    on = f"{wide_steps} steps, {WIDTH} points"
    yield "rollout of an emulator", on, f"{timing['rollout_s']:.1f} s", "in each second", f"{rate / 1e3:.0f} thousand points", None
    yield "peak memory of the runner", on, f"{timing['peak_rss_bytes'] / 2**20:.0f} MiB", "", "", None
