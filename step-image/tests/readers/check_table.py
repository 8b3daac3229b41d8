# Compares a store with what a table makes of messages, which is said again here, by eccodes' own keys. Arguments: the
# store; a JSON object with the length of windows in hours (0: none) and the variables by name, each with its "param",
# which "levels", "member", "from" and "to" (steps) it takes, its "method", and the dimension of its levels ("dim", else
# one level, "level"); and the files. Prints the times, dimensions and attributes that the store has.
import json
import sys

import eccodes
import numpy
import xarray

store, options, files = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3:]
length = options["hours"]
hour = numpy.timedelta64(1, "h")
messages = []
for path in files:
    with open(path, "rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            get = lambda key: eccodes.codes_get(handle, key, int)
            date = get("dataDate")
            run = numpy.datetime64(f"{date // 10000}-{date // 100 % 100:02}-{date % 100:02}", "h") + get("dataTime") // 100 * hour
            values = eccodes.codes_get_values(handle)
            if get("bitmapPresent"):
                values[values == eccodes.codes_get(handle, "missingValue", float)] = numpy.nan
            messages.append({
                "param": get("paramId"), "level": get("level"), "step": get("endStep"), "run": run,
                "member": get("number") if eccodes.codes_is_defined(handle, "number") else None,
                "from": run + get("startStep") * hour, "to": run + get("endStep") * hour,
                "values": values,
            })
            eccodes.codes_release(handle)


def window(fields, begin, method):
    """The value of a window, of its fields in the order of time."""
    end = begin + length * hour
    if method == "deaccumulate":
        at = {field["to"]: field["values"] for field in fields}
        return at[end] - at.get(begin, 0.0)
    instants = all(field["from"] == field["to"] for field in fields)
    inside = lambda field: begin <= field["from"] and (field["to"] < end if instants else field["to"] <= end)
    values = numpy.stack([field["values"] for field in sorted(filter(inside, fields), key=lambda field: field["to"])])
    return {"mean": lambda: values.mean(axis=0), "sum": lambda: values.sum(axis=0), "min": lambda: values.min(axis=0),
            "max": lambda: values.max(axis=0), "last": lambda: values[-1]}[method]()


dataset = xarray.open_zarr(store)
assert set(dataset.data_vars) == set(options["variables"]), sorted(dataset.data_vars)
checked = 0
for name, wanted in options["variables"].items():
    found = dataset[name]
    dim = wanted.get("dim")
    levels = wanted.get("levels", [wanted.get("level")])
    if dim is not None:
        assert dataset[dim].values.tolist() == sorted(levels), (name, dataset[dim].values)
    for number, level in enumerate(sorted(levels) if dim is not None else levels):
        fields = [m for m in messages if m["param"] == wanted["param"] and (level is None or m["level"] == level)
                  and wanted.get("member") in (None, m["member"])
                  and wanted.get("from", 0) <= m["step"] <= wanted.get("to", 10**6)]
        assert fields, name
        ours = found.isel({dim: number}) if dim is not None else found
        assert ours.dtype == numpy.float32 and ours.dims == ("time", "x"), (name, ours.dims)
        for at, time in enumerate(dataset["time"].values.astype("datetime64[h]")):
            if length:
                expected = window(fields, time, wanted["method"])
            else:
                (field,) = [field for field in fields if field["to"] == time]
                expected = field["values"]
            if wanted.get("method") in ("mean", "sum", "deaccumulate"):
                missing = numpy.isnan(expected)
                assert (numpy.isnan(ours.values[at]) == missing).all(), (name, time)
                off = numpy.abs(ours.values[at] - expected) / numpy.spacing(numpy.abs(expected).astype("f4"))
                assert off[~missing].max() <= 1, (name, time, off)
            else:
                assert ours.values[at].tobytes() == expected.astype("f4").tobytes(), (name, time)
            checked += 1
print(json.dumps({
    "checked": checked,
    "missing": {name: int(dataset[name].isnull().sum()) for name in dataset.data_vars},
    "times": [str(time)[:13] for time in dataset["time"].values],
    "dims": {name: list(dataset[name].dims) for name in dataset.data_vars},
    "attrs": {name: {key: str(value) for key, value in dataset[name].attrs.items()} for name in dataset.data_vars},
}))
