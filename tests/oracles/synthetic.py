"""A model whose forecast is known in closed form, to the last bit: for ensembles, streams and kills.

`make` writes an artifact (ONNX model, interface version 2) and an input state per member, on an
octahedral grid. Fields are whole numbers, and the model is `2 x(t) - x(t - 6 h)`, so that
`x_k = x_0 + k (x_0 - x_-1)` is exact in float32: a step, member, field or time level that is lost,
repeated, shifted or swapped is a wrong number. `check` compares stores with that. `pickles` writes the same
states as anemoi's runners read them, float64 and without the time of the first; `hostile`, one that runs a program
when it is loaded.

    synthetic.py make FOLDER [--rows 8] [--members 5] [--date 2026-10-01T00:00]
    synthetic.py golden FOLDER [--steps 3]
    synthetic.py pickles FOLDER [--rows 8] [--members 5] [--date 2026-10-01T00:00]
    synthetic.py hostile PICKLE PROGRAM
    synthetic.py forecast STORE [--steps 3]
    synthetic.py spoil STATE FOLDER KIND...
    synthetic.py check --member 3 --seed 7 --steps 132 [--rows 8] [--first 1] STORE...
"""

import argparse
import json
import pickle
from pathlib import Path

import netCDF4
import numpy as np
import onnx
import xarray as xr
from onnx import TensorProto, helper

DATE, HOURS = "2026-10-01T00:00", 6
# Name, offset, and the range that is allowed.
FIELDS = {
    "2t": (200, [150, 60000]),
    "10u": (-20, [-200, 60000]),
    "msl": (101325, [80000, 200000]),
    "t_850": (220, [150, 60000]),
    "u_850": (-30, [-200, 60000]),
    "v_850": (-40, [-200, 60000]),
    "q_850": (0, [0, 60000]),
    "sd": (0, [0, 60000]),
    "lsm": (0, [0, 1]),
    "z": (0, [-5000, 90000]),
}
CONSTANT, DIAGNOSTIC = ["lsm", "z"], ["tp", "cos_wd"]
PREDICTED = [name for name in FIELDS if name not in CONSTANT]
UNITS = {"2t": "K", "10u": "m s-1", "msl": "Pa", "t_850": "K", "u_850": "m s-1", "v_850": "m s-1"}
UNITS |= {"q_850": "kg kg-1", "sd": "m", "tp": "m", "cos_wd": "1"}


def grid(rows):
    """Latitude and longitude of the octahedral grid with 16 + 4 i points in row i of a hemisphere."""
    counts = [16 + 4 * i for i in range(1, rows + 1)]
    counts += counts[::-1]
    latitudes = 90 - (np.arange(2 * rows) + 0.5) * 90 / rows
    longitudes = [np.arange(n) * 360 / n for n in counts]
    return np.repeat(latitudes, counts), np.concatenate(longitudes)


def land(cells):
    return (np.arange(cells) % 3 != 0).astype("f4")


def start(name, member, cells):
    """The field at the analysis time and how much it grows in a step."""
    cell, number = np.arange(cells), list(FIELDS).index(name)
    if name == "lsm":
        return land(cells), 0
    if name == "z":
        return (100 * (cell % 50)).astype("f4"), 0
    return (FIELDS[name][0] + 1000 * member + 10 * number + cell % 7).astype("f4"), number + 1


def state(member, rows, date):
    latitude, longitude = grid(rows)
    times = np.datetime64(date, "ns") + np.array([-HOURS, 0], "timedelta64[h]")
    fields = {}
    for name in FIELDS:
        now, growth = start(name, member, latitude.size)
        values = np.stack([now - growth, now]).astype("f4")
        if name == "sd":
            values[:, land(latitude.size) == 0] = np.nan
        fields[name] = (("time", "cell"), values)
    fields["latitude"] = ("cell", latitude, {"units": "degrees_north", "standard_name": "latitude"})
    fields["longitude"] = ("cell", longitude, {"units": "degrees_east", "standard_name": "longitude"})
    return xr.Dataset(fields, coords={"time": times})


