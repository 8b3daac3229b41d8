"""Makes `golden/`: the golden case of the bundled model (docs/artifact-format.md, section 10).

The input is cut out of `source/`; the expected output is what neural-lam itself predicts from it
(`oracle/`), not what mlwm does. Run it in this folder, with xarray and zarr.
"""

import shutil
from pathlib import Path

import xarray as xr

CASE = Path("golden")

if CASE.exists():
    for folder in ("inputs", "expected"):
        shutil.rmtree(CASE / folder, ignore_errors=True)

# Two initial states, three steps, and the forcing of one step more.
source = xr.open_zarr("source/single_levels.zarr").sel(time=slice("2022-04-07T00", "2022-04-07T15"))
expected = xr.open_zarr("oracle/graph_lam/forecast.zarr").sel(time=slice("2022-04-07T06", "2022-04-07T12"))
for dataset, path in ((source, "inputs/single_levels.zarr"), (expected, "expected/surface.zarr")):
    whole = dataset.load().drop_encoding()
    whole.to_zarr(CASE / path, mode="w-", zarr_format=2, consolidated=False)
