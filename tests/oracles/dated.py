"""Writes a small Zarr store whose coordinate `analysis_time` is a given time.

usage: dated.py STORE TIME
"""

import sys

import numpy as np
import xarray as xr

store, time = sys.argv[1], np.datetime64(sys.argv[2], "ns")
hours = np.arange(3) * np.timedelta64(3_600_000_000_000, "ns")
values = np.full((1, 3, 2), 280, "f4")
dims = ("analysis_time", "elapsed_forecast_duration", "x")
dataset = xr.Dataset({"t2m": (dims, values)}, {"analysis_time": [time], "elapsed_forecast_duration": hours})
dataset.to_zarr(store, mode="w", zarr_format=2, consolidated=True)
