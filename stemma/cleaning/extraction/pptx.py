"""Text of a PowerPoint presentation, slide by slide, as python-pptx reads it.

Hidden slides are left out, and of the others what each slide repeats (footer, date, number), SmartArt, comments
and the descriptions of pictures. Speakers' notes are kept: they hold what is said. Charts are tables.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from stemma.cleaning.extraction.limits import Limits
from stemma.cleaning.extraction.package import Package
from stemma.cleaning.extraction.placed_text import Blocks, one_line, table

# python-pptx's shapes have types of their own, but only where it is installed.
Shape = Any

# Placeholders that each slide repeats: numbers of PP_PLACEHOLDER.
_REPEATED = frozenset({13, 14, 15, 16})  # slide number, header, footer, date
_BULLETED = frozenset({2, 7})  # body, object
_MAX_LEVEL = 8
_DRAWING = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_CHART = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"
_NO_BULLET = f"{_DRAWING}buNone"
_BULLETS = (f"{_DRAWING}buChar", f"{_DRAWING}buAutoNum", f"{_DRAWING}buBlip")


def write_pptx(package: Package, limits: Limits) -> tuple[Blocks, str | None]:
    """Return a presentation's text and the title of the first slide that has one.

    Each slide's title is a heading of level 2. Places are "slide N" (as PowerPoint numbers them, hidden ones
    counted) and "slide N, notes".

    Raises:
        ValueError: python-pptx cannot read it, or it is beyond a limit.
    """
    from pptx import Presentation

    slides = Presentation(package.checked()).slides
    if len(slides) > limits.max_pages:
        raise ValueError(f"it has {len(slides)} slides, more than max_pages={limits.max_pages}")
    blocks = Blocks(limits.max_characters)
    title = None
    for number, slide in enumerate(slides, 1):
        if slide.element.get("show") not in ("0", "false"):
            heading = _slide_title(slide)
            title = title or heading
            _write_slide(blocks, slide, heading, f"slide {number}", limits)
    return blocks, title


def _slide_title(slide: Any) -> str | None:
    shape = slide.shapes.title
    return one_line(shape.text_frame.text) or None if shape is not None else None


def _write_slide(blocks: Blocks, slide: Any, heading: str | None, place: str, limits: Limits) -> None:
    blocks.add(f"## {heading}" if heading else "", place)
    title = slide.shapes.title
    for shape in _leaves(slide.shapes):
        if title is not None and shape.shape_id == title.shape_id:
            continue
        if shape.has_text_frame and _placeholder(shape) not in _REPEATED:
            _write_text(blocks, shape, place)
        elif getattr(shape, "has_table", False):
            blocks.add(_table(shape.table, limits), place)
        elif getattr(shape, "has_chart", False):
            blocks.add(_chart(shape.chart._chartSpace, limits), place)
    notes = slide.notes_slide.notes_text_frame if slide.has_notes_slide else None
    if notes is not None:
        blocks.add(_plain(notes.text), f"{place}, notes")


def _leaves(shapes: Iterable[Shape]) -> Iterator[Shape]:
    """Yield the shapes in their order of reading, those inside of groups too."""
    for shape in shapes:
        # Only a group has shapes; python-pptx raises when it is asked for the type of a shape that it doesn't know.
        if (inside := getattr(shape, "shapes", None)) is not None:
            yield from _leaves(inside)
        else:
            yield shape


def _placeholder(shape: Shape) -> int | None:
    return int(shape.placeholder_format.type or 0) if shape.is_placeholder else None


def _write_text(blocks: Blocks, shape: Shape, place: str) -> None:
    paragraphs = [paragraph for paragraph in shape.text_frame.paragraphs if paragraph.text.strip()]
    is_list = _placeholder(shape) in _BULLETED and len(paragraphs) > 1
    separator = "\n\n"
    for paragraph in paragraphs:
        if _is_item(paragraph, is_list):
            text = "  " * min(paragraph.level, _MAX_LEVEL) + "- " + one_line(paragraph.text)
            blocks.add(text, place, separator=separator)
            separator = "\n"
        else:
            blocks.add(_plain(paragraph.text), place)
            separator = "\n\n"


def _is_item(paragraph: Any, by_default: bool) -> bool:
    """Does a paragraph bear a bullet: by itself, or as those of its shape do by default?"""
    properties = paragraph._p.pPr
    if properties is None:
        return by_default
    if properties.find(_NO_BULLET) is not None:
        return False
    return by_default or any(properties.find(name) is not None for name in _BULLETS)


def _table(found: Any, limits: Limits) -> str:
    # The rows and cells that python-pptx offers take quadratic time: each looks through all before it.
    rows = [list(row.tc_lst) for row in found._tbl.tr_lst]
    if sum(map(len, rows)) > limits.max_cells:
        raise ValueError("a table has more cells than max_cells")
    return table([[_plain(cell.text) for cell in row] for row in rows])


def _chart(chart: Any, limits: Limits) -> str:
    """Write a chart's title, and its data as a table with a column for each series.

    From its XML, as python-pptx goes through as many points as a chart declares, and in quadratic time.
    """
    columns, labels = [], dict[str, str]()
    for series in chart.iter(f"{_CHART}ser"):
        points = _points(series, "val") or _points(series, "yVal")
        labels.update(_points(series, "cat") or _points(series, "xVal") or dict.fromkeys(points, ""))
        columns.append((" ".join(_points(series, "tx").values()), points))
    if len(columns) * len(labels) > limits.max_cells:
        raise ValueError("a chart has more points than max_cells")
    rows = [[label, *(points.get(index, "") for _, points in columns)] for index, label in labels.items()]
    title = "".join(run.text or "" for run in chart.iterfind(f"{_CHART}chart/{_CHART}title//{_DRAWING}t"))
    data = table([["", *(name for name, _ in columns)], *rows])
    return "\n\n".join(filter(None, (one_line(title), data)))


def _points(series: Any, name: str) -> dict[str, str]:
    """Return the values of a series by their index; of categories with several levels, the lowest."""
    points: dict[str, str] = {}
    for point in series.iterfind(f"{_CHART}{name}//{_CHART}pt"):
        points.setdefault(point.get("idx", ""), point.findtext(f"{_CHART}v") or "")
    return points


def _plain(text: str) -> str:
    # A vertical tab stands for a break inside of a paragraph.
    return text.replace("\v", "\n").strip()
