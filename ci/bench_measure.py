"""The measurements of ci/bench; see there.

usage: bench_measure.py MLWM
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np

from bench_artifacts import building, inspecting, transfers, verifying
from bench_cycles import history, launching, objects, planning
from bench_ensembles import ensembles
from bench_images import images
from bench_land import grib, points, rechunking
from bench_lib import EXAMPLE, MLWM, ROOT, ROUNDS, WATCH, WORK, mlwm, python

ANALYSIS_TIME = "2022-04-03T00:00Z"
LARGE_STEPS, SMALL_STEPS = 20, 6

CONFIGURATION = """\
artifact: {artifact}
forecast_duration: PT{hours}H
inputs:
  danra:
    uri: file://{source}
    internal_path: /volume/inputs/danra.zarr
    datastore_inputs: [danra.danra_surface, danra.danra_forcing, danra.danra_static]
outputs:
  forecast:
    uri: file://{out}/{{analysis_time}}.zarr
    internal_path: /volume/outputs/forecast.zarr
"""

# Staged, then run in an image that writes nothing: only the staging is of interest.
STAGING = """\
docker_image: mlwm-base:bookworm
inputs:
  data:
    uri: {uri}
    internal_path: /volume/inputs/data.zarr
outputs:
  none:
    uri: file://{out}/none.zarr
    internal_path: /volume/outputs/none.zarr
"""

NOTHING_WRITTEN = "23"  # exit code of that; see docs/exit-codes.md

# Times what the runner cannot avoid: the session alone, fed with arrays that are ready.
SESSION = """
import os, sys, time, numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = len(os.sched_getaffinity(0))  # as the runner has
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
feed = {i.name: numpy.random.default_rng(0).normal(size=i.shape).astype("f4") for i in session.get_inputs()}
began = time.perf_counter()
for _ in range(int(sys.argv[2])):
    session.run(None, feed)
print(time.perf_counter() - began)
"""


def configure(name, text):
    folder = WORK / "configurations" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(text)


def prepare_model(name, case, onnx, facts, hours):
    artifact = WORK / f"{name}.zip"
    mlwm("artifact", "build", name, "--nl-config", case / "train/config.yaml", "--training-args", case / "train/training_cli_args.yaml",
         "--onnx", onnx, "--interface", facts, "--output", artifact)
    configure(name, CONFIGURATION.format(artifact=artifact, hours=hours, source=case / "source/single_levels.zarr", out=WORK / "published" / name))
    mlwm("image", "build", name)


def forecast(name):
    """Runs a model afresh; returns the seconds of the container, and what the runner says of itself."""
    shutil.rmtree(WORK / "published", ignore_errors=True)
    container, timing = None, {}
    for line in mlwm("run", "--analysis-time", ANALYSIS_TIME, "--model", name, "--workdir", WORK / "work", "--json").splitlines():
        event = json.loads(line)
        if event["event"] == "phase-finished" and event["phase"] == "run":
            container = event["seconds"]
        if event["event"] == "log" and "timing: " in event["line"]:
            timing = json.loads(event["line"].split("timing: ", 1)[1])
    return container, timing


def rollout():
    """Rollout of the larger model against the session alone, run in turn."""
    prepare_model("large", WORK / "large", WORK / "large/onnx/graph.onnx", WORK / "large/onnx/graph.json", LARGE_STEPS * 3)
    rounds = []
    for _ in range(ROUNDS):
        container, timing = forecast("large")
        session = float(python(SESSION, WORK / "large/onnx/graph.onnx", LARGE_STEPS)[0])
        rounds.append((timing["rollout_s"], timing["session_s"], session, timing["peak_rss_bytes"], container))
    loop, own, alone, rss, container = (statistics.median(column) for column in zip(*rounds))
    steps = f"{LARGE_STEPS} steps, 36,000 points"
    yield "rollout loop", steps, f"{loop:.2f} s", "session inside the same loop", f"{own:.2f} s", loop / own
    yield "rollout loop", steps, f"{loop:.2f} s", "onnxruntime of Python, session alone", f"{alone:.2f} s", loop / alone
    yield "whole container", steps, f"{container:.2f} s", "its rollout loop", f"{loop:.2f} s", container / loop
    yield "peak memory of the runner", steps, f"{rss / 2**20:.0f} MiB", "", "", None


def container():
    """Start to exit of the bundled model's container against the reference runner in Python."""
    prepare_model("bundled", EXAMPLE, EXAMPLE / "onnx/graph_lam.onnx", EXAMPLE / "onnx/graph_lam.json", SMALL_STEPS * 3)
    unpacked, source = WORK / "unpacked", EXAMPLE / "source/single_levels.zarr"
    shutil.rmtree(unpacked, ignore_errors=True)
    zipfile.ZipFile(WORK / "bundled.zip").extractall(unpacked)
    inputs = ",".join(f"danra.danra_{kind}={source}" for kind in ("surface", "forcing", "static"))
    rounds = []
    for _ in range(ROUNDS):
        shutil.rmtree(WORK / "reference.zarr", ignore_errors=True)
        code, seconds, rss = python(WATCH, sys.executable, ROOT / "tests/oracles/reference_runner.py", "artifact", unpacked, "--inputs", inputs,
                                    "--steps", SMALL_STEPS, "--analysis-time", ANALYSIS_TIME, "--out", WORK / "reference.zarr")
        if code != "0":
            sys.exit(f"the reference runner ended with {code}")
        own, timing = forecast("bundled")
        rounds.append((own, float(seconds), timing["peak_rss_bytes"], float(rss)))
    own, reference, own_rss, reference_rss = (statistics.median(column) for column in zip(*rounds))
    steps = f"{SMALL_STEPS} steps, 840 points"
    yield "container, start to exit", steps, f"{own:.2f} s", "reference runner in Python, no container", f"{reference:.2f} s", own / reference
    yield "peak memory of the runner", steps, f"{own_rss / 2**20:.0f} MiB", "reference runner in Python", f"{reference_rss / 2**20:.0f} MiB", own_rss / reference_rss


