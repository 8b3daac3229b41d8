"""Synthetic source datasets of the test cases: smooth travelling waves without meteorological meaning.

usage: make_sources.py danra|levels|packed|two-datastores|boundary-grid|no-forcing FOLDER

Every set is seeded, so the same versions of numpy and pyproj write the same values again.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyproj
import xarray as xr
from numcodecs import Blosc
from zarr.codecs import BloscCodec, ZstdCodec

ZSTD_V2 = Blosc(cname="zstd", clevel=9, shuffle=Blosc.BITSHUFFLE)
ZSTD_V3 = BloscCodec(cname="zstd", clevel=9, shuffle="bitshuffle")


def noise(rng, shape, amplitude):
    """Noise, smoothed along the last two dimensions."""
    field = rng.standard_normal(shape)
    for axis in (-2, -1):
        field = (np.roll(field, 1, axis) + field + np.roll(field, -1, axis)) / 3
    return amplitude * field


def variable(values, dims, units, long_name, decimals, dtype="f4"):
    attrs = dict(units=units, long_name=long_name)
    return xr.DataArray(np.round(values, decimals).astype(dtype), dims=dims, attrs=attrs)


def write(ds, path, zarr_format, chunks=None, encoding=None):
    """Writes compressed; `chunks` by dimension, whole dimensions where absent."""
    compressor = ZSTD_V2 if zarr_format == 2 else ZSTD_V3
    chunks, encoding = chunks or {}, {name: dict(e) for name, e in (encoding or {}).items()}
    for name, array in ds.data_vars.items():
        entry = encoding.setdefault(name, {})
        entry.setdefault("compressors", compressor)
        entry["chunks"] = tuple(min(chunks.get(d, n), n) for d, n in array.sizes.items())
    ds.to_zarr(path, mode="w", zarr_format=zarr_format, consolidated=True, encoding=encoding)
    print(path, dict(ds.sizes), list(ds.data_vars))


def danra(out):
    """30x28 points, 3-hourly, zarr v2, `(time, y, x)`: the data of the project's first case."""
    nx, ny, nt, dx = 30, 28, 60, 10_000.0
    rng = np.random.default_rng(20220401)
    x = np.arange(nx) * dx - 1_000_000.0
    y = np.arange(ny) * dx - 400_000.0
    time = pd.date_range("2022-04-01T00:00", periods=nt, freq="3h").astype("datetime64[ns]")
    X, Y = np.meshgrid(x, y, indexing="xy")
    lcc = pyproj.Proj(proj="lcc", lon_0=25.0, lat_0=56.7, lat_1=56.7, lat_2=56.7, a=6367470.0, b=6367470.0)
    lon, lat = lcc(X, Y, inverse=True)
    k = 2 * np.pi / (nx * dx)
    h = np.asarray(time.hour, "f8")[:, None, None]
    t = np.arange(nt)[:, None, None]
    shape = (nt, ny, nx)
    oro = np.round(np.maximum(0, 250 * np.sin(2.1 * k * X) * np.cos(1.7 * k * Y) + 60), 1)
    t2m = (279 + 5 * np.sin(k * X + 0.3 * k * Y - 0.21 * t) - 0.0065 * oro
           + 3 * np.sin(2 * np.pi * (h - 9) / 24) + noise(rng, shape, 0.5))
    u10m = 4 + 6 * np.cos(k * Y - 0.17 * t) + noise(rng, shape, 0.8)
    v10m = -1 + 5 * np.sin(k * X - 0.13 * t) * np.cos(k * Y) + noise(rng, shape, 0.8)
    sw = np.maximum(0, np.sin(2 * np.pi * (h - 6) / 24)) * 4.0e6 * (0.8 + 0.2 * np.cos(k * X + 0.1 * t))
    txy, xy = ("time", "y", "x"), ("y", "x")
    ds = xr.Dataset(
        dict(
            t2m=variable(t2m, txy, "K", "2 metre temperature", 2),
            u10m=variable(u10m, txy, "m s**-1", "10 metre u-component of wind", 2),
            v10m=variable(v10m, txy, "m s**-1", "10 metre v-component of wind", 2),
            swavr0m=variable(sw, txy, "J m**-2", "accumulated surface shortwave", -2),
            orography=variable(oro, xy, "m", "surface height", 1),
            lsm=variable((oro > 0).astype("f4"), xy, "1", "land-sea mask", 0),
        ),
        coords=dict(
            time=("time", time),
            x=("x", x, dict(units="m", standard_name="projection_x_coordinate")),
            y=("y", y, dict(units="m", standard_name="projection_y_coordinate")),
            lat=(xy, lat, dict(units="degrees_north")),
            lon=(xy, lon, dict(units="degrees_east")),
        ),
        attrs=dict(description="synthetic, smooth travelling waves; no meteorological meaning"),
    )
    write(ds, out / "single_levels.zarr", 2, dict(time=12), dict(time=dict(units="hours since 2022-04-01", dtype="i8")))


