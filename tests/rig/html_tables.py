"""What the tables of a page say, as a reader sees it."""

from __future__ import annotations

from html.parser import HTMLParser


class TableReader(HTMLParser):
    """Collects the rows of all tables, each a list of the texts of its cells."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.rows: list[list[str]] = []
        self._is_cell = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        """See HTMLParser."""
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self._is_cell = True

    def handle_endtag(self, tag: str) -> None:
        """See HTMLParser."""
        if tag in ("td", "th"):
            self._is_cell = False

    def handle_data(self, data: str) -> None:
        """See HTMLParser."""
        if self._is_cell:
            self.rows[-1][-1] += data


def read_rows(html: str) -> list[list[str]]:
    """The rows of the tables of a page, with the spaces that a keyboard has,
    and none around them."""
    reader = TableReader()
    reader.feed(html)
    return [[" ".join(cell.split()) for cell in row] for row in reader.rows]
