"""Writes Zarr stores of every kind that mlwm must read, and what xarray reads from each.

usage: odd_stores.py <folder> [<store>]

With a store, only what xarray reads from it is written, to `<folder>/store.json`.
For each `<name>.zarr` there is a `<name>.json`: the variables with their type after decoding, dims,
shape and values (NaN as null, times as seconds since 1970, durations as seconds).
"""

import json
import pathlib
import sys
import warnings

import numcodecs
import numpy as np
import xarray as xr
import zarr
from zarr.codecs import (
    BloscCodec,
    BytesCodec,
    Crc32cCodec,
    GzipCodec,
    TransposeCodec,
    ZstdCodec,
)

warnings.filterwarnings("ignore")
folder = pathlib.Path(sys.argv[1])
rng = np.random.default_rng(7)


class Store:
    def __init__(self, name, zarr_format, consolidated=True):
        self.path = folder / f"{name}.zarr"
        self.format = zarr_format
        self.consolidated = consolidated
        self.group = zarr.open_group(self.path, mode="w", zarr_format=zarr_format)
        self.group.attrs["title"] = name

    def add(self, name, data, attrs=None, chunks=None, write=True, dims=None, **options):
        data = np.asarray(data)
        dims = dims or [f"{name}_{i}" for i in range(data.ndim)]
        if self.format == 3:
            options["dimension_names"] = dims
        array = self.group.create_array(
            name,
            shape=data.shape,
            dtype=options.pop("dtype", data.dtype),
            chunks=chunks or tuple(max(1, n) for n in data.shape),
            **options,
        )
        array.attrs.update(attrs or {})
        if self.format == 2:
            array.attrs["_ARRAY_DIMENSIONS"] = dims
        if write:
            array[...] = data
        return array

    def finish(self):
        if self.consolidated:
            zarr.consolidate_metadata(self.path, zarr_format=self.format)
        describe_store(self.path, self.path.with_suffix(".json"), self.consolidated)


def describe_store(path, out, consolidated):
    ds = xr.open_zarr(path, consolidated=consolidated, chunks=None)
    out.write_text(json.dumps({name: describe(ds[name].variable) for name in ds.variables}))


def describe(variable):
    values = variable.values
    kind = values.dtype.kind
    if kind == "M":
        kind, values = "time", values.astype("datetime64[s]").astype("i8")
    elif kind == "m":
        kind, values = "duration", values.astype("timedelta64[s]").astype("i8")
    elif kind in "OUT":
        kind, values = "text", np.array([str(v) for v in values.ravel()], dtype=object)
    elif kind == "S":
        kind, values = "text", np.array([v.decode() for v in values.ravel()], dtype=object)
    elif kind in "iub":
        kind = "int64"
    else:
        kind = "float64" if values.dtype.itemsize == 8 else "float32"
        special = {"inf": "Infinity", "-inf": "-Infinity", "nan": None}
        values = np.array([special.get(str(v), float(v)) for v in values.ravel()], dtype=object)
    return {
        "kind": kind,
        "dims": list(variable.dims),
        "shape": list(variable.shape),
        "values": [int(v) if kind in ("int64", "time", "duration") else v for v in values.ravel()],
    }


def numbers(store):
    """Every type of number, in both byte orders."""
    for kind in ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "b1"]:
        data = rng.integers(0, 2 if kind == "b1" else 100, (3, 4)).astype(kind)
        if kind[0] == "i":
            data[0, 0] = np.iinfo(kind).min
        if kind[0] in "iu" and kind != "u8":
            data[0, 1] = np.iinfo(kind).max
        if kind[0] == "f":
            data = (data / 7).astype(kind)
            data[0, :3] = [np.nan, np.inf, -0.0]
        fill = {"fill_value": None} if store.format == 2 and kind != "b1" else {}
        if kind == "b1" and store.format == 2:
            fill = {"fill_value": None}
        store.add(f"native_{kind}", data, **fill)
        if store.format == 2:
            store.add(f"big_{kind}", data, dtype=np.dtype(kind).newbyteorder(">"), **fill)
        else:
            store.add(f"big_{kind}", data, serializer=BytesCodec(endian="big"))
    store.add("scalar", np.float32(2.5))
    store.add("empty", np.zeros((0, 3), "f4"))


