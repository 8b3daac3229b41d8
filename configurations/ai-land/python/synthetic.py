"""Months of a synthetic land surface as a land-surface model and its forcing leave them: GRIB 1 and 2, NetCDF.

    synthetic.py OUT --months 2020-01..2020-03 [--start 2020-01] [--every 1] [--rows 16]

OUT gets, for a reduced Gaussian grid with 20, 24, 28, … points in a row (1600 of them with 16 rows in a
hemisphere), of which some 460 are land,

    surfclim.nc           what does not change, at points of land; `x` counts the points of the grid from 1
    YYYYMM/fc.grib        forecast from the 1st, steps 1 to the last of the month but one, and before it the
                          last step of the month before, which is valid on the 1st at 00: editions 1 and 2
    YYYYMM/soil.grib      analysis of every hour: soil in edition 1
    YYYYMM/snow.grib      analysis of every hour: two layers of snow in edition 2
    YYYYMM/forcing.nc     weather at points of land, with the first time of the next month at the end

`--every 3` writes every third hour. The weather depends on time and place alone and the soil on all hours
since `--start`, so that every month can be written alone, and is the same each time.
"""

import argparse
from pathlib import Path

import eccodes
import netCDF4
import numpy as np

import bucket
import land

# Short name: parameter and edition. Those of ECMWF's table 128 are in edition 1.
FC = {"lai_lv": (66, 1), "lai_hv": (67, 1), "2t": (167, 1), "sro": (8, 1), "ssro": (9, 1), "snowc": (260038, 2)}
# Short name: parameter, and the depth in cm that its layer is from and to.
SOIL = {"swvl1": (39, (0, 7)), "swvl2": (40, (7, 28)), "swvl3": (41, (28, 100))}
SOIL |= {"stl1": (139, (0, 7)), "stl2": (170, (7, 28)), "stl3": (183, (28, 100)), "skt": (235, None)}
SNOW = {"sd": 228141, "rsn": 33}
BITS = 24
MISSING = -1e30
FORCING_UNITS = {
    "Wind_E": "m s-1", "Wind_N": "m s-1", "Tair": "K", "Qair": "kg kg-1", "PSurf": "Pa", "SWdown": "W m-2",
    "LWdown": "W m-2", "Rainf": "kg m-2 s-1", "Snowf": "kg m-2 s-1", "Ctpf": "1",
}  # fmt: skip


def grid(rows):
    """Points in each row from north to south, and latitude and longitude of all points."""
    counts = [20 + 4 * row for row in range(rows)]
    counts += counts[::-1]
    latitudes = np.degrees(np.arcsin(np.polynomial.legendre.leggauss(2 * rows)[0][::-1]))
    longitudes = [np.arange(count) * 360 / count for count in counts]
    return counts, np.repeat(latitudes, counts), np.concatenate(longitudes)


class Grib:
    """Writes messages on the grid; what is no land has no value."""

    def __init__(self, rows, counts, index):
        self.index, self.points = index, sum(counts)
        self.templates = {edition: self._template(edition, rows, counts) for edition in (1, 2)}

    def _template(self, edition, rows, counts):
        message = eccodes.codes_grib_new_from_samples(f"reduced_gg_pl_32_grib{edition}")
        first = float(np.degrees(np.arcsin(np.polynomial.legendre.leggauss(2 * rows)[0][-1])))
        ends = {"latitudeOfFirstGridPointInDegrees": first, "latitudeOfLastGridPointInDegrees": -first}
        ends |= {"longitudeOfFirstGridPointInDegrees": 0.0}
        ends |= {"longitudeOfLastGridPointInDegrees": 360 - 360 / max(counts)}
        # `N` and the rows belong together.
        keys = {"centre": 98, "N": rows, "Nj": 2 * rows}
        for key, value in keys.items():
            eccodes.codes_set(message, key, value)
        eccodes.codes_set_array(message, "pl", counts)
        for key, value in ends.items():
            eccodes.codes_set(message, key, value)
        eccodes.codes_set(message, "bitmapPresent", 1)
        eccodes.codes_set(message, "bitsPerValue", BITS)
        return message

    def write(self, file, parameter, edition, values, date, hour, step=0, layer=None, depth=None, kind="an"):
        message = eccodes.codes_clone(self.templates[edition])
        set_ = lambda key, value: eccodes.codes_set(message, key, value)
        if edition == 2:
            set_("productDefinitionTemplateNumber", 0)
        set_("dataDate", date)
        set_("dataTime", 100 * hour)
        set_("dataType", kind)
        set_("paramId", parameter)
        if layer is not None:
            set_("typeOfLevel", "snowLayer")
            set_("level", layer)
        elif depth is not None:
            set_("typeOfLevel", "depthBelowLandLayer")
            set_("topLevel", depth[0])
            set_("bottomLevel", depth[1])
        else:
            set_("typeOfLevel", "surface")
            set_("level", 0)
        set_("stepUnits", "h")
        set_("endStep", step)
        # A copy does not have it from its template.
        set_("missingValue", MISSING)
        field = np.full(self.points, MISSING)
        field[self.index] = values
        eccodes.codes_set_values(message, field)
        eccodes.codes_write(message, file)
        eccodes.codes_release(message)

    def close(self):
        for template in self.templates.values():
            eccodes.codes_release(template)


def month(text):
    try:
        return np.datetime64(text, "M")
    except ValueError:
        raise land.Refused(f"`{text}` is no month: write it as 2020-01") from None


def first_hour(of):
    """Hours of a month's beginning since 1970."""
    return int(of.astype("datetime64[h]").astype("i8"))


