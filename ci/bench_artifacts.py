"""The measurements of ci/bench that are about artifacts: build, push, pull, inspect. One checkpoint
of 2 GiB of noise (MLWM_BENCH_CHECKPOINT says how many bytes), in the page cache."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time

from bench_lib import EXAMPLE, MLWM, ROOT, ROUNDS, WORK, mlwm, python, watch
from bench_servers import KINDS, Counter, fresh, garage

SIZE = int(os.environ.get("MLWM_BENCH_CHECKPOINT", 2 << 30))
CHECKPOINT, ARTIFACT = WORK / f"noise-{SIZE}.ckpt", WORK / f"noise-{SIZE}.zip"
HOME = {"XDG_CACHE_HOME": str(WORK / "cache-home")}
MEBIBYTE = 2**20

# What a script without mlwm does: pack, flush, then hash what was written.
ZIPFILE = """
import hashlib, os, sys, time, zipfile
began = time.perf_counter()
with open(sys.argv[2], "wb") as file:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.write(sys.argv[1], "checkpoint.pkl")
    file.flush()
    os.fsync(file.fileno())
with open(sys.argv[2], "rb") as file:
    hashlib.file_digest(file, "sha256").hexdigest()
print(time.perf_counter() - began)
"""

# The floor: one stream of SHA-256 over the checkpoint, nothing written.
HASH = """
import hashlib, sys, time
began = time.perf_counter()
with open(sys.argv[1], "rb") as file:
    hashlib.file_digest(file, "sha256").hexdigest()
print(time.perf_counter() - began)
"""


SHA256 = """
import hashlib, sys
with open(sys.argv[1], "rb") as file:
    print("sha256:" + hashlib.file_digest(file, "sha256").hexdigest())
"""

ANALYSIS_TIME = "2022-04-07T03:00Z"
MOUNTED = """\
docker_image: mlwm-bench/mounted:latest
artifact: {artifact}@{digest}
forecast_duration: PT3H
inputs:
  danra:
    uri: file://{source}
    internal_path: /volume/inputs/danra.zarr
    datastore_inputs: [danra.danra_surface, danra.danra_forcing, danra.danra_static]
outputs:
  forecast:
    uri: file://{out}/forecast.zarr
    internal_path: /volume/outputs/forecast.zarr
