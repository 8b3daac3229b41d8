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
from reference_runner import datastores, load_case, run, utc, init_steps, time_dimension
from forecast_store import write_forecast

HERE = Path(__file__).resolve().parent
CASES = HERE.parent / "cases"
DANRA = ["2022-04-07T03:00", "2022-04-07T06:00", "2022-04-07T12:00"]

# trained with neural-lam: source set, boundary width, graph, steps, analysis times, case that holds the data
TRAINED = {
    "graph-lam": ("danra", 4, "multiscale", 6, DANRA, None),
    "hi-lam": ("danra", 4, "hierarchical", 6, DANRA, "graph-lam"),
    "hi-lam-parallel": ("danra", 4, "hierarchical", 6, DANRA, "graph-lam"),
    "levels": ("levels", 3, "multiscale", 5, ["2021-12-31T05:00", "2021-12-31T12:00", "2021-12-31T20:00"], None),
    "packed": ("packed", 5, "multiscale", 4, ["2023-06-18T06:00", "2023-06-19T00:00", "2023-06-20T18:00"], None),
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


def zarr_format(path):
    return 2 if (path / ".zgroup").exists() else 3


def trim_source(source, target, time_dim, first, last):
    """Keeps the times from `first` to `last`; values, encodings and attributes stay."""
    ds = xr.open_zarr(source).load()
    if time_dim in ds.dims:
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


def features_by_origin(config, name, folder):
    """Where every state feature comes from: input, variable, level and dimensions of the source."""
    origins = {}
    for input_name, entry in config.inputs.items():
        if entry.target_output_variable != "state":
            continue
        ds = xr.open_zarr(folder / entry.path)
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
    origins = {}
    for name, path in configs.items():
        origins.update(features_by_origin(mdp.Config.from_yaml_file(path), name, path.parent))
    case["variables"] = {}
    for i, name in enumerate(oracle["standardized"].attrs["state_feature"]):
        array = oracle[name]
        case["variables"][name] = dict(
            dims=list(array.dims), units=array.attrs["units"], long_name=array.attrs["long_name"],
            tolerance=tolerance(array.values, float(statistics[i])), **origins[name],
        )
    (folder / "case.yaml").write_text(yaml.safe_dump(case, sort_keys=False, width=110))


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


def trained(work, name):
    source_set, width, graph, steps, analysis_times, share = TRAINED[name]
    case, lab = CASES / name, work / name
    (lab / "train").mkdir(parents=True, exist_ok=True)
    sources = work / "sources" / source_set
    if not sources.exists():
        subprocess.run([sys.executable, HERE / "make_sources.py", source_set, sources], check=True)
    if not (lab / "source").exists():
        (lab / "source").symlink_to(sources)
    for path in [*(CASES / (share or name) / "train").glob("*.yaml"), *case.glob("training_cli_args.yaml")]:
        shutil.copy(path, lab / "train")
    if not (lab / "oracle").exists():
        command = [sys.executable, HERE / "neural_lam_case.py", lab, str(width), graph, str(steps), *analysis_times]
        subprocess.run(command, check=True)
    for product in ("model.onnx", "model.json"):
        shutil.copy(lab / product, case)
    shutil.rmtree(case / "oracle", ignore_errors=True)
    shutil.copytree(lab / "oracle", case / "oracle")
    plan = outline(name, share, steps, analysis_times, "time", "neural-lam 0.7.0")
    if not share:
        config_path = next((case / "train").glob("*.datastore.yaml"))
        for path in (lab / "train").glob("*.zarr"):
            trim_training(path, case / "train" / path.name, times=2 if name == "graph-lam" else 0)
        model = load_case(case, plan)
        step = np.timedelta64(model.interface["step_seconds"], "s")
        past = init_steps(model.interface) + 1
        for entry in mdp.Config.from_yaml_file(config_path).inputs.values():
            path = entry.path.removeprefix("../")
            time_dim = time_dimension(entry) or "no time"
            if time_dim == "no time" and (case / path).exists():
                continue
            last = utc(analysis_times[-1]) + (steps + 3) * step
            trim_source(lab / path, case / path, time_dim, utc(analysis_times[0]) - past * step, last)
    model = load_case(case, plan)
    describe(case, plan, model.statistics[next(iter(model.configs))]["state__train__std"].values)


def by_reference_runner(name, plan):
    """A case whose oracle is the reference runner itself."""
    case = CASES / name
    shutil.rmtree(case / "oracle", ignore_errors=True)
    model = load_case(case, plan)
    inputs = {n: case / path for path, names in plan["inputs"].items() for n in names}
    for entry in plan["forecasts"]:
        forecast = run(model, inputs, utc(entry["analysis_time"]), plan["steps"], plan["time_layout"])
        write_forecast(case / entry["oracle"], **forecast)
    return model


def main():
    work = Path(sys.argv[1]).resolve()
    names = sys.argv[2:] or list(DESCRIPTIONS)
    for name in names:
        print("==", name)
        (CASES / name).mkdir(exist_ok=True)
        if name in TRAINED:
            trained(work, name)


if __name__ == "__main__":
    main()