def masks(store):
    """Missing values, scales and offsets."""
    f4 = np.array([1.5, -999.0, np.nan, 1e20, 3.0], "f4")
    f8 = f4.astype("f8")
    ints = {k: np.array([1, -7, 3, 5, 100], k) for k in ["i1", "i2", "i4", "i8"]}
    v2 = store.format == 2

    def add(name, data, fill=None, attrs=None):
        attrs = dict(attrs or {})
        if v2:
            store.add(name, data, attrs, fill_value=fill)
        else:
            if fill is not None:
                codec = xr.backends.zarr.FillValueCoder
                attrs["_FillValue"] = codec.encode(data.dtype.type(fill), data.dtype)
            store.add(name, data, attrs, fill_value=data.dtype.type(3))

    for kind, data in {"f4": f4, "f8": f8, "f2": f4.astype("f2"), **ints}.items():
        fill = -7 if kind[0] == "i" else -999.0
        add(f"fill_{kind}", data, fill)
        add(f"none_{kind}", data)
        add(f"missing_{kind}", data, attrs={"missing_value": fill})
        add(f"scaled_{kind}", data, attrs={"scale_factor": 0.1, "add_offset": 273.15})
        add(f"factor_{kind}", data, attrs={"scale_factor": 0.1})
        add(f"offset_{kind}", data, attrs={"add_offset": 10.5})
        add(f"fill_scaled_{kind}", data, fill, {"scale_factor": 0.01, "add_offset": 5.5})
        add(f"fill_missing_{kind}", data, fill, {"missing_value": fill})
    add("nan_f4", f4, np.nan)
    add("nan_scaled_f4", f4, np.nan, {"scale_factor": 0.1})
    add("nan_scaled_f8", f8, np.nan, {"scale_factor": 0.1})
    add("nan_offset_f4", f4, np.nan, {"add_offset": 0.1})
    add("inf_f4", np.array([np.inf, 1, 2], "f4"), np.inf)
    add("many_f8", f8, attrs={"missing_value": [-999.0, 3.0]})
    add("unsigned_i1", ints["i1"], -7, {"_Unsigned": "true"})
    add("unsigned_i2", ints["i2"], attrs={"_Unsigned": "true"})
    add("unsigned_scaled", ints["i1"], -7, {"_Unsigned": "true", "scale_factor": 0.5})
    if v2:  # xarray overflows on version 3
        add("signed_u1", np.array([1, 249, 3], "u1"), 249, {"_Unsigned": "false"})
    add("bool_i1", np.array([0, 1, 1], "i1"), attrs={"dtype": "bool"})


def chunks(store):
    """Chunks at the edge, and chunks that are not there."""
    data = rng.normal(size=(7, 5)).astype("f4")
    fill = np.nan if store.format == 2 else 4.5
    store.add("edge", data, chunks=(3, 2))
    array = store.add("holes", data, chunks=(3, 2), write=False, fill_value=fill)
    array[3:6, 2:4] = data[3:6, 2:4]
    store.add("nothing", data, chunks=(3, 2), write=False, fill_value=fill)
    store.add("nothing_int", np.zeros((3, 2), "i4"), write=False, fill_value=9)