def model(path, cells):
    count, predicted = len(FIELDS), len(PREDICTED)
    tensor = lambda name, *shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    constants, nodes = [], []

    def constant(name, values):
        constants.append(onnx.numpy_helper.from_array(np.asarray(values), name))
        return name

    def cut(source, name, first, last, axis):
        ends = [constant(f"{name}_{end}", [value]) for end, value in (("first", first), ("last", last), ("axis", axis))]
        nodes.append(helper.make_node("Slice", [source, *ends], [name]))
        return name

    before, now = cut("x", "before", 0, 1, 0), cut("x", "now", 1, 2, 0)
    nodes.append(helper.make_node("Mul", [now, constant("two", np.float32(2))], ["twice"]))
    nodes.append(helper.make_node("Sub", ["twice", before], ["all"]))
    cut("all", "next", 0, predicted, 1)
    u = cut("now", "u", list(FIELDS).index("u_850"), list(FIELDS).index("u_850") + 1, 1)
    v = cut("now", "v", list(FIELDS).index("v_850"), list(FIELDS).index("v_850") + 1, 1)
    nodes.append(helper.make_node("Sub", [u, v], ["cos_wd"]))
    nodes.append(helper.make_node("Reshape", ["noise", constant("row", [1, 1, cells])], ["tp"]))
    nodes.append(helper.make_node("Concat", ["tp", "cos_wd"], ["diagnostics"], axis=1))
    outputs = [tensor("next", 1, predicted, cells), tensor("diagnostics", 1, 2, cells)]
    inputs = [tensor("x", 2, count, cells), tensor("noise", cells)]
    graph = helper.make_graph(nodes, "synthetic", inputs, outputs, constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, path)


def interface(cells):
    on_sea = {"field": "lsm", "equals": 0}
    fields = []
    for name, (_, allowed) in FIELDS.items():
        field = {"name": name, "range": allowed}
        if name in CONSTANT:
            field["constant"] = True
        if name == "sd":
            field["missing"] = {"where": on_sea, "fill": 0.0}
        fields.append(field)
    return {
        "version": 2,
        "model": "synthetic",
        "step_seconds": HOURS * 3600,
        "standardization": "none",
        "input_state": {
            "schema": "state/1",
            "input": "state",
            "offsets_seconds": [-HOURS * 3600, 0],
            "fields": fields,
            "coordinates": ["latitude", "longitude"],
        },
        "grid": {"dims": ["cell"], "shape": [cells]},
        "inputs": [
            {"name": "x", "role": "state", "steps_back": [1, 0], "dims": ["time", "feature", "grid"]},
            {"name": "noise", "role": "noise", "generator": "hash-u8/1", "dims": ["grid"]},
        ],
        "outputs": [
            {
                "name": "next",
                "role": "next_state",
                "dims": ["batch", "feature", "grid"],
                "features": PREDICTED,
                "missing": {"sd": on_sea},
            },
            {
                "name": "diagnostics",
                "role": "diagnostics",
                "dims": ["batch", "feature", "grid"],
                "features": DIAGNOSTIC,
            },
        ],
        "attributes": {name: {"units": units} for name, units in UNITS.items()},
    }


def make(folder, rows, members, date):
    folder = Path(folder)
    cells = grid(rows)[0].size
    artifact = folder / "artifact"
    artifact.mkdir(parents=True)
    model(artifact / "checkpoint.onnx", cells)
    (artifact / "interface.json").write_text(json.dumps(interface(cells), indent=2))
    (artifact / "artifact.yaml").write_text("format_version: 1\nname: synthetic\n")
    for member in range(members):
        write(state(member, rows, date), folder / "states" / f"member{member:03}.zarr")


def golden(folder, steps):
    """The golden case: a state, and what the model makes of it."""
    folder, rows = Path(folder), 8
    cells = grid(rows)[0].size
    write(state(0, rows, DATE), folder / "inputs" / "state.zarr")
    times = np.datetime64(DATE, "ns") + np.arange(1, steps + 1) * np.timedelta64(HOURS, "h")
    values = lambda name: np.stack([expected(name, 0, 0, step, cells) for step in range(1, steps + 1)])
    fields = {name: (("time", "cell"), values(name)) for name in [*PREDICTED, "cos_wd"]}
    write(xr.Dataset(fields, coords={"time": times}), folder / "expected" / "fields.zarr")
    case = {
        "version": 1,
        "analysis_time": f"{DATE}Z",
        "forecast_duration": f"PT{steps * HOURS}H",
        "inputs": {"state": {}},
        "outputs": ["fields"],
        "tolerances": {"*": {}},
    }
    (folder / "case.yaml").write_text(json.dumps(case))