def staging():
    """Peak memory of `mlwm run` while it stages a dataset, and ones that are larger."""
    peaks = {}
    for megabytes in (50, 500, 2000):
        store = WORK / "data"
        shutil.rmtree(store, ignore_errors=True)
        write_chunks(store, megabytes)
        configure("staging", STAGING.format(uri=f"file://{store}", out=WORK / "published"))
        shutil.rmtree(WORK / "staging", ignore_errors=True)
        code, _, rss = python(WATCH, MLWM, "run", "--analysis-time", ANALYSIS_TIME, "--model", "staging",
                              "--configurations", WORK / "configurations", "--workdir", WORK / "staging")
        if code != NOTHING_WRITTEN:
            sys.exit(f"staging ended with {code}, not with {NOTHING_WRITTEN} for the output that nobody wrote")
        peaks[megabytes] = float(rss)
    shutil.rmtree(store)
    for small, large in ((50, 500), (500, 2000)):
        yield ("peak memory of staging", f"{large} MB in 1 MB objects", f"{peaks[large] / 2**20:.0f} MiB",
               f"the same with {small} MB", f"{peaks[small] / 2**20:.0f} MiB", peaks[large] / peaks[small])


def write_chunks(store, megabytes):
    """A Zarr store of incompressible chunks of 1 MB."""
    import zarr

    array = zarr.create_array(store / "noise", shape=(megabytes, 250_000), chunks=(1, 250_000), dtype="f4", compressors=None)
    generator = np.random.default_rng(0)
    for i in range(megabytes):
        array[i] = generator.normal(size=250_000).astype("f4")
    zarr.open_group(store, mode="a")


def measurements():
    """All, or those named in MLWM_BENCH_ONLY."""
    known = [rollout, container, staging, building, transfers, inspecting, verifying, images,
             planning, launching, objects, history, ensembles, grib, rechunking, points]
    wanted = os.environ.get("MLWM_BENCH_ONLY")
    return [one for one in known if not wanted or one.__name__ in wanted.split(",")]


def main():
    rows = [row for measurement in measurements() for row in measurement()]
    print(f"\n{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; medians of {ROUNDS} rounds, in turn\n")
    header = ("what", "on", "mlwm", "baseline", "its value", "ratio")
    cells = [header] + [(*row[:5], "" if row[5] is None else f"{row[5]:.2f}") for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(6)]
    for row in cells:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())


main()
