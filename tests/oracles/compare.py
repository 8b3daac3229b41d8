"""Compares a forecast with an oracle through xarray, and checks what xarray makes of its metadata.

usage: compare.py FORECAST.zarr ORACLE.zarr [TOLERANCE]
Prints the largest absolute difference of every variable; fails if one exceeds the tolerance.
"""
import sys

import numpy as np
import xarray as xr

forecast = xr.open_zarr(sys.argv[1], consolidated=True)
oracle = xr.open_zarr(sys.argv[2], consolidated=True)
tolerance = float(sys.argv[3]) if len(sys.argv) > 3 else 1e-4

assert sorted(forecast.data_vars) == sorted(oracle.data_vars), (list(forecast.data_vars), list(oracle.data_vars))
np.testing.assert_array_equal(forecast.time.values, oracle.time.values)
for name in ("x", "y"):
    np.testing.assert_array_equal(forecast[name].values, oracle[name].values)
worst = 0.0
for name, expected in oracle.data_vars.items():
    found = forecast[name]
    assert found.dims == expected.dims, (found.dims, expected.dims)
    assert found.dtype == expected.dtype, (found.dtype, expected.dtype)
    for attribute in ("units", "long_name"):
        assert found.attrs[attribute] == expected.attrs[attribute], (name, attribute)
    difference = float(np.abs(found.values.astype("f8") - expected.values.astype("f8")).max())
    print(f"{name}: {difference:.3g}")
    worst = max(worst, difference)
assert worst <= tolerance, f"{worst} > {tolerance}"
