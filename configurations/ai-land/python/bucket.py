"""A synthetic land surface: weather that is a function of time and place, and three layers of soil with snow.

None of it is a real place, but all of it obeys plain rules, so that an emulator has something to learn:
rain and melt fill the first layer, what is too much runs off, water seeps down faster the wetter the soil
is, sun and leaves dry it, heat creeps down, and snow lies where it is cold. SI units, except where said.
Everything is computed in float64, hour by hour from the first one, and nothing is random.
"""

import numpy as np

HOUR = 3600.0
DEPTH = np.array([0.07, 0.21, 0.72])  # m
SIGMA = 5.67e-8
FREEZING = 273.15
FULL_SNOW = 15.0  # kg m-2 of snow that cover the ground
# Dry, and full of water, m3 m-3, for each soil type from 1.
DRY = np.array([0.05, 0.06, 0.08, 0.1, 0.12, 0.14, 0.1])
FULL = np.array([0.40, 0.42, 0.44, 0.45, 0.47, 0.50, 0.60])


def waves(latitude, longitude, terms):
    """A smooth field over the sphere from -1 to 1."""
    value = np.zeros_like(latitude)
    for number, (zonal, meridional, phase) in enumerate(terms):
        value += np.cos(np.radians(zonal * longitude + meridional * latitude) + phase) / (number + 1)
    return value / sum(1 / (number + 1) for number in range(len(terms)))


def is_land(latitude, longitude):
    """Whether points are land: about three in ten."""
    return waves(latitude, longitude, [(2, 1, 0.4), (3, -2, 2.1), (1, 4, 5.0)]) > 0.2


