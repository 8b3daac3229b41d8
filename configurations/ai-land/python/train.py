"""Trains the emulator on a store over (time, x): from features at a time to what the state gains in a step.

    train.py STORE OUT [--until 2022-01-01] [--input land] [--trees 128] [--depth 6] [--seed 0] [--threads 1]

OUT gets `model.onnx`, `interface.json` for `mlwm artifact build`, and `scores.json`. Times from `--until` on
are held out. One thread gives the same bytes each time.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
import xgboost

import land
import trees

INPUT, OUTPUT = "features", "increments"


def interface(step, store):
    """`interface.json`, version 3."""
    role = lambda name: "static" if name in land.STATIC else "forcing" if name in land.FORCING else "state"
    return {
        "version": 3,
        "model": "land-emulator-xgboost",
        "step_seconds": step,
        "points": "x",
        "inputs": {"state": store, "forcing": store, "static": store},
        "input": INPUT,
        "features": [{"name": name, "role": role(name)} for name in land.FEATURES],
        "output": OUTPUT,
        "predicts": "increments",
        "states": [{"name": name, "lower": land.LOWER} for name in land.STATES],
        "coordinates": ["lat", "lon"],
        "attributes": {name: {"units": units} for name, units in land.UNITS.items()},
    }


def scores(predicted, target):
    """RMSE and R² over all outputs together, in their mixed units, and the RMSE of each."""
    error = (predicted - target).astype("f8")
    spread = (target - target.mean(dtype="f8")).astype("f8")
    of_each = np.sqrt((error**2).mean(axis=0))
    return {
        "rows": len(target),
        "rmse": float(np.sqrt((error**2).mean())),
        "r2": float(1 - (error**2).sum() / (spread**2).sum()),
        "rmse_of": {name: float(rmse) for name, rmse in zip(land.STATES, of_each)},
    }


def rows(array):
    """Features and increments of neighbouring times, a row for each point."""
    state = array[:, :, -len(land.STATES) :]
    features, gained = array[:-1], state[1:] - state[:-1]
    return features.reshape(-1, array.shape[2]), gained.reshape(-1, len(land.STATES))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("out", type=Path)
    parser.add_argument("--until", help="first time that is held out; none without")
    parser.add_argument("--input", default="land", help="name of the configuration's input with such a store")
    parser.add_argument("--trees", type=int, default=128)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()

    store = land.open_store(given.store, land.FEATURES + ["lat", "lon"])
    step = land.step_seconds(store, given.store)
    array = land.values(store, land.FEATURES, given.store)
    times = store.time.values
    known = len(times) if given.until is None else int((times < np.datetime64(given.until)).sum())
    if known < 2:
        raise land.Refused(f"{given.store} has {known} times before {given.until}: there is nothing to learn from")
    features, gained = rows(array[:known])
    options = {"tree_method": "hist", "subsample": 0.6, "max_depth": given.depth}
    options |= {"seed": given.seed, "nthread": given.threads}
    model = xgboost.train(options, xgboost.DMatrix(features, gained), given.trees)
    made = {"training": scores(model.inplace_predict(features), gained)}
    if len(times) - known >= 2:
        features, gained = rows(array[known:])
        made["held_out"] = scores(model.inplace_predict(features), gained)
    graph = trees.to_onnx(model, len(land.FEATURES), len(land.STATES), INPUT, OUTPUT)

    given.out.mkdir(parents=True, exist_ok=True)
    onnx.save(graph, given.out / "model.onnx")
    for name, content in (("interface", interface(step, given.input)), ("scores", made)):
        (given.out / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    print(f"trained on {made['training']['rows']} rows: RMSE {made['training']['rmse']:.4f}, R² {made['training']['r2']:.4f}")


if __name__ == "__main__":
    land.run(main)
