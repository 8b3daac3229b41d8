"""A PyTorch checkpoint with one tensor of noise, as torch.save writes it, of any size.

usage: checkpoint.py FILE BYTES [SEED]

Needs no PyTorch: the pickle names torch's functions, and nothing calls them here.
"""

import collections
import io
import pickle
import sys
import types
import zipfile

import numpy as np

PIECE = 4 << 20


def named(module, name):
    """A function that pickles as `module.name`."""

    def function(*_):
        raise AssertionError("only its name is of interest")

    function.__module__, function.__qualname__, function.__name__ = module, name, name
    sys.modules.setdefault(module, types.ModuleType(module))
    setattr(sys.modules[module], name, function)
    return function


class Storage:
    def __init__(self, length):
        self.length = length


class Tensor:
    def __init__(self, storage):
        self.storage = storage

    def __reduce__(self):
        arguments = (self.storage, 0, (self.storage.length,), (1,), False, collections.OrderedDict())
        return REBUILD, arguments


REBUILD = named("torch._utils", "_rebuild_tensor_v2")
FLOAT_STORAGE = named("torch", "FloatStorage")


class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        if isinstance(value, Storage):
            return ("storage", FLOAT_STORAGE, "0", "cpu", value.length)
        return None


def pickled(length):
    text = io.BytesIO()
    state = collections.OrderedDict(weight=Tensor(Storage(length)))
    Pickler(text, protocol=2).dump({"state_dict": state, "epoch": 1})
    return text.getvalue()


def member(name):
    return zipfile.ZipInfo(f"archive/{name}", (1980, 1, 1, 0, 0, 0))


def main(path, size, seed=0):
    length = int(size) // 4
    noise = np.random.default_rng(int(seed))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(member("data.pkl"), pickled(length))
        archive.writestr(member("byteorder"), b"little")
        with archive.open(member("data/0"), "w", force_zip64=length * 4 >= 2**31) as data:
            left = length * 4
            while left:
                piece = min(left, PIECE)
                data.write(noise.bytes(piece))
                left -= piece
        archive.writestr(member("version"), b"3\n")


main(*sys.argv[1:])
