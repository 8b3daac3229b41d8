"""How much of the time a model waits while its ensemble is fetched, run and published; see ci/bench.

The times of a member are those of an AIFS ensemble on one GPU (15 s to fetch, 480 s of inference, 30 s to publish),
divided by SCALE. The model is a container that sleeps, the store an S3 server behind a link that is as slow."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from bench_cycles import fresh
from bench_lib import MLWM, WORK, mlwm
from bench_servers import garage

SCALE = float(os.environ.get("MLWM_BENCH_SCALE", 20))
MEMBERS = int(os.environ.get("MLWM_BENCH_MEMBERS", 10))
LOAD, FETCH, INFER, PUBLISH = (seconds / SCALE for seconds in (20, 15, 480, 30))
WINDOWS, STEPS, CELLS = 11, 12, 7000
VARIABLES = ["2t", "msl", "tp", "z_500"]
TIME = "2026-10-01T00:00Z"
BYTES = WINDOWS * STEPS * CELLS * len(VARIABLES) * 4
# The case that shows how much of the way is hidden: 0.1 s for each step, half of that to send it.
HIDDEN_MEMBERS, HIDDEN_INFER = min(5, MEMBERS), WINDOWS * STEPS * 0.1

# Sleeps through each window of each member, says when, and puts the window that lies ready there.
STREAMING = """\
s=$MLWM_STREAM; n=0
say() {{ echo "::mlwm {{\\"work\\":\\"$work\\",$1}}"; }}
sleep {load}
while true; do
  work=$(printf %04d $n)
  if [ ! -e $s/in/$work ]; then
    if [ -e $s/in/end ]; then exit 0; fi
    sleep 0.05; continue
  fi
  for path in $s/in/$work/inputs/state/h*; do
    window=$(basename $path)
    while [ ! -e $s/in/$work/go/$window ]; do sleep 0.05; done
    began=$(date +%s.%N); sleep {window}
    cp -r $path $s/out/$work/forecast/.$window
    mv $s/out/$work/forecast/.$window $s/out/$work/forecast/$window
    echo "inferred from $began to $(date +%s.%N)"
    say "\\"window\\":\\"$window\\""
  done
  say '"done":true'
  n=$((n + 1))
done
"""
# The same for one member: it writes its forecast at the end.
ALONE = """\
sleep {load}
began=$(date +%s.%N); sleep {infer}
cp -r /in/state/whole/. /out/forecast.zarr/
echo "inferred from $began to $(date +%s.%N)"
"""
CONFIGURATION = """\
docker_image: {image}
members: 0-{last}
forecast_duration: P33D
time_layout: time
inputs:
  state: {{uri: 's3://bench/{kind}/member{{member}}', internal_path: /in/state}}
outputs:
  forecast:
    uri: s3://bench/{out}/{{analysis_time}}/member{{member}}.zarr
    internal_path: /out/forecast.zarr
    windows: {{length: PT72H}}
