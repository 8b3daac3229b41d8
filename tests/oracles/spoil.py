"""Makes a copy of the example's source data bad in one way (in place).

usage: spoil.py STORE.zarr drop VARIABLE | nan VARIABLE | shift COORDINATE | thin time
"""
import shutil
import sys

import numpy as np
import xarray as xr

path, how, name = sys.argv[1:4]
with xr.open_zarr(path) as opened:
    ds = opened.load()
if how == "drop":
    ds = ds.drop_vars(name)
elif how == "nan":
    ds[name][dict(time=-12, y=3, x=5)] = np.nan
elif how == "shift":
    ds = ds.assign_coords({name: ds[name] + 2500.0})
elif how == "thin":
    ds = ds.isel({name: slice(None, None, 2)})
else:
    raise SystemExit(f"unknown way {how}")
for variable in ds.variables.values():
    variable.encoding.pop("chunks", None)
    variable.encoding.pop("preferred_chunks", None)
shutil.rmtree(path)
ds.to_zarr(path, zarr_format=2, consolidated=True)
