"""Windows of a small forecast, as a model writes them, and what was published of them.

    windows.py make FOLDER MEMBERS [FAULT]   one folder a member, with a Zarr store for each window
    windows.py check STORE MEMBER [NAMES]    the published store of a member, against the closed form; its
                                             variables are these (`t2m`), or all
    windows.py persists STORE MEMBER         a published store whose values are all those of the member's last step
    windows.py products STORE MEMBERS        products of these members (`0,2,3`), against NumPy
"""

import pathlib
import sys

import numpy as np
import xarray as xr

ANALYSIS_TIME = np.datetime64("2022-04-07T03:00")
STEPS, EACH, CELLS = 10, 4, 40_000


def values(member, name, step):
    """Whole numbers, exact in float32, that tell member, variable, step and cell."""
    base = {"t2m": 200_000, "msl": 100_000}[name]
    return (base + 1000 * member + 10 * step + np.arange(CELLS) % 7).astype("float32")


def window(member, first, last):
    steps = np.arange(first, last + 1)
    time = ANALYSIS_TIME + steps * np.timedelta64(6, "h")
    data = {
        name: (("time", "cell"), np.stack([values(member, name, step) for step in steps]))
        for name in ("t2m", "msl")
    }
    data["not_wanted"] = (("time", "cell"), np.zeros((len(steps), CELLS), "float32"))
    dataset = xr.Dataset(data, {"time": time.astype("datetime64[ns]")})
    dataset.time.encoding = {"units": "hours since 2022-04-07T03:00:00", "dtype": "int64"}
    return dataset


def make(folder, members, fault=None):
    each = STEPS if fault == "whole" else EACH
    for member in range(members):
        for first in range(1, STEPS + 1, each):
            last = min(first + each - 1, STEPS)
            dataset = window(member, first, last)
            if fault == "nan" and member == 1 and first > EACH:
                dataset.msl[0, 5] = np.nan
            if fault == "late-nan" and member == 1 and last == STEPS:
                dataset.msl[0, 5] = np.nan
            if fault == "time" and member == 1 and first > EACH:
                dataset["time"] = dataset.time + np.timedelta64(6, "h")
            name = f"h{(first - 1) * 6:03}-{last * 6:03}" if fault != "whole" else "whole"
            plain = {name: {"compressors": None} for name in dataset.data_vars}
            path = pathlib.Path(folder) / f"member{member}" / name
            dataset.to_zarr(path, zarr_format=3, consolidated=False, encoding=plain)


def check(store, member, names="msl,t2m"):
    with xr.open_zarr(store) as dataset:
        assert sorted(dataset.data_vars) == names.split(","), dataset
        times = ANALYSIS_TIME + np.arange(1, STEPS + 1) * np.timedelta64(6, "h")
        assert (dataset.time.values == times.astype("datetime64[ns]")).all(), dataset.time
        for name in dataset.data_vars:
            variable = dataset[name]
            assert variable.encoding["shards"] == (EACH, CELLS), variable.encoding
            assert variable.encoding["chunks"] == (1, CELLS), variable.encoding
            for step in range(STEPS):
                expected = values(member, name, step + 1)
                assert (variable[step].values == expected).all(), (name, step)


def persists(store, member):
    with xr.open_zarr(store) as dataset:
        assert sorted(dataset.data_vars) == ["msl", "t2m"], dataset
        times = ANALYSIS_TIME + np.arange(1, STEPS + 1) * np.timedelta64(6, "h")
        assert (dataset.time.values == times.astype("datetime64[ns]")).all(), dataset.time
        for name in dataset.data_vars:
            assert dataset[name].dtype == "float32", dataset[name]
            expected = np.broadcast_to(values(member, name, STEPS), (STEPS, CELLS))
            assert (dataset[name].values == expected).all(), name


def products(store, members):
    with xr.open_zarr(store) as dataset:
        names = ["msl_max", "msl_min", "t2m_above_201500", "t2m_mean", "t2m_p90", "t2m_spread"]
        assert sorted(dataset.data_vars) == names, dataset
        assert dataset.attrs["ensemble_members"] == members, dataset.attrs
        times = ANALYSIS_TIME + np.arange(1, STEPS + 1) * np.timedelta64(6, "h")
        assert (dataset.time.values == times.astype("datetime64[ns]")).all(), dataset.time
        for step in range(STEPS):
            t2m, msl = (
                np.stack([values(member, name, step + 1) for member in members]).astype("float64")
                for name in ("t2m", "msl")
            )
            expected = {
                "msl_max": msl.max(0),
                "msl_min": msl.min(0),
                "t2m_above_201500": (t2m > 201_500).mean(0),
                "t2m_mean": t2m.mean(0),
                "t2m_p90": np.percentile(t2m, 90, axis=0),
                "t2m_spread": t2m.std(0, ddof=1),
            }
            for name, values_ in expected.items():
                found = dataset[name][step].values
                wanted = values_.astype("float32")
                # One unit in the last place: NumPy's own sums are rounded.
                assert (np.abs(found - wanted) <= np.spacing(np.abs(wanted))).all(), (name, step)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", folder, members, *fault]:
            make(folder, int(members), *fault)
        case ["check", store, member, *names]:
            check(store, int(member), *names)
        case ["persists", store, member]:
            persists(store, int(member))
        case ["products", store, members]:
            products(store, [int(member) for member in members.split(",")])
        case _:
            sys.exit(__doc__)
