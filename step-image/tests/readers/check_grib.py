# Compares a store with the messages it was made of. Arguments: the store, a JSON object with the names of its
# variables by [paramId, level], the length of a window in hours (0: none), the points, and the files. Prints what
# else a test wants to know.
import json
import sys

import eccodes
import numpy
import xarray

store, options, files = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3:]
names = {(param, level): name for param, level, name in options["names"]}
points = numpy.array(options["points"]) - 1 if options.get("points") else slice(None)
dataset = xarray.open_zarr(store)
fields, axis = {}, None
for path in files:
    with open(path, "rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            get = lambda key, kind=int: eccodes.codes_get(handle, key, kind)
            name = names.get((get("paramId"), get("level")))
            if name is None:
                continue
            date, hour = get("validityDate"), get("validityTime") // 100
            text = f"{date // 10000}-{date // 100 % 100:02}-{date % 100:02}T{hour:02}"
            values = eccodes.codes_get_values(handle)
            if get("bitmapPresent"):
                values[values == get("missingValue", float)] = numpy.nan
            fields[name, numpy.datetime64(text, "h")] = values
            if axis is None:
                axis = [eccodes.codes_get_array(handle, key) for key in ["latitudes", "longitudes"]]
            eccodes.codes_release(handle)

length = options.get("hours", 0)
checked, worst = 0, 0.0
for name in sorted(set(names.values())):
    found = dataset[name].values
    assert found.dtype == numpy.float32, (name, found.dtype)
    for number, time in enumerate(dataset["time"].values):
        hours = [time.astype("datetime64[h]") + hour for hour in range(length or 1)]
        of = numpy.stack([fields[name, hour][points] for hour in hours])
        if length:
            expected = of.mean(axis=0)
            off = numpy.abs(found[number] - expected) / numpy.spacing(numpy.abs(expected).astype("f4"))
            worst = max(worst, float(off.max()))
        else:
            assert found[number].tobytes() == of[0].astype("f4").tobytes(), (name, time)
        checked += 1
assert worst <= 1, worst
longitudes = (axis[1][points] + 180) % 360 - 180 if options.get("wrapped") else axis[1][points]
assert numpy.abs(dataset["latitude"].values - axis[0][points]).max() <= 1e-6
assert numpy.abs(dataset["longitude"].values - longitudes).max() <= 1e-6
if options.get("points"):
    assert (dataset["x"].values == points + 1).all() and dataset["x"].dtype == numpy.int64
print(json.dumps({
    "checked": checked,
    "times": [str(time)[:16] for time in dataset["time"].values],
    "dims": {name: list(dataset[name].dims) for name in dataset.data_vars},
    "attrs": {name: {key: str(value) for key, value in dataset[name].attrs.items()} for name in dataset.data_vars},
    "coords": sorted(dataset.coords),
}))
