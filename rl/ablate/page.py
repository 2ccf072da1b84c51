"""A page of headings, text, tables and figures, as Markdown and as one HTML file that needs no other."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph. `code` between backticks is the only markup."""

    text: str


@dataclass(frozen=True, slots=True)
class Listing:
    """Points, one a line."""

    items: Sequence[str]


@dataclass(frozen=True, slots=True)
class Table:
    """The first column is text, the others are numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Figure:
    name: str
    """Of its file, without `.svg`."""
    svg: str
    caption: str


Block: TypeAlias = Heading | Text | Listing | Table | Figure


def markdown(blocks: Sequence[Block]) -> str:
    """The page in Markdown; figures are files under `figures/`."""
    return "\n\n".join(map(_markdown, blocks)) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {text}"
        case Text(text):
            return text
        case Listing(items):
            return "\n".join(f"- {item}" for item in items)
        case Table(header, rows):
            lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
            return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
        case Figure(name, _, caption):
            return f"![{caption}](figures/{name}.svg)\n\n{caption}"


def whole_html(title: str, blocks: Sequence[Block]) -> str:
    """The page as one HTML file, figures within."""
    body = "\n".join(map(_html, blocks))
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{html.escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n<main>\n{body}\n</main>\n</html>\n"
    )


def _html(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{_inline(text)}</h{level}>"
        case Text(text):
            return f"<p>{_inline(text)}</p>"
        case Listing(items):
            return "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items) + "</ul>"
        case Table(header, rows):
            head = "".join(f"<th>{_inline(cell)}</th>" for cell in header)
            lines = ("".join(f"<td>{_inline(cell)}</td>" for cell in row) for row in rows)
            return f"<table><tr>{head}</tr>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"
        case Figure(_, svg, caption):
            return f"<figure>{svg[svg.index('<svg') :]}<figcaption>{_inline(caption)}</figcaption></figure>"


def _inline(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text, quote=False))


STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;padding:0 1rem;max-width:60rem;color:#222;"
    "background:#fff}table{border-collapse:collapse;display:block;overflow-x:auto;margin:1rem 0}"
    "th,td{padding:.25rem .75rem;border-bottom:1px solid #ddd;text-align:right;white-space:nowrap}"
    "th:first-child,td:first-child{text-align:left}figure{margin:1.5rem 0}figure svg{max-width:100%;height:auto}"
    "figcaption{color:#555;font-size:.9rem}code{background:#f4f4f4;padding:0 .2em}"
)
