"""The measurements of ci/bench that are about images: one with a checkpoint of 2 GiB, against Docker."""

import os
import shutil
import subprocess

from bench_artifacts import CHECKPOINT, SIZE, build_command, make_checkpoint, size_text
from bench_lib import EXAMPLE, MLWM, WORK, mlwm, python
from bench_servers import fresh, oci

BASE = "mlwm-base:bookworm"
CONFIGURATION = """
artifact: {artifact}
inputs: {{}}
outputs: {{surface: {{uri: ./surface.zarr, internal_path: /volume/outputs/surface.zarr}}}}
"""

# Runs a command and says its exit code, seconds, and seconds of processor time.
WATCH = """
import resource, subprocess, sys, time
began = time.perf_counter()
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(code, time.perf_counter() - began, used.ru_utime + used.ru_stime)
"""


def watch(*command, **environment):
    """Seconds, and seconds of processor time, of a command that must end well."""
    code, seconds, used = python(WATCH, *command, **environment)
    if code != "0":
        raise SystemExit(f"{' '.join(map(str, command))} ended with {code}")
    return float(seconds), float(used)


def daemon_seconds():
    """Processor time that dockerd has used so far."""
    pid = subprocess.run(["pidof", "dockerd"], check=True, capture_output=True, text=True).stdout.split()[0]
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def images():
    """Build and push to an empty registry, nothing to do, another configuration, and a new image of an
    artifact that is pinned and known; Docker builds, pushes and has nothing to do with the same files,
    once each: it takes minutes."""
    make_checkpoint(CHECKPOINT, SIZE)
    artifact, folder = WORK / f"onnx-{SIZE}.zip", fresh("images")
    if not artifact.exists():
        onnx = ["--onnx", EXAMPLE / "onnx/graph_lam.onnx", "--interface", EXAMPLE / "onnx/graph_lam.json"]
        watch(*build_command(CHECKPOINT, artifact), *onnx)
    config = folder / "configurations/noise/config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(CONFIGURATION.format(artifact=artifact))
    base = f"oci:{folder / 'base'}:v1"
    subprocess.run(["skopeo", "copy", "--quiet", f"docker-daemon:{BASE}", base], check=True)
    cache = {"XDG_CACHE_HOME": str(folder / "cache")}
    on = size_text(SIZE)

    def build(uri):
        reference = f"{uri.removeprefix('oci://')}/image:v1"
        return [MLWM, "image", "build", "noise", "--configurations", config.parent.parent, "--base", base, "--push", reference]

    with oci() as (_, uri, *_):
        cold, cold_cpu = watch(*build(uri), **cache)
        nothing, _ = watch(*build(uri), **cache)
        config.write_text(config.read_text() + "# changed\n")
        changed, _ = watch(*build(uri), **cache)

    # As in a CI, where the artifact comes out of a registry, which compared its digest when it was fetched.
    mlwm("image", "lock", "noise", "--configurations", config.parent.parent, "--base", base, **cache)
    shutil.rmtree(folder / "cache/mlwm/layers")
    with oci() as (_, uri, *_):
        known, known_cpu = watch(*build(uri), **cache)

    with oci() as (_, uri, *_):
        reference = f"{uri.removeprefix('oci://')}/image:v1"
        context = folder / "context"
        mlwm("artifact", "extract", artifact, context / "artifact")
        (context / "Dockerfile").write_text(f"FROM {BASE}\nCOPY artifact /workspace/inference_artifact\n")
        docker_build = ["docker", "build", "--quiet", "--tag", reference, context]
        before = daemon_seconds()
        built, built_cpu = watch(*docker_build)
        pushed, pushed_cpu = watch("docker", "push", reference)
        docker_cpu = built_cpu + pushed_cpu + daemon_seconds() - before
        again, _ = watch(*docker_build)
        subprocess.run(["docker", "rmi", "--force", reference], check=True, capture_output=True)
    shutil.rmtree(folder)

    docker = built + pushed
    yield "image build --push, new artifact", on, f"{cold:.2f} s", "docker build, docker push", f"{docker:.2f} s", cold / docker
    yield "its processor time", on, f"{cold_cpu:.2f} s", "docker and dockerd", f"{docker_cpu:.2f} s", cold_cpu / docker_cpu
    yield "image build --push, known artifact", on, f"{known:.2f} s", "docker build, docker push", f"{docker:.2f} s", known / docker
    yield "its processor time", on, f"{known_cpu:.2f} s", "docker and dockerd", f"{docker_cpu:.2f} s", known_cpu / docker_cpu
    yield "image build, nothing to do", on, f"{nothing * 1000:.0f} ms", "docker build, all cached", f"{again:.2f} s", nothing / again
    yield "image build, other configuration", on, f"{changed * 1000:.0f} ms", "docker build, all cached", f"{again:.2f} s", changed / again
