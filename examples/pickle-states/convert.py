"""A converter of input states: a pickle becomes the `.npz` that a model declares in `interface.json`.

A pickle is a program, so it is loaded here alone: in a container without network that sees this one file
and an empty folder (docs/container-contract.md, section "Converters"). This one reads what anemoi's runners
do, a dictionary with

    date        the analysis time, a datetime in UTC
    fields      name -> array of (2, cells): the state before, and that of `date`
    latitudes, longitudes    arrays of (cells), if they are there

and writes float32 fields of (time, cell) beside `time`, which the pickle leaves to the reader. How much older
the first state is says STATE_AGE_HOURS in the `environment` of the converter; 6 if it is not there. Nothing
is taken from ANALYSIS_TIME: a state of another day must show.
"""

import os
import pickle
import sys
from datetime import timedelta, timezone

import numpy as np

AGE = timedelta(hours=float(os.environ.get("STATE_AGE_HOURS", "6")))

with open(os.environ["MLWM_CONVERT_IN"], "rb") as file:
    state = pickle.load(file)
if not isinstance(state, dict) or not {"date", "fields"} <= state.keys():
    sys.exit("the pickle is no dictionary with `date` and `fields`")

date = state["date"]
if date.tzinfo is not None:
    date = date.astimezone(timezone.utc).replace(tzinfo=None)
arrays = {"time": np.array([date - AGE, date], "datetime64[s]")}
for key, name in (("latitudes", "latitude"), ("longitudes", "longitude")):
    if key in state:
        arrays[name] = np.asarray(state[key])
fields = state["fields"]
for name in sorted(fields):
    values = np.asarray(fields.pop(name))  # one field at a time: a state fills half of the memory
    if values.ndim != 2 or len(values) != 2:
        sys.exit(f"`{name}` has the shape {values.shape}, not (2, cells)")
    arrays[name] = values.astype("float32")

np.savez(os.environ["MLWM_CONVERT_OUT"], **arrays)
print(f"{date:%Y-%m-%dT%H:%MZ} and {AGE} before, {len(arrays)} arrays")
