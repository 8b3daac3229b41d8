"""The measurements of ci/bench that are about artifacts: build, push, pull, inspect. One checkpoint
of 2 GiB of noise (MLWM_BENCH_CHECKPOINT says how many bytes), in the page cache."""

import os
import statistics
import subprocess
import sys

from bench_lib import EXAMPLE, MLWM, ROOT, ROUNDS, WORK, mlwm, python, watch
from bench_servers import KINDS, Counter, garage

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
