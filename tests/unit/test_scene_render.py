from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from secondglance.errors import InputError
from secondglance.scenes.render import Renderer
from secondglance.scenes.sprites import cells
from secondglance.scenes.vocabulary import COLOURS, PLACES, TIMES, WEATHERS, Colour, kinds

SIDE = 96
MEADOW = (0, 0, 0, 5)
Sprite = tuple[float, float, float, float, float, float, float, float]
HUES = {
    "red": (1.0, 0.0, 0.0),
    "yellow": (1.0, 0.85, 0.1),
    "green": (0.1, 0.65, 0.2),
    "blue": (0.1, 0.35, 0.95),
    "purple": (0.5, 0.15, 0.75),
    "pink": (1.0, 0.5, 0.75),
    "white": (0.95, 0.95, 0.95),
    "black": (0.1, 0.1, 0.1),
}


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer("cpu")


def picture(
    renderer: Renderer, *sprites: Sprite, backdrop: tuple[int, ...] = MEADOW, side: int = SIDE
) -> npt.NDArray[np.float64]:
    rows = torch.tensor(sprites or [(-1.0,) + (0.0,) * 7], dtype=torch.float32)[None, None]
    pixels = renderer.render(
        rows, torch.tensor([backdrop]), times_s=(0.0,), height=side, width=side
    )
    return pixels[0, 0].numpy().astype(np.float64)


def kind(name: str) -> int:
    return next(number for number, row in enumerate(kinds()) if name in row.en)


def sprite(
    name: str,
    *,
    colour: int = -1,
    x: float = 0.5,
    y: float = 0.5,
    size: float = 0.5,
    angle: float = 0.0,
    flip: float = 0.0,
    alpha: float = 1.0,
) -> Sprite:
    return (kind(name), colour, x, y, size, angle, flip, alpha)


