"""What a report consists of, before it becomes a page: text, tables, figures and pictures, by section.

The page and its Markdown are two renderings of one :class:`Report`, and so say the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from markupsafe import Markup


@dataclass(frozen=True)
class Link:
    """Text that leads to a file of the report, or to a place of the page."""

    text: str
    href: str
    """Relative to the page."""


@dataclass(frozen=True)
class Code:
    """Text to type or to find in a file."""

    text: str


Piece = str | Link | Code
Line = tuple[Piece, ...]


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    pieces: Line
    warning: bool = False
    """Must not be overlooked."""


@dataclass(frozen=True)
class Items:
    """A list of short paragraphs."""

    items: tuple[Line, ...]


@dataclass(frozen=True)
class Cell:
    """One to three lines: the first is what matters, the others are set small."""

    lines: tuple[Line, ...] = ()
    best: bool = False
    """Stands out in its column."""
    quiet: bool = False
    """Published elsewhere: stands back."""


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows."""

    caption: Line
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    text_columns: int = 1
    """So many columns on the left hold words; the others hold numbers."""


@dataclass(frozen=True)
class Key:
    """An entry of a legend."""

    label: str
    colour: str
    """Name of a CSS variable of the page."""
    marker: str
    """One character."""


@dataclass(frozen=True)
class Drawing:
    """One SVG picture, in colours that are variables of the page."""

    svg: Markup
    title: str = ""
    alt: str = ""
    wide: bool = False
    """Takes the whole width; else several stand in a row."""


@dataclass(frozen=True)
class Figure:
    """Drawings that share a legend and a caption."""

    name: str
    """Of its files beside the Markdown."""
    caption: Line
    drawings: tuple[Drawing, ...]
    legend: tuple[Key, ...] = ()


@dataclass(frozen=True)
class Picture:
    """Pixels: a still or a short film."""

    data: bytes
    suffix: str
    """``png``, ``gif`` or ``webp``."""
    title: str
    alt: str
    width: int
    height: int
    """Of the shape it is shown in."""
    pixelated: bool = True
    """Shown with its pixels as they are."""


@dataclass(frozen=True)
class Gallery:
    """Pictures beside one another."""

    name: str
    caption: Line
    pictures: tuple[Picture, ...]
    wide: bool = False
    """Each takes the whole width."""


@dataclass(frozen=True)
class Missing:
    """What would stand here, and the command that makes it."""

    what: str
    command: str


@dataclass(frozen=True)
class Commands:
    """Command lines, folded away."""

    summary: str
    lines: tuple[str, ...]


Block = Text | Items | Table | Figure | Gallery | Missing | Commands


@dataclass(frozen=True)
class Section:
    """A part of the report with a heading."""

    id: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Report:
    """The whole."""

    title: str
    subtitle: str
    facts: tuple[tuple[str, str], ...]
    """What was counted and when, at the head of the page."""
    sections: tuple[Section, ...]
    files: dict[str, str] = field(default_factory=dict)
    """JSON files beside the page that numbers lead to, by relative path."""
