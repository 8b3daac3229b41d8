"""Are the months of the synthetic land surface what a land-surface model leaves?

    land_months.py FOLDER MONTH HOURS    a month that `synthetic.py` wrote, 2020-02, every so many hours
"""

import sys
from pathlib import Path

import eccodes
import netCDF4
import numpy as np


def messages(path):
    with open(path, "rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            yield handle
            eccodes.codes_release(handle)


def main(folder, month, hours):
    folder, hours = Path(folder), int(hours)
    first, last = np.datetime64(month, "M").astype("datetime64[h]"), (np.datetime64(month, "M") + 1).astype("datetime64[h]")
    times = np.arange(first, last, np.timedelta64(hours, "h"))
    static = netCDF4.Dataset(folder / "surfclim.nc")
    index = static["x"][:].data - 1
    editions, expected = set(), {"fc": 6, "soil": 7, "snow": 4}
    for name, count in expected.items():
        found = {}
        for handle in messages(folder / month.replace("-", "") / f"{name}.grib"):
            get = lambda key: eccodes.codes_get(handle, key)
            assert get("gridType") == "reduced_gg"
            editions.add((name, get("edition")))
            valid = np.datetime64(f"{get('validityDate'):08d}"[:4] + "-" + f"{get('validityDate'):08d}"[4:6] + "-" + f"{get('validityDate'):08d}"[6:], "h")
            valid += np.timedelta64(get("validityTime") // 100, "h")
            found.setdefault((get("paramId"), get("level") if name == "snow" else 0), []).append(valid)
            if name == "fc":
                # The first is the end of the forecast before.
                start = first if valid > first else (np.datetime64(month, "M") - 1).astype("datetime64[h]")
                assert (valid - start).astype(int) == int(get("endStep")) > 0, (valid, get("endStep"))
            values = eccodes.codes_get_values(handle)
            missing = values == eccodes.codes_get(handle, "missingValue", float)
            assert np.array_equal(np.flatnonzero(~missing), index)
            if get("paramId") == 39:
                assert 0 < values[index].min() and values[index].max() < 1
            if get("paramId") == 139:
                assert 200 < values[index].min() and values[index].max() < 340
        assert len(found) == count, found.keys()
        assert all(np.array_equal(one, times) for one in found.values())
    assert editions == {("fc", 1), ("fc", 2), ("soil", 1), ("snow", 2)}
    forcing = netCDF4.Dataset(folder / month.replace("-", "") / "forcing.nc")
    assert np.array_equal(forcing["x"][:], index + 1)
    there = netCDF4.num2date(forcing["time"][:], forcing["time"].units, only_use_cftime_datetimes=False)
    assert np.array_equal(np.array(there, "datetime64[h]"), np.append(times, last))
    variables = [name for name in forcing.variables if name not in ("time", "x", "lat", "lon")]
    assert len(variables) == 10 and all(np.isfinite(forcing[name][:]).all() for name in variables)


if __name__ == "__main__":
    main(*sys.argv[1:])