def levels(out):
    """36x31 points, hourly over a new year, four zarr v3 sources with unlike dimension orders."""
    nx, ny, nt, dx = 36, 31, 100, 2_500.0
    rng = np.random.default_rng(2112)
    x, y = np.arange(nx) * dx + 120_000.0, np.arange(ny) * dx - 60_000.0
    time = pd.date_range("2021-12-28T00:00", periods=nt, freq="1h").astype("datetime64[ns]")
    X, Y = np.meshgrid(x, y, indexing="xy")
    lcc = pyproj.Proj(proj="lcc", lon_0=10.0, lat_0=50.0, lat_1=45.0, lat_2=55.0, a=6371229.0, b=6371229.0)
    lon, lat = lcc(X, Y, inverse=True)
    k = 2 * np.pi / (nx * dx)
    h = np.asarray(time.hour, "f8")[:, None, None]
    t = np.arange(nt)[:, None, None]
    shape = (nt, ny, nx)
    oro = np.maximum(0, 400 * np.cos(1.3 * k * X) * np.sin(1.9 * k * Y + 1) + 90)
    t2m = (275 + 4 * np.sin(k * X - 0.5 * k * Y - 0.11 * t) - 0.006 * oro
           + 2 * np.sin(2 * np.pi * (h - 9) / 24) + noise(rng, shape, 0.3))
    pres = 101_300 + 900 * np.cos(k * X + 0.7 * k * Y - 0.07 * t) - 11.8 * oro + noise(rng, shape, 20)
    altitude = np.array([30, 50, 100, 250], "i8")
    z = altitude[:, None, None, None]
    u = 3 + 0.02 * z + (4 + 0.01 * z) * np.cos(k * Y - 0.09 * t) + noise(rng, (4, *shape), 0.5)
    v = -2 + (3 + 0.012 * z) * np.sin(k * X - 0.08 * t + 0.002 * z) + noise(rng, (4, *shape), 0.5)
    cloud = np.clip(0.5 + 0.5 * np.sin(1.7 * k * X + 0.4 * k * Y - 0.15 * t) + noise(rng, shape, 0.1), 0, 1)
    sw = np.maximum(0, np.sin(2 * np.pi * (h - 7) / 24)) * 3.0e5 * (1 - 0.7 * cloud)
    tyx, yx = ("valid_time", "south_north", "west_east"), ("south_north", "west_east")
    space = dict(
        west_east=("west_east", x, dict(units="m")),
        south_north=("south_north", y, dict(units="m")),
        latitude=(yx, lat, dict(units="degrees_north")),
        longitude=(yx, lon, dict(units="degrees_east")),
    )
    coords = dict(valid_time=("valid_time", time), **space)
    clock = dict(valid_time=dict(units="minutes since 2021-12-01 06:00:00", dtype="i4"))
    surface = xr.Dataset(
        dict(
            t2m=variable(t2m, tyx, "K", "2 metre temperature", 2),
            pres0m=variable(pres, tyx, "Pa", "surface pressure", 0),
        ),
        coords=coords,
    )
    write(surface, out / "surface.zarr", 3, dict(valid_time=7, south_north=16), clock)
    zdims = ("altitude", *tyx)
    heights = xr.Dataset(
        dict(
            u=variable(u, zdims, "m s**-1", "u-component of wind", 1),
            v=variable(v, zdims, "m s**-1", "v-component of wind", 1),
        ),
        coords=dict(altitude=("altitude", altitude, dict(units="m")), **coords),
    ).transpose("south_north", "west_east", "altitude", "valid_time")
    write(heights, out / "height_levels.zarr", 3, dict(valid_time=9, altitude=3, west_east=20), clock)
    fluxes = xr.Dataset(
        dict(
            swavr0m=variable(sw, tyx, "J m**-2", "accumulated surface shortwave", -1),
            cloudcover=variable(cloud, tyx, "1", "total cloud cover", 2),
        ),
        coords=coords,
    ).transpose("valid_time", "west_east", "south_north")
    write(fluxes, out / "fluxes.zarr", 3, dict(valid_time=24), clock)
    constants = xr.Dataset(
        dict(
            orography=variable(oro, yx, "m", "surface height", 1),
            lsm=variable((oro > 0).astype("f4"), yx, "1", "land-sea mask", 0),
        ),
        coords=space,
    ).transpose("west_east", "south_north")
    write(constants, out / "constants.zarr", 3)


