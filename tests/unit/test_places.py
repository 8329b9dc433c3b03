"""near(lat, lon, km) against the distance on the sphere."""

from __future__ import annotations

import math

import numpy as np
import pytest

from secondglance.errors import InputError
from secondglance.retrieve.filters import parse_filter
from secondglance.retrieve.places import EARTH_KM, near


def distance_km(lat: float, lon: float, lat2: float, lon2: float) -> float:
    """Haversine."""
    a, b = math.radians(lat), math.radians(lat2)
    half = math.sin((b - a) / 2) ** 2
    half += math.cos(a) * math.cos(b) * math.sin(math.radians(lon2 - lon) / 2) ** 2
    return 2 * EARTH_KM * math.asin(min(1.0, math.sqrt(half)))


@pytest.mark.parametrize(
    ("lat", "lon", "km"),
    [
        (47.37, 8.54, 5.0),
        (0.0, 0.0, 800.0),
        (-33.9, 179.9, 300.0),
        (64.1, -179.99, 50.0),
        (89.5, 10.0, 200.0),
        (-90.0, 0.0, 100.0),
        (51.5, -0.1, 9000.0),
        (10.0, 20.0, 20020.0),
    ],
)
def test_agrees_with_the_distance_but_for_the_edge(lat: float, lon: float, km: float) -> None:
    condition = near(lat, lon, km=km)
    random = np.random.default_rng(0)
    inside = outside = 0
    edge = 0.03 if km <= 5000 else 0.05
    for _ in range(3000):
        # Points around the circle's edge, and some anywhere.
        reach = km * random.uniform(0, 2) / EARTH_KM
        bearing = random.uniform(0, 2 * math.pi)
        a = math.radians(lat)
        b = math.asin(
            math.sin(a) * math.cos(reach) + math.cos(a) * math.sin(reach) * math.cos(bearing)
        )
        turn = math.atan2(
            math.sin(bearing) * math.sin(reach) * math.cos(a),
            math.cos(reach) - math.sin(a) * math.sin(b),
        )
        there = math.degrees(b), (lon + math.degrees(turn) + 540) % 360 - 180
        away = distance_km(lat, lon, *there)
        found = condition.matches({"lat": there[0], "lon": there[1]})
        if away < (1 - edge) * km:
            assert found, (there, away)
            inside += 1
        elif away > (1 + edge) * km:
            assert not found, (there, away)
            outside += 1
    assert inside > 500
    assert outside > 500 or km > 7000


def test_unknown_places_are_near_nothing() -> None:
    assert not near(0, 0, km=100).matches({})
    assert not near(0, 0, km=100).matches({"lat": 0.0})


def test_in_an_expression() -> None:
    parsed = parse_filter('NEAR (47.37, 8.54, 5) and kind == "image"')
    assert parsed.matches({"lat": 47.38, "lon": 8.55, "kind": "image"})
    assert not parsed.matches({"lat": 47.38, "lon": 8.55, "kind": "video"})
    assert not parsed.matches({"lat": 48.0, "lon": 8.55, "kind": "image"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("near(91, 0, 1)", "not on the globe"),
        ("near(8.5, 247, 1)", "latitude .* then longitude"),
        ("near(0, 0, 0)", "above 0"),
        ("near(0, 0, -3)", "above 0"),
        ("near(0, 0)", r"'\)'"),
        ("near == 3", "unknown field 'near'"),
        (" and ".join(["near(0, 0, 1)"] * 4), "528 conditions"),
    ],
)
def test_errors(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_filter(text)
