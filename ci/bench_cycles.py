"""How fast cycles are planned, run and looked at; see ci/bench."""

import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench_lib import EXAMPLE, MLWM, ROUNDS, WORK, mlwm, watch
from bench_servers import garage

TIME = "2022-04-07T03:00Z"
IMAGE = "mlwm-bench/copies:latest"
CONFIGURATION = """\
docker_image: {image}
inputs:
  data: {{uri: '{source}', internal_path: /in/data.zarr}}
outputs:
  data: {{uri: '{out}/{{analysis_time}}/member{{member}}/{name}.zarr', internal_path: /out/data.zarr}}
{more}"""
OBJECTS, OBJECT = 10_000, 50_000


def configure(folder, name, **values):
    folder = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(CONFIGURATION.format(name=name, **{"more": "", "image": IMAGE, **values}))


def fresh(name):
    folder = WORK / "cycles" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def planning():
    """30 days x 4 cycles x 10 models x 51 members: 61,200 tasks."""
    folder = fresh("planning")
    for model in range(10):
        configure(folder / "configurations", f"model{model}", source="s3://b/{analysis_time}/x.zarr", out="s3://b/out", more="members: 0-50\n")
    command = [MLWM, "plan", "--configurations", folder / "configurations", "--analysis-time", "2025-09-01T00:00Z",
               "--to", "2025-09-30T18:00Z", "--every", "6h"]
    seconds, peaks = zip(*(watch(*command) for _ in range(ROUNDS)))
    plan = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    began = time.perf_counter()
    json.dumps(plan, indent=2)
    dumped = time.perf_counter() - began
    own = statistics.median(seconds)
    what = f"{len(plan['tasks']):,} tasks"
    yield "plan", what, f"{own:.2f} s", "json.dumps of Python, of the same plan in memory", f"{dumped:.2f} s", own / dumped
    yield "peak memory of plan", what, f"{max(peaks) / 2**20:.0f} MiB", "", "", None


def history():
    """`mlwm status` over a year: 1,460 cycles of 10 models and 51 members."""
    folder = fresh("history")
    (folder / "configurations").mkdir()
    mlwm("status", "--rebuild", "--workdir", folder / "work", "--configurations", folder / "configurations")
    ledger = sqlite3.connect(folder / "work/ledger.sqlite")
    rows = ((f"model{model}", 1_735_689_600 + cycle * 21_600, member) for cycle in range(1460) for model in range(10) for member in range(51))
    ledger.executemany("INSERT INTO tasks (configuration, analysis_time, member, state) VALUES (?, ?, ?, 'published')", rows)
    ledger.commit()
    ledger.close()
    for what, more in (("the newest 20 cycles", []), ("all 1,460", ["--last", "1460"])):
        own = statistics.median(watch(MLWM, "status", "--workdir", folder / "work", *more)[0] for _ in range(ROUNDS))
        idle = statistics.median(watch(MLWM, "--version")[0] for _ in range(ROUNDS))
        yield "status of a year", what, f"{own * 1000:.0f} ms", "mlwm --version", f"{idle * 1000:.0f} ms", own / idle


def copies():
    text = 'FROM mlwm-base:bookworm\nENTRYPOINT ["cp", "-r", "/in/data.zarr/.", "/out/data.zarr/"]\n'
    subprocess.run(["docker", "build", "--quiet", "--tag", IMAGE, "-"], input=text, text=True, check=True, capture_output=True)


def launching():
    """What a task costs beside its container, and what its container costs beside plain `docker run`."""
    folder, tasks = fresh("launching"), 20
    copies()
    source = EXAMPLE / "source/single_levels.zarr"
    configure(folder / "configurations", "copies", source=f"file://{source}", out=f"file://{folder}/out", more=f"members: 0-{tasks - 1}\n")
    began = time.perf_counter()
    events = mlwm("run", "--analysis-time", TIME, "--configurations", folder / "configurations", "--workdir", folder / "work", "--json")
    whole = time.perf_counter() - began
    phases = {}
    for line in events.splitlines():
        event = json.loads(line)
        if event["event"] == "phase-finished":
            phases.setdefault(event["phase"], []).append(event["seconds"])
    (folder / "plain").mkdir()
    began = time.perf_counter()
    for task in range(tasks):
        out = folder / "plain" / str(task)
        out.mkdir()
        subprocess.run(["docker", "run", "--rm", "--volume", f"{source}:/in/data.zarr:ro", "--volume", f"{out}:/out/data.zarr", IMAGE], check=True)
    plain = (time.perf_counter() - began) / tasks
    run = statistics.median(phases["run"])
    yield "hardened container, start to end", "a copy of 670 kB", f"{run * 1000:.0f} ms", "docker run --rm", f"{plain * 1000:.0f} ms", run / plain
    beside = (whole - sum(phases["run"])) / tasks
    moved = sum(statistics.median(phases[phase]) for phase in ("stage", "verify", "publish"))
    yield ("beside the container, per task", f"{tasks} tasks, staged meanwhile", f"{beside * 1000:.1f} ms",
           "its stage, verify and publish", f"{moved * 1000:.1f} ms", beside / moved)


