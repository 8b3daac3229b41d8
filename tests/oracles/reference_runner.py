"""Reference runner: mllam-data-prep prepares, numpy windows and standardizes, onnxruntime steps.

Written from the specification of neural-lam's pipeline, without neural-lam, torch or any code of
mlwm, so that its forecasts are an independent check of mlwm's.

usage: reference_runner.py case CASE_FOLDER [--out FOLDER]
           runs every forecast of CASE_FOLDER/case.yaml, prints the differences from the oracles and
           fails where one is larger than the case's tolerance; --out keeps the forecasts
       reference_runner.py artifact ARTIFACT_FOLDER --inputs datastore.input=zarr,... --steps N
                           --analysis-time T [--time-layout time|forecast] --out STORE
           runs an unpacked inference artifact
"""

import argparse
import copy
import json
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import mllam_data_prep as mdp
import numpy as np
import onnxruntime
import xarray as xr
import yaml
from loguru import logger

from forecast_store import along, differences, write_forecast

create_dataset_module = sys.modules["mllam_data_prep.create_dataset"]
EPSILON = np.float32(np.finfo(np.float32).eps)


@dataclass
class Model:
    """All that a forecast needs beside the inputs."""

    session: onnxruntime.InferenceSession
    interface: dict
    configs: dict  # mllam-data-prep configuration by datastore
    statistics: dict  # opened zarr by datastore


# ---------------------------------------------------------------------------- what is given


def datastores(nl_config_path):
    """Path of each datastore's configuration, by name."""
    config = yaml.safe_load(nl_config_path.read_text())
    named = config.get("datastores")
    if named is None:
        path = config["datastore"]["config_path"]
        named = {Path(path).name.removesuffix(".yaml").removesuffix(".datastore"): config["datastore"]}
    return {name: nl_config_path.parent / entry["config_path"] for name, entry in named.items()}


def interface_of_facts(facts, datastore):
    """The interface that an export script's flat facts about one neural-lam model mean."""

    def features(variable):
        return dict(sources=[dict(datastore=datastore, variable=variable)], names=facts[f"{variable}_features"])

    return dict(
        version=1, step_seconds=facts["step_seconds"], statistics_split="train", state=features("state"),
        grid=dict(dims=facts["stack_dims"], shape=[facts["grid_shape"][d] for d in facts["stack_dims"]]),
        boundary_width=facts["n_boundary_points"],
        inputs=[
            dict(name="prev_state", role="state", steps_back=0),
            dict(name="prev_prev_state", role="state", steps_back=1),
            dict(name="forcing", role="forcing", features=features("forcing"),
                 past=facts["num_past_forcing_steps"], future=facts["num_future_forcing_steps"]),
        ],
        output="new_state",
    )


def load(nl_config_path, interface, onnx_path, statistics_paths):
    configs = {name: mdp.Config.from_yaml_file(path) for name, path in datastores(nl_config_path).items()}
    if "inputs" not in interface:
        interface = interface_of_facts(interface, next(iter(configs)))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(onnx_path), options, providers=["CPUExecutionProvider"])
    return Model(session, interface, configs, {name: xr.open_zarr(statistics_paths[name]) for name in configs})


def load_artifact(folder):
    statistics = {p.name.removesuffix(".datastore.stats.zarr"): p for p in (folder / "stats").glob("*.zarr")}
    interface = json.loads((folder / "interface.json").read_text())
    return load(folder / "configs/config.yaml", interface, folder / "checkpoint.onnx", statistics)


def load_case(folder, case):
    statistics = {name: folder / path for name, path in case["training_zarrs"].items()}
    interface = json.loads((folder / case["interface"]).read_text())
    return load(folder / case["nl_config"], interface, folder / case["onnx"], statistics)


# ---------------------------------------------------------------------------- preparation


def time_dimension(entry):
    mapping = entry.dim_mapping.get("time")
    return mapping.dim if mapping else None


