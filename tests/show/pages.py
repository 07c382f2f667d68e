"""Reading a page as a browser does."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any


class Page(HTMLParser):
    """The texts of a page, its tables, the JSON in it, and everything that a browser would load."""

    def __init__(self, path: Path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.pieces: list[str] = []
        self.loads: list[str] = []
        self.links: list[str] = []
        self.elements: list[str] = []
        self.inside = ""
        self.rows: list[list[dict[str, Any]]] = []
        self.refreshes = self.in_cell = False
        self.data: Any = None
        self.feed(self.source)
        self.close()

    @property
    def texts(self) -> set[str]:
        return {piece.strip() for piece in self.pieces}

    @property
    def text(self) -> str:
        return " ".join(self.pieces)

    def table(self, first: str) -> list[list[str]]:
        """The body of the table whose first row begins with this name, as texts."""
        texts = [["".join(cell["text"]).strip() for cell in row] for row in self.rows]
        start = next(index for index, row in enumerate(texts) if row and row[0] == first)
        width = len(texts[start])
        return [row for row in texts[start:] if len(row) == width]

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.elements.append(tag)
        self.inside = tag
        if tag == "meta" and found.get("http-equiv") == "refresh":
            self.refreshes = True
        if tag == "a":
            self.links.append(found["href"] or "")
        else:
            self.loads += [found[name] or "" for name in ("src", "href", "srcset", "action", "poster") if name in found]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append({"text": [], **found})
            self.in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, text: str) -> None:
        if self.inside == "script" and self.data is None:
            self.data = json.loads(text)
        elif self.inside not in ("script", "style"):
            self.pieces.append(text)
            if self.in_cell:
                self.rows[-1][-1]["text"].append(text)