"""


class Link:
    """A proxy that lets so many bytes pass in a second, for all connections together."""

    def __init__(self, endpoint, down, up):
        self.address, self.upstream = endpoint, tuple(endpoint.removeprefix("http://").split(":"))
        self.rate, self.free_at, self.passed = {"down": down, "up": up}, {"down": 0.0, "up": 0.0}, {"down": 0, "up": 0}
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.endpoint = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(self.upstream)
            threading.Thread(target=self.forward, args=(client, server, "up"), daemon=True).start()
            threading.Thread(target=self.forward, args=(server, client, "down"), daemon=True).start()

    def forward(self, source, target, way):
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                with self.lock:
                    self.passed[way] += len(piece)
                    self.free_at[way] = max(self.free_at[way], time.monotonic()) + len(piece) / self.rate[way]
                    pause = self.free_at[way] - time.monotonic()
                time.sleep(max(0, pause))
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)


def image(name, script, label, infer=INFER):
    script = script.format(load=LOAD, infer=infer, window=infer / WINDOWS)
    text = f"FROM mlwm-base:bookworm\nENTRYPOINT {json.dumps(['/bin/bash', '-c', script])}\n"
    text += "LABEL io.mlwm.streaming=1\n" if label else ""
    subprocess.run(["docker", "build", "--quiet", "--tag", name, "-"], input=text, text=True, check=True, capture_output=True)


def forecasts(folder):
    """The forecast of a member in windows and as a whole, incompressible."""
    import numpy as np
    import xarray as xr

    times = np.datetime64(TIME[:-1], "ns") + np.arange(1, WINDOWS * STEPS + 1) * np.timedelta64(6, "h")
    generator = np.random.default_rng(0)
    # All bits but one are noise; with that one there would be values that are not finite.
    values = lambda: (generator.integers(0, 1 << 32, (times.size, CELLS), dtype="u4") & 0xBFFFFFFF).view("f4")
    whole = xr.Dataset({name: (("time", "cell"), values()) for name in VARIABLES}, {"time": times})
    encoding = {name: {"chunks": (STEPS, CELLS), "compressors": None} for name in VARIABLES}
    encoding["time"] = {"units": "hours since 2026-01-01", "dtype": "i8"}
    whole.to_zarr(folder / "alone/whole", zarr_format=3, consolidated=False, encoding=encoding)
    for number in range(WINDOWS):
        window = whole.isel(time=slice(number * STEPS, (number + 1) * STEPS))
        hours = f"h{number * 72:03}-{(number + 1) * 72:03}"
        window.to_zarr(folder / "streaming" / hours, zarr_format=3, consolidated=False, encoding=encoding)


def upload(folder, environment):
    """What each member starts from, in both forms and as the one file of the scripts."""
    client = client_of(environment)
    for kind in ("alone", "streaming"):
        for path in (folder / kind).rglob("*"):
            if path.is_file():
                for member in range(MEMBERS):
                    client.upload_file(str(path), "bench", f"{kind}/member{member}/{path.relative_to(folder / kind)}")
    for member in range(MEMBERS):
        client.put_object(Bucket="bench", Key=f"scripts/member{member}.pkl", Body=os.urandom(BYTES))


def client_of(environment):
    import boto3

    return boto3.session.Session().client("s3", endpoint_url=environment["AWS_ENDPOINT_URL"], region_name=environment["AWS_REGION"],
                                          aws_access_key_id=environment["AWS_ACCESS_KEY_ID"], aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"])


def serial_loop(folder, environment):
    """As the scripts do it: the model is loaded once; a member is fetched, run, uploaded by five threads with a client for
    each file, and deleted, before the next one is begun. When it inferred, and the seconds of it all."""
    began = time.time()
    time.sleep(LOAD)
    inferred = []
    for member in range(MEMBERS):
        state = folder / f"input_state_member_{member:03}.pkl"
        client_of(environment).download_file("bench", f"scripts/member{member}.pkl", str(state))
        values, files = state.read_bytes(), []
        for window in range(WINDOWS):
            start = time.time()
            time.sleep(INFER / WINDOWS)
            files.append(folder / f"member{member:03}_h{window * 72:03}-{window * 72 + 72:03}.grib")
            files[-1].write_bytes(values[window * BYTES // WINDOWS : (window + 1) * BYTES // WINDOWS])
            inferred.append((start, time.time()))
        with ThreadPoolExecutor(5) as pool:
            list(pool.map(lambda file: client_of(environment).upload_file(str(file), "bench", f"forecasts/{file.name}"), files))
        for file in [state, *files]:
            file.unlink()
    return inferred, time.time() - began


class Run:
    """One `mlwm run`, to its end or to a moment at which it is killed."""

    def __init__(self, folder, name, environment, kill_after=None):
        command = [MLWM, "run", "--analysis-time", TIME, "--configurations", folder / "configurations", "--model", name,
                   "--workdir", folder / "work", "--json"]
        self.inferred, self.ends, self.staged = [], [], []
        self.began = time.time()
        run = subprocess.Popen([*map(str, command)], cwd=WORK, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True)
        if kill_after:
            threading.Timer(kill_after, lambda: run.send_signal(signal.SIGKILL)).start()
        for line in run.stdout:
            self.take(json.loads(line))
        self.seconds = time.time() - self.began
        code = run.wait()
        if code != (-9 if kill_after else 0):
            sys.exit(f"mlwm run ended with {code}; see {folder}/work/log")

    def take(self, event):
        if event["event"] == "log" and (found := re.fullmatch(r"inferred from (\S+) to (\S+)", event["line"])):
            self.inferred.append(tuple(map(float, found.groups())))
        if event["event"] == "phase-finished" and event["phase"] == "stage":
            self.staged.append(event["seconds"])
        if event["event"] == "task-finished":
            self.ends.append(time.time())

    def least(self):
        """The seconds of what cannot be done beside something else; the inference as the model says it."""
        inference = sum(end - begin for begin, end in self.inferred)
        return self.staged[0] + LOAD + inference + max(self.ends) - max(end for _, end in self.inferred)


def idle(inferred):
    """The share of the time from the first step to the last in which the model did nothing."""
    busy = sum(end - begin for begin, end in inferred)
    return 1 - busy / (max(end for _, end in inferred) - min(begin for begin, _ in inferred))


def ensembles():
    """A warm container and its pipeline, against the loop of the scripts and a container for each member."""
    folder = fresh("ensembles")
    image("mlwm-bench/streaming:latest", STREAMING, True)
    image("mlwm-bench/hidden:latest", STREAMING, True, HIDDEN_INFER)
    image("mlwm-bench/alone:latest", ALONE, False)
    forecasts(folder / "forecasts")
    cases = {"streaming": ("streaming", "streaming", MEMBERS), "killed": ("streaming", "streaming", MEMBERS),
             "hidden": ("hidden", "streaming", HIDDEN_MEMBERS), "alone": ("alone", "alone", MEMBERS)}
    for name, (model, kind, members) in cases.items():
        (folder / "configurations" / name).mkdir(parents=True)
        text = CONFIGURATION.format(image=f"mlwm-bench/{model}:latest", kind=kind, out=name, last=members - 1)
        (folder / "configurations" / name / "config.yaml").write_text(text)
    with garage() as (_, _, environment, *_):
        upload(folder / "forecasts", environment)
        link = Link(environment["AWS_ENDPOINT_URL"], BYTES / FETCH, BYTES / PUBLISH)
        environment = {**environment, "AWS_ENDPOINT_URL": link.endpoint}
        yield from compare(folder, environment)
        yield from resume(folder, environment, link)
        slow = Link(link.address, BYTES / FETCH, BYTES / (HIDDEN_INFER / 2))
        yield from hidden(folder, {**environment, "AWS_ENDPOINT_URL": slow.endpoint})
    shutil.rmtree(folder)


WHAT = f"{MEMBERS} members, times of AIFS / {SCALE:g}"


def compare(folder, environment):
    own = Run(folder, "streaming", environment)
    inferred, serial = serial_loop(folder, environment)
    alone = Run(folder, "alone", environment)
    for name, other in (("the serial loop of the scripts", serial), ("a container for each member", alone.seconds)):
        yield "ensemble, start to end", WHAT, f"{own.seconds:.1f} s", name, f"{other:.1f} s", own.seconds / other
    yield "ensemble, start to end", WHAT, f"{own.seconds:.1f} s", "first fetch + load + inference + last publish", f"{own.least():.1f} s", own.seconds / own.least()
    for name, other in (("the serial loop of the scripts", inferred), ("a container for each member", alone.inferred)):
        yield "the model waits", WHAT, f"{idle(own.inferred):.2%}", name, f"{idle(other):.2%}", idle(own.inferred) / idle(other)
    between = idle(own.inferred) * (own.inferred[-1][1] - own.inferred[0][0]) / MEMBERS
    whole = between / (480 + between)
    yield "the model waits, per member", WHAT, f"{between * 1000:.0f} ms", "of the 480 s of a member of AIFS", f"{whole:.3%}", None


def hidden(folder, environment):
    """A model whose windows take half as long on their way as to be made."""
    own = Run(folder, "hidden", environment)
    on = f"{HIDDEN_MEMBERS} members, 0.1 s for a step, half of that to send it"
    yield "ensemble, start to end", on, f"{own.seconds:.1f} s", "first fetch + load + inference + last publish", f"{own.least():.1f} s", own.seconds / own.least()


def resume(folder, environment, link):
    """Killed with its container when half of the time is over, and run again."""
    whole = LOAD + MEMBERS * INFER
    before = link.passed["up"]
    first = Run(folder, "killed", environment, kill_after=whole / 2)
    asked = time.time()
    second = Run(folder, "killed", environment)
    sent = link.passed["up"] - before
    again = min(begin for begin, _ in second.inferred) - asked - LOAD
    windows = len(first.inferred) + len(second.inferred) - MEMBERS * WINDOWS
    yield "killed at half, until the model steps again", WHAT, f"{again:.1f} s", "a member's inference", f"{INFER:.1f} s", again / INFER
    yield "killed at half, inferred again", WHAT, f"{windows} windows", "windows of the ensemble", f"{MEMBERS * WINDOWS}", windows / (MEMBERS * WINDOWS)
    yield "killed at half, sent in all", WHAT, f"{sent / 1e6:.0f} MB", "the ensemble", f"{MEMBERS * BYTES / 1e6:.0f} MB", sent / (MEMBERS * BYTES)
