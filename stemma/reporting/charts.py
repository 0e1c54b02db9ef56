"""Charts as SVG, drawn from numbers alone: no library, crisp at any size, and about 900 characters each.

Marks have classes and no colours. The style sheet of a page colours them. On its own a picture has colours that can be
read on light and on dark ground, and is kept terse: Dagster's UI shows Markdown of less than 1,000 characters in place,
and anything longer only behind a link.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from stemma.reporting.text import amount, plain, short

WIDTH = 460
# The room around a plot: numbers to the left, names below.
LEFT, RIGHT, TOP, PLOT_HEIGHT, FOOT = 40, 18, 14, 130, 38
# The rows of horizontal bars, and of a funnel.
LABEL_WIDTH, ROW, BAR = 130, 24, 15
LEVEL_LABEL, LEVEL_ROW, LEVEL_BAR = 90, 44, 20
MAP_HEIGHT = 380
# About how wide a character is, in points of 12.
CHARACTER = 6.6
GROUPS = 8

# What the classes are in a picture of its own.
_ALONE = {
    "a": "stroke='#47b'",
    "b": "stroke='peru'",
    "f": "fill='#47b'",
    "o": "fill='peru'",
    "l": "stroke='#8884'",
    "k": "stroke='gray' stroke-dasharray='3'",
    "r": "text-anchor='end'",
    "m": "text-anchor='middle'",
    **{
        f"g{number}": f"stroke='{colour}'"
        for number, colour in enumerate(
            ("#47b", "peru", "seagreen", "mediumpurple", "indianred", "lightseagreen", "olive", "gray")
        )
    },
}


@dataclass(frozen=True)
class Picture:
    """A chart: its title, what it shows in words, its height in points, and its marks."""

    title: str
    text: str
    height: float
    marks: str

    @property
    def inline(self) -> str:
        """The chart as an element of a page that has the styles."""
        return (
            f'<svg viewBox="0 0 {WIDTH} {self.height:g}" role="img" aria-label="{plain(self.text, 2000)}">'
            f"{self.marks}</svg>"
        )

    @property
    def alone(self) -> str:
        """The chart as a file of its own."""
        marks = self.marks
        for names in set(re.findall(r'class="([^"]+)"', marks)):
            marks = marks.replace(f'class="{names}"', " ".join(_ALONE[name] for name in names.split()))
        return (
            f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{self.height:g}'"
            f" style='font:12px system-ui;fill:gray'>{marks}</svg>"
        ).replace('"', "'")

    @property
    def markdown(self) -> str:
        """The chart as an image within Markdown."""
        data = self.alone.replace("%", "%25").replace("#", "%23")
        for sign in "\\<>&":
            data = data.replace(sign, "\\" + sign)
        return f"![{self.title}](<data:image/svg+xml,{data}>)"


def histogram(
    title: str,
    counts: Sequence[float],
    ticks: Sequence[tuple[float, str]],
    *,
    x: str,
    y: str,
    lower: Sequence[float] | None = None,
    names: tuple[str, str] = ("", ""),
    marker: tuple[float, str] | None = None,
    share: bool = False,
) -> Picture:
    """Draw the counts of classes that follow one another without gaps.

    Args:
        ticks: places to be named, as far as there is room: the third class is from 2 to 3, its middle 2.5.
        x, y: what the axes count.
        lower: how much of each count is of a first kind, drawn below the rest in another colour.
        names: what the two kinds are.
        marker: a place that is marked by a line, and its name.
        share: counts are shares, shown in per cent.
    """
    step = (WIDTH - LEFT - RIGHT) / max(len(counts), 1)
    grid, scale = _grid(counts, share)
    base = TOP + PLOT_HEIGHT
    marks = grid
    if lower is not None:
        marks += _steps("o", counts, step, scale)
    marks += _steps("f", counts if lower is None else lower, step, scale)
    if marker is not None:
        at = LEFT + step * marker[0]
        side, kind = (5, "") if at < WIDTH * 0.7 else (-5, "r")
        marks += f'<path class="k" d="M{at:.0f} 4V{base}"/>' + _texts(kind, [(at + side, TOP, marker[1])])
    named = [(LEFT + step * place, base + 15, label) for place, label in _thinned(ticks, step)]
    marks += _texts("m", named) + _texts("", [(0, base + 33, f"↑ {y}")])
    marks += _texts("r", [(WIDTH, base + 33, f"{x} →")])
    if lower is not None:
        marks += _texts("f", [(WIDTH / 2 - 60, base + 33, f"■ {names[0]}")])
        marks += _texts("o", [(WIDTH / 2 + 5, base + 33, f"■ {names[1]}")])
    told = ", ".join(_value(count, share) for count in counts)
    at_ticks = ", ".join(label for _, label in ticks)
    marked = f", {marker[1]}" if marker else ""
    return Picture(title, f"{title}: {y} by {x} ({at_ticks}){marked}: {told}", base + FOOT, marks)


def _steps(kind: str, counts: Sequence[float], step: float, scale: float) -> str:
    """Draw the outline of columns that touch, filled."""
    base = TOP + PLOT_HEIGHT
    outline, last = f"M{LEFT} {base}", base
    for place, count in enumerate(counts, 1):
        height = round(base - count * scale)
        # What is next to nothing is still something.
        height = min(height, base - 1) if count else height
        outline += (f"V{height}" if height != last else "") + f"H{LEFT + step * place:.0f}"
        last = height
    return f'<path class="{kind}" d="{outline}V{base}z"/>'


def _grid(heights: Sequence[float], share: bool) -> tuple[str, float]:
    """Return horizontal lines with their numbers, and points for each unit."""
    most = max([*heights, 0]) or 1
    step = _nice(most / 3, whole=not share)
    count = math.ceil(most / step - 1e-9)
    scale = PLOT_HEIGHT / (step * count)
    base = TOP + PLOT_HEIGHT
    places = [(base - number * step * scale, number * step) for number in range(count + 1)]
    lines = "".join(f"M{LEFT} {y:.0f}H{WIDTH - RIGHT}" for y, _ in places)
    numbers = [(LEFT - 6, y + 4, f"{value:.0%}" if share else short(value)) for y, value in places]
    return f'<path class="l" d="{lines}"/>' + _texts("r", numbers), scale


def _nice(size: float, *, whole: bool) -> float:
    """Return 1, 2 or 5 times a power of ten that is `size` or the next above it."""
    power = 10.0 ** math.floor(math.log10(size))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= size * 0.999)
    return max(step, 1.0) if whole else step


def _thinned(ticks: Sequence[tuple[float, str]], step: float) -> Sequence[tuple[float, str]]:
    """Return the ticks that find room beside each other, every second or third, the last one among them."""
    widest = max((len(label) for _, label in ticks), default=1) * CHARACTER + 10
    apart = step * (ticks[1][0] - ticks[0][0]) if len(ticks) > 1 else widest
    every = max(1, math.ceil(widest / apart))
    return [tick for number, tick in enumerate(ticks) if (len(ticks) - 1 - number) % every == 0]


@dataclass(frozen=True)
class Bar:
    """A row of horizontal bars: its name, how long it is, and what is written behind its number."""

    label: str
    value: float
    note: str = ""


def bars(title: str, rows: Sequence[Bar], *, unit: str) -> Picture:
    """Draw a bar for each row, the first at the top. `unit` says what is counted."""
    room = WIDTH - LABEL_WIDTH - 12 - max([*(len(_noted(row)) for row in rows), 1]) * CHARACTER
    most = max([*(row.value for row in rows), 0]) or 1
    lengths = [max(row.value / most * room, 1) for row in rows]
    path = "".join(f"M{LABEL_WIDTH} {ROW * number + 8}h{length:.0f}" for number, length in enumerate(lengths))
    labels = [(LABEL_WIDTH - 8, ROW * n + 12, _cut(row.label, 18)) for n, row in enumerate(rows)]
    values = [
        (LABEL_WIDTH + length + 6, ROW * number + 12, _noted(row))
        for number, (row, length) in enumerate(zip(rows, lengths, strict=True))
    ]
    told = ", ".join(f"{row.label}: {_noted(row)}" for row in rows)
    marks = _strokes("a", BAR, path) + _texts("r", labels) + _texts("", values)
    return Picture(title, f"{title}, {unit}: {told}", ROW * len(rows) - ROW + BAR + 4, marks)


def _noted(row: Bar) -> str:
    return amount(row.value) + (f" {row.note}" if row.note else "")


@dataclass(frozen=True)
class Level:
    """A level of a funnel: its name, what it holds, a word on that, and what was lost on the way to it, by reason."""

    label: str
    value: int
    note: str = ""
    lost: Sequence[tuple[str, int]] = ()

    @property
    def words(self) -> str:
        """What is written below its bar."""
        gone = "".join(f", {amount(count)} {reason}" for reason, count in self.lost if count)
        return f"{amount(self.value)}{self.note and ' ' + self.note}{gone}"


def funnel(title: str, levels: Sequence[Level]) -> Picture:
    """Draw what is left from level to level; what a level lost stands beside it in another colour."""
    room = WIDTH - LEVEL_LABEL
    most = max([*(level.value + sum(n for _, n in level.lost) for level in levels), 1])
    kept, lost = "", ""
    for number, level in enumerate(levels):
        middle, length = LEVEL_ROW * number + LEVEL_BAR // 2, level.value / most * room
        gone = sum(n for _, n in level.lost) / most * room
        kept += f"M{LEVEL_LABEL} {middle}h{length:.0f}" if level.value else ""
        lost += f"M{LEVEL_LABEL + length:.0f} {middle}h{max(gone, 1):.0f}" if gone else ""
    names = [(LEVEL_LABEL - 8, LEVEL_ROW * n + 14, level.label) for n, level in enumerate(levels)]
    words = [(LEVEL_LABEL, LEVEL_ROW * n + 34, level.words) for n, level in enumerate(levels)]
    marks = _strokes("a", LEVEL_BAR, kept) + _strokes("b", LEVEL_BAR, lost)
    told = "; ".join(f"{level.label}: {level.words}" for level in levels)
    return Picture(
        title, f"{title}: {told}", LEVEL_ROW * len(levels) - 4, marks + _texts("r", names) + _texts("", words)
    )


def scatter(
    title: str,
    points: Sequence[tuple[float, float]],
    groups: Sequence[int],
    names: Sequence[str],
    titles: Sequence[str] | None = None,
) -> Picture:
    """Draw points in the unit square, coloured by group, with a legend below.

    Args:
        points: x and y from 0 to 1, y upwards.
        groups: for each point the place of its group in `names`; there are at most GROUPS.
        titles: for each point what is shown when the pointer rests on it; makes the picture ten times as large.
    """
    placed = [(round(5 + x * (WIDTH - 10)), round(5 + (1 - y) * (MAP_HEIGHT - 10))) for x, y in points]
    marks, x, y = [], 0.0, MAP_HEIGHT + 20.0
    for group, name in enumerate(names):
        mine = [number for number, each in enumerate(groups) if each == group]
        label = f"{_cut(name, 40)} ({amount(len(mine))})"
        width = 24 + len(label) * CHARACTER
        if x and x + width > WIDTH:
            x, y = 0.0, y + 20
        dots = "".join(_dot(*placed[n], titles[n] if titles else None) for n in mine)
        if titles is None:
            dots = f'<path d="{dots}"/>'
        marks.append(
            f'<g class="g{group}" stroke-width="5" stroke-linecap="round">'
            f'{dots}<path stroke-width="10" d="M{x + 5:.0f} {y - 4:.0f}h0"/></g>'
            + _texts("", [(x + 14, y, label)])
        )
        x += width
    told = ", ".join(f"{name}: {sum(each == group for each in groups)}" for group, name in enumerate(names))
    return Picture(title, f"{title}, points by group: {told}", y + 8, "".join(marks))


def _dot(x: int, y: int, title: str | None) -> str:
    path = f"M{x} {y}h0"
    return path if title is None else f'<path d="{path}"><title>{plain(title)}</title></path>'


def _strokes(kind: str, width: float, path: str) -> str:
    return f'<path class="{kind}" stroke-width="{width:.0f}" d="{path}"/>' if path else ""


def _texts(kind: str, texts: Sequence[tuple[float, float, str]]) -> str:
    """Write texts at their places; the class r ends them there, and m centres them."""
    named = f' class="{kind}"' if kind else ""
    if len({y for _, y, _ in texts}) == 1 and len(texts) > 1:
        parts = "".join(f'<tspan x="{x:.0f}">{plain(text)}</tspan>' for x, _, text in texts)
        return f'<text{named} y="{texts[0][1]:.0f}">{parts}</text>'
    if len(texts) == 1:
        x, y, text = texts[0]
        return f'<text{named} x="{x:.0f}" y="{y:.0f}">{plain(text)}</text>'
    marks = "".join(f'<text x="{x:.0f}" y="{y:.0f}">{plain(text)}</text>' for x, y, text in texts)
    return f"<g{named}>{marks}</g>" if named else marks


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _value(value: float, share: bool) -> str:
    return f"{value:.1%}" if share else amount(value)
