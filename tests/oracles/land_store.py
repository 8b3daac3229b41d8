"""Is each value of the store of `configurations/ai-land` what its messages and files say?

    land_store.py RAW STORE    RAW: a folder with one for each month, as `synthetic.py` wrote them

Means of six hours are made here in double precision, from ecCodes and the netCDF library; they may differ by
one unit in the last place of float32.
"""

import sys
from pathlib import Path

import eccodes
import netCDF4
import numpy as np
import xarray as xr

SIX_HOURS = np.timedelta64(6, "h")
# Of the variables with layers: by paramId.
LAYERED = {228141: "sd_l", 33: "rsn_l"}


class Means:
    """Sums and counts of fields in windows of six hours, by variable and window."""

    def __init__(self):
        self.sums, self.counts = {}, {}

    def add(self, name, time, values):
        window = time.astype("datetime64[h]")
        window -= (window - window.astype("datetime64[D]")) % SIX_HOURS
        total = self.sums.setdefault((name, window), np.zeros(len(values)))
        total += values.astype("f8")
        self.counts[name, window] = self.counts.get((name, window), 0) + 1


def add_grib(path, points, names, means):
    with open(path, "rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            get = lambda key: eccodes.codes_get(handle, key, int)
            date, param = str(get("validityDate")), get("paramId")
            time = np.datetime64(f"{date[:4]}-{date[4:6]}-{date[6:]}T{get('validityTime') // 100:02}")
            name = f"{LAYERED[param]}{get('level')}" if param in LAYERED else names[param]
            means.add(name, time, eccodes.codes_get_values(handle)[points])
            eccodes.codes_release(handle)


def add_forcing(path, means):
    with netCDF4.Dataset(path) as forcing:
        times = netCDF4.num2date(forcing["time"][:], forcing["time"].units)
        # The last is the first of the next month.
        for name, variable in forcing.variables.items():
            if variable.dimensions[:1] == ("time",) and name != "time":
                for number, time in enumerate(times[:-1]):
                    values = np.ma.filled(variable[number].astype("f8"), np.nan)
                    means.add(f"met_{name.lower()}", np.datetime64(time.isoformat()), values)


def main(raw, store):
    dataset = xr.open_zarr(store)
    names = {int(v.attrs["GRIB_paramId"]): n for n, v in dataset.data_vars.items() if "GRIB_paramId" in v.attrs}
    means, months = Means(), sorted(Path(raw).glob("????-??"))
    static = netCDF4.Dataset(months[0] / "surfclim.nc")
    points = static["x"][:].data - 1
    assert (dataset["x"].values == points + 1).all()
    for month in months:
        folder = month / month.name.replace("-", "")
        for name in ("fc", "soil", "snow"):
            add_grib(folder / f"{name}.grib", points, names, means)
        add_forcing(folder / "forcing.nc", means)

    times = dataset["time"].values
    first, after = np.datetime64(months[0].name), np.datetime64(months[-1].name, "M") + 1
    assert (times == np.arange(first.astype("datetime64[h]"), after.astype("datetime64[h]"), SIX_HOURS)).all()
    changing = sorted(name for name, variable in dataset.data_vars.items() if "time" in variable.dims)
    assert sorted({name for name, _ in means.sums}) == changing, changing
    worst = 0.0
    for name in changing:
        found = dataset[name].values
        assert found.dtype == np.float32, name
        for number, time in enumerate(times.astype("datetime64[h]")):
            expected = means.sums[name, time] / means.counts[name, time]
            off = np.abs(found[number] - expected) / np.spacing(np.abs(expected).astype("f4"))
            assert np.isfinite(off).all(), (name, time)
            worst = max(worst, float(off.max()))
    assert worst <= 1, worst
    constant = [name for name in static.variables if name not in ("x", "lat", "lon")]
    for name in constant:
        of_file = np.ma.filled(static[name][:], np.nan).astype("f4")
        assert dataset[f"clim_{name}"].values.tobytes() == of_file.tobytes(), name
    print(f"{len(changing)} variables at {len(times)} times, {len(constant)} constant ones, off by {worst:.3f} ulp")


main(*sys.argv[1:])
