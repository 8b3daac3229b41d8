"""Small hand-made step models, for what neural-lam 0.7.0 has no model: several datastores, a boundary grid.

All are `new = now + 0.4 tanh(now - before) - 0.1 (now - mean) + ...`, with terms that are linear in
forcing and static features; every feature, window position and node weighs differently.
"""

import json

import numpy as np
import onnx
import xarray as xr
from onnx import TensorProto, helper, numpy_helper


class Graph:
    """Collects the nodes and weights of an ONNX graph."""

    def __init__(self, seed):
        self.nodes, self.weights, self.inputs = [], [], []
        self.rng = np.random.default_rng(seed)

    def input(self, name, nodes, features):
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, nodes, features]))
        return name

    def constant(self, name, values):
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def random(self, name, *shape, scale):
        return self.constant(name, (scale * self.rng.standard_normal(shape)).astype("f4"))

    def op(self, kind, *inputs, **attributes):
        output = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def save(self, path, result, name, nodes, features):
        self.nodes.append(helper.make_node("Identity", [result], [name]))
        output = helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, nodes, features])
        graph = helper.make_graph(self.nodes, "step", self.inputs, [output], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)


def dynamics(g, now, before):
    slope = g.op("Tanh", g.op("Sub", now, before))
    grown = g.op("Add", now, g.op("Mul", slope, g.constant("inertia", np.float32(0.4))))
    return g.op("Sub", grown, g.op("Mul", now, g.constant("damping", np.float32(0.1))))


def grid(training):
    """The grid of a training zarr, first stacked dimension first; all cases here stack (x, y)."""
    x, y = (np.unique(training[d].values) for d in ("x", "y"))
    return dict(dims=["x", "y"], shape=[len(x), len(y)], coordinates=[x.tolist(), y.tolist()])


def features(trainings, *sources):
    names = [n for d, v in sources for n in trainings[d][f"{v}_feature"].values.tolist()]
    return dict(sources=[dict(datastore=d, variable=v) for d, v in sources], names=names)


def interface(trainings, boundary_width, inputs, output):
    return dict(
        version=1, model="hand-made", step_seconds=3600, statistics_split="train",
        state=features(trainings, ("lam", "state")), grid=grid(trainings["lam"]),
        boundary_width=boundary_width, inputs=inputs, output=output,
    )


def nearest(inner, outer):
    """Index of the nearest point of the outer grid, for every point of the inner one."""
    distance = sum((inner[d].values[:, None] - outer[d].values[None, :]) ** 2 for d in ("x", "y"))
    return distance.argmin(axis=1)


def two_datastores(trainings, onnx_path):
    lam = trainings["lam"]
    n, f = lam.sizes["grid_index"], lam.sizes["state_feature"]
    driving = features(trainings, ("lam", "forcing"), ("ocean", "forcing"))
    terrain = features(trainings, ("lam", "static"))
    g = Graph(1)
    width = 3 * len(driving["names"])
    forcing = g.input("driving", n, width)
    before, now = g.input("state_before", n, f), g.input("state_now", n, f)
    static = g.input("terrain", n, len(terrain["names"]))
    new = dynamics(g, now, before)
    new = g.op("Add", new, g.op("MatMul", forcing, g.random("w_driving", width, f, scale=0.08)))
    new = g.op("Add", new, g.op("MatMul", static, g.random("w_terrain", len(terrain["names"]), f, scale=0.1)))
    g.save(onnx_path, new, "state_next", n, f)
    return interface(trainings, 2, [
        dict(name="state_now", role="state", steps_back=0),
        dict(name="state_before", role="state", steps_back=1),
        dict(name="terrain", role="static", features=terrain),
        dict(name="driving", role="forcing", features=driving, past=1, future=1),
    ], "state_next")


def boundary_grid(trainings, onnx_path):
    lam, era = trainings["lam"], trainings["era"]
    n, f, outside = lam.sizes["grid_index"], lam.sizes["state_feature"], era.sizes["grid_index"]
    around = features(trainings, ("era", "forcing"))
    g = Graph(2)
    width = 4 * len(around["names"])
    now, before = g.input("prev_state", n, f), g.input("prev_prev_state", n, f)
    boundary = g.input("boundary_forcing", outside, width)
    near = g.op("Gather", boundary, g.constant("nearest", nearest(lam, era).astype("i8")), axis=1)
    new = dynamics(g, now, before)
    new = g.op("Add", new, g.op("MatMul", near, g.random("w_boundary", width, f, scale=0.06)))
    g.save(onnx_path, new, "new_state", n, f)
    return interface(trainings, 0, [
        dict(name="prev_state", role="state", steps_back=0),
        dict(name="prev_prev_state", role="state", steps_back=1),
        dict(name="boundary_forcing", role="forcing", features=around, past=1, future=2, grid=grid(era)),
    ], "new_state")


def no_forcing(trainings, onnx_path):
    lam = trainings["lam"]
    n, f = lam.sizes["grid_index"], lam.sizes["state_feature"]
    g = Graph(3)
    x2, x0, x1 = (g.input(name, n, f) for name in ("x2", "x0", "x1"))
    curve = g.op("Sub", g.op("Sub", x0, x1), g.op("Sub", x1, x2))
    new = g.op("Add", dynamics(g, x0, x1), g.op("MatMul", curve, g.random("w_curve", f, f, scale=0.3)))
    g.save(onnx_path, new, "x", n, f)
    back = [dict(name=f"x{k}", role="state", steps_back=k) for k in range(3)]
    return interface(trainings, 0, back, "x")


MODELS = {"two-datastores": two_datastores, "boundary-grid": boundary_grid, "no-forcing": no_forcing}


def make(name, case, training_paths):
    """Leaves model.onnx and interface.json in the case folder."""
    trainings = {n: xr.open_zarr(path) for n, path in training_paths.items()}
    made = MODELS[name](trainings, case / "model.onnx")
    (case / "interface.json").write_text(json.dumps(made, indent=1) + "\n")
