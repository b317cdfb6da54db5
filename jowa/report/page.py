"""A report as one HTML page and as Markdown."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from jowa.report.document import (
    Block,
    Code,
    Commands,
    Drawing,
    Figure,
    Gallery,
    Items,
    Line,
    Link,
    Missing,
    Picture,
    Piece,
    Report,
    Table,
    Text,
)  # fmt: skip

_KINDS = {
    Text: "text", Items: "items", Table: "table", Figure: "figure", Gallery: "gallery", Missing: "missing",
    Commands: "commands",
}  # fmt: skip
FIGURES, MEDIA = "figures", "media"
"""Folders beside the Markdown."""


def html_page(report: Report) -> str:
    """The page; everything in it but the JSON files that it links to."""
    return _environment(escape=True).get_template("page.html.j2").render(report=report) + "\n"


def markdown_page(report: Report) -> str:
    """The same as Markdown, with its figures and pictures in files (:func:`markdown_files`)."""
    text = _environment(escape=False).get_template("page.md.j2").render(report=report)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def markdown_files(report: Report) -> dict[str, bytes]:
    """The figures and pictures of the Markdown, by relative path."""
    files: dict[str, bytes] = {}
    environment = _environment(escape=True)
    dress = environment.get_template("figure.svg.j2")
    for section in report.sections:
        for block in section.blocks:
            if isinstance(block, Figure):
                for number, drawing in enumerate(block.drawings):
                    text = dress.render(drawing=drawing, **_size(drawing))
                    files[figure_path(block, number)] = text.encode()
            elif isinstance(block, Gallery):
                for number, picture in enumerate(block.pictures):
                    files[picture_path(block, number)] = picture.data
    return files


def figure_path(figure: Figure, number: int) -> str:
    """The file of a figure's drawing."""
    return f"{FIGURES}/{figure.name}{f'-{number + 1}' if len(figure.drawings) > 1 else ''}.svg"


def picture_path(gallery: Gallery, number: int) -> str:
    """The file of a gallery's picture."""
    return f"{MEDIA}/{gallery.name}-{number + 1}.{gallery.pictures[number].suffix}"


def _size(drawing: Drawing) -> dict[str, str]:
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawing.svg)
    assert found is not None, "a drawing has a view box"
    inner = drawing.svg[drawing.svg.index(">") + 1 :].replace(Markup('<a href="'), Markup('<a href="../'))
    return {"width": found[1], "height": found[2], "inner": inner}


def _environment(escape: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("jowa.report"), autoescape=escape, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=False,
    )  # fmt: skip
    environment.filters |= {"data_uri": _data_uri, "markdown": _markdown_line, "cell": _markdown_cell}
    environment.tests |= {"link": lambda piece: isinstance(piece, Link), "code": lambda piece: isinstance(piece, Code)}
    environment.globals |= {"kind": _kind, "figure_path": figure_path, "picture_path": picture_path}
    return environment


def _kind(block: Block) -> str:
    return _KINDS[type(block)]


def _data_uri(picture: Picture) -> str:
    return f"data:image/{picture.suffix};base64,{base64.b64encode(picture.data).decode()}"


def _markdown_line(line: Line | str) -> str:
    return "".join(_markdown_piece(piece) for piece in ([line] if isinstance(line, str) else line))


def _markdown_piece(piece: Piece) -> str:
    if isinstance(piece, Link):
        return f"[{_plain(piece.text)}]({piece.href})"
    if isinstance(piece, Code):
        return _code(piece.text)
    return _plain(piece)


def _plain(text: str) -> str:
    """``text`` with nothing in it that Markdown or HTML would take for its own."""
    flat = re.sub(r"\s+", " ", text)
    escaped = re.sub(r"([\\`*_\[\]#|~])", r"\\\1", flat)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _code(text: str) -> str:
    """``text`` between more backticks than it has in a row."""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if "`" in text else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def _markdown_cell(lines: Sequence[Line] | Iterable[Line]) -> str:
    return "<br>".join(_markdown_line(line) for line in lines)
