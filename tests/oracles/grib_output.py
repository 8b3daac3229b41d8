"""A small forecast as a model writes it, and the GRIB files that became of it, read by ECMWF's own Python library.

    grib_output.py make FOLDER MEMBERS GRID [KIND]           one folder a member, with a Zarr store for each window
    grib_output.py check FOLDER MEMBER MEMBERS GRID [KIND]   the published files of a member, against the closed form

GRID is `O16` (points in a row) or `regular` (latitudes and longitudes). KIND is a fault, `gaps`, or `days`: windows of
three days.
"""

import pathlib
import sys

import eccodes
import numpy as np
import xarray as xr

ANALYSIS_TIME = np.datetime64("2022-04-07T03:00")
STEPS, EACH, HOURS = 10, 4, 6
LATITUDES = np.array([-10.0, -9.5, -9.0])
LONGITUDES = np.array([359.5, 359.75, 0.0, 0.25])

LEVELS = (500, 850)

# By name in the dataset: its short name, kind of level and level (or levels) in GRIB, kind of step, and a value that
# it has.
CODED = {
    "2t": ("2t", "heightAboveGround", 2, "instant", 250),
    "msl": ("msl", "meanSea", 0, "instant", 100_000),
    "t_850": ("t", "isobaricInhPa", 850, "instant", 280),
    "tp": ("tp", "surface", 0, "accum", 0),
    "rain_in_all": ("lsp", "surface", 0, "accum since the start", 5),
    "wind": ("u", "isobaricInhPa", LEVELS, "instant", 10),
    "soil": ("vsw", "soilLayer", 1, "instant", 1),
}
NAMES = [*CODED, "cos_wd"]


def lengths(kind):
    """Steps of the forecast, and of a window."""
    return (24, 12) if kind == "days" else (STEPS, STEPS if kind == "whole" else EACH)


def octahedral(n):
    north = [20 + 4 * row for row in range(n)]
    return north + north[::-1]


def points(grid):
    return sum(octahedral(16)) if grid == "O16" else len(LATITUDES) * len(LONGITUDES)


def values(member, name, step, grid, level=0):
    """Numbers that tell member, variable, level, step and point, have the same range in each field, and are not exact
    when they are packed."""
    base = level + (CODED[name][-1] if name in CODED else 0)
    return (base + 200 * member + 7 * step + np.arange(points(grid)) % 1000 * 0.73).astype("float32")


def coordinates(grid):
    """Dimensions, and the coordinates along them."""
    if grid == "regular":
        lat, lon = LATITUDES.astype("float32"), LONGITUDES.astype("float32")
        return ("lat", "lon"), {
            "lat": ("lat", lat, {"units": "degrees_north"}),
            "lon": ("lon", lon, {"units": "degrees_east"}),
        }
    rows = octahedral(16)
    found = np.degrees(np.arcsin(np.polynomial.legendre.leggauss(32)[0]))[::-1]
    latitudes = np.concatenate([np.full(count, lat) for count, lat in zip(rows, found)])
    longitudes = np.concatenate([np.arange(count) * 360 / count for count in rows])
    return ("cell",), {
        "latitude": ("cell", latitudes, {"units": "degrees_north"}),
        "longitude": ("cell", longitudes - 360 * (longitudes >= 180), {"units": "degrees_east"}),
    }


def window(member, first, last, grid):
    steps = np.arange(first, last + 1)
    dims, coords = coordinates(grid)
    shape = (len(LATITUDES), len(LONGITUDES)) if grid == "regular" else (-1,)
    data = {
        name: (("time", *dims), np.stack([values(member, name, s, grid).reshape(shape) for s in steps]))
        for name in NAMES
    }
    at_levels = [[values(member, "wind", s, grid, level).reshape(shape) for level in LEVELS] for s in steps]
    data["wind"] = (("time", "pressure", *dims), np.stack(at_levels))
    coords["pressure"] = ("pressure", [100 * level for level in LEVELS], {"units": "Pa"})
    time = ANALYSIS_TIME + steps * np.timedelta64(HOURS, "h")
    dataset = xr.Dataset(data, {"time": time.astype("datetime64[ns]"), **coords})
    dataset.time.encoding = {"units": "hours since 2022-04-07T03:00:00", "dtype": "int64"}
    return dataset


