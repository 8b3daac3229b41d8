"""Makes a larger case for ci/bench: source data, training statistics and a step model as ONNX.

The model has the shape of neural-lam's graph_lam (encode the grid onto a mesh, pass messages on the
mesh, decode to the grid) on 200 x 180 points with hidden size 64; its weights are random, for only its
time matters. Everything else is made as for a trained model, by mllam-data-prep.

usage: bench_model.py EXAMPLE_FOLDER OUT_FOLDER
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import xarray as xr
import yaml
from onnx import TensorProto, helper, numpy_helper

NX, NY, TIMES, STEP_HOURS = 200, 180, 60, 3
HIDDEN, LAYERS, STRIDE = 64, 4, 3  # the mesh has every third point in each direction
STATE = ["t2m", "u10m", "v10m"]
FORCING = ["swavr0m", "toa_radiation", "hour_of_day_sin", "day_of_year_cos"]
STATIC = ["orography", "lsm"]
PAST, FUTURE, BOUNDARY = 1, 1, 10

random = np.random.default_rng(20220401)


def write_source(store):
    x, y = np.arange(NX) * 2500.0, np.arange(NY) * 2500.0
    time = np.datetime64("2022-04-01T00", "ns") + np.arange(TIMES) * np.timedelta64(STEP_HOURS, "h")
    phase = x[None, None, :] / 9e4 + y[None, :, None] / 7e4 + np.arange(TIMES)[:, None, None] / 5

    def field(mean, amplitude, kind=np.sin):
        noise = random.normal(0, amplitude / 10, phase.shape)
        return ("time", "y", "x"), (mean + amplitude * kind(phase) + noise).astype("f4")

    variables = {
        "t2m": (*field(280, 6), {"units": "K", "long_name": "2 metre temperature"}),
        "u10m": (*field(3, 5, np.cos), {"units": "m s**-1", "long_name": "10 metre u wind"}),
        "v10m": (*field(-1, 4), {"units": "m s**-1", "long_name": "10 metre v wind"}),
        "swavr0m": (*field(9e5, 8e5, np.cos), {"units": "J m**-2", "long_name": "shortwave"}),
        "orography": (("y", "x"), random.uniform(0, 300, (NY, NX)).astype("f4"), {"units": "m", "long_name": "height"}),
        "lsm": (("y", "x"), (random.uniform(0, 1, (NY, NX)) > 0.5).astype("f4"), {"units": "1", "long_name": "land-sea mask"}),
    }
    lon, lat = np.meshgrid(9 + x / 6.2e4, 54 + y / 1.11e5)
    coordinates = {"time": time, "y": y, "x": x, "lat": (("y", "x"), lat), "lon": (("y", "x"), lon)}
    dataset = xr.Dataset(variables, coordinates)
    encoding = {name: {"chunks": (12, NY, NX)} for name in (*STATE, "swavr0m")}
    dataset.to_zarr(store, mode="w", zarr_format=2, consolidated=True, encoding=encoding)
    return time


def write_training(example, folder, time):
    """Configurations after those of the example, and the training dataset with its statistics."""
    config = yaml.safe_load((example / "train/danra.datastore.yaml").read_text())
    config["output"]["coord_ranges"]["time"] = {"start": str(time[0])[:16], "end": str(time[-1])[:16], "step": f"PT{STEP_HOURS}H"}
    for split in config["output"]["splitting"]["splits"].values():
        split.update(start=str(time[0])[:16], end=str(time[-1])[:16])
    (folder / "danra.datastore.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    for name in ("config.yaml", "training_cli_args.yaml"):
        (folder / name).write_text((example / "train" / name).read_text())
    subprocess.run([sys.executable, "-m", "mllam_data_prep", "danra.datastore.yaml"], cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Graph:
    """An ONNX graph under construction; every method returns the name of what it adds."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def add(self, operator, *inputs, **attributes):
        name = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def constant(self, array):
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def mlp(self, inputs, size, out, norm=True):
        """Two layers with a Swish between, then layer normalization."""
        x = inputs[0] if len(inputs) == 1 else self.add("Concat", *inputs, axis=-1)
        for width, last in ((HIDDEN, False), (out, True)):
            weights = random.normal(0, size**-0.5, (size, width)).astype("f4")
            x = self.add("Add", self.add("MatMul", x, self.constant(weights)), self.constant(np.zeros(width, "f4")))
            if not last:
                x = self.add("Mul", x, self.add("Sigmoid", x))
            size = width
        if norm:
            x = self.add("LayerNormalization", x, self.constant(np.ones(out, "f4")), self.constant(np.zeros(out, "f4")), axis=-1)
        return x

    def messages(self, senders, receivers, edges):
        """An interaction network: the receivers' representation after messages along the edges."""
        source, target = edges
        features = self.constant(random.normal(0, 1, (1, len(source), 4)).astype("f4"))
        sent = self.add("Gather", senders, self.constant(source), axis=1)
        received = self.add("Gather", receivers, self.constant(target), axis=1)
        message = self.mlp([features, sent, received], 4 + 2 * HIDDEN, HIDDEN)
        index = self.add("Expand", self.constant(target.reshape(1, -1, 1)), self.constant(np.array([1, len(target), HIDDEN])))
        zeros = self.add("Mul", receivers, self.constant(np.float32(0)))
        summed = self.add("ScatterElements", zeros, index, message, axis=1, reduction="add")
        return self.add("Add", receivers, self.mlp([receivers, summed], 2 * HIDDEN, HIDDEN))


