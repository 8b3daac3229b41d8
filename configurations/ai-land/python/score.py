"""Scores a forecast of the emulator against the store that it started from, and draws both.

    score.py FORECAST STORE OUT [--since 2022-01-01] [--point 5]

OUT gets `scores.json`, R², RMSE and bias of each variable over all points and at the one that is drawn, and
`comparison.png`. Times before `--since`, which the emulator has learnt from, are drawn, but do not count.
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import land


def score(forecast, truth):
    error = forecast.astype("f8") - truth
    spread = ((truth.astype("f8") - truth.mean(dtype="f8")) ** 2).sum()
    return {
        # What does not vary cannot be explained.
        "r2": float(1 - (error**2).sum() / spread) if spread > 0 else None,
        "rmse": float(np.sqrt((error**2).mean())),
        "bias": float(error.mean()),
    }


def draw(path, forecast, truth, point, since, made):
    figure, axes = plt.subplots(len(land.STATES), 1, figsize=(11, 14), sharex=True, layout="constrained")
    for axis, name in zip(axes, land.STATES):
        axis.plot(truth.time, truth[name][:, point], color="black", linewidth=0.8, label="store")
        axis.plot(forecast.time, forecast[name][:, point], color="tab:red", linewidth=0.6, label="emulator")
        if since is not None:
            axis.axvline(since, color="grey", linewidth=0.8, linestyle="--")
        r2 = made["at_point"][name]["r2"]
        title = f"{name} ({land.UNITS[name]}), RMSE {made['at_point'][name]['rmse']:.3g}"
        axis.set_title(title + (f", R² {r2:.3f}" if r2 is not None else ""), loc="left", fontsize=9)
    axes[0].legend(loc="upper right", fontsize=8)
    place = ", ".join(f"{name} {float(truth[name][point]):.2f}" for name in ("lat", "lon"))
    figure.suptitle(f"Free forecast at point {point} ({place})")
    figure.savefig(path, dpi=100, metadata={"Software": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("forecast")
    parser.add_argument("store")
    parser.add_argument("out", type=Path)
    parser.add_argument("--since", help="first time that counts; all without")
    parser.add_argument("--point", type=int, help="which point is drawn; the middle one without")
    given = parser.parse_args()

    forecast = land.open_store(given.forecast, land.STATES)
    truth = land.open_store(given.store, land.STATES + ["lat", "lon"])
    if forecast.sizes["x"] != truth.sizes["x"]:
        raise land.Refused(
            f"{given.forecast} has {forecast.sizes['x']} points and {given.store} {truth.sizes['x']}: "
            "score a forecast against the store that it started from"
        )
    point = truth.sizes["x"] // 2 if given.point is None else given.point
    if not 0 <= point < truth.sizes["x"]:
        raise land.Refused(f"there is no point {point}: there are {truth.sizes['x']}, from 0")
    common = np.intersect1d(forecast.time.values, truth.time.values)
    since = None if given.since is None else np.datetime64(given.since)
    counted = common if since is None else common[common >= since]
    if counted.size < 2:
        raise land.Refused(f"{given.forecast} and {given.store} have {counted.size} times in common that count")
    names = land.STATES
    forecast, truth = forecast.sel(time=common).load(), truth[[*names, "lat", "lon"]].sel(time=common).load()
    over, true = forecast.sel(time=counted), truth.sel(time=counted)
    made = {
        "times": int(counted.size),
        "from": str(counted[0].astype("datetime64[s]")),
        "to": str(counted[-1].astype("datetime64[s]")),
        "point": point,
        "all_points": {name: score(over[name].values, true[name].values) for name in names},
        "at_point": {name: score(over[name].values[:, point], true[name].values[:, point]) for name in names},
    }
    given.out.mkdir(parents=True, exist_ok=True)
    draw(given.out / "comparison.png", forecast, truth, point, since, made)
    (given.out / "scores.json").write_text(json.dumps(made, indent=1) + "\n")
    for name in names:
        one = made["all_points"][name]
        r2 = "     " if one["r2"] is None else f"{one['r2']:.3f}"
        print(f"{name}: R² {r2}, RMSE {one['rmse']:.4f}, bias {one['bias']:.4f}")


if __name__ == "__main__":
    land.run(main)
