"""Makes the test cases in ../cases anew: sources, training, export, oracles, and what is kept of them.

usage: make_cases.py WORK_FOLDER [NAME...]

Everything large is made in WORK_FOLDER; a case keeps the few source times its forecasts read, the
training statistics, the ONNX model and the oracles. The configurations in ../cases/NAME/train are
written by hand and are the input of this script. Needs the packages of requirements.txt.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import mllam_data_prep as mdp
import numpy as np
import xarray as xr
import yaml

import forecast_shaped
import hand_made
from forecast_store import write_forecast
from reference_runner import datastores, init_steps, load_case, run, time_dimension, utc

HERE = Path(__file__).resolve().parent
CASES = HERE.parent / "cases"
DANRA = ["2022-04-07T03:00", "2022-04-07T06:00", "2022-04-07T12:00"]

# trained with neural-lam: source set, boundary width, graph, steps, analysis times, case that holds the data
TRAINED = {
    "graph-lam": ("danra", 4, "multiscale", 6, DANRA, None),
    "hi-lam": ("danra", 4, "hierarchical", 6, DANRA[:2], "graph-lam"),
    "hi-lam-parallel": ("danra", 4, "hierarchical", 6, DANRA[1:], "graph-lam"),
    "levels": ("levels", 3, "multiscale", 5, ["2021-12-31T05:00", "2021-12-31T12:00", "2021-12-31T20:00"], None),
    "packed": ("packed", 5, "multiscale", 4, ["2023-06-18T06:00", "2023-06-19T00:00", "2023-06-20T18:00"], None),
}
# hand-made: steps, analysis times, sources without any time after the last analysis time
HAND_MADE = {
    "two-datastores": (5, ["2024-03-02T00:00", "2024-03-01T20:00"], []),
    "boundary-grid": (6, ["2024-03-01T12:00", "2024-03-01T15:00"], ["lam.zarr"]),
    "no-forcing": (7, ["2024-03-01T12:00", "2024-03-01T23:00"], ["lam.zarr"]),
}
DESCRIPTIONS = {
    "graph-lam": "graph_lam on 30x28 points, 3-hourly, zarr v2 `(time, y, x)`; the project's first case",
    "hi-lam": "hierarchical graph, on the data of graph-lam",
    "hi-lam-parallel": "hierarchical graph, parallel sweeps, on the data of graph-lam",
    "levels": "hourly over a new year, four zarr v3 sources of unlike dimension orders, renamed dimensions, "
              "height levels out of stored order, forcing window 3 + 1 + 2",
    "packed": "int16 with scale and offset in zarr v2, time as float days, latitudes north to south, (y, x) "
              "stacking, float levels, cropped input, output clamping, forcing window 2 + 1 + 0",
    "forecast-shaped": "graph-lam fed from forecasts: (analysis_time, elapsed_forecast_duration) sources",
    "two-datastores": "hand-made: forcing from two datastores on one grid, static features as a model input",
    "boundary-grid": "hand-made: forcing from a second datastore on a grid of its own, no boundary overwrite, "
                     "no state after the analysis time",
    "no-forcing": "hand-made: three states back, no forcing, no boundary",
}


class Plain(yaml.SafeDumper):
    """YAML without anchors, and with short lists on one line."""

    def ignore_aliases(self, data):
        return True


def flow_list(dumper, values):
    flow = all(isinstance(v, (str, int, float)) for v in values)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=flow)


Plain.add_representer(list, flow_list)


def zarr_format(path):
    return 2 if (path / ".zgroup").exists() else 3


def trim_source(source, target, time_dim, first, last):
    """Keeps the times from `first` to `last`; values, encodings and attributes stay."""
    ds = xr.open_zarr(source).load()
    if time_dim:
        ds = ds.sel({time_dim: slice(first, last)})
    for name, variable in ds.variables.items():
        chunks = variable.encoding.pop("chunks", None)
        variable.encoding.pop("preferred_chunks", None)
        if chunks:
            variable.encoding["chunks"] = tuple(min(c, n) for c, n in zip(chunks, variable.shape))
        if zarr_format(source) == 3 and variable.dtype.kind == "f" and "scale_factor" not in variable.encoding:
            variable.encoding.setdefault("_FillValue", None)
    shutil.rmtree(target, ignore_errors=True)
    ds.to_zarr(target, zarr_format=zarr_format(source), consolidated=True)
    xr.testing.assert_identical(xr.open_zarr(target).load(), ds)


def trim_training(source, target, times=0):
    """Keeps statistics, features, coordinates and attributes of a training zarr, and `times` times of its data."""
    ds = xr.open_zarr(source)
    if times:
        ds = ds.isel(time=slice(0, times)).load()
        for variable in ds.variables.values():
            variable.encoding = {k: v for k, v in variable.encoding.items() if "chunks" not in k and k != "shards"}
    else:
        kept = [n for n in ds.data_vars if len(n.split("__")) == 3 or n == "splits"]
        ds = ds[kept + [c for c in ds.coords if c != "time"]].load()
    shutil.rmtree(target, ignore_errors=True)
    ds.to_zarr(target, zarr_format=3, consolidated=True)


def features_by_origin(config, name, sources):
    """Where every state feature comes from: input, variable, level and dimensions of the source."""
    origins = {}
    for input_name, entry in config.inputs.items():
        if entry.target_output_variable != "state":
            continue
        ds = xr.open_zarr(sources[f"{name}.{input_name}"])
        mapping = next(m for m in entry.dim_mapping.values() if m.method == "stack_variables_by_var_name")
        for variable in entry.variables:
            origin = dict(input=f"{name}.{input_name}", variable=variable, source_dims=list(ds[variable].dims))
            for level_dim in mapping.dims or []:
                for level in ds[level_dim].sel({level_dim: entry.variables[variable][level_dim].values}).values:
                    feature = mapping.name_format.format(var_name=variable, **{level_dim: level})
                    origins[feature] = dict(origin, level={level_dim: level.item()})
            if not mapping.dims:
                origins[mapping.name_format.format(var_name=variable)] = origin
    return origins


def tolerance(values, std):
    """5e-5 standard deviations and two float32 steps at the largest value."""
    return float(f"{5e-5 * std + 2 * np.spacing(np.float32(np.abs(values).max())):.2g}")


def describe(folder, case, statistics):
    """Writes case.yaml, with what the oracles hold."""
    oracle = xr.open_zarr(folder / case["forecasts"][0]["oracle"], consolidated=False)
    configs = datastores(folder / case["nl_config"])
    sources, origins = {n: folder / path for path, names in case["inputs"].items() for n in names}, {}
    for name, path in configs.items():
        origins.update(features_by_origin(mdp.Config.from_yaml_file(path), name, sources))
    case["variables"] = {}
    for i, name in enumerate(oracle["standardized"].attrs["state_feature"]):
        array = oracle[name]
        case["variables"][name] = dict(
            dims=list(array.dims), units=array.attrs["units"], long_name=array.attrs["long_name"],
            tolerance=tolerance(array.values, float(statistics[i])), **origins[name],
        )
    (folder / "case.yaml").write_text(yaml.dump(case, Dumper=Plain, sort_keys=False, width=110))


def inputs_by_path(config_paths):
    """The inputs that each source feeds, `datastore.input`, by path from the case folder."""
    found = {}
    for name, path in config_paths.items():
        for input_name, entry in mdp.Config.from_yaml_file(path).inputs.items():
            found.setdefault(entry.path.removeprefix("../"), []).append(f"{name}.{input_name}")
    return found


def outline(name, share, steps, analysis_times, layout, oracle_by, interface="model.json"):
    """case.yaml without what only the oracles know."""
    at = f"../{share}/" if share else ""
    configs = datastores(CASES / (share or name) / "train/config.yaml")
    return dict(
        name=name, description=DESCRIPTIONS[name], oracle_by=oracle_by,
        nl_config=f"{at}train/config.yaml",
        training_args="training_cli_args.yaml" if share else "train/training_cli_args.yaml",
        training_zarrs={n: f"{at}train/{p.name.replace('.yaml', '.zarr')}" for n, p in configs.items()},
        onnx="model.onnx", interface=interface,
        interface_kind="export_facts" if interface == "model.json" else "interface",
        inputs={f"{at}{path}": names for path, names in inputs_by_path(configs).items()},
        time_layout=layout, steps=steps,
        forecasts=[dict(analysis_time=f"{t}Z", oracle=f"oracle/{t.replace(':', '')}Z.zarr") for t in analysis_times],
    )


def trim_sources(lab, case, plan, model, until_analysis=()):
    """Keeps of every source the times that the forecasts read, and a few more on both sides."""
    shutil.rmtree(case / "source", ignore_errors=True)
    step = np.timedelta64(model.interface["step_seconds"], "s")
    times = sorted(utc(entry["analysis_time"]) for entry in plan["forecasts"])
    first, last = times[0] - (init_steps(model.interface) + 1) * step, times[-1] + (plan["steps"] + 4) * step
    for config in model.configs.values():
        for entry in config.inputs.values():
            path = entry.path.removeprefix("../")
            if time_dim := time_dimension(entry):
                end = times[-1] if Path(path).name in until_analysis else last
                trim_source(lab / path, case / path, time_dim, first, end)
            elif not (case / path).exists():
                trim_source(lab / path, case / path, None, None, None)


def prepare_lab(work, name, source_set, config_folders):
    lab, sources = work / name, work / "sources" / source_set
    (lab / "train").mkdir(parents=True, exist_ok=True)
    if not sources.exists():
        subprocess.run([sys.executable, HERE / "make_sources.py", source_set, sources], check=True)
    if not (lab / "source").exists():
        (lab / "source").symlink_to(sources)
    for folder in config_folders:
        for path in folder.glob("*.yaml"):
            if path.name != "case.yaml":
                shutil.copy(path, lab / "train")
    return lab


def trained(work, name):
    """A case of neural-lam: its model, its oracle."""
    source_set, width, graph, steps, analysis_times, share = TRAINED[name]
    case = CASES / name
    lab = prepare_lab(work, name, source_set, [CASES / (share or name) / "train", case])
    for time in analysis_times:
        if not (lab / f"oracle/{time.replace(':', '')}Z.zarr").exists():
            command = [sys.executable, HERE / "neural_lam_case.py", lab, str(width), graph, str(steps)]
            subprocess.run([*command, *analysis_times], check=True)
    for product in ("model.onnx", "model.json"):
        shutil.copy(lab / product, case)
    plan = outline(name, share, steps, analysis_times, "time", "neural-lam 0.7.0")
    copy_oracles(lab / "oracle", case, plan)
    if not share:
        for path in (lab / "train").glob("*.zarr"):
            trim_training(path, case / "train" / path.name, times=2 if name == "graph-lam" else 0)
    model = load_case(case, plan)
    if not share:
        trim_sources(lab, case, plan, model)
    describe(case, plan, model.statistics[next(iter(model.configs))]["state__train__std"].values)


def copy_oracles(source, case, plan):
    """The oracles, standardized values only in the first of them."""
    shutil.rmtree(case / "oracle", ignore_errors=True)
    for i, entry in enumerate(plan["forecasts"]):
        shutil.copytree(source / Path(entry["oracle"]).name, case / entry["oracle"])
        if i > 0:
            shutil.rmtree(case / entry["oracle"] / "standardized")


def hand_made_case(work, name):
    """A case whose oracle is the reference runner."""
    steps, analysis_times, until_analysis = HAND_MADE[name]
    case = CASES / name
    lab = prepare_lab(work, name, name, [case / "train"])
    plan = outline(name, None, steps, analysis_times, "time", "reference_runner.py", "interface.json")
    for path in (lab / "train").glob("*.datastore.yaml"):
        zarr = path.with_suffix(".zarr")
        if not zarr.exists():
            config = mdp.Config.from_yaml_file(path)
            for entry in config.inputs.values():  # mllam-data-prep resolves against the working folder
                entry.path = str(lab / "train" / entry.path)
            as_written = mdp.Config.from_yaml_file(path).to_yaml()
            mdp.create_dataset(config).assign_attrs(creation_config=as_written).to_zarr(zarr)
        trim_training(zarr, case / "train" / zarr.name)
    hand_made.make(name, case, {n: case / p for n, p in plan["training_zarrs"].items()})
    model = load_case(case, plan)
    trim_sources(lab, case, plan, model, until_analysis)
    inputs = {n: case / path for path, names in plan["inputs"].items() for n in names}
    shutil.rmtree(lab / "oracle", ignore_errors=True)
    for entry in plan["forecasts"]:
        forecast = run(model, inputs, utc(entry["analysis_time"]), steps)
        write_forecast(lab / entry["oracle"], **forecast)
    copy_oracles(lab / "oracle", case, plan)
    describe(case, plan, model.statistics["lam"]["state__train__std"].values)


def forecast_shaped_case(work):
    name, share = "forecast-shaped", "graph-lam"
    case = CASES / name
    plan = outline(name, share, forecast_shaped.STEPS, forecast_shaped.ANALYSIS_TIMES, "forecast", "neural-lam 0.7.0")
    plan |= dict(
        training_args=f"../{share}/train/training_cli_args.yaml", onnx=f"../{share}/model.onnx",
        interface=f"../{share}/model.json", inputs=forecast_shaped.INPUTS,
    )
    made = forecast_shaped.make(work, case, HERE / "neural_lam_case.py")
    copy_oracles(made, case, plan)
    model = load_case(case, plan)
    describe(case, plan, model.statistics["danra"]["state__train__std"].values)


def main():
    work = Path(sys.argv[1]).resolve()
    for name in sys.argv[2:] or list(DESCRIPTIONS):
        print("==", name)
        (CASES / name).mkdir(exist_ok=True)
        if name in TRAINED:
            trained(work, name)
        elif name in HAND_MADE:
            hand_made_case(work, name)
        else:
            forecast_shaped_case(work)


if __name__ == "__main__":
    main()