def as_time_series(ds, time_dim, layout, analysis_time):
    """Of forecast-shaped data, the one forecast issued at the analysis time, on its valid times."""
    if layout == "time" or "analysis_time" not in ds.dims:
        return ds
    ds = ds.sel(analysis_time=analysis_time, drop=True)
    ds = ds.assign_coords(elapsed_forecast_duration=analysis_time + ds.elapsed_forecast_duration)
    return ds.rename(elapsed_forecast_duration=time_dim or "time")


def prepare(model, source, times, inputs, layout, analysis_time):
    """`[time, grid_index, feature]` (`[grid_index, feature]` of static data) at exactly these times."""
    config = model.configs[source["datastore"]]
    variable, entries, opened = source["variable"], {}, {}
    for name, entry in config.inputs.items():
        if entry.target_output_variable != variable:
            continue
        key = f"{source['datastore']}.{name}"
        time_dim = time_dimension(entry)
        ds = as_time_series(xr.open_zarr(inputs[key]), time_dim, layout, analysis_time)
        opened[key] = ds.sel({time_dim: times}) if time_dim else ds
        entries[name] = replace(copy.deepcopy(entry), path=key)
    output = replace(config.output, variables={variable: config.output.variables[variable]}, coord_ranges={},
                     chunking={}, splitting=None)
    original = create_dataset_module.load_input_dataset
    create_dataset_module.load_input_dataset = lambda fp: opened[fp]
    try:
        ds = mdp.create_dataset(replace(config, inputs=entries, output=output))
    finally:
        create_dataset_module.load_input_dataset = original
    dims = ["grid_index", f"{variable}_feature"]
    return ds[variable].transpose(*(["time", *dims] if "time" in ds[variable].dims else dims)).load()


def standardized(model, features, times, inputs, layout, analysis_time):
    """Features of all sources, standardized in float32 with the training statistics; and those statistics."""
    arrays, means, stds, names, notes = [], [], [], [], []
    for source in features["sources"]:
        prepared = prepare(model, source, times, inputs, layout, analysis_time)
        statistics = model.statistics[source["datastore"]]
        variable, split = source["variable"], model.interface.get("statistics_split", "train")
        found = prepared[f"{variable}_feature"].values.tolist()
        if found != statistics[f"{variable}_feature"].values.tolist():
            raise ValueError(f"features of the input, {found}, are not those of training")
        # An artifact keeps no grid beside its statistics, a training dataset does.
        for dim in {"x", "y"} & set(statistics.variables):
            if not np.array_equal(prepared[dim].values, statistics[dim].values):
                raise ValueError(f"`{dim}` of the input is not that of training")
        arrays.append(prepared.values.astype(np.float32))
        means.append(statistics[f"{variable}__{split}__mean"].values.astype(np.float32))
        stds.append(np.maximum(statistics[f"{variable}__{split}__std"].values.astype(np.float32), EPSILON))
        names += found
        notes.append(prepared)
    if names != features["names"]:
        raise ValueError(f"features of the datastores, {names}, are not those of the model, {features['names']}")
    mean, std = np.concatenate(means), np.concatenate(stds)
    return (np.concatenate(arrays, axis=-1) - mean) / std, mean, std, notes


# ---------------------------------------------------------------------------- the forecast


def init_steps(interface):
    needed = [2]
    for entry in interface["inputs"]:
        needed += [entry["steps_back"] + 1] if entry["role"] == "state" else []
        needed += [entry["past"]] if entry["role"] == "forcing" else []
    return max(needed)


def window(forcing, past, future, steps):
    """`[step, grid_index, feature * width]`, feature-major; `forcing` starts `past` steps before the first target."""
    parts = [forcing[i : i + past + future + 1] for i in range(steps)]
    return np.stack([part.transpose(1, 2, 0).reshape(part.shape[1], -1) for part in parts])


def boundary_mask(shape, width):
    mask = np.ones(shape, np.float32)
    mask[tuple(slice(width, n - width) for n in shape)] = 0
    return mask.reshape(-1, 1)


