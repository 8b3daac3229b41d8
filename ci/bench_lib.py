"""What the measurements of ci/bench share."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = Path(os.environ["MLWM_BENCH"])
MLWM = Path(sys.argv[1]).resolve()
EXAMPLE = ROOT / "examples/neural-lam"
ROUNDS = int(os.environ.get("MLWM_BENCH_ROUNDS", 5))

# Runs a command and says its exit code, seconds and peak resident memory.
WATCH = """
import resource, subprocess, sys, time
began = time.perf_counter()
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
print(code, time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""


def mlwm(*arguments, check=True, **environment):
    done = subprocess.run([MLWM, *map(str, arguments)], cwd=WORK, env={**os.environ, **environment}, capture_output=True, text=True)
    if check and done.returncode:
        sys.exit(f"mlwm {' '.join(map(str, arguments))} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def python(code, *arguments, **environment):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, check=True, env={**os.environ, **environment}, capture_output=True, text=True).stdout.split()


def watch(*command, **environment):
    """Seconds and peak memory of a command that must end well."""
    code, seconds, rss = python(WATCH, *command, **environment)
    if code != "0":
        sys.exit(f"{' '.join(map(str, command))} ended with {code}")
    return float(seconds), float(rss)
