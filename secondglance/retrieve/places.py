"""Places within a distance, said in comparisons that every store knows.

No store but SQLite computes a distance in a filter. A circle on the globe is therefore cut into
bands of latitude, each with the range of longitudes that it spans at its middle. The same bands go
to every store, so all of them agree; against the true circle the edge is off by at most 3 % of the
distance, and 5 % beyond 5,000 km.
"""

from __future__ import annotations

import itertools
import math

from secondglance.errors import InputError
from secondglance.retrieve.filters import And, Compare, Filter, Or

EARTH_KM = 6371.0088
"""Mean radius (IUGG)."""

BANDS = 32


def near(lat: float, lon: float, *, km: float) -> Filter:
    """Places within `km` of a point, in degrees; false where the place is unknown.

    Raises:
        InputError: The point is not on the globe, or the distance is not positive.
    """
    if not (-90 <= lat <= 90 and -180 <= lon <= 180):
        raise InputError(
            f"near({lat:g}, {lon:g}, ...) is not on the globe",
            remedy="give latitude (-90 to 90), then longitude (-180 to 180), in degrees",
        )
    if not 0 < km < math.inf:
        raise InputError(f"the distance of near is {km:g} km; it must be above 0")
    radius = min(km / EARTH_KM, math.pi)
    centre = math.radians(lat)
    # Closer together where the circle is flat, so that each band turns by the same angle.
    edges = [centre + radius * math.cos(math.pi * i / BANDS) for i in range(BANDS + 1)]
    bands = []
    for north, south in itertools.pairwise(edges):
        north, south = min(north, math.pi / 2), max(south, -math.pi / 2)
        if north > south:
            half = _half_width(centre, (north + south) / 2, radius)
            bands.append((math.degrees(south), math.degrees(north), math.degrees(half)))
    widest = max(half for _, _, half in bands)
    # Around all of them, so that a store which stops at the first miss has little to compare.
    around = _band(bands[-1][0], bands[0][1], lon, widest)
    return And((around, Or(tuple(_band(south, north, lon, half) for south, north, half in bands))))


def _half_width(centre: float, lat: float, radius: float) -> float:
    """How far east of the centre's meridian the circle reaches at a latitude; radians.

    Source: the spherical law of cosines, solved for the difference of longitudes.
    """
    around = math.cos(centre) * math.cos(lat)
    if around < 1e-12:
        return math.pi  # at a pole every longitude is as far
    cosine = (math.cos(radius) - math.sin(centre) * math.sin(lat)) / around
    return math.acos(max(-1.0, min(1.0, cosine)))


def _band(south: float, north: float, lon: float, half: float) -> Filter:
    lats = (Compare("lat", ">=", south), Compare("lat", "<=", north))
    if half >= 180:
        return And((*lats, Compare("lon", ">=", -180.0)))
    west, east = lon - half, lon + half
    from_west, to_east = Compare("lon", ">=", west), Compare("lon", "<=", east)
    # Across the antimeridian the range goes on at the other end.
    if west < -180:
        return And((*lats, Or((Compare("lon", ">=", west + 360), to_east))))
    if east > 180:
        return And((*lats, Or((from_west, Compare("lon", "<=", east - 360)))))
    return And((*lats, from_west, to_east))
