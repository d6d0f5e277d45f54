"""Owns pictures: bars in panels, text, a page, as SVG or PNG. Refuses to know what they show.

SVG is written by hand, for a bar is a rectangle; PNG is made from it with resvg.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from casproxy.errors import ConfigError, InvalidRequest

COLOURS = ("#2f6fde", "#e0803a", "#3a9d5d", "#a657b8", "#c23b4a", "#777777")
_WIDTH, _LEFT, _RIGHT, _BAR, _GAP = 1100, 420, 230, 18, 8


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar. ``low`` and ``high`` draw a whisker; ``mark`` a line that says what was to be reached."""

    label: str
    value: float
    text: str
    low: float = 0.0
    high: float = 0.0
    mark: float = 0.0
    colour: int = 0


@dataclass(frozen=True, slots=True)
class Panel:
    """A title over bars that share one scale; ``scale``: the value at its end, 0 for the largest there is."""

    title: str
    bars: Sequence[Bar]
    scale: float = 0.0


def render(title: str, subtitle: str, panels: Sequence[Panel]) -> str:
    """The picture as SVG."""
    body: list[str] = []
    y = 76.0
    for panel in panels:
        body.append(text(20, y, panel.title, size=14, weight="600"))
        y += 14
        for bar in panel.bars:
            body += _bar(bar, y, panel.scale or max(max(bar.value, bar.high, bar.mark) for bar in panel.bars) or 1.0)
            y += _BAR + _GAP
        y += 26
    return page(title, subtitle, _WIDTH, y, body)


def page(title: str, subtitle: str, width: float, height: float, body: Sequence[str]) -> str:
    """A white page with a title, and ``body`` from 76 down."""
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" width="{width}" '
        f'height="{height:.0f}" font-family="DejaVu Sans, Helvetica, Arial, sans-serif">',
        f'<rect width="{width}" height="{height:.0f}" fill="#ffffff"/>',
        text(20, 32, title, size=20, weight="700"),
        text(20, 52, subtitle, size=12, colour="#666666"),
    ]
    return "\n".join([*head, *body, "</svg>", ""])


def _bar(bar: Bar, y: float, scale: float) -> list[str]:
    room = _WIDTH - _LEFT - _RIGHT
    width, middle = max(1.0, room * bar.value / scale), y + _BAR / 2
    colour = COLOURS[bar.colour % len(COLOURS)]
    drawn = [
        text(_LEFT - 10, middle + 4, bar.label, size=12, anchor="end"),
        f'<rect x="{_LEFT}" y="{y:.1f}" width="{width:.1f}" height="{_BAR}" rx="2" fill="{colour}"/>',
    ]
    right = width
    if bar.high > bar.low:
        low, high = (_LEFT + room * value / scale for value in (bar.low, bar.high))
        drawn.append(f'<path d="M{low:.1f} {middle:.1f}H{high:.1f}" stroke="#222222" stroke-width="1.5"/>')
        right = max(right, high - _LEFT)
    if bar.mark:
        x = _LEFT + room * bar.mark / scale
        drawn.append(f'<path d="M{x:.1f} {y - 3:.1f}v{_BAR + 6}" stroke="#c23b4a" stroke-width="2"/>')
        right = max(right, x - _LEFT)
    return [*drawn, text(_LEFT + right + 8, middle + 4, bar.text, size=12)]


def text(
    x: float, y: float, words: str, *, size: int, weight: str = "400", colour: str = "#222222", anchor: str = "start"
) -> str:
    """Words whose base line begins, ends or has its middle at a point."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" fill="{colour}" '
        f'text-anchor="{anchor}">{escape(words)}</text>'
    )


def write(path: Path, svg: str) -> None:
    """Write the picture as the suffix of ``path`` says. Raises ``OSError``; for PNG also ``ConfigError``."""
    if path.suffix.lower() == ".png":
        try:
            import resvg_py
        except ImportError as error:
            raise ConfigError(
                "a PNG needs resvg: pip install 'casproxy[bench]', or give a name that ends in .svg"
            ) from error
        path.write_bytes(bytes(resvg_py.svg_to_bytes(svg_string=svg)))
    else:
        path.write_text(svg, encoding="utf-8")


def check_name(path: Path) -> Path:
    """Refuse early what cannot be written at the end. Raises ``InvalidRequest``."""
    if path.suffix.lower() not in (".svg", ".png"):
        raise InvalidRequest(f"{path.name} is no picture: give a name that ends in .svg or .png")
    if not path.parent.is_dir():
        raise InvalidRequest(f"{path.parent} is not a directory")
    return path
