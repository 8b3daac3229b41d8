"""Compares a forecast of the example with one that the reference runner made, by coordinates.

usage: compare_reference.py FORECAST.zarr REFERENCE.zarr
"""
import sys

import numpy as np
import xarray as xr

forecast = xr.open_zarr(sys.argv[1], consolidated=True)
reference = xr.open_zarr(sys.argv[2], consolidated=False).drop_vars("standardized")
np.testing.assert_array_equal(forecast.time.values, reference.time.values)
worst = 0.0
for name, expected in reference.data_vars.items():
    found = forecast[name].transpose(*expected.dims)
    for dim in expected.dims:
        np.testing.assert_array_equal(found[dim].values, expected[dim].values)
    difference = float(np.abs(found.values.astype("f8") - expected.values.astype("f8")).max())
    print(f"{name}: {difference:.3g}")
    worst = max(worst, difference)
assert worst <= 1e-4, worst
