"""Plots of an evaluation as SVG that stands in a page and takes the page's colours.

matplotlib draws with stand-in colours. They become CSS variables (`--ink`, `--s1`, ...), so that
one picture serves light and dark pages, and text stays text.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from secondglance.evaluation.tables import looks_twice, milliseconds
from secondglance.evaluation.types import Cost, Curve, CurvePoint, Evaluation, Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from secondglance.evaluation.fusion_model import ReliabilityBin

INK, SOFT, LINE = "#010101", "#020202", "#030303"
UP, DOWN = "#050501", "#050502"
SERIES = ("#0a0a01", "#0a0a02", "#0a0a03", "#0a0a04", "#0a0a05", "#0a0a06")
VARIABLES = {INK: "ink", SOFT: "soft", LINE: "line", UP: "up", DOWN: "down"} | {
    colour: f"s{position}" for position, colour in enumerate(SERIES, start=1)
}
MARKERS = ("o", "s", "^", "D", "v", "P")
WIDTH_IN, HEIGHT_IN = 5.4, 3.3
FONT = 10.0
STAGES = ("embed", "recall", "words", "rerank", "other")
MAX_BARS = 400
"""Of the plot of per-query differences; more queries share one."""
KNEE_SHARE = 0.95
"""Of the gain that the deepest or slowest point brings."""


def knee(curve: Curve, measure: str) -> CurvePoint | None:
    """The cheapest point that brings 95 % of what the curve's best point gains over its first.

    The first point, where none is better. None without points that have the measure.
    """
    points = _points(curve, measure)
    if not points:
        return None
    means = [point.values[measure].mean for point in points]
    enough = means[0] + KNEE_SHARE * (max(means) - means[0]) - 1e-12
    return next(point for point, mean in zip(points, means, strict=True) if mean >= enough)


def curves_svg(evaluation: Evaluation, curves: Sequence[Curve], measure: str) -> str:
    """Quality against depth or time, one line a system, with intervals and a ring at the knee."""

    def paint(axes: Axes) -> None:
        for position, curve in enumerate(curves):
            points = _points(curve, measure)
            colour = SERIES[position % len(SERIES)]
            _band(axes, [p.x for p in points], [p.values[measure] for p in points], colour)
            axes.plot(
                [p.x for p in points],
                [p.values[measure].mean for p in points],
                color=colour,
                marker=MARKERS[position % len(MARKERS)],
                label=_short(curve.system),
            )
            best = knee(curve, measure)
            if best is not None:
                axes.plot(
                    [best.x],
                    [best.values[measure].mean],
                    marker="o", markersize=15, markerfacecolor="none",
                    markeredgecolor=INK, markeredgewidth=1.4, linestyle="none",
                )  # fmt: skip
        xs = sorted({p.x for curve in curves for p in _points(curve, measure)})
        depth = curves[0].over == "candidates"
        _x_axis(axes, xs, (lambda x: f"{x:g}") if depth else milliseconds)
        axes.set_xlabel("candidates for the second pass (K)" if depth else "time for it, a query")
        axes.set_ylabel(measure)
        if len(curves) > 1:
            axes.legend(loc="best", frameon=False)

    return _svg(paint)


def ceiling_svg(ceiling: dict[int, Interval]) -> str:
    """Share of relevant documents among the first K of the first pass."""

    def paint(axes: Axes) -> None:
        depths = sorted(ceiling)
        values = [ceiling[depth] for depth in depths]
        _band(axes, depths, values, SERIES[0])
        axes.plot(depths, [v.mean for v in values], color=SERIES[0], marker="o")
        _x_axis(axes, depths, lambda x: f"{x:g}")
        axes.set_ylim(0, 1.03)
        axes.set_xlabel("candidates from the first pass (K)")
        axes.set_ylabel("relevant ones among them")

    return _svg(paint)


def differences_svg(differences: Sequence[float], measure: str) -> str:
    """Difference of every query, from the largest gain to the largest loss."""
    from matplotlib.ticker import MaxNLocator

    ordered = sorted(differences, reverse=True)
    size = max(1, math.ceil(len(ordered) / MAX_BARS))
    shares = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    heights = [sum(share) / len(share) for share in shares]

    def paint(axes: Axes) -> None:
        edges = [min(position * size, len(ordered)) for position in range(len(shares) + 1)]
        for colour, wanted in ((UP, 1), (DOWN, -1)):
            cut = [height if height * wanted > 0 else 0.0 for height in heights]
            axes.stairs(cut, edges, fill=True, color=colour, linewidth=0)
        axes.axhline(0, color=SOFT, linewidth=1)
        axes.set_xlim(0, len(ordered))
        low, high = min([0.0, *heights]), max([0.0, *heights])
        room = 0.06 * (high - low) or 1.0
        axes.set_ylim(low - room, high + room)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("queries, by difference")
        axes.set_ylabel(f"difference in {measure}")

    return _svg(paint)


def costs_svg(costs: Sequence[Cost]) -> str:
    """Median milliseconds a query of each system, stage by stage."""
    from matplotlib.ticker import MaxNLocator

    found = dict.fromkeys(stage for cost in costs for stage in stages_of(cost))
    names = sorted(found, key=stage_order)

    def paint(axes: Axes) -> None:
        rows = list(range(len(costs)))
        left = [0.0] * len(costs)
        for position, stage in enumerate(names):
            widths = [stages_of(cost).get(stage, 0.0) for cost in costs]
            axes.barh(
                rows, widths, left=left, height=0.6, label=stage, linewidth=0,
                color=SERIES[position % len(SERIES)],
                hatch="//" if position >= len(SERIES) else None,
            )  # fmt: skip
            left = [a + b for a, b in zip(left, widths, strict=True)]
        reach = max(left, default=0.0) or 1.0
        untimed = [looks_twice(cost.system) and "rerank" not in stages_of(cost) for cost in costs]
        for row, total in zip(rows, left, strict=True):
            shown = milliseconds(total) + (" + second pass" if untimed[row] else "")
            axes.text(total + reach * 0.015, row, shown, va="center", color=INK)
        axes.set_yticks(rows, [_short(cost.system) for cost in costs])
        axes.set_ylim(len(costs) - 0.5, -0.5)
        axes.set_xlim(0, reach * (1.6 if any(untimed) else 1.2))
        axes.xaxis.set_major_formatter(lambda x, _: milliseconds(x) if x else "0")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1.0), ncols=min(len(names), 5) or 1,
            frameon=False, handlelength=1.0, columnspacing=1.0, handletextpad=0.5,
        )  # fmt: skip

    return _svg(paint, height_in=max(1.7, 1.1 + 0.42 * len(costs)))


def reliability_svg(bins: Sequence[ReliabilityBin]) -> str:
    """Share that is relevant against the probability that was said, over bars of candidates.

    Bins without candidates have no point. Bars are on a scale of powers, with their numbers.
    """
    from matplotlib.ticker import NullLocator

    filled = [part for part in bins if part.candidates]

    def paint(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        above.plot([0, 1], [0, 1], color=SOFT, linewidth=1.2, linestyle=(0, (4, 3)))
        above.plot(
            [part.probability for part in filled], [part.relevant for part in filled],
            color=SERIES[0], marker="o",
        )  # fmt: skip
        above.set_ylim(-0.04, 1.04)
        above.set_ylabel("share relevant")
        below.bar(
            [(part.low + part.high) / 2 for part in filled],
            [part.candidates for part in filled],
            width=[0.8 * (part.high - part.low) for part in filled],
            color=SERIES[0], alpha=0.55, linewidth=0,
        )  # fmt: skip
        below.set_yscale("log")
        most = max((part.candidates for part in filled), default=1)
        below.set_ylim(0.7, 10 * most)  # room for the numbers
        for part in filled:
            middle = (part.low + part.high) / 2
            below.text(
                middle, part.candidates * 1.25, _count(part.candidates),
                ha="center", va="bottom", color=INK, fontsize=FONT - 1,
            )  # fmt: skip
        below.yaxis.set_major_locator(NullLocator())
        below.yaxis.set_minor_locator(NullLocator())
        below.set_ylabel("candidates")
        below.set_xlim(0, 1)
        below.set_xlabel("probability that was said")

    return _drawn(paint, height_in=1.2 * HEIGHT_IN)


def stage_order(stage: str) -> tuple[int, str]:
    """Sorts stages as a query goes through them, unknown ones behind."""
    return (STAGES.index(stage) if stage in STAGES else len(STAGES), stage)


def stages_of(cost: Cost) -> dict[str, float]:
    """Median milliseconds by stage; `other` is what the total has beyond them."""
    stages = {name: t.median_ms for name, t in cost.stages.items() if name != "total"}
    if total := cost.stages.get("total"):
        rest = total.median_ms - sum(stages.values())
        if rest > 0.02 * total.median_ms:
            stages["other"] = rest
    return stages


def _points(curve: Curve, measure: str) -> list[CurvePoint]:
    return sorted((p for p in curve.points if measure in p.values), key=lambda p: p.x)


def _band(axes: Axes, xs: Sequence[float], values: Sequence[Interval], colour: str) -> None:
    lows, highs = [v.low for v in values], [v.high for v in values]
    axes.fill_between(xs, lows, highs, color=colour, alpha=0.16, linewidth=0)


def _x_axis(axes: Axes, xs: Sequence[float], name: Callable[[float], str]) -> None:
    """Ticks at the points themselves; by powers where they span much."""
    from matplotlib.ticker import NullLocator

    if xs and xs[0] > 0 and xs[-1] / xs[0] >= 8:
        axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    spread = [math.log(x) if axes.get_xscale() == "log" else x for x in xs]
    apart = (spread[-1] - spread[0]) / 9 if xs else 0.0
    shown: list[int] = []
    for position in range(len(xs)):
        if not shown or spread[position] - spread[shown[-1]] >= apart:
            shown.append(position)
    axes.set_xticks([xs[i] for i in shown], [name(xs[i]) for i in shown])


def _short(name: str, limit: int = 24) -> str:
    return name if len(name) <= limit else f"...{name[3 - limit :]}"


def _count(number: int) -> str:
    """Short enough for a bar: 12,345 is 12k."""
    return f"{number:,}" if number < 10_000 else f"{number / 1000:,.0f}k"


def _svg(paint: Callable[[Axes], None], *, height_in: float = HEIGHT_IN) -> str:
    return _drawn(lambda figure: paint(figure.subplots()), height_in=height_in)


def _drawn(paint: Callable[[Figure], None], *, height_in: float) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    style: dict[str, Any] = {
        "svg.fonttype": "none", "svg.hashsalt": "secondglance", "text.parse_math": False,
        "font.size": FONT, "font.family": ["sans-serif"],
        "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": SOFT,
        "xtick.color": SOFT, "ytick.color": SOFT, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
        "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
        "axes.grid": True, "grid.color": LINE, "grid.linewidth": 0.8, "axes.axisbelow": True,
        "ytick.major.size": 0, "lines.linewidth": 2, "lines.markersize": 5,
        "legend.fontsize": FONT,
    }  # fmt: skip
    buffer = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with warnings.catch_warnings(), matplotlib.rc_context(style):
        # Text is drawn by the browser, whose fonts have the letters that matplotlib's lack.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        paint(figure)
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return _inline(buffer.getvalue())


def _inline(svg: str) -> str:
    """An SVG file as an element of a page: no prolog, no fixed size, ids of its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.S)
    svg = re.sub(
        r'<svg [^>]*viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg
    )
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = svg.replace("xlink:href=", "href=")
    prefix = f"p{hashlib.sha256(svg.encode()).hexdigest()[:8]}-"
    svg = re.sub(r'((?<= )id="|href="#|url\(#)', rf"\g<1>{prefix}", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: system-ui, sans-serif", svg)
    for colour, name in VARIABLES.items():
        svg = svg.replace(colour, f"var(--{name})")
    return re.sub(r"\s*\n\s*", " ", svg)