def codecs(store):
    """Every codec that there must be."""
    data = np.cumsum(rng.normal(size=(20, 30)), axis=1).astype("f4")
    if store.format == 2:
        plain = {"fill_value": None, "chunks": (8, 30)}
        for cname in numcodecs.blosc.list_compressors():
            for shuffle in [0, 1, 2]:
                codec = numcodecs.Blosc(cname=cname, shuffle=shuffle)
                store.add(f"blosc_{cname}_{shuffle}", data, compressors=codec, **plain)
        for codec in [numcodecs.Zstd(3), numcodecs.GZip(5), numcodecs.Zlib(5), None]:
            name = codec.codec_id if codec else "none"
            store.add(f"codec_{name}", data, compressors=codec, **plain)
        store.add("order_f", data, order="F", **plain)
        store.add("order_f3", data.reshape(4, 5, 30), order="F", fill_value=None, chunks=(3, 2, 10))
        store.add("slash", data, chunk_key_encoding={"name": "v2", "separator": "/"}, **plain)
        store.add("shuffle", data, filters=numcodecs.Shuffle(4), **plain)
    else:
        plain = {"chunks": (8, 30)}
        for cname in ["blosclz", "lz4", "lz4hc", "zlib", "zstd", "snappy"]:
            for shuffle in ["noshuffle", "shuffle", "bitshuffle"]:
                codec = BloscCodec(cname=cname, shuffle=shuffle, typesize=4)
                try:
                    store.add(f"blosc_{cname}_{shuffle}", data, compressors=codec, **plain)
                except ValueError:  # this blosc was built without
                    del store.group[f"blosc_{cname}_{shuffle}"]
        store.add("zstd", data, compressors=ZstdCodec(level=3), **plain)
        store.add("zstd_checksum", data, compressors=ZstdCodec(level=3, checksum=True), **plain)
        store.add("gzip", data, compressors=GzipCodec(), **plain)
        store.add("crc32c", data, compressors=[ZstdCodec(), Crc32cCodec()], **plain)
        store.add("none", data, compressors=None, **plain)
        store.add("transpose", data, filters=TransposeCodec(order=(1, 0)), **plain)
        store.add("sharding", data, chunks=(4, 10), shards=(8, 30))
        store.add("v2_keys", data, chunk_key_encoding={"name": "v2", "separator": "."}, **plain)


def texts(store):
    """Every way to store text."""
    words = np.array([["t2m", "", "u10m"], ["å∂ 😀", "x", "a b"]])
    store.add("fixed", words, fill_value=None if store.format == 2 else "")
    store.add("fixed_big", words.astype(">U6"), **({"fill_value": None} if store.format == 2 else {}))
    store.add("bytes", np.array([b"abc", b"", b"x"]), **({"fill_value": None} if store.format == 2 else {}))
    store.add("variable", words.astype(object), dtype=str, fill_value=None if store.format == 2 else "")
    store.add("variable_chunks", np.array(["a", "bcd", "", "é"], object), dtype=str, chunks=(3,), fill_value=None if store.format == 2 else "")


def times(store):
    """CF times and durations, and NumPy's own."""
    base = np.arange(5)
    none = {"fill_value": None} if store.format == 2 else {}
    for unit, values in {
        "hours": base * 3,
        "minutes": base * 30,
        "seconds": base,
        "days": base,
        "milliseconds": base * 1000,
        "microseconds": base * 1_000_000,
        "nanoseconds": base * 1_000_000_000,
    }.items():
        for kind in ["i8", "i4", "f8", "u2"]:
            if kind in ("i4", "u2") and unit not in ("hours", "days", "minutes", "seconds"):
                continue
            attrs = {"units": f"{unit} since 2022-04-01 06:00:00", "calendar": "proleptic_gregorian"}
            store.add(f"{unit}_{kind}", values.astype(kind), attrs, **none)
        store.add(f"length_{unit}", values, {"units": unit}, **none)
    store.add("fraction", np.array([0.125, 0.5, 1 / 3]), {"units": "days since 1900-01-01"}, **none)
    for i, reference in enumerate(
        ["2000-1-1", "2000-01-01T12:30:00", "2000-01-01 00:00:00.000", "2000-01-01 06:00:00Z", "2000-01-01 00:00:00 +01:00"]
    ):
        store.add(f"reference_{i}", base, {"units": f"hours since {reference}"}, **none)
    store.add("dtype_attribute", base, {"units": "hours", "dtype": "timedelta64[ns]"}, **none)
    store.add("datetime64", (base * 3600).astype("M8[s]"), **none)
    store.add("timedelta64", (base * 3600).astype("m8[s]"), **none)
    store.add("datetime64_ns", (base * 3600).astype("M8[s]").astype("M8[ns]"), **none)


if len(sys.argv) > 2:
    describe_store(sys.argv[2], folder / "store.json", True)
    sys.exit()

for cases in [numbers, masks, chunks, codecs, texts, times]:
    for zarr_format in [2, 3]:
        for consolidated in [True, False] if cases is numbers else [True]:
            end = "" if consolidated else "_plain"
            store = Store(f"{cases.__name__}_v{zarr_format}{end}", zarr_format, consolidated)
            cases(store)
            store.finish()
