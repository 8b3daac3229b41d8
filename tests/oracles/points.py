"""A model of points on small stores, and its forecast by ONNX Runtime in this process.

    points.py make FOLDER            an artifact, and stores of land and weather over (time, x)
    points.py golden FOLDER          a golden case of that model beside it, of three steps
    points.py fixed ONNX POINTS      the model for so many points and no others
    points.py spoil FOLDER KIND...   the store of weather or of land with something wrong, in FOLDER/KIND
    points.py roll ARTIFACT STORES START STEPS OUT
                                     the forecast as `[step, point, state]` float32, in OUT
    points.py compare OUT ARTIFACT FORECAST
                                     the same against what the runner wrote, bit for bit
    points.py widen STORE OUT POINTS TIMES
                                     a store with its points repeated, chunks of 10 times

STORES is JSON: the path of each input by name.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import xarray as xr
from onnx import TensorProto, helper

POINTS, TIMES, HOURS = 7, 40, 6
STATIC, FORCING, STATES = ["clim_cvh", "clim_tvh"], ["lai", "met_tair", "met_rainf"], ["swvl1", "stl1"]
ORDER = ["met_tair", "stl1", "clim_cvh", "lai", "met_rainf", "clim_tvh", "swvl1"]


def trees(random, features, target):
    """A TreeEnsembleRegressor of 100 trees of depth 3, as a node of one target."""
    lists = {name: [] for name in ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids")}
    leaves = {name: [] for name in ("treeids", "nodeids", "ids", "weights")}
    for tree in range(100):
        for node in range(15):
            leaf = node >= 7
            of_node = {
                "treeids": tree,
                "nodeids": node,
                "featureids": 0 if leaf else int(random.integers(features)),
                "values": 0.0 if leaf else float(np.float32(random.normal())),
                "modes": "LEAF" if leaf else "BRANCH_LT",
                "truenodeids": 0 if leaf else 2 * node + 1,
                "falsenodeids": 0 if leaf else 2 * node + 2,
            }
            for name, value in of_node.items():
                lists[name].append(value)
            if leaf:
                weight = float(np.float32(random.normal() / 50))
                for name, value in {"treeids": tree, "nodeids": node, "ids": 0, "weights": weight}.items():
                    leaves[name].append(value)
    attributes = {f"nodes_{name}": values for name, values in lists.items()}
    attributes |= {f"target_{name}": values for name, values in leaves.items()}
    return helper.make_node(
        "TreeEnsembleRegressor", ["table"], [f"t{target}"], domain="ai.onnx.ml", n_targets=1,
        base_values=[0.01], aggregate_function="SUM", post_transform="NONE", **attributes,
    )  # fmt: skip


def model(path, points="point"):
    random = np.random.default_rng(7)
    nodes = [trees(random, len(ORDER), target) for target in range(len(STATES))]
    nodes.append(helper.make_node("Concat", [f"t{target}" for target in range(len(STATES))], ["gain"], axis=1))
    tensor = lambda name, columns: helper.make_tensor_value_info(name, TensorProto.FLOAT, [points, columns])
    graph = helper.make_graph(nodes, "points", [tensor("table", len(ORDER))], [tensor("gain", len(STATES))])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, path)


def interface():
    role = lambda name: "static" if name in STATIC else "forcing" if name in FORCING else "state"
    features = [{"name": name, "role": role(name)} for name in ORDER]
    features[0]["scale"] = {"mean": 281.3, "std": 7.1}
    return {
        "version": 3,
        "model": "points",
        "step_seconds": HOURS * 3600,
        "points": "x",
        "inputs": {"state": "land", "forcing": "weather", "static": "land"},
        "input": "table",
        "features": features,
        "output": "gain",
        "predicts": "increments",
        "states": [
            {"name": "swvl1", "lower": 0.0, "upper": 0.5},
            {"name": "stl1", "scale": {"mean": 0.1, "std": 1.7}},
        ],
        "coordinates": ["lat", "lon"],
        "attributes": {"swvl1": {"units": "m3 m-3"}},
    }


def stores():
    random = np.random.default_rng(3)
    times = np.datetime64("2020-01-31T00", "ns") + np.arange(TIMES) * np.timedelta64(HOURS, "h")
    field = lambda scale, offset: (("time", "x"), (offset + scale * random.normal(size=(TIMES, POINTS))).astype("f4"))
    place = {
        "x": ("x", np.arange(POINTS, dtype="i4") + 60870),
        "lat": ("x", np.linspace(50, 52, POINTS).astype("f4"), {"units": "degrees_north"}),
        "lon": ("x", np.linspace(-1, 2, POINTS).astype("f4"), {"units": "degrees_east"}),
    }
    land = {"swvl1": field(0.05, 0.2), "stl1": field(3, 281), "skt": field(3, 281)}
    land["stl1"] = (*land["stl1"], {"units": "K", "long_name": "Soil temperature level 1"})
    land["clim_cvh"] = (("time", "x"), np.repeat(random.random((1, POINTS)), TIMES, 0))
    land["clim_tvh"] = ("x", random.integers(1, 20, POINTS))
    weather = {"met_tair": field(5, 281), "met_rainf": field(1, 0), "lai": field(1, 3)}
    # The positions of two programs, one of which counts from 0 to 360.
    near = place | {"lon": ("x", (place["lon"][1] % 360 + 4e-5).astype("f4"))}
    return (
        xr.Dataset(land | place, coords={"time": times}),
        xr.Dataset(weather | near, coords={"time": times}),
    )


def write(store, path, chunk=7):
    encoding = {name: {"chunks": (chunk, store.sizes["x"])} for name in store if store[name].dims == ("time", "x")}
    store.to_zarr(path, encoding=encoding, consolidated=True)


def make(folder):
    artifact = folder / "artifact"
    artifact.mkdir(parents=True)
    model(artifact / "checkpoint.onnx")
    (artifact / "interface.json").write_text(json.dumps(interface()))
    for name, store in zip(("land", "weather"), stores()):
        write(store, folder / name)


def spoil(folder, kinds):
    for kind in kinds:
        land, weather = stores()
        time = weather.time.values
        match kind:
            case "no-forcing":
                weather = weather.drop_vars("met_rainf")
            case "gap":
                weather = weather.drop_sel(time=time[[4, 9]])
            case "short":
                weather = weather.isel(time=slice(0, 12))
            case "between":
                weather = xr.concat([weather, weather.isel(time=[3]).assign_coords(time=[time[3] + np.timedelta64(3, "h")])], "time").sortby("time")
            case "nan":
                weather["met_tair"][5, 2] = np.nan
            case "fewer":
                weather = weather.isel(x=slice(0, 6))
            case "others":
                weather = weather.assign_coords(x=weather.x + 1)
            case "moved":
                weather["lat"] = weather.lat + 0.1 * (weather.x == 60873)
            case "turned":
                weather["met_tair"] = weather.met_tair.transpose()
            case "no-state":
                land = land.drop_vars("stl1")
            case "late":
                land = land.isel(time=slice(2, None))
            case "nan-state":
                land["swvl1"][0, 3] = np.nan
            case "no-static":
                land = land.drop_vars("clim_tvh")
            case "no-coordinate":
                land, weather = land.drop_vars("lat"), weather.drop_vars("lat")
        write(land, folder / kind / "land")
        write(weather, folder / kind / "weather")


def golden(folder):
    case, start, steps = folder / "golden", "2020-02-01T00:00", 3
    for name in ("land", "weather"):
        shutil.copytree(folder / name, case / "inputs" / f"{name}.zarr")
    paths = {name: folder / name for name in ("land", "weather")}
    roll(folder / "artifact", paths, start, steps, folder / "golden.npy")
    predicted = np.load(folder / "golden.npy")
    times = np.datetime64(start, "ns") + np.arange(1, steps + 1) * np.timedelta64(HOURS, "h")
    fields = {name: (("time", "x"), predicted[:, :, column]) for column, name in enumerate(STATES)}
    xr.Dataset(fields, coords={"time": times, "x": stores()[0].x}).to_zarr(case / "expected" / "all.zarr")
    told = {
        "version": 1,
        "analysis_time": start + "Z",
        "forecast_duration": f"PT{steps * HOURS}H",
        "inputs": {"land": {}, "weather": {}},
        "outputs": ["all"],
        "tolerances": {"*": {"absolute": 0.0}},
    }
    (case / "case.yaml").write_text(json.dumps(told))


def roll(artifact, paths, start, steps, out):
    """The loop of the notebook, in the types and the order of operations that docs/artifact-format.md says."""
    told = json.loads((artifact / "interface.json").read_text())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(artifact / "checkpoint.onnx", options, providers=["CPUExecutionProvider"])
    opened = {role: xr.open_zarr(paths[name]) for role, name in told["inputs"].items()}
    start = np.datetime64(start.rstrip("Z"), "ns")
    step = np.timedelta64(told["step_seconds"], "s")
    times = start + step * np.arange(steps)
    names = [state["name"] for state in told["states"]]
    first = opened["state"].sel(time=start)
    state = np.stack([first[name].values for name in names], -1).astype("f4")
    columns = {}
    for feature in told["features"]:
        name = feature["name"]
        if feature["role"] == "static":
            values = opened["static"][name]
            columns[name] = values.sel(time=start).values if "time" in values.dims else values.values
        elif feature["role"] == "forcing":
            columns[name] = opened["forcing"][name].sel(time=times).values
    table = np.empty((state.shape[0], len(told["features"])), "f4")
    predicted = np.empty((steps, *state.shape), "f4")
    for number in range(steps):
        for column, feature in enumerate(told["features"]):
            name = feature["name"]
            match feature["role"]:
                case "static":
                    values = columns[name]
                case "forcing":
                    values = columns[name][number]
                case "state":
                    values = state[:, names.index(name)]
            values = np.asarray(values, "f4")
            if scale := feature.get("scale"):
                values = (values - np.float32(scale["mean"])) / np.float32(scale["std"])
            table[:, column] = values
        gain = session.run(None, {told["input"]: table})[0]
        following = np.empty_like(state)
        for column, one in enumerate(told["states"]):
            values = gain[:, column]
            if scale := one.get("scale"):
                values = values * np.float32(scale["std"]) + np.float32(scale["mean"])
            if told["predicts"] == "increments":
                values = state[:, column] + values
            following[:, column] = np.clip(values, one.get("lower", -np.inf), one.get("upper", np.inf))
        predicted[number] = state = following
    np.save(out, predicted)


def compare(rolled, artifact, forecast):
    expected, found = np.load(rolled), xr.open_zarr(forecast, consolidated=True)
    names = [state["name"] for state in json.loads((artifact / "interface.json").read_text())["states"]]
    assert expected.shape == (found.sizes["time"], found.sizes["x"], len(names)), (expected.shape, found)
    for column, name in enumerate(names):
        values = found[name].values
        assert values.dtype == "f4" and found[name].dims == ("time", "x"), found[name]
        differ = values != expected[:, :, column]
        assert not differ.any(), f"{name}: {differ.sum()} of {differ.size} differ, the first at step {np.argwhere(differ)[0]}"
    assert np.isfinite(expected).all()


def widen(store, out, points, times):
    """Its points again and again, so that there are as many as on a whole grid."""
    store = xr.open_zarr(store).isel(time=slice(0, times)).load()
    wide = store.isel(x=np.arange(points) % store.sizes["x"]).assign_coords(x=np.arange(points, dtype="i4"))
    for name in wide.variables:
        wide[name].encoding.clear()
        wide[name].attrs = {"units": wide[name].attrs.get("units", "1")} if name != "time" else {}
    write(wide, out, chunk=10)


def main(command, *arguments):
    match command:
        case "make":
            make(Path(arguments[0]))
        case "golden":
            golden(Path(arguments[0]))
        case "fixed":
            model(arguments[0], int(arguments[1]))
        case "spoil":
            shutil.rmtree(arguments[0], ignore_errors=True)
            spoil(Path(arguments[0]), arguments[1:])
        case "roll":
            artifact, paths, start, steps, out = arguments
            roll(Path(artifact), json.loads(paths), start, int(steps), out)
        case "compare":
            compare(arguments[0], Path(arguments[1]), arguments[2])
        case "widen":
            widen(arguments[0], arguments[1], int(arguments[2]), int(arguments[3]))
        case other:
            sys.exit(f"no such command: {other}")


if __name__ == "__main__":
    main(*sys.argv[1:])