artifact_delivery: mount
"""


def size_text(size):
    return f"{size / 2**30:g} GiB" if size >= 2**30 else f"{size / MEBIBYTE:g} MiB"


def build_command(checkpoint, output):
    return [MLWM, "artifact", "build", "noise", "--nl-config", EXAMPLE / "train/config.yaml", "--checkpoint", checkpoint,
            "--training-args", EXAMPLE / "train/training_cli_args.yaml", "--output", output]


def make_checkpoint(path, size):
    if not path.exists():
        subprocess.run([sys.executable, ROOT / "tests/oracles/checkpoint.py", path.with_suffix(".part"), str(size)], check=True)
        path.with_suffix(".part").rename(path)
    with open(path, "rb") as file:  # into the page cache
        while file.read(1 << 24):
            pass


def make_onnx_artifact():
    """One that can be run, with the checkpoint besides."""
    make_checkpoint(CHECKPOINT, SIZE)
    artifact = WORK / f"onnx-{SIZE}.zip"
    if not artifact.exists():
        onnx = ["--onnx", EXAMPLE / "onnx/graph_lam.onnx", "--interface", EXAMPLE / "onnx/graph_lam.json"]
        watch(*build_command(CHECKPOINT, artifact), *onnx)
    return artifact


def make_artifact():
    make_checkpoint(CHECKPOINT, SIZE)
    if not ARTIFACT.exists():
        watch(*build_command(CHECKPOINT, ARTIFACT))


def building():
    """One pass of `build` against packing and hashing in Python, and against hashing alone."""
    make_checkpoint(CHECKPOINT, SIZE)
    rounds, output = [], WORK / "built.zip"
    for _ in range(ROUNDS):
        output.unlink(missing_ok=True)
        seconds, rss = watch(*build_command(CHECKPOINT, output))
        output.unlink()
        packed = float(python(ZIPFILE, CHECKPOINT, output)[0])
        hashed = float(python(HASH, CHECKPOINT)[0])
        rounds.append((seconds, rss, packed, hashed))
    output.unlink(missing_ok=True)
    seconds, rss, packed, hashed = (statistics.median(column) for column in zip(*rounds))
    on = size_text(SIZE)
    yield "artifact build", on, f"{seconds:.2f} s", "Python zipfile + fsync + hashlib", f"{packed:.2f} s", seconds / packed
    yield "artifact build", on, f"{seconds:.2f} s", "one SHA-256 stream, nothing written", f"{hashed:.2f} s", seconds / hashed
    small = WORK / "noise-small.ckpt"
    make_checkpoint(small, SIZE // 8)
    _, small_rss = watch(*build_command(small, output))
    output.unlink()
    yield "peak memory of build", on, f"{rss / MEBIBYTE:.0f} MiB", f"the same with {size_text(SIZE // 8)}", f"{small_rss / MEBIBYTE:.0f} MiB", rss / small_rss


def transfers():
    """Push and pull of one artifact, to each kind of registry, against one stream of a simple client."""
    make_artifact()
    for kind in KINDS:
        with kind() as (what, uri, environment, baseline, push, pull):
            rounds = []
            for turn in range(ROUNDS):
                # A name of its own each time: what is published is not sent again.
                place = f"{uri}/{turn}"
                up, up_rss = watch(MLWM, "artifact", "push", ARTIFACT, place, **environment, **HOME)
                plain_up, _ = watch(*push(ARTIFACT))
                down, down_rss = watch(MLWM, "artifact", "pull", f"{place}/noise", "--output", WORK / "pulled.zip", **environment, **HOME)
                plain_down, _ = watch(*pull(WORK / "plain"))
                rounds.append((up, plain_up, up_rss, down, plain_down, down_rss))
                for left in ("pulled.zip", "plain"):
                    (WORK / left).unlink()
                mlwm("artifact", "remove", f"{place}/noise", "--yes", **environment, **HOME)
            up, plain_up, up_rss, down, plain_down, down_rss = (statistics.median(column) for column in zip(*rounds))
            on = size_text(SIZE)
            yield f"push to {what}", on, f"{up:.2f} s", baseline, f"{plain_up:.2f} s", up / plain_up
            yield f"pull from {what}", on, f"{down:.2f} s", baseline, f"{plain_down:.2f} s", down / plain_down
            yield f"peak memory, {what}", on, f"{max(up_rss, down_rss) / MEBIBYTE:.0f} MiB", "", "", None


def verifying():
    """What `mlwm run` does before it trusts an artifact, in its image or mounted, the first time and later."""
    artifact, folder = make_onnx_artifact(), fresh("verifying")
    digest = python(SHA256, artifact)[0]
    config = folder / "configurations/noise/config.yaml"
    config.parent.mkdir(parents=True)
    home = {"XDG_CACHE_HOME": str(folder / "cache")}
    places = ["--configurations", config.parent.parent]

    def run(*more):
        """Seconds of the whole command, and of its phases."""
        shutil.rmtree(folder / "published", ignore_errors=True)
        began = time.perf_counter()
        text = mlwm("run", "--analysis-time", ANALYSIS_TIME, *places, "--workdir", folder / "work", *more, **home)
        seconds = time.perf_counter() - began
        events = [json.loads(line) for line in text.splitlines()] if "--json" in more else []
        return seconds, {event["phase"]: event["seconds"] for event in events if event["event"] == "phase-finished"}

    config.write_text(MOUNTED.format(artifact=artifact, digest=digest, source=EXAMPLE / "source/single_levels.zarr", out=folder / "published"))
    mlwm("image", "build", "noise", *places, **home)
    unpacking = run("--json")[1]["unpack"]
    rounds = []
    for _ in range(ROUNDS):
        later = run("--json")[1]["unpack"]
        mounted = run("--json", "--paranoid")[1]["unpack"]
        hashed = float(python(HASH, artifact)[0])
        rounds.append((later, mounted, hashed))
    config.write_text(config.read_text().replace("artifact_delivery: mount\n", ""))
    baked = [(run("--dry-run")[0], run("--dry-run", "--paranoid")[0]) for _ in range(ROUNDS)]
    shutil.rmtree(folder)
    later, mounted, hashed = (statistics.median(column) for column in zip(*rounds))
    known, whole = (statistics.median(column) for column in zip(*baked))
    on, stream = size_text(SIZE), ("one SHA-256 stream", f"{hashed:.2f} s")
    yield "mounted artifact, first run: unpack", on, f"{unpacking:.2f} s", *stream, unpacking / hashed
    yield "mounted artifact, verify all", on, f"{mounted:.2f} s", *stream, mounted / hashed
    yield "mounted artifact, with a receipt", on, f"{later * 1000:.1f} ms", "goal: at most", "5 ms", later / 0.005
    yield "zip, verify all, whole command", on, f"{whole:.2f} s", *stream, whole / hashed
    yield "zip, with a receipt, whole command", on, f"{known * 1000:.1f} ms", *stream, known / hashed


def inspecting():
    """What `inspect` of a remote artifact asks the server for."""
    make_artifact()
    with garage() as (_, uri, environment, *_):
        mlwm("artifact", "push", ARTIFACT, uri, **environment, **HOME)
        proxy = Counter(environment["AWS_ENDPOINT_URL"])
        seconds, _ = watch(MLWM, "artifact", "inspect", f"{uri}/noise", **{**environment, "AWS_ENDPOINT_URL": proxy.endpoint}, **HOME)
        yield "inspect over S3, requests", size_text(SIZE), str(proxy.requests), "goal: at most", "3", proxy.requests / 3
        yield "inspect over S3, bytes", size_text(SIZE), f"{proxy.received / 1024:.0f} KiB", "the artifact", size_text(SIZE), proxy.received / SIZE
        yield "inspect over S3, time", size_text(SIZE), f"{seconds:.2f} s", "", "", None
