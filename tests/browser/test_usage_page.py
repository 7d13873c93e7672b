"""The page of usage: its chart is drawn, and says the same as the table."""

from __future__ import annotations

import re
from typing import Literal

import pytest

from tests.browser.stage import Stage
from tests.rig.browser import Visit
from tests.rig.deadline import wait_until
from tests.rig.tables import check_rows

Theme = Literal["light", "dark"]

PATH = "/admin/usage?range=7d&by=model"

#: How many pixels of the chart have the colour of a series, in the present theme.
_COUNT_PIXELS = """(name) => {
  const canvas = document.querySelector("#usage-chart canvas");
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  const wanted = page.color(name).match(/[0-9]+/g).map(Number);
  let count = 0;
  for (let at = 0; at < pixels.length; at += 4) {
    if (pixels[at + 3] === 255 && wanted.every((value, index) => pixels[at + index] === value)) count += 1;
  }
  return count;
}"""


def open_chart(stage: Stage, *, dark: bool = False) -> Visit:
    """Open the page, and wait for its chart."""
    visit = stage.tab(dark=dark)
    visit.go(stage.url(PATH))
    visit.page.locator("#usage-chart canvas").wait_for()
    return visit


def read_number(text: str) -> float:
    """A number as pages write it."""
    found = re.search(r"[0-9.]+", text.replace("\u202f", ""))
    assert found, text
    return float(found[0])


def read_table(visit: Visit, *titles: str) -> dict[str, float]:
    """The sum of these columns for each row, and for "Total"."""
    heads = [each.strip() for each in visit.page.locator("main thead th").all_inner_texts()]
    rows = visit.page.locator("main :is(tbody, tfoot) tr").all()
    cells = [[each.strip() for each in row.locator("th, td").all_inner_texts()] for row in rows]
    return {row[0]: sum(read_number(row[heads.index(title)]) for title in titles) for row in cells}


def read_legend(visit: Visit) -> dict[str, float]:
    """The sum of each series, all at once: a new list may take its place at any time."""
    texts = "(entries) => entries.map((each) => [each.innerText.trim(), each.querySelector('b').innerText])"
    pairs = visit.page.locator("#usage-chart .legend li[class^=series]").evaluate_all(texts)
    named = {text.removesuffix(amount).strip(): read_number(amount) for text, amount in pairs}
    return {"–" if name == "(none)" else name: amount for name, amount in named.items()}


def test_the_chart_has_the_sums_of_the_table(stage: Stage) -> None:
    visit = open_chart(stage)

    def check(measure: str, titles: list[str]) -> None:
        visit.page.locator("#measure").select_option(measure)
        rows = read_table(visit, *titles)
        total = rows.pop("Total")
        expected = {name: amount for name, amount in rows.items() if amount}
        assert total == sum(expected.values()) > 0
        wait_until(
            lambda: read_legend(visit) == expected,
            10,
            lambda: f"{read_legend(visit)}, not {expected}",
        )
        caption = visit.page.locator("#usage-chart figcaption").inner_text()
        assert read_number(caption.rpartition(":")[2]) == total

    check_rows(
        [
            ("requests", ["Requests"]),
            ("tokens", ["Prompt tokens", "Answer tokens"]),
            ("errors", ["Errors"]),
        ],
        check,
    )


@pytest.mark.parametrize(("before", "after"), [("light", "dark"), ("dark", "light")])
def test_the_chart_is_drawn_in_the_colours_of_the_theme(
    stage: Stage, before: Theme, after: Theme
) -> None:
    visit = open_chart(stage, dark=before == "dark")
    size = visit.page.locator("#usage-chart canvas").bounding_box()
    assert size and size["width"] > 400 and size["height"] > 100
    colours = {check_colour(visit)}
    visit.page.emulate_media(color_scheme=after)
    try:
        colours.add(check_colour(visit))
    finally:
        visit.page.emulate_media(color_scheme=before)
    assert len(colours) == 2


def check_colour(visit: Visit) -> str:
    """Wait for bars in the colour of the theme, and return that colour."""
    wait_until(
        lambda: visit.page.evaluate(_COUNT_PIXELS, "--series-1") > 100, 10, "there are no bars"
    )
    return str(visit.page.evaluate("page.color('--series-1')"))
