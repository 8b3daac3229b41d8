"""Makes source datasets and datastore configurations, prepares them with mllam-data-prep itself, and
writes what came out: per scenario a folder with config.yaml, expected.json and <variable>.f32.

usage: oracle.py <folder>
"""
import json
import sys
from pathlib import Path

import numpy as np
import xarray as xr
import yaml
from loguru import logger
from mllam_data_prep.config import Config, ValueSelection
from mllam_data_prep.create_dataset import create_dataset

logger.remove()
root = Path(sys.argv[1])
rng = np.random.default_rng(7)
X, Y = np.arange(5) * 2500.0, 1e6 + np.arange(4) * 2500.0
TIMES = np.datetime64("2024-02-28T18:00", "ns") + np.arange(8) * np.timedelta64(6, "h")
DERIVE = "mllam_data_prep.ops.derive_variable."


def values(*shape, dtype="f4"):
    return rng.normal(280, 10, shape).astype(dtype)


def lat_lon(dtype):
    lat = 55 + np.arange(4)[:, None] * 0.1 + np.arange(5) * 0.01
    lon = -11 + np.arange(5) * 5.3 + np.arange(4)[:, None] * 0.02
    return {"lat": (("y", "x"), lat.astype(dtype)), "lon": (("y", "x"), lon.astype(dtype))}


def write(name, ds, version=3, **encoding):
    path = root / "sources" / name
    ds.to_zarr(path, zarr_format=version, consolidated=True, encoding=encoding)
    return str(path)


def stack(time="time", grid=("x", "y"), feature="state_feature", form="{var_name}", dims=None):
    mapping = {"grid_index": {"method": "stack", "dims": list(grid)}}
    if len(grid) == 1:
        mapping["grid_index"] = {"method": "rename", "dim": grid[0]}
    if time:
        mapping["time"] = {"method": "rename", "dim": time}
    mapping[feature] = {"method": "stack_variables_by_var_name", "name_format": form}
    if dims:
        mapping[feature]["dims"] = dims
    return mapping