def forecast(target, steps):
    """A forecast of two variables from the first member's state, as a program in Python writes it."""
    cells = grid(8)[0].size
    times = np.datetime64(DATE, "ns") + np.arange(1, steps + 1) * np.timedelta64(HOURS, "h")
    values = lambda name: np.stack([expected(name, 0, 0, step, cells) for step in range(1, steps + 1)])
    fields = {name: (("time", "cell"), values(name)) for name in ("2t", "msl")}
    write(xr.Dataset(fields, coords={"time": times}), target)


def pickles(folder, rows, members, date):
    folder = Path(folder)
    folder.mkdir(parents=True)
    for member in range(members):
        ds = state(member, rows, date)
        fields = {name: ds[name].values.astype("f8") for name in FIELDS}
        content = {"date": ds.time.values[-1].astype("datetime64[s]").item(), "fields": fields}
        content |= {f"{name}s": ds[name].values for name in ("latitude", "longitude")}
        with open(folder / f"input_state_member_{member:03}.pkl", "wb") as file:
            pickle.dump(content, file)


class Hostile:
    def __init__(self, program):
        self.program = program

    def __reduce__(self):
        return exec, (self.program,)


def hostile(target, program):
    with open(target, "wb") as file:
        pickle.dump(Hostile(program), file)


def write(ds, path):
    encoding = {"time": {"units": "hours since 2026-01-01", "dtype": "i8"}}
    ds.to_zarr(path, zarr_format=3, consolidated=True, encoding=encoding)


def spoil(source, folder, kinds):
    """Other states, called after what is wrong with each, and the same one in other forms."""
    ds = xr.open_zarr(source).load().drop_encoding()
    for kind in kinds:
        spoil_one(ds.copy(deep=True), Path(folder) / kind, kind)


def spoil_one(ds, target, kind):
    if kind == "npz":
        np.savez(target, time=ds.time.values, **{n: ds[n].values for n in ds.data_vars})
        return
    if kind == "npz-seconds":
        seconds = ds.time.values.astype("datetime64[s]").astype("i8")
        np.savez_compressed(target, time=seconds, **{n: ds[n].values for n in ds.data_vars})
        return
    if kind.startswith("netcdf"):
        netcdf(ds, kind, f"{target}.nc")
        return
    if kind == "date":
        ds["time"] = ds.time - np.timedelta64(24, "h")
    elif kind == "interval":
        ds["time"] = [ds.time.values[1] - np.timedelta64(24, "h"), ds.time.values[1]]
    elif kind == "missing-field":
        ds = ds.drop_vars("q_850")
    elif kind == "extra-field":
        ds["w_850"] = ds["q_850"]
    elif kind == "shape":
        ds = ds.isel(cell=slice(0, -1))
    elif kind == "order":
        ds = ds.transpose("cell", "time")
    elif kind == "dtype":
        ds["msl"] = ds.msl.astype("f8")
    elif kind == "nan":
        ds["2t"][1, 5] = np.nan
    elif kind == "inf":
        ds["2t"][0, 5] = np.inf
    elif kind == "nan-mask":
        ds["sd"][1, 0] = 1  # on sea
    elif kind == "nan-on-land":
        ds["sd"][1, 1] = np.nan
    elif kind == "range":
        ds["msl"] = (ds.msl / 100).astype("f4")
    elif kind == "not-constant":
        ds["z"][0, 3] += 1
    else:
        raise SystemExit(f"no such kind: {kind}")
    write(ds, target)


