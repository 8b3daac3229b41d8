# Writes GRIB on an octahedral grid. Arguments: a folder, and a list in JSON of what to write there:
# {"file", "edition", "param", "run", "steps", "n", ...}. The value of a point is a function of the parameter, the
# level, the hour and the point, so that any mix-up shows.
import datetime
import json
import os
import sys

import eccodes
import numpy

folder = sys.argv[1]
for series in json.loads(sys.argv[2]):
    edition, n = series["edition"], series.get("n", 16)
    rows = [20 + 4 * row for row in range(n)]
    rows += rows[::-1]
    points = sum(rows)
    base = eccodes.codes_grib_new_from_samples(f"reduced_gg_pl_32_grib{edition}")
    if edition == 1:
        eccodes.codes_set(base, "N", n)
        eccodes.codes_set(base, "Nj", 2 * n)
    else:
        eccodes.codes_set(base, "N", n)
        eccodes.codes_set(base, "Nj", 2 * n)
        eccodes.codes_set(base, "numberOfDataPoints", points)
        eccodes.codes_set(base, "packingType", series.get("packing", "grid_ccsds"))
    eccodes.codes_set_array(base, "pl", rows)
    eccodes.codes_set(base, "dataType", series.get("type", "fc"))
    eccodes.codes_set(base, "typeOfLevel", series.get("level_type", "surface"))
    eccodes.codes_set(base, "level", series.get("level", 0))
    for key, value in series.get("keys", {}).items():
        eccodes.codes_set(base, key, value)
    with open(os.path.join(folder, series["file"]), "ab") as file:
        for run in series["runs"]:
            start = datetime.datetime.fromisoformat(run)
            for step in series["steps"]:
                handle = eccodes.codes_clone(base)
                eccodes.codes_set(handle, "dataDate", int(start.strftime("%Y%m%d")))
                eccodes.codes_set(handle, "dataTime", int(start.strftime("%H%M")))
                kind = series.get("kind", "accum" if series.get("accumulated") else None)
                if kind is not None:
                    if edition == 2:
                        eccodes.codes_set(handle, "productDefinitionTemplateNumber", 8)
                    eccodes.codes_set(handle, "paramId", series["param"])
                    eccodes.codes_set(handle, "stepType", kind)
                    since = step - series["interval"] if "interval" in series else series.get("since", 0)
                    eccodes.codes_set(handle, "stepRange", f"{since}-{step}")
                elif "member" in series:
                    eccodes.codes_set(handle, "productDefinitionTemplateNumber", 1)
                    eccodes.codes_set(handle, "number", series["member"])
                    eccodes.codes_set(handle, "paramId", series["param"])
                    eccodes.codes_set(handle, "step", step)
                else:
                    eccodes.codes_set(handle, "paramId", series["param"])
                    eccodes.codes_set(handle, "step", step)
                valid = start + datetime.timedelta(hours=step)
                hour = (valid - datetime.datetime(2020, 1, 1)).total_seconds() / 3600
                level = series.get("level", 0)
                values = 1000.0 * (series["param"] % 97) + 300 * level + hour + numpy.arange(points) / 1000
                if series.get("accumulated"):
                    values = step * (1 + numpy.arange(points) / 1000)
                if series.get("wavy"):
                    # Neither first nor last of some hours is their least or greatest.
                    values = values + (7 * hour + numpy.arange(points)) % 5 + 40 * series.get("member", 0)
                eccodes.codes_set(handle, "bitsPerValue", 24)
                if series.get("bitmap"):
                    eccodes.codes_set(handle, "bitmapPresent", 1)
                    values[::5] = eccodes.codes_get(handle, "missingValue", float)
                if series.get("holes"):
                    # Other points at each hour.
                    eccodes.codes_set(handle, "bitmapPresent", 1)
                    values[int(hour) % 7::11] = eccodes.codes_get(handle, "missingValue", float)
                eccodes.codes_set_values(handle, values)
                if [str(valid), series["param"]] not in series.get("leave_out", []):
                    eccodes.codes_write(handle, file)
                eccodes.codes_release(handle)
print("{}")