def changed(
    first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    return np.asarray(np.abs(first - second).max(axis=-1) > 40)


def test_kinds_have_names_of_their_own() -> None:
    rows = kinds()
    assert len(rows) >= 150
    assert len({row.emoji for row in rows}) == len(rows)
    for names in ([n for r in rows for n in r.en], [n for r in rows for n in r.zh]):
        assert len(set(names)) == len(names)
        assert all(name and name == name.strip() for name in names)
    owners: dict[str, int] = {}
    for number, row in enumerate(rows):
        assert len(row.en) == len(row.en_plural)
        assert row.classifier
        assert row.group
        # A plural may equal its own singular ("sheep"), never another kind's name.
        assert all(owners.setdefault(name, number) == number for name in row.en + row.en_plural)


def test_every_kind_has_a_sprite() -> None:
    sprites = cells()
    assert sprites.shape == (len(kinds()), 128, 128, 4)
    cover = (sprites[..., 3] > 128).mean(axis=(1, 2))
    assert cover.min() > 0.04
    # No two cells alike, and nothing runs into the neighbouring cell.
    assert len({cell.tobytes() for cell in sprites}) == len(sprites)
    assert sprites[:, [0, -1], :, 3].max() == 0
    assert sprites[:, :, [0, -1], 3].max() == 0


def test_equal_input_gives_equal_pixels(renderer: Renderer) -> None:
    one = picture(renderer, sprite("dog"), backdrop=(6, 2, 1, 77))
    assert np.array_equal(one, picture(renderer, sprite("dog"), backdrop=(6, 2, 1, 77)))
    assert not np.array_equal(one, picture(renderer, sprite("dog"), backdrop=(6, 2, 1, 78)))


def test_a_scene_looks_the_same_in_any_batch(renderer: Renderer) -> None:
    rows = torch.tensor([[[sprite("dog", x=0.3), sprite("car", x=0.7)]]] * 3)
    rows[1, ..., 0] = -1
    backdrop = torch.tensor([(7, 0, 2, 1), (0, 1, 3, 2), (4, 2, 1, 3)])
    together = renderer.render(rows, backdrop, times_s=(0.5,), height=64, width=80)
    for number in range(3):
        part = slice(number, number + 1)
        alone = renderer.render(rows[part], backdrop[part], times_s=(0.5,), height=64, width=80)
        assert (together[part].int() - alone.int()).abs().max() <= 1


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("name", ["dog", "banana", "zebra", "laptop", "gorilla"])
def test_tints_show_the_colour_asked_for(renderer: Renderer, name: str, colour: Colour) -> None:
    index = COLOURS.index(colour)
    seen = cells()[kind(name)][..., 3] > 250
    pixels = picture(renderer, sprite(name, colour=index, size=1.0), side=128)
    mean = pixels[seen].mean(axis=0) / 255
    distance = {other: float(np.abs(mean - hue).sum()) for other, hue in HUES.items()}
    assert min(distance, key=lambda other: distance[other]) == colour, (mean, distance)


def test_tints_keep_the_shading(renderer: Renderer) -> None:
    seen = cells()[kind("zebra")][..., 3] > 250
    for colour in range(len(COLOURS)):
        pixels = picture(renderer, sprite("zebra", colour=colour, size=1.0), side=128)
        assert pixels[seen].mean(axis=-1).std() > 12


def test_natural_sprites_keep_their_colours(renderer: Renderer) -> None:
    cell = cells()[kind("strawberry")].astype(np.float64)
    seen = cell[..., 3] > 250
    pixels = picture(renderer, sprite("strawberry", size=1.0), side=128)
    assert np.abs(pixels - cell[..., :3])[seen].mean() < 2


def test_place_and_size(renderer: Renderer) -> None:
    ground = picture(renderer)
    drawn = changed(ground, picture(renderer, sprite("mirror", colour=0, x=0.3, y=0.7, size=0.4)))
    ys, xs = np.nonzero(drawn)
    assert (xs.min() + xs.max() + 1) / 2 / SIDE == pytest.approx(0.3, abs=0.02)
    assert (ys.min() + ys.max() + 1) / 2 / SIDE == pytest.approx(0.7, abs=0.02)
    assert (ys.max() - ys.min()) / SIDE == pytest.approx(0.4 * 120 / 128, abs=0.06)


def test_size_is_measured_on_the_shorter_side(renderer: Renderer) -> None:
    rows = torch.tensor([[[sprite("mirror", colour=0, size=0.5)]], [[(-1.0,) + (0.0,) * 7]]])
    both = torch.tensor([MEADOW, MEADOW])
    pixels = renderer.render(rows, both, times_s=(0.0,), height=64, width=160).numpy()
    ys, xs = np.nonzero(changed(pixels[0, 0].astype(float), pixels[1, 0].astype(float)))
    assert ys.max() - ys.min() == pytest.approx(32 * 120 / 128, abs=4)
    assert (xs.min() + xs.max() + 1) / 2 == pytest.approx(80, abs=1.5)


def test_angle_turns_clockwise_and_flip_mirrors(renderer: Renderer) -> None:
    upright = picture(renderer, sprite("flamingo", colour=0))
    turned = picture(renderer, sprite("flamingo", colour=0, angle=np.pi / 2))
    mirrored = picture(renderer, sprite("flamingo", colour=0, flip=1))
    ground = picture(renderer)
    shape = changed(ground, upright)
    assert (changed(ground, turned) == np.rot90(shape, -1)).mean() > 0.97
    assert (changed(ground, mirrored) == shape[:, ::-1]).mean() > 0.97
    assert (shape == shape[:, ::-1]).mean() < 0.95


def test_alpha_blends(renderer: Renderer) -> None:
    ground, full = picture(renderer), picture(renderer, sprite("dog"))
    half = picture(renderer, sprite("dog", alpha=0.5))
    assert np.abs(half - (ground + full) / 2).max() <= 1.5
    assert np.array_equal(ground, picture(renderer, sprite("dog", alpha=0.0)))


def test_later_slots_cover_earlier_ones(renderer: Renderer) -> None:
    below, above = sprite("dog", colour=0, size=0.3), sprite("mirror", colour=3, size=0.9)
    middle = picture(renderer, below, above)[SIDE // 2, SIDE // 2]
    assert middle[2] > middle[0]
    middle = picture(renderer, above, below)[SIDE // 2, SIDE // 2]
    assert middle[0] > middle[2]


def test_sprites_may_leave_the_picture(renderer: Renderer) -> None:
    ground = picture(renderer)
    assert np.array_equal(ground, picture(renderer, sprite("dog", x=3.0)))
    corner = changed(ground, picture(renderer, sprite("mirror", colour=0, x=0.0, y=0.0)))
    assert corner[: SIDE // 4, : SIDE // 4].any()
    assert not corner[SIDE // 2 :, SIDE // 2 :].any()
    assert changed(ground, picture(renderer, sprite("mirror", colour=0, size=3.0))).mean() > 0.9


def test_backdrops_differ(renderer: Renderer) -> None:
    combinations = [
        (place, time, weather, 9)
        for place in range(len(PLACES))
        for time in range(len(TIMES))
        for weather in range(len(WEATHERS))
    ]
    empty = torch.zeros(len(combinations), 1, 1, 8)
    empty[..., 0] = -1
    pixels = renderer.render(empty, torch.tensor(combinations), times_s=(0.0,), height=48, width=48)
    flat = pixels.view(len(combinations), -1).float()
    distance = torch.cdist(flat, flat, p=1) / flat.shape[1]
    distance.fill_diagonal_(255)
    assert distance.min() > 2.5


@pytest.mark.parametrize(("weather", "moves"), [(0, False), (1, True), (2, True), (3, False)])
def test_rain_and_snow_fall(renderer: Renderer, weather: int, moves: bool) -> None:
    empty = torch.full((1, 2, 1, 8), -1.0)
    pixels = renderer.render(
        empty, torch.tensor([(0, 0, weather, 3)]), times_s=(0.0, 0.5), height=64, width=64
    )
    assert bool((pixels[0, 0] != pixels[0, 1]).any()) == moves


def test_small_sprites_do_not_flicker(renderer: Renderer) -> None:
    # Without levels of detail, fine stripes would change brightness with every small shift.
    ground = picture(renderer)
    sums = [
        (picture(renderer, sprite("zebra", x=0.5 + shift / SIDE, size=0.15)) - ground).sum()
        for shift in (0.0, 0.25, 0.5, 0.75)
    ]
    assert np.ptp(sums) < 0.06 * float(np.abs(sums).max()) + 300


@pytest.mark.parametrize(
    ("row", "backdrop", "said"),
    [
        ((10_000, -1, 0.5, 0.5, 0.5, 0, 0, 1), MEADOW, "kind 10000"),
        ((0, 8, 0.5, 0.5, 0.5, 0, 0, 1), MEADOW, "colour 8"),
        ((0, -1, float("nan"), 0.5, 0.5, 0, 0, 1), MEADOW, "finite"),
        ((0, -1, 0.5, 0.5, 0.5, 0, 0, 1), (8, 0, 0, 1), "place"),
    ],
)
def test_bad_numbers_are_named(
    renderer: Renderer, row: Sprite, backdrop: tuple[int, ...], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        picture(renderer, row, backdrop=backdrop)