def edges():
    """Grid to mesh, within the mesh, mesh to grid (the four surrounding mesh points), as index pairs."""
    mx, my = NX // STRIDE + 1, NY // STRIDE + 1
    ix, iy = (a.ravel() for a in np.meshgrid(np.arange(NX), np.arange(NY), indexing="ij"))
    grid = ix * NY + iy
    around = [np.minimum(ix // STRIDE + dx, mx - 1) * my + np.minimum(iy // STRIDE + dy, my - 1) for dx in (0, 1) for dy in (0, 1)]
    to_grid = np.concatenate(around), np.tile(grid, 4)
    jx, jy = (a.ravel() for a in np.meshgrid(np.arange(mx), np.arange(my), indexing="ij"))
    pairs = []
    for dx, dy in [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0)]:
        inside = (0 <= jx + dx) & (jx + dx < mx) & (0 <= jy + dy) & (jy + dy < my)
        pairs.append(np.stack([(jx * my + jy)[inside], ((jx + dx) * my + jy + dy)[inside]]))
    return (grid, around[0]), tuple(np.concatenate(pairs, axis=1)), to_grid, mx * my


def write_model(path):
    points, windows = NX * NY, len(FORCING) * (PAST + FUTURE + 1)
    g = Graph()
    to_mesh, in_mesh, to_grid, mesh_points = edges()
    static = g.constant(random.normal(0, 1, (1, points, len(STATIC))).astype("f4"))
    width = 2 * len(STATE) + windows + len(STATIC)
    grid = g.mlp(["prev_state", "prev_prev_state", "forcing", static], width, HIDDEN)
    mesh = g.mlp([g.constant(random.normal(0, 1, (1, mesh_points, 2)).astype("f4"))], 2, HIDDEN)
    mesh = g.messages(grid, mesh, to_mesh)
    for _ in range(LAYERS):
        mesh = g.messages(mesh, mesh, in_mesh)
    grid = g.messages(mesh, grid, to_grid)
    change = g.add("Mul", g.mlp([grid], HIDDEN, len(STATE), norm=False), g.constant(np.float32(0.01)))
    g.nodes.append(helper.make_node("Add", ["prev_state", change], ["new_state"]))

    def value(name, features):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, points, features])

    inputs = [value("prev_state", 3), value("prev_prev_state", 3), value("forcing", windows)]
    graph = helper.make_graph(g.nodes, "step", inputs, [value("new_state", 3)], g.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def write_facts(path):
    facts = dict(
        model="graph_lam, untrained", num_grid_nodes=NX * NY, stack_dims=["x", "y"], grid_shape={"x": NX, "y": NY},
        n_boundary_points=BOUNDARY, step_seconds=STEP_HOURS * 3600, state_features=STATE, forcing_features=FORCING,
        static_features=STATIC, num_past_forcing_steps=PAST, num_future_forcing_steps=FUTURE,
    )
    path.write_text(json.dumps(facts, indent=1))


def main():
    example, out = Path(sys.argv[1]), Path(sys.argv[2])
    for folder in ("source", "train", "onnx"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    time = write_source(out / "source/single_levels.zarr")
    write_training(example, out / "train", time)
    write_model(out / "onnx/graph.onnx")
    write_facts(out / "onnx/graph.json")


main()
