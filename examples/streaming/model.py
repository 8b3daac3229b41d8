"""A model in the streaming mode of the container contract: loaded once, it serves many members.

The forecast itself is persistence; a model of yours goes where the state is read and where a window
is made. Everything else is all that the contract asks for.
"""

import json
import os
import time
from pathlib import Path

import numpy as np
import xarray as xr

STEP = 6  # hours
STREAM = Path(os.environ["MLWM_STREAM"])
# From `forecast_duration` of the configuration; NUM_EVAL_STEPS is there only with an artifact. Whole
# hours, like `PT360H`, which pandas does not read: it knows hours of two digits.
STEPS = int(os.environ["FORECAST_DURATION"].removeprefix("PT").removesuffix("H")) // STEP
ANALYSIS_TIME = np.datetime64(os.environ["ANALYSIS_TIME"].removesuffix("Z"), "ns")


def say(work, **what):
    print("::mlwm", json.dumps({"work": work, **what}), flush=True)


def serve(folder):
    work = json.loads((folder / "work.json").read_text())
    state = xr.open_zarr(work["inputs"]["state"]).isel(time=-1, drop=True).load()
    length = int(work["outputs"][0].get("window", f"PT{STEPS * STEP}H")[2:-1])  # of all outputs here
    for first in range(0, STEPS * STEP, length):
        last = min(first + length, STEPS * STEP)
        window = f"h{first:03}-{last:03}"
        while not (folder / "go" / window).exists():  # until the disk has room for it
            time.sleep(0.05)
        times = ANALYSIS_TIME + np.arange(first + STEP, last + 1, STEP) * np.timedelta64(1, "h")
        forecast = state.drop_encoding().expand_dims(time=times)
        for output in work["outputs"]:
            path, names = Path(output["path"]), output.get("variables", list(forecast.data_vars))
            path.mkdir(parents=True, exist_ok=True)
            chunks = {name: {"write_empty_chunks": True} for name in names}
            forecast[names].to_zarr(path / f".{window}", encoding=chunks)
            (path / f".{window}").rename(path / window)
        say(folder.name, step=last // STEP, of=STEPS)
        say(folder.name, window=window)


served = set()
while True:
    is_over = (STREAM / "in/end").exists()  # asked first, so that no work is overlooked
    names = {path.name for path in (STREAM / "in").iterdir() if path.is_dir() and path.name[0] != "."}
    if names - served:
        served.add(name := min(names - served))
        try:
            serve(STREAM / "in" / name)
            say(name, done=True)
        except Exception as error:
            say(name, failed=f"{type(error).__name__}: {error}")
    elif is_over:
        break
    else:
        time.sleep(0.05)