def netcdf(ds, kind, target):
    encoding = {"time": {"units": "hours since 2026-01-01", "dtype": "i4"}}
    form = "NETCDF4"
    if kind == "netcdf-3":
        form = "NETCDF3_64BIT"
    elif kind == "netcdf-4":
        encoding |= {name: {"zlib": True, "shuffle": True} for name in FIELDS}
        encoding["msl"] |= {"dtype": ">f4"}
    elif kind == "netcdf-packed":
        packed = {"dtype": "i4", "scale_factor": np.float32(0.5), "add_offset": np.float32(64), "_FillValue": -9}
        encoding |= {name: packed for name in FIELDS}
        ds["time"] = ds.time.astype("datetime64[ns]")
        encoding["time"] = {"units": "days since 2026-01-01", "dtype": "f8"}
    elif kind == "netcdf-date":
        ds["time"] = ds.time - np.timedelta64(24, "h")
    elif kind == "netcdf-order":
        ds = ds.transpose("cell", "time")
    elif kind == "netcdf-nan":
        ds["2t"][1, 5] = np.nan
    elif kind == "netcdf-double":
        ds["msl"] = ds.msl.astype("f8")
    elif kind == "netcdf-text":
        ds["msl"] = ds.msl.astype("i4").astype(str)
    elif kind == "netcdf-missing":
        ds = ds.drop_vars("q_850")
    elif kind not in ("netcdf-groups", "netcdf-huge", "netcdf-unwritten"):
        raise SystemExit(f"no such kind: {kind}")
    if kind in ("netcdf-huge", "netcdf-unwritten"):
        ds = ds.drop_vars("msl")
    ds.to_netcdf(target, format=form, engine="netcdf4", encoding=encoding)
    with netCDF4.Dataset(target, "a") as file:
        if kind == "netcdf-groups":
            file.createGroup("other")
        elif kind == "netcdf-huge":
            file.createDimension("many", 1 << 40)
            file.createVariable("msl", "f4", ("time", "many"), chunksizes=(1, 1024))
        elif kind == "netcdf-unwritten":
            file.createVariable("msl", "f4", ("time", "cell"))


def mixed(value):
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def noise(seed, member, step, cells):
    """`hash-u8/1` of docs/artifact-format.md, by another program."""
    with np.errstate(over="ignore"):
        value = np.zeros(cells, "u8")
        for number in (seed, member, step, np.arange(cells, dtype="u8")):
            value = mixed((value ^ np.asarray(number, "u8")) + np.uint64(0x9E3779B97F4A7C15))
    return (value & np.uint64(255)).astype("f4")


def expected(name, member, seed, step, cells):
    if name == "tp":
        return noise(seed, member, step, cells)
    if name == "cos_wd":  # of the state that the step starts from
        return expected("u_850", member, seed, step - 1, cells) - expected("v_850", member, seed, step - 1, cells)
    now, growth = start(name, member, cells)
    values = now + np.float32(step * growth)
    return np.where(land(cells) == 0, np.float32("nan"), values) if name == "sd" else values


def check(stores, member, seed, steps, first, rows, date, variables):
    names = variables.split(",") if variables else PREDICTED + DIAGNOSTIC
    cells = grid(rows)[0].size
    done = first - 1
    for store in stores:
        ds = xr.open_zarr(store).load()
        times = np.datetime64(date, "ns") + np.arange(done + 1, done + 1 + ds.time.size) * np.timedelta64(HOURS, "h")
        np.testing.assert_array_equal(ds.time.values, times)
        assert ds.attrs["member"] == member and ds.attrs["seed"] == seed, ds.attrs
        np.testing.assert_array_equal(ds.latitude.values, grid(rows)[0])
        for name in names:
            variable = ds[name]
            assert variable.dims == ("time", "cell") and variable.dtype == "float32", variable
            assert variable.attrs["units"] == UNITS[name], variable.attrs
            for index in range(ds.time.size):
                of_step = expected(name, member, seed, done + 1 + index, cells)
                np.testing.assert_array_equal(variable.values[index], of_step, f"{name} at step {done + 1 + index}")
        assert set(ds.data_vars) == set(names), set(ds.data_vars)
        done += ds.time.size
    assert done == steps, f"{done} steps of {steps}"


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("make", "pickles"):
        command = commands.add_parser(name)
        command.add_argument("folder")
        command.add_argument("--rows", type=int, default=8)
        command.add_argument("--members", type=int, default=5)
        command.add_argument("--date", default=DATE)
    command = commands.add_parser("hostile")
    command.add_argument("target")
    command.add_argument("program")
    command = commands.add_parser("golden")
    command.add_argument("folder")
    command.add_argument("--steps", type=int, default=3)
    command = commands.add_parser("forecast")
    command.add_argument("target")
    command.add_argument("--steps", type=int, default=3)
    command = commands.add_parser("spoil")
    for name in ("source", "folder"):
        command.add_argument(name)
    command.add_argument("kinds", nargs="+")
    command = commands.add_parser("check")
    command.add_argument("stores", nargs="+")
    for name in ("member", "seed", "steps"):
        command.add_argument(f"--{name}", type=int, required=True)
    command.add_argument("--first", type=int, default=1)
    command.add_argument("--rows", type=int, default=8)
    command.add_argument("--date", default=DATE)
    command.add_argument("--variables")
    arguments = vars(parser.parse_args())
    globals()[arguments.pop("command")](**arguments)


if __name__ == "__main__":
    main()
