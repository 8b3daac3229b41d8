#!/usr/bin/env python3
"""A model of points: the runner against the loop of a notebook, and on as many points as a globe has.

    bench_points.py RUNNER STORE FOLDER [--steps 4382] [--wide 187070] [--wide-steps 20]

RUNNER is `mlwm-runner`, STORE one over (time, x) as `configurations/ai-land` reads it. Trains the emulator on
it, rolls it out with XGBoost in Python, as the ai-land project's notebook does, with ONNX Runtime in Python,
and with the runner; the last two must be the same bits. Fails if the runner is not five times as fast as the
notebook, or needs more memory on a globe than its chunks and steps.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
LAND, ORACLE = ROOT / "configurations/ai-land/python", ROOT / "tests/oracles/points.py"
sys.path.insert(0, str(LAND))
import land  # noqa: E402

NEEDED = 5.0
# Chunks of ten times of the forcing, ten steps of what is fed and predicted, and the library with its model.
MOST_BYTES = 900 << 20


def python(*arguments):
    subprocess.run([sys.executable, *map(str, arguments)], check=True)


def run(given, artifact, store, steps, out, start):
    environment = os.environ | {
        "ANALYSIS_TIME": start,
        "NUM_EVAL_STEPS": str(steps),
        "MLWM_INPUTS": json.dumps({"land": str(store)}),
        "MLWM_OUTPUTS": json.dumps([{"name": "all", "path": str(out)}]),
    }
    command = [given.runner, "--artifact", artifact]
    ran = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(ran.stdout.splitlines()[-1].removeprefix("timing: "))


def notebook(store, steps):
    """Seconds of the loop over steps with XGBoost, which trains first, as `train.py` does."""
    import xgboost

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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runner")
    parser.add_argument("store")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=4382)
    parser.add_argument("--wide", type=int, default=187_070)
    parser.add_argument("--wide-steps", type=int, default=20)
    given = parser.parse_args()
    folder, start = given.folder, "2020-01-01T00:00Z"
    artifact = folder / "artifact"
    python(LAND / "train.py", given.store, artifact, "--until", "2022-01-01")
    (artifact / "model.onnx").rename(artifact / "checkpoint.onnx")

    in_notebook = notebook(given.store, given.steps)
    timing = run(given, artifact, given.store, given.steps, folder / "out.zarr", start)
    stores = json.dumps({"land": given.store})
    python(ORACLE, "roll", artifact, stores, start, given.steps, folder / "rolled.npy")
    python(ORACLE, "compare", folder / "rolled.npy", artifact, folder / "out.zarr")
    ratio = in_notebook / timing["rollout_s"]
    print(f"{given.steps} steps: notebook {in_notebook:.2f} s, runner {timing['rollout_s']:.2f} s, {ratio:.1f} times as fast, same bits as ONNX Runtime in Python")

    wide = folder / "wide.zarr"
    python(ORACLE, "widen", given.store, wide, given.wide, given.wide_steps)
    of_wide = run(given, artifact, wide, given.wide_steps, folder / "wide_out.zarr", start)
    rate = given.wide * given.wide_steps / of_wide["rollout_s"]
    peak = of_wide["peak_rss_bytes"]
    print(f"{given.wide} points, {given.wide_steps} steps: {of_wide['rollout_s']:.1f} s, {rate:.0f} points a second, {peak >> 20} MiB")
    if ratio < NEEDED or peak > MOST_BYTES:
        sys.exit(f"needed are {NEEDED} times the speed of the notebook, and {MOST_BYTES >> 20} MiB at most")


if __name__ == "__main__":
    main()
