"""Train, export and run one case with neural-lam itself: the oracle is what its own classes compute.

usage: neural_lam_case.py FOLDER BOUNDARY_WIDTH GRAPH STEPS ANALYSIS_TIME...
FOLDER/train holds the configurations, FOLDER/source the sources; leaves FOLDER/train/*.zarr,
FOLDER/model.onnx, FOLDER/model.json and FOLDER/oracle/*.zarr.
"""

import json
import os
import sys
from pathlib import Path

os.environ.update(WANDB_MODE="disabled", CUDA_VISIBLE_DEVICES="", PYTHONWARNINGS="ignore")

import numpy as np
import onnx
import torch
import yaml
from mllam_data_prep.create_dataset import create_dataset_zarr
from neural_lam import create_graph, train_model
from neural_lam.config import load_config_and_datastore
from neural_lam.datastore.mdp import MDPDatastore
from neural_lam.weather_dataset import WeatherDataset

from forecast_store import write_forecast

CHECKPOINT = "runs/case/checkpoints/last.ckpt"


def command_line(arguments):
    """`training_cli_args.yaml`, a list of one-entry mappings, as neural-lam's command line."""
    pairs = [pair for entry in arguments for pair in entry.items()]
    return [text for name, value in pairs for text in (f"--{name}", str(value))]


def train(config, graph, arguments):
    for datastore in Path(".").glob("*.datastore.yaml"):
        zarr = Path(datastore.name.replace(".yaml", ".zarr"))
        if not zarr.exists():
            zarr.mkdir()  # mllam-data-prep removes what it overwrites, and fails where nothing is
            create_dataset_zarr(datastore)
    if not Path("graph", graph).exists():
        flags = ["--hierarchical"] if graph == "hierarchical" else []
        create_graph.cli(["--config_path", config, "--name", graph, *flags])
    if not Path(CHECKPOINT).exists():
        steps = str(next(e["ar_steps_eval"] for e in arguments if "ar_steps_eval" in e))
        train_model.main([
            "--config_path", config, *command_line(arguments), "--num_workers", "0", "--val_steps_to_log", "1", steps,
            "--val_interval", "1000", "--num_sanity_val_steps", "0", "--logger_run_name", "case",
        ])
    if not Path(CHECKPOINT).exists():  # neural-lam swallows exceptions and ends well
        sys.exit("training left no checkpoint")


class Step(torch.nn.Module):
    """One step of a trained predictor: the new state alone."""

    def __init__(self, predictor):
        super().__init__()
        self.predictor = predictor

    def forward(self, prev_state, prev_prev_state, forcing):
        return self.predictor(prev_state, prev_prev_state, forcing)[0]


def constants(graph):
    found = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name in ("value", "value_int", "value_ints"):
            value = onnx.helper.get_attribute_value(node.attribute[0])
            is_tensor = node.attribute[0].name == "value"
            found[node.output[0]] = onnx.numpy_helper.to_array(value) if is_tensor else np.array(value)
    return found


