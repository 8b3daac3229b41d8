"""The case `forecast-shaped`: sources with (analysis_time, elapsed_forecast_duration) instead of time.

Everything of a forecast is read from the one source forecast issued at the analysis time: its first
steps are the initial states. The source forecasts here drift away from each other, so that reading
another one shows. The oracle is neural-lam's: for every analysis time its datastore is filled with
that source forecast laid out along time, with the statistics, graph and weights of `graph-lam`.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import mllam_data_prep as mdp
import numpy as np
import xarray as xr

ANALYSIS_TIMES = ["2022-04-06T18:00", "2022-04-07T00:00", "2022-04-07T06:00"]
STEPS, BOUNDARY_WIDTH, LENGTH = 6, 4, 10  # source forecasts have one step more than the forecasts read
VARYING, CONSTANT = ["t2m", "u10m", "v10m", "swavr0m"], ["orography", "lsm"]
STEP = np.timedelta64(3, "h")
INPUTS = {
    "source/forecasts.zarr": ["danra.danra_surface", "danra.danra_forcing"],
    "source/constants.zarr": ["danra.danra_static"],
}


def source_forecast(analyses, issued, index):
    """The analyses from `issued` on, with an error of its own that grows with the lead time."""
    times = np.datetime64(issued, "ns") + np.arange(LENGTH) * STEP
    ds = analyses[VARYING].sel(time=times)
    growth = xr.DataArray(np.arange(LENGTH) / LENGTH, dims="time")
    x, y = ((ds[d] - ds[d][0]) / (ds[d][-1] - ds[d][0]) for d in ("x", "y"))
    pattern = np.sin(6.0 * (index + 1) * x + 4.0 * y)
    for name, amplitude in (("t2m", 3.0), ("u10m", 2.5), ("v10m", 2.0)):
        error = amplitude * growth * pattern + 0.3 * (index + 1)
        ds[name] = (ds[name] + error).round(2).astype("f4").transpose("time", "y", "x").assign_attrs(ds[name].attrs)
    factor = 1 - 0.15 * (index + 1) * growth
    ds["swavr0m"] = (ds.swavr0m * factor).round(-2).astype("f4").assign_attrs(ds.swavr0m.attrs)
    return ds


def write_sources(analyses, forecasts, folder):
    shutil.rmtree(folder, ignore_errors=True)
    elapsed = (np.arange(LENGTH) * STEP).astype("timedelta64[ns]")
    renamed = [forecast.rename(time="elapsed_forecast_duration") for forecast in forecasts]
    reshaped = [forecast.assign_coords(elapsed_forecast_duration=elapsed) for forecast in renamed]
    issued = xr.Variable("analysis_time", np.array(ANALYSIS_TIMES, "datetime64[ns]"))
    ds = xr.concat(reshaped, dim=issued).drop_encoding()
    ds = ds.transpose("analysis_time", "elapsed_forecast_duration", "y", "x")
    encoding = {name: dict(chunks=(1, 4, 28, 30)) for name in VARYING}
    encoding["analysis_time"] = dict(units="hours since 2022-04-01", dtype="i8")
    encoding["elapsed_forecast_duration"] = dict(units="hours", dtype="i8")
    ds.to_zarr(folder / "forecasts.zarr", zarr_format=2, consolidated=True, encoding=encoding)
    analyses[CONSTANT].drop_encoding().drop_vars("time", errors="ignore").to_zarr(
        folder / "constants.zarr", zarr_format=3, consolidated=True
    )


def oracle(trained, lab, forecast, analyses, issued, script):
    """neural-lam's forecast from one source forecast: path of the store."""
    (lab / "train").mkdir(parents=True)
    for name in ("config.yaml", "danra.datastore.yaml", "training_cli_args.yaml"):
        shutil.copy(trained / "train" / name, lab / "train")
    for name in ("graph", "runs"):
        (lab / "train" / name).symlink_to(trained / "train" / name)
    constants = analyses[CONSTANT]
    xr.merge([forecast, constants]).drop_encoding().to_zarr(lab / "time.zarr", zarr_format=2)
    config = mdp.Config.from_yaml_file(lab / "train/danra.datastore.yaml")
    for entry in config.inputs.values():
        entry.path = str(lab / "time.zarr")
    config.output.coord_ranges, config.output.splitting, config.output.chunking = {}, None, {}
    ds = mdp.create_dataset(config).load()
    training = xr.open_zarr(trained / "train/danra.datastore.zarr")
    for name in training.data_vars:
        if name not in ds:
            ds[name] = training[name].load()
    times = np.datetime_as_string(forecast.time.values, "m")
    ds["splits"] = ds.splits.copy(data=[[times[0], times[-1]]] * 3)
    ds.drop_encoding().to_zarr(lab / "train/danra.datastore.zarr", zarr_format=3, consolidated=True)
    newest = str(np.datetime64(issued, "m") + STEP)
    subprocess.run([sys.executable, script, lab, str(BOUNDARY_WIDTH), "multiscale", str(STEPS), newest], check=True)
    return next((lab / "oracle").glob("*.zarr"))


def make(work, case, script):
    """Leaves sources in the case folder; returns the folder of the oracles. Needs `graph-lam` in the work folder."""
    analyses = xr.open_zarr(work / "sources/danra/single_levels.zarr").load()
    forecasts = [source_forecast(analyses, issued, i) for i, issued in enumerate(ANALYSIS_TIMES)]
    write_sources(analyses, forecasts, case / "source")
    lab = work / "forecast-shaped"
    shutil.rmtree(lab, ignore_errors=True)
    for issued, forecast in zip(ANALYSIS_TIMES, forecasts):
        name = f"{issued.replace(':', '')}Z.zarr"
        made = oracle(work / "graph-lam", lab / Path(name).stem, forecast, analyses, issued, script)
        ds = xr.open_zarr(made, consolidated=False).load().assign_attrs(analysis_time=f"{issued}Z")
        ds.to_zarr(lab / "oracle" / name, zarr_format=3, consolidated=False)
    return lab / "oracle"
