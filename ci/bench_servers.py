"""Servers on the loopback interface for the measurements of ci/bench: each is started afresh, with a
folder of its own, and ended. A kind of registry is (URI, environment, push, pull): the last two are
the commands of the single-stream baseline."""

import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from bench_lib import WORK

GARAGE = Path(os.environ["MLWM_TEST_GARAGE"])
KEY, SECRET = "GK" + "0123456789ab" * 2, "c3" * 32


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def served(name, command, port, **environment):
    """Runs a server until the end of the block."""
    with open(WORK / f"{name}.log", "w") as log:
        server = subprocess.Popen(list(map(str, command)), env={**os.environ, **environment}, stdout=log, stderr=log)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.1)
        else:
            sys.exit(f"{name} did not start; its log is {WORK / f'{name}.log'}")
        yield
    finally:
        server.kill()
        server.wait()


def fresh(name):
    folder = WORK / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


@contextlib.contextmanager
def directory():
    folder = fresh("registry")
    copy = "import os, shutil, sys; shutil.copyfile(*sys.argv[1:]); file = os.open(sys.argv[2], os.O_RDONLY); os.fsync(file)"
    push = lambda file: [sys.executable, "-c", copy, file, folder / "copy"]
    pull = lambda to: [sys.executable, "-c", copy, folder / "copy", to]
    yield "a directory", str(folder), {}, "cp + fsync", push, pull


@contextlib.contextmanager
def garage():
    folder, api, rpc = fresh("garage"), free_port(), free_port()
    (folder / "garage.toml").write_text(f"""
metadata_dir = "{folder}/meta"
data_dir = "{folder}/data"
db_engine = "sqlite"
replication_factor = 1
rpc_bind_addr = "127.0.0.1:{rpc}"
rpc_public_addr = "127.0.0.1:{rpc}"
rpc_secret = "{'5a' * 32}"
[s3_api]
s3_region = "garage"
api_bind_addr = "127.0.0.1:{api}"
""")
    command = [GARAGE, "-c", folder / "garage.toml", "server", "--single-node", "--default-access-key", "--default-bucket"]
    default = dict(GARAGE_DEFAULT_ACCESS_KEY=KEY, GARAGE_DEFAULT_SECRET_KEY=SECRET, GARAGE_DEFAULT_BUCKET="bench", RUST_LOG="error")
    endpoint = f"http://127.0.0.1:{api}"
    environment = dict(AWS_ENDPOINT_URL=endpoint, AWS_REGION="garage", AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=SECRET,
                       AWS_CONFIG_FILE="/dev/null", AWS_SHARED_CREDENTIALS_FILE="/dev/null", AWS_CA_BUNDLE="")
    curl = ["curl", "-fsS", "--aws-sigv4", "aws:amz:garage:s3", "--user", f"{KEY}:{SECRET}", "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD"]
    with served("garage", command, api, **default):
        wait_for_bucket(folder / "garage.toml")
        push = lambda file: [*curl, "-T", file, f"{endpoint}/bench/copy"]
        pull = lambda to: [*curl, "-o", to, f"{endpoint}/bench/copy"]
        yield "S3 (Garage)", "s3://bench/models", environment, "curl, one stream", push, pull


def wait_for_bucket(config):
    for _ in range(300):
        done = subprocess.run([GARAGE, "-c", config, "bucket", "list"], capture_output=True, text=True, env={**os.environ, "RUST_LOG": "error"})
        if "bench" in done.stdout:
            return
        time.sleep(0.1)
    sys.exit(f"Garage made no bucket: {done.stdout}{done.stderr}")


@contextlib.contextmanager
def gcs():
    folder, port = fresh("gcs"), free_port()
    endpoint = f"http://127.0.0.1:{port}"
    command = [Path(sys.executable).with_name("gcp-storage-emulator"), "-d", folder, "start", "-q", "--host", "127.0.0.1", "--port", port, "--default-bucket", "bench"]
    with served("gcs", command, port):
        push = lambda file: ["curl", "-fsS", "-o", "/dev/null", "-X", "POST", "-H", "Content-Type: application/zip", "-T", file,
                             f"{endpoint}/upload/storage/v1/b/bench/o?uploadType=media&name=copy"]
        pull = lambda to: ["curl", "-fsS", "-o", to, f"{endpoint}/storage/v1/b/bench/o/copy?alt=media"]
        yield "GCS (emulator)", "gs://bench/models", dict(STORAGE_EMULATOR_HOST=endpoint), "curl, one stream", push, pull


# One blob in one PUT, as simple clients push it.
OCI_PUSH = """
import subprocess, sys, urllib.request
file, base, digest = sys.argv[1:]
begun = urllib.request.urlopen(urllib.request.Request(base + "/blobs/uploads/", method="POST", data=b""))
where = begun.headers["Location"]
where += ("&" if "?" in where else "?") + "digest=sha256:" + digest
subprocess.run(["curl", "-fsS", "-o", "/dev/null", "-T", file, "-H", "Content-Type: application/octet-stream", where], check=True)
"""


@contextlib.contextmanager
def oci():
    folder, port = fresh("oci"), free_port()
    (folder / "config.yml").write_text(json.dumps({
        "version": 0.1, "log": {"level": "error"}, "http": {"addr": f"127.0.0.1:{port}", "secret": secrets.token_hex(8)},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
    }))
    base = f"http://127.0.0.1:{port}/v2/copy"
    with served("oci", ["docker-registry", "serve", folder / "config.yml"], port):
        def push(file):
            digest = subprocess.run(["sha256sum", file], check=True, capture_output=True, text=True).stdout[:64]
            push.digest = digest
            return [sys.executable, "-c", OCI_PUSH, file, base, digest]
        pull = lambda to: ["curl", "-fsS", "-L", "-o", to, f"{base}/blobs/sha256:{push.digest}"]
        yield "OCI (docker-registry)", f"oci://127.0.0.1:{port}/models", {}, "curl, one PUT", push, pull


class Counter:
    """A proxy that counts the requests of clients that send no bodies."""

    REQUEST = re.compile(rb"(?m)^(?:GET|HEAD|PUT|POST) \S+ HTTP/1\.1\r$")

    def __init__(self, endpoint):
        self.requests, self.received = 0, 0
        self.upstream = tuple(endpoint.removeprefix("http://").split(":"))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(self.upstream)
            threading.Thread(target=self.forward, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self.forward, args=(server, client, False), daemon=True).start()

    def forward(self, source, target, asks):
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                if asks:
                    self.requests += len(self.REQUEST.findall(piece))
                else:
                    self.received += len(piece)
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)


KINDS = [directory, garage, gcs, oci]
