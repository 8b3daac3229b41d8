"""Compares published forecasts of a case with its oracles, variable by variable, by coordinates.

usage: compare_case.py CASE_FOLDER ANALYSIS_TIME FORECAST.zarr
Prints the largest absolute difference of every feature; fails if one exceeds its tolerance, or if
dimensions, units or names are not the source's own.
"""
import sys
from pathlib import Path

import numpy as np
import xarray as xr
import yaml

folder, analysis_time, path = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
case = yaml.safe_load((folder / "case.yaml").read_text())
wanted = np.datetime64(analysis_time.rstrip("Z"))
(entry,) = [f for f in case["forecasts"] if np.datetime64(str(f["analysis_time"]).rstrip("Z")[:16]) == wanted]
oracle = xr.open_zarr(folder / entry["oracle"])
forecast = xr.open_zarr(path, consolidated=True)

config = folder / case["nl_config"]
nl = yaml.safe_load(config.read_text())
stores = nl.get("datastores") or {Path(nl["datastore"]["config_path"]).name.split(".")[0]: nl["datastore"]}
bad = []
for feature, about in case["variables"].items():
    datastore, name = about["input"].split(".", 1)
    mapping = yaml.safe_load((config.parent / stores[datastore]["config_path"]).read_text())["inputs"][name]["dim_mapping"]
    rename = {m["dim"]: new for new, m in mapping.items() if m["method"] == "rename" and m["dim"] != new}
    found = forecast[about["variable"]]
    assert found.dims == tuple(about["source_dims"]), (feature, found.dims, about["source_dims"])
    assert found.attrs.get("units") == about["units"], (feature, found.attrs)
    assert found.attrs.get("long_name") == about["long_name"], (feature, found.attrs)
    for level, value in (about.get("level") or {}).items():
        found = found.sel({level: value})
    if case["time_layout"] == "forecast":
        assert found.sizes["analysis_time"] == 1 and found.analysis_time.values[0] == wanted
        found = found.isel(analysis_time=0)
        times = found.analysis_time.values + found.elapsed_forecast_duration.values
        found = found.assign_coords(elapsed_forecast_duration=times).drop_vars("time", errors="ignore")
        found = found.rename(elapsed_forecast_duration="time")
    found = found.rename({old: new for old, new in rename.items() if old in found.dims})
    expected = oracle[feature]
    found = found.transpose(*expected.dims).sel({d: expected[d] for d in expected.dims})
    for dim in expected.dims:
        assert found.sizes[dim] == expected.sizes[dim], dim
    difference = float(np.abs(found.values.astype("f8") - expected.values.astype("f8")).max())
    print(f"{feature}: {difference:.3g} (at most {about['tolerance']})")
    if not difference <= about["tolerance"]:
        bad.append(feature)
assert not bad, bad
