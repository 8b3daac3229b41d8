"""What the emulator of a land surface is given and what it predicts, and how its store is read."""

import sys
from pathlib import Path

import numpy as np
import xarray as xr

STATIC = [
    f"clim_{name}"
    for name in ("z0m", "geopot", "cvl", "cvh", "tvl", "tvh", "sotype", "sdor", "sdfor", "cu", "Ctype", "CLAKE")
]
FORCING = ["lai_hv", "lai_lv"] + [
    f"met_{name}"
    for name in ("ctpf", "lwdown", "psurf", "qair", "rainf", "snowf", "swdown", "tair", "wind_e", "wind_n")
]
STATES = ["swvl1", "swvl2", "swvl3", "stl1", "stl2", "stl3", "snowc"]
FEATURES = STATIC + FORCING + STATES
# No water, no snow and no temperature is less than nothing.
LOWER = 0.0
UNITS = {name: "m3 m-3" for name in STATES[:3]} | {name: "K" for name in STATES[3:6]} | {"snowc": "%"}


class Refused(Exception):
    """An input that cannot be used; its text is for people."""


def run(main):
    """Runs a program; what it refuses becomes one line and exit code 20."""
    try:
        main()
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(20) from None


def open_store(path, names):
    """The store at a path, which must have these variables over (time, x) or (x)."""
    if not Path(path).is_dir():
        raise Refused(f"there is no store at {path}")
    store = xr.open_zarr(path)
    missing = [name for name in [*names, "time"] if name not in store.variables]
    if missing:
        raise Refused(f"{path} has no {', '.join(missing)}; it has {', '.join(sorted(map(str, store.variables)))}")
    for name in names:
        if store[name].dims not in (("time", "x"), ("x",)):
            raise Refused(f"`{name}` of {path} has the dimensions {store[name].dims}, not (time, x)")
    return store


def step_seconds(store, path):
    """Seconds between its times, which must all be as far apart."""
    apart = np.unique(np.diff(store.time.values.astype("datetime64[s]").astype("i8")))
    if apart.size != 1 or apart[0] <= 0:
        raise Refused(f"the times of {path} are {apart.tolist()} s apart: they must be evenly spaced, without gaps")
    return int(apart[0])


def values(store, names, path):
    """Variables as float32 `[time, point, name]`; what has no times is the same at all of them."""
    shape = (store.sizes["time"], store.sizes["x"], len(names))
    array = np.empty(shape, "f4")
    for column, name in enumerate(names):
        array[:, :, column] = store[name].values
        if not np.isfinite(array[:, :, column]).all():
            count = int((~np.isfinite(array[:, :, column])).sum())
            raise Refused(f"`{name}` of {path} has {count} values that are NaN or infinite")
    return array