def hour_of_year(hour):
    """Hours since the year 2020 began, which is what the seasons count from."""
    return float(hour - first_hour(np.datetime64("2020-01", "M")))


def date_of(hour):
    return int(str(np.datetime64(hour, "h").astype("datetime64[D]")).replace("-", ""))


def write_static(path, surface, index):
    with netCDF4.Dataset(path, "w", format="NETCDF3_64BIT_OFFSET") as file:
        file.SOURCE = "synthetic land surface"
        file.createDimension("x", len(index))
        put(file, "x", "i4", index + 1, "1", "index of the point in the grid, from 1")
        put(file, "lat", "f4", surface.latitude, "degrees_north", "latitude")
        put(file, "lon", "f4", surface.longitude, "degrees_east", "longitude")
        for name, values in surface.static.items():
            put(file, name, "f4", values, "m2 s-2" if name == "geopot" else "1", name)


def put(file, name, kind, values, units, long_name):
    variable = file.createVariable(name, kind, ("x",))
    variable.units, variable.long_name = units, long_name
    variable[:] = values


def write_forcing(path, surface, index, first, last, every):
    """Weather from the first hour to the last, the first of the next month."""
    hours = np.arange(first, last + 1, every)
    with netCDF4.Dataset(path, "w", format="NETCDF4") as file:
        file.createDimension("time", None)
        file.createDimension("x", len(index))
        time = file.createVariable("time", "f8", ("time",))
        time.units, time.calendar = f"hours since {np.datetime64(int(first), 'h').astype('datetime64[s]')}".replace("T", " "), "standard"
        time[:] = hours - first
        put(file, "x", "i4", index + 1, "1", "index of the point in the grid, from 1")
        put(file, "lat", "f4", surface.latitude, "degrees_north", "latitude")
        put(file, "lon", "f4", surface.longitude, "degrees_east", "longitude")
        weather = [surface.weather(hour_of_year(hour)) for hour in hours]
        for name, units in FORCING_UNITS.items():
            options = {"compression": "zlib", "complevel": 1, "shuffle": True}
            variable = file.createVariable(name, "f4", ("time", "x"), fill_value=-9999.0, **options)
            variable.units, variable.long_name = units, name
            variable[:] = np.stack([one[name] for one in weather])


class Month:
    """The GRIB files of a month, being written; `begins` is the forecast that the month before ends with."""

    def __init__(self, folder, grib, of):
        self.grib = grib
        self.first, self.last = first_hour(of), first_hour(of + 1)
        self.before = first_hour(of - 1)
        self.files = {name: open(folder / f"{name}.grib", "wb") for name in ("fc", "soil", "snow")}

    def write(self, hour, fields):
        date, time = date_of(hour), (hour - self.first) % 24
        start = self.before if hour == self.first else self.first
        for name, (parameter, edition) in FC.items():
            self.grib.write(
                self.files["fc"], parameter, edition, fields[name], date_of(start), 0, hour - start, kind="fc"
            )
        for name, (parameter, depth) in SOIL.items():
            self.grib.write(self.files["soil"], parameter, 1, fields[name], date, time, depth=depth)
        for name, parameter in SNOW.items():
            for layer in (1, 2):
                of_layer = fields[f"{name}_l{layer}"]
                self.grib.write(self.files["snow"], parameter, 2, of_layer, date, time, layer=layer)

    def close(self):
        for file in self.files.values():
            file.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--months", required=True, help="first..last, or one")
    parser.add_argument("--start", help="the month that the soil starts from; the first one without")
    parser.add_argument("--every", type=int, default=1, help="hours between the times that are written; divides 6")
    parser.add_argument("--rows", type=int, default=16, help="rows of the grid in a hemisphere")
    given = parser.parse_args()
    first, _, last = given.months.partition("..")
    first, last = month(first), month(last or first)
    start = month(given.start) if given.start else first
    if not start <= first <= last:
        raise land.Refused(f"the months {start}, {first} and {last} are not in order")
    if given.every not in (1, 2, 3, 6) or not 4 <= given.rows <= 400:
        raise land.Refused("--every is 1, 2, 3 or 6, and --rows from 4 to 400")

    counts, latitude, longitude = grid(given.rows)
    index = np.flatnonzero(bucket.is_land(latitude, longitude))
    east = longitude[index]
    surface = bucket.Surface(latitude[index], np.where(east >= 180, east - 360, east))
    given.out.mkdir(parents=True, exist_ok=True)
    write_static(given.out / "surfclim.nc", surface, index)
    grib = Grib(given.rows, counts, index)
    state, months, open_month = surface.start(hour_of_year(first_hour(start))), {}, None
    for of in np.arange(first, last + 1):
        months[first_hour(of)] = of
    ran_off = np.zeros((2, len(index)))
    for hour in range(first_hour(start), first_hour(last + 1)):
        if of := months.get(hour):
            folder = given.out / str(of).replace("-", "")
            folder.mkdir()
            write_forcing(folder / "forcing.nc", surface, index, hour, first_hour(of + 1), given.every)
            if open_month:
                open_month.close()
            open_month = Month(folder, grib, of)
            print(folder)
        if open_month and (hour - open_month.first) % given.every == 0:
            fields = bucket.fields(surface, state, hour_of_year(hour))
            open_month.write(hour, fields | {"sro": ran_off[0], "ssro": ran_off[1]})
        state, ran_off = surface.hour(state, hour_of_year(hour))
    open_month.close()
    grib.close()


if __name__ == "__main__":
    land.run(main)