def objects():
    """Staging and publishing many small objects, against what people use for it."""
    folder = fresh("objects")
    copies()
    source = folder / "data"
    write_objects(source)
    with garage() as (_, _, environment, *_):
        server = "s3://bench"
        put = f"{server}/in/data.zarr"
        upload = baselines(environment, source, put)
        configure(folder / "configurations", "copies", source=put, out=f"{server}/out")
        events = mlwm("run", "--analysis-time", TIME, "--configurations", folder / "configurations", "--workdir", folder / "work", "--json", **environment)
        finished = (json.loads(line) for line in events.splitlines())
        own = {event["phase"]: event["seconds"] for event in finished if event["event"] == "phase-finished"}
        download = baselines(environment, put, folder / "down")
    what = f"{OBJECTS:,} objects of {OBJECT // 1000} kB"
    for name, seconds in download:
        yield "stage", what, f"{own['stage']:.1f} s", name, f"{seconds:.1f} s", own["stage"] / seconds
    for name, seconds in upload:
        yield "publish", what, f"{own['publish']:.1f} s", name, f"{seconds:.1f} s", own["publish"] / seconds


def write_objects(folder):
    """A forecast of many hours in incompressible chunks."""
    import numpy as np
    import xarray as xr

    time = np.datetime64(TIME[:-1], "ns") + np.arange(1, OBJECTS + 1) * np.timedelta64(1, "h")
    noise = np.random.default_rng(0).normal(size=(OBJECTS, OBJECT // 4)).astype("f4")
    dataset = xr.Dataset({"noise": (("time", "cell"), noise)}, {"time": time})
    encoding = {"noise": {"chunks": (1, OBJECT // 4), "compressors": None}, "time": {"chunks": (OBJECTS,)}}
    dataset.to_zarr(folder, zarr_format=2, consolidated=True, encoding=encoding)


# One object at a time, as the Python original does it.
LOOP = """
import os, sys, pathlib, boto3
source, target = sys.argv[1:]
s3 = boto3.client("s3")
split = lambda uri: uri.removeprefix("s3://").split("/", 1)
if source.startswith("s3://"):
    bucket, prefix = split(source)
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix + "/"):
        for found in page.get("Contents", []):
            path = pathlib.Path(target) / found["Key"][len(prefix) + 1:]
            path.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(bucket, found["Key"], str(path))
else:
    bucket, prefix = split(target)
    for path in pathlib.Path(source).rglob("*"):
        if path.is_file():
            s3.upload_file(str(path), bucket, f"{prefix}/{path.relative_to(source)}")
"""


def baselines(environment, source, target):
    """Seconds of each tool that is here, one after the other; the last one leaves what it made."""
    rclone = {**environment, "RCLONE_CONFIG_S3_TYPE": "s3", "RCLONE_CONFIG_S3_PROVIDER": "Other", "RCLONE_CONFIG_S3_ENV_AUTH": "true",
              "RCLONE_CONFIG_S3_ENDPOINT": environment["AWS_ENDPOINT_URL"], "RCLONE_CONFIG_S3_REGION": environment["AWS_REGION"]}
    remote = lambda place: str(place).replace("s3://", "s3:")
    tools = [("boto3, one object at a time", [sys.executable, "-c", LOOP, str(source), str(target)], environment)]
    if shutil.which("aws"):
        tools.append(("aws s3 cp --recursive", ["aws", "s3", "cp", "--recursive", "--only-show-errors", str(source), str(target)], environment))
    if shutil.which("rclone"):
        tools.append(("rclone copy", ["rclone", "copy", "--ignore-times", remote(source), remote(target)], rclone))
    timed = []
    for name, command, more in tools:
        if isinstance(target, Path):
            shutil.rmtree(target, ignore_errors=True)
        began = time.perf_counter()
        settings = {**os.environ, **more, "AWS_DEFAULT_REGION": environment["AWS_REGION"]}
        # To Python an empty one is a file that is not there.
        settings = {name: value for name, value in settings.items() if value}
        subprocess.run(command, check=True, env=settings, capture_output=True)
        timed.append((name, time.perf_counter() - began))
    return timed