def packed(out):
    """Regular latitudes (north to south) and longitudes, 6-hourly, int16 in zarr v2, time as float days."""
    nx, ny, nt = 34, 29, 84
    rng = np.random.default_rng(1979)
    lon, lat = np.arange(nx) * 0.5 - 4.0, 62.0 - np.arange(ny) * 0.25
    time = pd.date_range("2023-06-01T00:00", periods=nt, freq="6h").astype("datetime64[ns]")
    X, Y = np.meshgrid(np.arange(nx), np.arange(ny), indexing="xy")
    k = 2 * np.pi / nx
    h = np.asarray(time.hour, "f8")[:, None, None]
    t = np.arange(nt)[:, None, None]
    shape = (nt, ny, nx)
    t2m = (288 + 6 * np.sin(k * X - 0.3 * k * Y - 0.19 * t)
           + 4 * np.sin(2 * np.pi * (h - 9) / 24) + noise(rng, shape, 0.5))
    r2m = np.clip(0.6 + 0.35 * np.sin(k * X + 0.8 * k * Y - 0.23 * t) + noise(rng, shape, 0.1), 0.02, 0.995)
    wind = np.maximum(0.3, 6 + 4 * np.cos(k * Y - 0.21 * t) + 2 * np.sin(k * X) + noise(rng, shape, 0.6))
    level = np.array([1000.0, 850.0, 500.0])
    z = level[:, None, None, None]
    temp = 288 - 0.05 * (1000 - z) + 5 * np.sin(k * X + 0.5 * k * Y - 0.15 * t + z / 400) + noise(rng, (3, *shape), 0.4)
    cape = np.maximum(0, 800 * np.sin(1.3 * k * X - 0.6 * k * Y + 0.1 * t) + noise(rng, shape, 60))
    geo = np.maximum(0, 3000 * np.sin(1.1 * k * X) * np.cos(1.6 * k * Y) + 900)
    tyx = ("time", "latitude", "longitude")
    coords = dict(
        time=("time", time),
        longitude=("longitude", lon, dict(units="degrees_east")),
        latitude=("latitude", lat, dict(units="degrees_north")),
    )
    clock = dict(time=dict(units="days since 2023-01-01", dtype="f8", calendar="standard"))

    def pack(scale, offset=None):
        entry = dict(dtype="i2", scale_factor=scale, _FillValue=-32767)
        return entry if offset is None else dict(entry, add_offset=offset)

    single = xr.Dataset(
        dict(
            t2m=variable(t2m, tyx, "K", "2 metre temperature", 6, "f8"),
            r2m=variable(r2m, tyx, "1", "2 metre relative humidity", 6, "f8"),
            wind10m=variable(wind, tyx, "m s**-1", "10 metre wind speed", 6, "f8"),
            cape=variable(cape, tyx, "J kg**-1", "convective available potential energy", 0, "f8"),
            geopotential=variable(geo, tyx[1:], "m**2 s**-2", "surface geopotential", 2, "f8"),
        ),
        coords=coords,
        attrs=dict(source="synthetic", grid="regular_ll"),
    )
    encoding = dict(
        clock,
        t2m=pack(0.002, 285.0),
        r2m=pack(3.2e-05, 0.5),
        wind10m=pack(0.001),
        cape=dict(dtype="i2", _FillValue=-1),
        geopotential=pack(0.11, 1500.0),
    )
    write(single, out / "single.zarr", 2, dict(time=10, latitude=20, longitude=15), encoding)
    pressure = xr.Dataset(
        dict(t=variable(temp, ("isobaricInhPa", *tyx), "K", "temperature", 6, "f8")),
        coords=dict(isobaricInhPa=("isobaricInhPa", level, dict(units="hPa")), **coords),
    ).transpose("time", "isobaricInhPa", "latitude", "longitude")
    write(pressure, out / "pressure.zarr", 2, dict(time=10), dict(clock, t=pack(0.003, 270.0)))


