"""How oracles are stored: one zarr v3 store per forecast, in the order of the training grid.

`{feature}(time, dim0, dim1)` in physical units and `standardized(time, grid_index, state_feature)`,
both float32; `dim0` is the slower one of the stacked dimensions. No strings, no datastore library.
"""

import shutil

import numpy as np
import xarray as xr


def along(points):
    """The values along a dimension, in the order in which they first occur in the stacked grid."""
    return points[np.sort(np.unique(points, return_index=True)[1])]


def write_forecast(path, standardized, physical, times, names, units, long_names, dims, coordinates, attrs):
    """`coordinates` are those of the stacked points, or of each dimension."""
    values = {d: along(np.asarray(coordinates[d])) for d in dims}
    shape = tuple(len(values[d]) for d in dims)
    variables = {
        name: xr.DataArray(
            physical[..., i].astype("f4").reshape(len(times), *shape),
            dims=("time", *dims),
            attrs=dict(units=units[i], long_name=long_names[i]),
        )
        for i, name in enumerate(names)
    }
    variables["standardized"] = xr.DataArray(
        standardized.astype("f4"), dims=("time", "grid_index", "state_feature"), attrs=dict(state_feature=list(names))
    )
    coords = dict({d: (d, v) for d, v in values.items()}, time=("time", np.asarray(times, "datetime64[ns]")))
    ds = xr.Dataset(variables, coords=coords, attrs=attrs)
    shutil.rmtree(path, ignore_errors=True)
    encoding = {name: dict(_FillValue=None) for name in [*ds.data_vars, *dims]}
    encoding["time"] = dict(units="seconds since 1970-01-01", dtype="i8", calendar="proleptic_gregorian")
    ds.to_zarr(path, zarr_format=3, consolidated=False, encoding=encoding)
    return ds


def differences(a, b):
    """Largest absolute difference of every variable of `b`, which `a` must have on the same coordinates."""
    for name in b.coords:
        if not np.array_equal(a[name].values, b[name].values):
            raise ValueError(f"the coordinate {name} differs: {a[name].values} and {b[name].values}")
    pairs = {name: (a[name].values.astype("f8"), b[name].values.astype("f8")) for name in sorted(b.data_vars)}
    return {name: float(np.abs(ours - theirs).max()) for name, (ours, theirs) in pairs.items()}