class Surface:
    """The points of land, and what does not change there."""

    def __init__(self, latitude, longitude):
        self.latitude, self.longitude = latitude, longitude
        hills = np.clip(waves(latitude, longitude, [(5, 3, 1.0), (7, -4, 0.2), (2, 2, 3.0)]), 0, None)
        wet = waves(latitude, longitude, [(3, 5, 2.0), (1, -3, 4.0)])
        green = np.clip(0.5 + 0.5 * wet - hills / 2, 0.02, 0.98)
        soil = 1 + np.floor(6.99 * (0.5 + 0.5 * waves(latitude, longitude, [(4, 1, 3.3), (2, 6, 1.1)])))
        self.static = {
            "z0m": 0.01 + 0.5 * green,
            "geopot": 9.81 * 1500 * hills,
            "cvl": (1 - green) * 0.8,
            "cvh": green * 0.9,
            "tvl": np.where(green > 0.5, 1.0, 7.0),
            "tvh": np.where(np.abs(latitude) > 45, 3.0, 6.0),
            "sotype": soil,
            "sdor": 200 * hills,
            "sdfor": 60 * hills,
            "cu": np.clip(-wet / 4, 0, 0.2),
            "Ctype": np.full_like(latitude, 3.0),
            "CLAKE": np.clip(wet - 0.7, 0, 0.2),
        }
        self.green, self.hills = green, hills
        self.dry, self.full = DRY[soil.astype(int) - 1], FULL[soil.astype(int) - 1]

    def weather(self, hour):
        """Forcing in the hour that begins so many hours after the start of a year of 365.25 days."""
        latitude, longitude = np.radians(self.latitude), np.radians(self.longitude)
        season = 2 * np.pi * (hour / 24 - 172) / 365.25
        declination = np.radians(23.44) * np.cos(season)
        sun = np.sin(latitude) * np.sin(declination) + np.cos(latitude) * np.cos(declination) * np.cos(
            2 * np.pi * hour / 24 + longitude - np.pi
        )
        # Highs and lows that go around in days, of which no two have the same period.
        storm = sum(
            np.sin(2 * np.pi * hour / period + zonal * longitude + meridional * latitude + zonal)
            for period, zonal, meridional in ((53.0, -3, 2), (91.0, -5, -1), (147.0, 2, 4), (211.0, -2, 3))
        ) / 4
        fast = np.sin(2 * np.pi * hour / 17.3 + 9 * longitude + 5 * latitude)
        cloud = np.clip(0.45 + 0.6 * storm + 0.15 * fast, 0, 1)
        air = (
            301
            - 42 * np.sin(latitude) ** 2
            + 14 * np.sin(latitude) * np.cos(season)
            + 5 * np.clip(sun, -0.3, 1) * (1 - 0.5 * cloud)
            - 4 * storm
            - 0.0065 * self.static["geopot"] / 9.81
        )
        falling = 1.1e-3 * np.clip(cloud - 0.62, 0, None) * (0.6 + 0.4 * fast)  # kg m-2 s-1
        is_snow = np.clip((FREEZING + 1.5 - air) / 2, 0, 1)
        pressure = (101325 - 900 * storm) * np.exp(-self.static["geopot"] / (287 * air))
        saturated = 611 * np.exp(17.67 * (air - FREEZING) / (air - 29.65))
        return {
            "Wind_E": 6 * np.cos(2 * latitude) + 5 * storm,
            "Wind_N": 4 * np.sin(2 * np.pi * hour / 73 + 2 * longitude),
            "Tair": air,
            "Qair": 0.622 * (0.55 + 0.4 * cloud) * saturated / pressure,
            "PSurf": pressure,
            "SWdown": 1200 * np.clip(sun, 0, None) * (1 - 0.7 * cloud),
            "LWdown": (0.68 + 0.2 * cloud) * SIGMA * air**4,
            "Rainf": falling * (1 - is_snow),
            "Snowf": falling * is_snow,
            "Ctpf": np.clip(0.3 + 0.3 * fast + 0.2 * np.cos(latitude), 0, 1),
        }

    def leaves(self, hour):
        """Leaf area of low and high vegetation, m2 m-2."""
        summer = 0.5 + 0.5 * np.cos(2 * np.pi * (hour / 24 - 190) / 365.25) * np.sign(self.latitude)
        return 0.5 + 3.5 * summer * self.static["cvl"], 0.7 + 4.5 * summer * self.static["cvh"]

    def start(self, hour):
        """The state before an hour: half full, as warm as the air, without snow."""
        air = self.weather(hour)["Tair"]
        return {
            "water": np.stack([self.dry + 0.5 * (self.full - self.dry)] * 3),
            "heat": np.stack([air, air, 0.5 * (air + 288)]),
            "snow": np.where(air < FREEZING - 5, 20.0, 0.0),
        }

    def hour(self, state, hour):
        """The state after an hour, and what ran off at the surface and below (m of water)."""
        weather, (low, high) = self.weather(hour), self.leaves(hour)
        water, heat, snow = state["water"].copy(), state["heat"].copy(), state["snow"]
        covered = np.clip(snow / FULL_SNOW, 0, 1)
        skin = weather["Tair"] + 0.012 * (1 - 0.7 * covered) * weather["SWdown"] - 1.5
        melt = np.minimum(snow + weather["Snowf"] * HOUR, np.clip(weather["Tair"] - FREEZING, 0, None) * 0.15)
        snow = snow + weather["Snowf"] * HOUR - melt
        # Rain and melt go in as far as there is room.
        arriving = (weather["Rainf"] * HOUR + melt) / 1000
        room = np.clip(self.full - water[0], 0, None) * DEPTH[0]
        entering = np.minimum(arriving, 0.9 * room)
        water[0] += entering / DEPTH[0]
        # Sun and leaves take out, less the drier it is.
        wet = np.clip((water - self.dry) / (self.full - self.dry), 0, 1)
        demand = 0.55 * weather["SWdown"] * (1 - covered) * HOUR / 2.5e9
        leaf = np.clip((low + high) / 6, 0, 1)
        for layer, share in enumerate((1 - 0.7 * leaf, 0.4 * leaf, 0.3 * leaf)):
            water[layer] -= demand * share * wet[layer] / DEPTH[layer]
        # Water seeps down, faster where it is wetter.
        lost = np.zeros_like(snow)
        for layer in range(3):
            seeping = 2.5e-6 * HOUR * np.clip(wet[layer], 0, 1) ** 4
            water[layer] -= seeping / DEPTH[layer]
            if layer < 2:
                water[layer + 1] += seeping / DEPTH[layer + 1]
            else:
                lost = seeping
        over = np.clip(water - self.full, 0, None)
        water -= over
        ran_off = arriving - entering + (over * DEPTH[:, None]).sum(axis=0)
        water = np.maximum(water, 0.5 * self.dry)
        # Heat creeps down: hours, days, a month. Snow keeps the ground warm.
        above = np.stack([skin, heat[0], heat[1]])
        days = np.stack([0.25 * (1 + 6 * covered), np.full_like(snow, 3.0), np.full_like(snow, 25.0)])
        heat += (above - heat) * (1 - np.exp(-1 / (24 * days)))
        return {"water": water, "heat": heat, "snow": snow, "skin": skin}, (ran_off, lost)


def fields(surface, state, hour):
    """The state as variables of a land-surface model, by short name."""
    low, high = surface.leaves(hour)
    snow = state["snow"]
    upper = np.minimum(snow, 10.0)
    density = 110 + 190 * (1 - np.exp(-snow / 60))
    return {
        **{f"swvl{layer + 1}": state["water"][layer] for layer in range(3)},
        **{f"stl{layer + 1}": state["heat"][layer] for layer in range(3)},
        "skt": state.get("skin", state["heat"][0]),
        "lai_lv": low,
        "lai_hv": high,
        "snowc": 100 * np.clip(snow / FULL_SNOW, 0, 1),
        "2t": surface.weather(hour)["Tair"],
        "sd_l1": upper,
        "sd_l2": snow - upper,
        "rsn_l1": density,
        "rsn_l2": density + 60 * np.clip(snow / 100, 0, 1),
    }
