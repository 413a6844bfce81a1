"""What the guide to analysis says works, and its Markdown is read as it was meant by a real parser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from markdown_it import MarkdownIt

from keepsake import Project
from keepsake.display import markdown, text
from tests.conftest import ROOT
from tests.display.test_notebook import anything


@pytest.fixture(autouse=True)
def _no_window() -> Iterator[None]:
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    yield
    pyplot.close("all")


def test_the_examples_on_tables_and_plots_run(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    guide = (ROOT / "docs" / "analysis.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", guide, re.MULTILINE | re.DOTALL))
    for lr, optimizer in ((0.1, "sgd"), (0.01, "adam"), (0.001, "adam")):
        with project.experiments.create(params={"lr": lr, "optimizer": optimizer}, quiet=True) as one:
            for step in range(12):
                one.checkpoint(step=step, metrics={"val_loss": lr + 1 / (1 + step)}, primary_metric=("val_loss", "minimize"))
    names: dict[str, object] = {}
    for section in ("Tables in a notebook", "Plots"):
        blocks = re.findall(r"^```python\n(.*?)^```", sections[section], re.MULTILINE | re.DOTALL)
        assert blocks
        for block in blocks:
            exec(block, names)
    assert "| EXPERIMENT | STARTED | STATUS | LR | OPTIMIZER | VAL_LOSS | TREND |" in capsys.readouterr().out
    assert Path("val_loss.png").read_bytes().startswith(b"\x89PNG")


class Cells(HTMLParser):
    """The cells of a table, in which only code is no text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.cells: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag in ("table", "thead", "tbody", "tr", "th", "td", "code"), tag
        assert attributes == []
        if tag in ("th", "td"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data


@given(recorded=anything)
def test_a_cell_of_markdown_says_what_was_recorded_and_nothing_else(recorded: str) -> None:
    shown = text.safe(recorded).strip()
    source = "\n".join(markdown.table([["A", "B"], [shown, "b"]]))
    read = Cells(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(source))
    assert [cell.strip() for cell in read.cells] == ["A", "B", shown, "b"]