def make(folder, members, grid, kind=None):
    steps, each = lengths(kind)
    for member in range(members):
        for first in range(1, steps + 1, each):
            last = min(first + each - 1, steps)
            dataset = window(member, first, last, grid)
            if kind == "nan" and member == 1 and first > EACH:
                dataset["2t"][0, 5] = np.nan
            if kind == "order":
                dataset = dataset.isel(cell=slice(None, None, -1))
            if kind == "gaps":
                dataset["cos_wd"][:] = np.nan
                dataset["2t"][:, 5] = np.nan
            name = f"h{(first - 1) * HOURS:03}-{last * HOURS:03}" if kind != "whole" else "whole"
            path = pathlib.Path(folder) / f"member{member}" / name
            keep = {name: {"write_empty_chunks": True} for name in NAMES}
            dataset.to_zarr(path, zarr_format=3, consolidated=False, encoding=keep)


def check_field(handle, member, members, grid, first, last, has_gaps):
    get = lambda key, kind=None: eccodes.codes_get(handle, key, kind)
    level = (get("shortName"), get("typeOfLevel"), get("topLevel"))
    if level[1] == "soilLayer":
        assert get("bottomLevel") == level[2] + 1, level
    named = lambda coded: coded[:2] == level[:2] and level[2] in np.atleast_1d(coded[2])
    names = [name for name, coded in CODED.items() if named(coded)]
    assert len(names) == 1, level
    name = names[0]
    at = level[2] if name == "wind" else 0
    eccodes.codes_set(handle, "stepUnits", 1)
    end = get("endStep", int)
    step, rest = divmod(end, HOURS)
    assert rest == 0 and first < end <= last, (name, end)
    kind = CODED[name][3]
    start = {"instant": end, "accum": end - HOURS}.get(kind, 0)
    assert (get("stepType"), get("startStep", int)) == (kind.split()[0], start), name
    assert (get("dataDate"), get("dataTime")) == (20220407, 300), name
    assert (get("number"), get("numberOfForecastsInEnsemble")) == (member, members), name
    assert get("dataType") == ("cf" if member == 0 else "pf"), name
    assert get("edition") == 2 and get("packingType") == "grid_ccsds", name
    assert get("bitsPerValue") == 16, name
    if grid == "O16":
        assert get("gridType") == "reduced_gg" and get("N") == 16 and get("isOctahedral"), name
    else:
        assert get("gridType") == "regular_ll", name
        found = eccodes.codes_get_array(handle, "latitudes"), eccodes.codes_get_array(handle, "longitudes")
        lat, lon = np.meshgrid(LATITUDES, LONGITUDES, indexing="ij")
        assert np.abs(found[0] - lat.ravel()).max() < 1e-6, found[0]
        apart = (found[1] - lon.ravel() + 180) % 360 - 180
        assert np.abs(apart).max() < 1e-6, found[1]
    eccodes.codes_set(handle, "missingValue", -1e30)
    decoded = eccodes.codes_get_values(handle)
    due = values(member, name, step, grid, at).astype("float64")
    if has_gaps and name == "2t":
        assert decoded[5] == -1e30, decoded[5]
        due[5] = decoded[5]
    # A value has 16 bits: half of the 65,535th part of the range, which is a power of two, at most. The message says, too,
    # how far off it may be.
    largest = min(max(np.ptp(values(member, name, step, grid)), 1) / 65535, get("packingError", float))
    assert np.abs(decoded - due).max() <= largest, (name, step, np.abs(decoded - due).max())
    return name, at, step


def check(folder, member, members, grid, kind=None):
    prefix = f"aifs_ens_forecast_20220407_0300_member{member:03}"
    steps, each = lengths(kind)
    windows = [(first * HOURS, min(first + each, steps) * HOURS) for first in range(0, steps, each)]
    there = sorted(path.name for path in pathlib.Path(folder).iterdir())
    assert there == [f"{prefix}_h{first:03}-{last:03}.grib" for first, last in windows], there
    for name, (first, last) in zip(there, windows):
        found = []
        with open(pathlib.Path(folder) / name, "rb") as file:
            while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
                found.append(check_field(handle, member, members, grid, first, last, kind == "gaps"))
                eccodes.codes_release(handle)
        fields = [(name, 0) for name in CODED if name != "wind"] + [("wind", level) for level in LEVELS]
        due = [(*field, step) for field in fields for step in range(first // HOURS + 1, last // HOURS + 1)]
        assert sorted(found) == sorted(due), found


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", folder, members, grid, *kind]:
            make(folder, int(members), grid, *kind)
        case ["check", folder, member, members, grid, *kind]:
            check(folder, int(member), int(members), grid, *kind)
        case _:
            sys.exit(__doc__)