def small_grid(seed, nx, ny, times, x0, dx, phase):
    """Two waves and noise on a small grid, for the hand-made models."""
    rng = np.random.default_rng(seed)
    x, y = x0 + np.arange(nx) * dx, 2 * x0 + np.arange(ny) * dx
    X, Y = np.meshgrid(np.arange(nx) / nx, np.arange(ny) / ny, indexing="ij")
    t = np.arange(len(times))[:, None, None]
    shape = (len(times), nx, ny)

    def wave(mean, amplitude, a, b, c):
        return mean + amplitude * (np.sin(2 * np.pi * (a * X + b * Y) - c * t + phase) + 0.15 * noise(rng, shape, 1))

    coords = dict(time=("time", times), x=("x", x, dict(units="m")), y=("y", y, dict(units="m")))
    return wave, X, Y, coords


HOUR = dict(time=dict(units="seconds since 1970-01-01", dtype="i8"))
TXY = ("time", "x", "y")


def hourly(periods):
    return pd.date_range("2024-02-28T12:00", periods=periods, freq="1h").astype("datetime64[ns]")


def lam(path, times, seed=7):
    wave, X, Y, coords = small_grid(seed, 14, 11, times, 10_000.0, 2_000.0, 0.0)
    ds = xr.Dataset(
        dict(
            t2m=variable(wave(280, 6, 1, 0.4, 0.3), TXY, "K", "2 metre temperature", 2),
            u10m=variable(wave(2, 5, 0.5, -1, 0.25), TXY, "m s**-1", "10 metre u-component of wind", 2),
            cloudcover=variable(wave(0.5, 0.2, 2, 1, 0.2), TXY, "1", "total cloud cover", 3),
            orography=variable(300 + 200 * np.sin(5 * X) * np.cos(3 * Y), ("x", "y"), "m", "surface height", 1),
            lsm=variable(X > 0.4, ("x", "y"), "1", "land-sea mask", 0),
        ),
        coords=coords,
    )
    write(ds, path, 3, dict(time=8), HOUR)


def two_datastores(out):
    """State and forcing in one source, further forcing on the same grid in another."""
    times = hourly(72)
    lam(out / "lam.zarr", times)
    wave, _, _, coords = small_grid(8, 14, 11, times, 10_000.0, 2_000.0, 1.0)
    ds = xr.Dataset(
        dict(
            sst=variable(wave(283, 3, 0.3, 0.8, 0.1), TXY, "K", "sea surface temperature", 2),
            wave_height=variable(wave(2, 1, 0.9, 0.2, 0.35), TXY, "m", "significant wave height", 2),
        ),
        coords=coords,
    ).transpose("y", "time", "x")
    write(ds, out / "ocean.zarr", 2, dict(time=20), HOUR)


def boundary_grid(out):
    """State on a small grid; forcing around it on a coarser grid of its own, longer in time."""
    times = hourly(72)
    lam(out / "lam.zarr", times, seed=9)
    wave, _, _, coords = small_grid(10, 7, 9, times, 1_000.0, 6_000.0, 0.4)
    level = np.array([500, 850, 1000], "i4")
    z = np.stack([wave(1.0e4 * (4 - i), 900, 0.7, 0.2 + 0.3 * i, 0.2) for i in range(3)], axis=1)
    ds = xr.Dataset(
        dict(
            z=variable(z, ("time", "level", "x", "y"), "m**2 s**-2", "geopotential", 0),
            msl=variable(wave(1.012e5, 800, 1, 0.6, 0.22), TXY, "Pa", "mean sea level pressure", 0),
        ),
        coords=dict(level=("level", level, dict(units="hPa")), **coords),
    )
    write(ds, out / "era.zarr", 3, dict(time=24), HOUR)


def no_forcing(out):
    lam(out / "lam.zarr", hourly(72), seed=11)


MAKERS = {
    "danra": danra,
    "levels": levels,
    "packed": packed,
    "two-datastores": two_datastores,
    "boundary-grid": boundary_grid,
    "no-forcing": no_forcing,
}

if __name__ == "__main__":
    folder = Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    MAKERS[sys.argv[1]](folder)