def run(model, inputs, analysis_time, steps, layout="time"):
    """The forecast: a dictionary of the arguments of `write_forecast`."""
    interface = model.interface
    n_init = init_steps(interface)
    step = np.timedelta64(interface["step_seconds"], "s")
    # index 0 is the first initial state; n_init - 1 the newest; n_init the first target
    first = analysis_time if layout == "forecast" else analysis_time - (n_init - 1) * step

    def at(start, end):
        return (first + np.arange(start, end) * step).astype("datetime64[ns]")

    def read(features, times):
        return standardized(model, features, times, inputs, layout, analysis_time)

    width = interface.get("boundary_width", 0)
    states, mean, std, notes = read(interface["state"], at(0, n_init + (steps if width else 0)))
    history, targets = list(states[:n_init]), states[n_init:]
    feeds = []
    for entry in interface["inputs"]:
        if entry["role"] == "forcing":
            past, future = entry["past"], entry["future"]
            forcing = read(entry["features"], at(n_init - past, n_init + steps + future))[0]
            feeds.append((entry["name"], window(forcing, past, future, steps)))
        elif entry["role"] == "static":
            feeds.append((entry["name"], [read(entry["features"], None)[0]] * steps))
    back = {e["name"]: e["steps_back"] for e in interface["inputs"] if e["role"] == "state"}
    mask = boundary_mask(interface["grid"]["shape"], width)
    predicted = []
    for i in range(steps):
        feed = {name: history[-1 - k][None] for name, k in back.items()}
        feed.update({name: values[i][None] for name, values in feeds})
        new = model.session.run([interface["output"]], feed)[0][0]
        if width:
            new = mask * targets[i] + (1 - mask) * new
        predicted.append(new)
        history.append(new)
    predicted = np.stack(predicted)

    def note(name):
        return [str(v) for da in notes for v in da[f"{da.name}_feature_{name}"].values]

    dims = interface["grid"]["dims"]
    return dict(
        standardized=predicted, physical=predicted * std + mean, times=at(n_init, n_init + steps),
        names=interface["state"]["names"], units=note("units"), long_names=note("long_name"), dims=dims,
        coordinates={d: along(notes[0][d].values) for d in dims},
        attrs=dict(analysis_time=f"{str(analysis_time)[:16]}Z", made_by="reference_runner.py"),
    )


# ---------------------------------------------------------------------------- commands


def utc(text):
    return np.datetime64(str(text).removesuffix("Z"), "s")


def run_case(folder, out):
    case = yaml.safe_load((folder / "case.yaml").read_text())
    model = load_case(folder, case)
    inputs = {name: folder / path for path, names in case["inputs"].items() for name in names}
    failed = False
    for entry in case["forecasts"]:
        forecast = run(model, inputs, utc(entry["analysis_time"]), case["steps"], case["time_layout"])
        store = (out or Path(tempfile.mkdtemp())) / f"{case['name']}-{entry['analysis_time'].replace(':', '')}.zarr"
        found = write_forecast(store, **forecast)
        errors = differences(found, xr.open_zarr(folder / entry["oracle"], consolidated=False))
        print(case["name"], entry["analysis_time"], " ".join(f"{n}={e:.2g}" for n, e in errors.items()))
        tolerances = dict(standardized=1e-4, **{n: v["tolerance"] for n, v in case["variables"].items()})
        failed |= set(errors) | {"standardized"} != set(tolerances)
        failed |= any(not errors[name] <= tolerances[name] for name in errors)
    return failed


def main():
    logger.remove()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    case = commands.add_parser("case")
    case.add_argument("folder", type=Path)
    case.add_argument("--out", type=Path)
    artifact = commands.add_parser("artifact")
    artifact.add_argument("folder", type=Path)
    artifact.add_argument("--inputs", required=True)
    artifact.add_argument("--steps", type=int, required=True)
    artifact.add_argument("--analysis-time", required=True)
    artifact.add_argument("--time-layout", choices=["time", "forecast"], default="time")
    artifact.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.command == "case":
        sys.exit(run_case(args.folder, args.out))
    inputs = dict(pair.split("=", 1) for pair in args.inputs.split(","))
    forecast = run(load_artifact(args.folder), inputs, utc(args.analysis_time), args.steps, args.time_layout)
    write_forecast(args.out, **forecast)


if __name__ == "__main__":
    main()
