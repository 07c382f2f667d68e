"""Tables that sort at the press of a heading, as markup."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from jdl.show.page import escape


class Cell(NamedTuple):
    """What a cell shows, as markup, what it sorts by (nothing: last), its further classes, and what hovering shows."""

    shown: str
    value: Any = None
    classes: str = ""
    title: str = ""

    def markup(self, element: str, classes: str = "") -> str:
        """The cell as ``td`` or ``th``."""
        value = "" if self.value is None else self.value
        attributes = {"class": f"{classes} {self.classes}".strip(), "title": self.title}
        told = "".join(f' {name}="{escape(text)}"' for name, text in attributes.items() if text)
        return f'<{element}{told} data-value="{escape(value)}">{self.shown}</{element}>'


class Column(NamedTuple):
    """A column: its heading, a cell a row, whether they are numbers, and the heading above it that it shares."""

    name: str
    cells: Sequence[Cell]
    number: bool = False
    group: str = ""


def table(columns: Sequence[Column], runs: bool = False) -> str:
    """Columns of one length beside each other; the first names the rows, which are those of ``runs`` where they are."""
    grouped = any(column.group for column in columns)
    upper, lower = "", ""
    for group, members in itertools.groupby(enumerate(columns), key=lambda item: item[1].group):
        heads = [_heading(place, column, 2 if grouped and not group else 1) for place, column in members]
        if group:
            upper += f'<th class="group" colspan="{len(heads)}">{escape(group)}</th>'
            lower += "".join(heads)
        else:
            upper += "".join(heads)
    body = []
    for row in range(len(columns[0].cells)):
        cells = [column.cells[row].markup("td", "number" * column.number) for column in columns[1:]]
        mark = f' data-run="{row}"' if runs else ""
        body.append(f"<tr{mark}>{columns[0].cells[row].markup('th')}{''.join(cells)}</tr>")
    second = f"<tr>{lower}</tr>" if grouped else ""
    head = f"<thead><tr>{upper}</tr>{second}</thead>"
    return f'<div class="wide"><table class="runs">{head}<tbody>{"".join(body)}</tbody></table></div>'


def _heading(place: int, column: Column, rows: int) -> str:
    name = escape(column.name).replace(".", ".<wbr>")
    number = " number" if column.number else ""
    return f'<th class="sorts{number}" data-column="{place}" rowspan="{rows}">{name}</th>'