def scenario(name, inputs, output=None, edit=None):
    folder = root / name
    folder.mkdir(parents=True)
    output = output or {
        "state": ["time", "grid_index", "state_feature"],
        "forcing": ["time", "grid_index", "forcing_feature"],
        "static": ["grid_index", "static_feature"],
    }
    targets = {i["target_output_variable"] for i in inputs.values()}
    config = {
        "schema_version": "v0.6.0",
        "dataset_version": "v1",
        "output": {"variables": {k: v for k, v in output.items() if k in targets}},
        "inputs": inputs,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    parsed = Config.from_yaml_file(folder / "config.yaml")
    if edit:  # what the dataclasses allow but their parser does not
        edit(parsed)
    ds = create_dataset(parsed)
    expected = {}
    for target in targets:
        dims = output[target]
        da = ds[target].transpose(*dims)
        feature = dims[-1]
        da.values.astype("<f4").tofile(folder / f"{target}.f32")
        expected[target] = {
            "dims": dims,
            "shape": da.shape,
            "double": bool(da.dtype != np.float32),
            "features": [str(v) for v in ds[feature].values],
            "units": [str(v) for v in ds[f"{feature}_units"].values],
            "long_names": [str(v) for v in ds[f"{feature}_long_name"].values],
        }
        for dim in ("time", "analysis_time"):
            if dim in dims:
                seconds = ds[dim].values.astype("datetime64[s]").astype("i8")
                expected[target]["starts"] = seconds.tolist()
        if "elapsed_forecast_duration" in dims:
            elapsed = ds["elapsed_forecast_duration"].values.astype("timedelta64[s]").astype("i8")
            expected[target]["elapsed"] = elapsed.tolist()
    (folder / "expected.json").write_text(json.dumps(expected))


def attrs(units, long_name):
    return {"units": units, "long_name": long_name}


# ---- sources
heights = xr.Dataset(
    {
        "u": (("time", "altitude", "y", "x"), values(8, 4, 4, 5), attrs("m/s", "wind to the east")),
        "t": (("altitude", "x", "time", "y"), values(4, 5, 8, 4), attrs("K", "temperature")),
    },
    coords={"time": TIMES, "altitude": ("altitude", [30, 50, 75, 100], {"units": "m"}), "x": X, "y": Y}
    | lat_lon("f8"),
)
heights_path = write(
    "heights.zarr", heights, 3, u={"chunks": (3, 2, 4, 5)}, t={"chunks": (1, 2, 8, 4)}
)
pressures = xr.Dataset(
    {"z": (("valid", "pressure", "y", "x"), values(8, 3, 4, 5, dtype="f8"), attrs("m", "height"))},
    coords={"valid": TIMES, "pressure": [1000.0, 850.0, 500.0], "x": X, "y": Y} | lat_lon("f8"),
    attrs={"source": "made up", "number": 3},
)
pressures_path = write("pressures.zarr", pressures, 2, z={"chunks": (2, 1, 4, 5)})
surface = xr.Dataset(
    {
        "t2m": (("time", "y", "x"), values(8, 4, 5), attrs("K", "2 m temperature")),
        "ps": (("time", "y", "x"), 1e5 + values(8, 4, 5), attrs("Pa", "pressure")),
        "mask": (("y", "x"), rng.integers(0, 2, (4, 5)).astype("i2"), {}),
    },
    coords={"time": TIMES, "x": X, "y": Y} | lat_lon("f8"),
)
packed = {"dtype": "i2", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -32768, "chunks": (4, 4, 5)}
only_scaled = {"dtype": "i4", "scale_factor": 0.5, "_FillValue": -(2**31)}
surface_paths = [
    write(f"surface{v}.zarr", surface, v, t2m=packed, ps=only_scaled) for v in (2, 3)
]
regular = xr.Dataset(
    {"swe": (("time", "lat", "lon"), values(8, 3, 6))},
    coords={"time": TIMES, "lat": [60.0, 58.5, 57.0], "lon": np.arange(6, dtype="f4") * 60},
)
regular_path = write("regular.zarr", regular)
single_path = write("single.zarr", xr.Dataset(coords={"time": TIMES, "x": X, "y": Y} | lat_lon("f4")))
bare = xr.Dataset(
    {
        "oro": (("x", "y"), values(5, 4, dtype="f8")),
        "soil": (("y", "x"), rng.integers(0, 99, (4, 5))),
    },
    coords={"x": X, "y": Y},
)
bare_path = write("bare.zarr", bare)
cells = xr.Dataset({"t2m": (("time", "cell"), values(8, 700))}, coords={"time": TIMES})
cells_path = write("cells.zarr", cells, 3, t2m={"chunks": (8, 100)})
sigma = xr.Dataset(
    {"q": (("time", "sigma", "y", "x"), values(8, 2, 4, 5))},
    coords={"time": TIMES, "sigma": np.array([0.995, 0.1], "f4"), "x": X, "y": Y},
)
sigma_path = write("sigma.zarr", sigma)
elapsed = np.arange(5) * np.timedelta64(3, "h").astype("timedelta64[ns]")
starts = TIMES[::2]
forecasts = xr.Dataset(
    {
        "t2m": (("elapsed_forecast_duration", "analysis_time", "y", "x"), values(5, 4, 4, 5)),
    },
    coords={
        "analysis_time": starts,
        "elapsed_forecast_duration": elapsed,
        "time": (("analysis_time", "elapsed_forecast_duration"), starts[:, None] + elapsed),
        "x": X,
        "y": Y,
    }
    | lat_lon("f8"),
)
forecasts_path = write(
    "forecasts.zarr", forecasts, 3, t2m={"chunks": (2, 1, 4, 5)}, elapsed_forecast_duration={"dtype": "i8"}
)


# ---- scenarios
def select(coordinate, chosen, units=None):
    return {coordinate: {"values": chosen} | ({"units": units} if units else {})}


levels = {
    "path": heights_path,
    "dims": ["time", "x", "y", "altitude"],
    "variables": {"u": select("altitude", [100, 30], "m"), "t": select("altitude", [100, 30], "m")},
    "dim_mapping": stack(form="{var_name}{altitude}m", dims=["altitude"]),
    "target_output_variable": "state",
}
on_pressures = {
    "path": pressures_path,
    "dims": ["valid", "x", "y", "pressure"],
    "variables": {"z": select("pressure", [500.0, 1000.0])},
    "dim_mapping": stack(time="valid", form="{var_name}_{pressure}", dims=["pressure"]),
    "target_output_variable": "state",
    "attributes": {"source": "made up", "number": 3.0},
}
on_surface = [
    {
        "path": path,
        "dims": ["time", "x", "y"],
        "variables": ["t2m", "ps"],
        "dim_mapping": stack(),
        "target_output_variable": "state",
    }
    for path in surface_paths
]
scenario("three_inputs", {"heights": levels, "pressures": on_pressures, "surface": on_surface[1]})
scenario("packed_v2", {"surface": on_surface[0]})
# Every variable follows the levels of the first, in its order.
other_order = {"u": select("altitude", [30, 100], "m"), "t": select("altitude", [100, 30], "m")}
scenario("reordered_levels", {"heights": levels | {"variables": other_order}})
more = {"u": select("altitude", [75], "m"), "t": select("altitude", [100, 75, 30], "m")}
scenario("superset_of_levels", {"heights": levels | {"variables": more}})
lacking = {"u": select("altitude", [75, 30], "m"), "t": select("altitude", [100, 75], "m")}
scenario("lacking_levels", {"heights": levels | {"variables": lacking}})
scenario("all_levels_yx", {"heights": levels | {
    "variables": ["t", "u"],
    "dim_mapping": stack(grid=("y", "x"), form="{altitude}{var_name}", dims=["altitude"]),
}})


def derived(function, **kwargs):
    return {"function": DERIVE + function, "kwargs": kwargs}


toa = derived("physical_field.calculate_toa_radiation", time="ds_input.time", lat="ds_input.lat", lon="ds_input.lon")
hour = derived("time_components.calculate_hour_of_day", time="ds_input.time", component="sin")
day = derived("time_components.calculate_day_of_year", time="ds_input.time", component="cos")
forcing = {
    "dims": ["time", "x", "y"],
    "derived_variables": {"toa": toa, "hour": hour | {"attrs": {"units": "none"}}, "day": day},
    "dim_mapping": stack(feature="forcing_feature", form="f_{var_name}"),
    "target_output_variable": "forcing",
}
scenario("derived", {
    "forcing": forcing | {"path": surface_paths[1], "variables": ["ps"]},
    "static": {
        "path": surface_paths[0],
        "dims": ["x", "y"],
        "variables": ["mask"],
        "dim_mapping": stack(time=None, feature="static_feature"),
        "target_output_variable": "static",
    },
})
scenario("static", {"bare": {
    "path": bare_path,
    "dims": ["x", "y"],
    "variables": ["soil", "oro"],
    "dim_mapping": stack(time=None, feature="static_feature"),
    "target_output_variable": "static",
}})
scenario("derived_float32", {"forcing": forcing | {"path": single_path}})
scenario("derived_on_levels", {"forcing": forcing | {
    "path": heights_path,
    "dims": ["time", "x", "y", "altitude"],
    "variables": {"u": select("altitude", [75, 50], "m")},
    "dim_mapping": stack(feature="forcing_feature", form="{var_name}{altitude}", dims=["altitude"]),
}})
scenario("derived_regular", {"forcing": forcing | {
    "path": regular_path,
    "dims": ["time", "lat", "lon"],
    "variables": ["swe"],
    "dim_mapping": stack(grid=("lon", "lat"), feature="forcing_feature"),
}})
scenario("range_on_falling", {"regular": {
    "path": regular_path,
    "dims": ["time", "lat", "lon"],
    "variables": ["swe"],
    "coord_ranges": {"lat": {"start": 59.0, "end": 57.0}, "lon": {"start": 60, "end": 200}},
    "dim_mapping": stack(grid=("lat", "lon")),
    "target_output_variable": "state",
}})
scenario("range_of_levels", {"heights": levels | {
    "variables": ["u"],
    "coord_ranges": {
        "altitude": {"start": 40, "end": 100},
        "x": {"start": 2500.0, "end": 7500.0},
        "y": {"start": 1002500.0, "end": 1005000.0},
    },
}})
scenario("float32_levels", {"sigma": levels | {
    "path": sigma_path,
    "dims": ["time", "x", "y", "sigma"],
    "variables": ["q"],
    "dim_mapping": stack(form="{var_name}{sigma}", dims=["sigma"]),
}})
scenario("unstructured", {"cells": {
    "path": cells_path,
    "dims": ["time", "cell"],
    "variables": ["t2m"],
    "dim_mapping": stack(grid=("cell",)),
    "target_output_variable": "state",
}})


def single(config):
    config.inputs["heights"].variables = {"u": {"altitude": ValueSelection(values=75, units="m")}}


scenario("single_level", {"heights": levels | {
    "variables": {"u": select("altitude", [75], "m")},
    "dim_mapping": stack(),
}}, edit=single)
config = root / "single_level" / "config.yaml"
config.write_text(config.read_text().replace("          values:\n          - 75\n", "          values: 75\n"))
assert "values: 75" in config.read_text()

by_forecast = {
    "analysis_time": {"method": "rename", "dim": "analysis_time"},
    "elapsed_forecast_duration": {"method": "rename", "dim": "elapsed_forecast_duration"},
}
scenario("forecasts", {"forecasts": {
    "path": forecasts_path,
    "dims": ["analysis_time", "elapsed_forecast_duration", "x", "y"],
    "variables": ["t2m"],
    "derived_variables": {"toa": toa, "hour": hour, "day": day},
    "dim_mapping": by_forecast | stack(time=None),
    "target_output_variable": "state",
}}, output={"state": ["analysis_time", "elapsed_forecast_duration", "grid_index", "state_feature"]})