def split_without_sequences(graph):
    """Rewrites SplitToSequence and SequenceAt to Split, since pure-Rust runtimes lack sequences."""
    known, nodes, parts = constants(graph), [], {}
    shapes = {v.name: v.type.tensor_type.shape for v in [*graph.value_info, *graph.input]}
    for node in graph.node:
        if node.op_type == "SplitToSequence":
            source, name = node.input[0], node.output[0]
            axis, sizes = onnx.helper.get_node_attr_value(node, "axis"), known[node.input[1]]
            if sizes.ndim == 0:
                sizes = np.full(shapes[source].dim[axis].dim_value // int(sizes), int(sizes))
            parts[name] = [f"{name}_part{i}" for i in range(len(sizes))]
            graph.initializer.append(onnx.numpy_helper.from_array(sizes.astype("i8"), f"{name}_sizes"))
            inputs = [source, f"{name}_sizes"]
            nodes.append(onnx.helper.make_node("Split", inputs, parts[name], name=node.name, axis=axis))
        elif node.op_type == "SequenceAt":
            part = parts[node.input[0]][int(known[node.input[1]])]
            nodes.append(onnx.helper.make_node("Identity", [part], node.output, name=node.name))
        else:
            nodes.append(node)
    kept = [v for v in graph.value_info if v.name not in parts]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.value_info.extend(kept)


def strip_notes(model):
    """Deletes what the exporter notes about its own run: stack traces with paths of the build machine."""
    graph = model.graph
    for part in [*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer]:
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.metadata_props[:]


def export(module, store, args, boundary_width):
    predictor = module.forecaster.predictor
    nodes, window = predictor.num_grid_nodes, args.num_past_forcing_steps + args.num_future_forcing_steps + 1
    n_state, n_forcing = store.get_num_data_vars("state"), store.get_num_data_vars("forcing")
    shapes = [(1, nodes, n_state), (1, nodes, n_state), (1, nodes, n_forcing * window)]
    with torch.no_grad():
        torch.onnx.export(
            Step(predictor), tuple(torch.zeros(s) for s in shapes), "../model.onnx", dynamo=True, optimize=False,
            external_data=False, verbose=False,
            input_names=["prev_state", "prev_prev_state", "forcing"], output_names=["new_state"],
        )
    model = onnx.load("../model.onnx")
    strip_notes(model)
    split_without_sequences(model.graph)
    used = {name for node in model.graph.node for name in node.input}
    for node in [n for n in model.graph.node if n.op_type == "Constant" and n.output[0] not in used]:
        model.graph.node.remove(node)
    for tensor in [t for t in model.graph.initializer if t.name not in used]:
        model.graph.initializer.remove(tensor)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "../model.onnx")
    shape = store.grid_shape_state  # its `x` is the first stacked dimension, whatever that is called
    facts = dict(
        model=args.model, graph=args.graph, opset=model.opset_import[0].version, exporter="dynamo",
        num_grid_nodes=int(nodes), stack_dims=list(store.spatial_coordinates),
        grid_shape=dict(zip(store.spatial_coordinates, (int(shape.x), int(shape.y)))),
        n_boundary_points=boundary_width, step_seconds=int(store.step_length.total_seconds()),
        state_features=store.get_vars_names("state"), forcing_features=store.get_vars_names("forcing"),
        static_features=store.get_vars_names("static"),
        num_past_forcing_steps=args.num_past_forcing_steps, num_future_forcing_steps=args.num_future_forcing_steps,
        state_mean=module.state_mean.tolist(), state_std=module.state_std.tolist(),
        forcing_mean=module.forcing_mean.tolist(), forcing_std=module.forcing_std.tolist(),
        baked_into_onnx=["weights", "graph edges and edge features", "standardized static features",
                         "state diff mean/std", "residual add", "output clamping"],
        not_in_onnx=["state/forcing standardization", "forcing windowing", "boundary overwrite",
                     "de-standardization"],
    )
    Path("../model.json").write_text(json.dumps(facts, indent=1) + "\n")
    print("model.onnx", Path("../model.onnx").stat().st_size, sorted({n.op_type for n in model.graph.node}))


def forecast(module, store, args, steps, analysis_time):
    """neural-lam's forecast whose newest initial state is that of `analysis_time`."""
    dataset = WeatherDataset(
        store, split="test", ar_steps=steps, num_past_forcing_steps=args.num_past_forcing_steps,
        num_future_forcing_steps=args.num_future_forcing_steps,
    )
    first_target = analysis_time + np.timedelta64(store.step_length)
    starts = [dataset[i][3][0].item() for i in range(len(dataset))]
    index = starts.index(first_target.astype("datetime64[ns]").astype("i8"))
    init, target, forcing, times = dataset[index]
    batch = tuple(part[None] for part in (init, target, forcing, times))
    with torch.no_grad():
        s_init, s_target, s_forcing, _ = module.on_after_batch_transfer(batch, 0)
        standardized = module.forecaster(s_init, s_forcing, s_target)[0][0]
        physical = standardized * module.state_std + module.state_mean
    interior = module.interior_mask_bool
    error = ((physical - target) ** 2)[:, interior].mean(1).sqrt() / module.state_std
    still = ((init[1] - target) ** 2)[:, interior].mean(1).sqrt() / module.state_std
    mean_error, mean_still = ((e.mean(1)[[0, -1]]).numpy().round(2) for e in (error, still))
    print(analysis_time, f"rmse / std at the first and last step: {mean_error}, of persistence {mean_still}")
    state = dataset.da_state
    return write_forecast(
        f"../oracle/{str(analysis_time)[:16].replace(':', '')}Z.zarr",
        standardized=standardized.numpy(), physical=physical.numpy(), times=times.numpy().astype("datetime64[ns]"),
        names=store.get_vars_names("state"), units=store.get_vars_units("state"),
        long_names=store.get_vars_long_names("state"), dims=store.spatial_coordinates,
        coordinates={d: state[d].values for d in store.spatial_coordinates},
        attrs=dict(analysis_time=f"{str(analysis_time)[:16]}Z", made_by="neural-lam 0.7.0"),
    )


def main():
    folder, width, graph, steps, *analysis_times = sys.argv[1:]
    os.chdir(Path(folder, "train"))
    torch.set_num_threads(1)
    # neural-lam's command line knows no boundary width: it is the default of this constructor
    MDPDatastore.__init__.__defaults__ = (int(width), True)
    arguments = yaml.safe_load(Path("training_cli_args.yaml").read_text())
    train("config.yaml", graph, arguments)
    config, store = load_config_and_datastore("config.yaml")
    module = train_model.load_forecaster_module_from_checkpoint(CHECKPOINT, config, store).eval()
    args = torch.load(CHECKPOINT, weights_only=False)["hyper_parameters"]["args"]
    export(module, store, args, int(width))
    for time in analysis_times:
        forecast(module, store, args, int(steps), np.datetime64(time, "s"))


if __name__ == "__main__":
    main()
