"""What a notebook shows: the columns of ls, at most thirty rows, and nothing recorded that is not text."""

from __future__ import annotations

import math
import re
import unicodedata
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepsake import Project
from keepsake.display import notebook
from keepsake.display.page import Page
from keepsake.exceptions import StorageUnavailable
from keepsake.repository.history import courses
from keepsake.repository.primary_metric import PrimaryMetric
from keepsake.repository.summary import Summary
from tests.display.pages import Said, file, finished
from tests.query.samples import NOW, checkpoint, experiment, five

ALLOWED = {
    "div": {"class", "style"},
    "b": set(),
    "span": {"style"},
    "table": {"style"},
    "tbody": set(),
    "tr": {"style"},
    "td": {"style", "colspan"},
    "svg": {"width", "height", "viewbox", "fill", "stroke", "stroke-width", "stroke-linecap", "stroke-linejoin", "role"},
    "title": set(),
    "path": {"d"},
}
"""Every tag that a page may have, and its attributes."""

STYLE = re.compile(r"[a-z0-9#%.:; -]*")


class Read(HTMLParser):
    """A page as a browser reads it.

    Args:
        page: Its HTML.
    """

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.styles: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag in ALLOWED, tag
        assert {name for name, _ in attributes} <= ALLOWED[tag], (tag, attributes)
        styles = [value or "" for name, value in attributes if name == "style"]
        assert all(STYLE.fullmatch(style.lower()) for style in styles), styles
        self.styles += styles
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")
        if tag != "path":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if "td" in self.open:
            self.rows[-1][-1] += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    handle_decl = handle_pi = unknown_decl = handle_comment


def table_of(records: list[Any]) -> Page:
    return notebook.experiments_page([Summary.of(one) for one in records], [notebook.course(one) for one in records][-30:])


def test_the_list_has_the_columns_of_ls_and_the_trend() -> None:
    rows = Read(table_of(five()).html()).rows
    headings = ["EXPERIMENT", "STARTED", "STATUS", "LR", "OPTIMIZER", "VAL_LOSS", "TREND", "VAL_ACC", "BEST CHECKPOINT"]
    assert rows[0] == [*headings, "LATEST CHECKPOINT"]
    assert [row[0] for row in rows[1:]] == ["91af3b0", "76ab171", "eb96def", "4591273", "bfb06bc"]
    best = dict(zip(rows[0], rows[4], strict=True))
    assert (best["STATUS"], best["VAL_LOSS"], best["TREND"]) == ("stopped", "0.1484*", "█▁▁")


def test_the_same_stands_in_text_and_markdown() -> None:
    page = table_of(five())
    assert page.text[4].split()[:6] == ["4591273", page.text[4].split()[1], "ago", "stopped", "0.001", "adamw"]
    assert "5 experiments, 1 running. Best val_loss 0.1484 (4591273)" in page.text
    lines = page.markdown().splitlines()
    assert lines[0] == "5 experiments, 1 running. Best val_loss 0.1484 (4591273)"
    assert lines[2].startswith("| EXPERIMENT | STARTED | STATUS | LR |")
    assert any(line.startswith("| 4591273 |") and "| 0.1484* | █▁▁ |" in line for line in lines)
    # What is for the command line is not said in a notebook.
    assert "--" not in "".join(page.text)
    assert "(--" not in page.markdown()


def test_of_a_long_list_the_last_thirty_are_shown_and_the_best_of_all_is_named() -> None:
    records = [
        experiment(f"{index:07x}", checkpoint(f"c{index:06x}", 1, val_loss=1 + index / 1000), params={"lr": index % 2})
        for index in range(214)
    ]
    page = table_of(records)
    rows = Read(page.html()).rows
    assert rows[1] == ["… 184 more"]
    assert [row[0] for row in rows[2:]] == [f"{index:07x}" for index in range(184, 214)]
    assert page.status == "214 experiments. Best val_loss 1 (0000000)"
    assert page.text[1] == "… 184 more"
    assert len([line for line in page.text if line.startswith("00000")]) == 30
    assert "| … 184 more |" in page.markdown()


def test_a_page_fits_any_theme() -> None:
    html = table_of(five()).html()
    assert "<th" not in html
    assert "background:none" in html
    assert not re.search(r"background(-color)?:(?!none)", html)
    assert set(re.findall(r"[^-]color:([^;\"]+)", html)) <= {"inherit", "currentColor", "#25884a", "#d4403a", "#1f838f"}


@pytest.mark.parametrize("colour", ["25884a", "d4403a", "1f838f"])
def test_colours_are_legible_on_white_and_on_black(colour: str) -> None:
    def luminance(value: str) -> float:
        parts = [int(value[place : place + 2], 16) / 255 for place in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    assert min(1.05 / (luminance(colour) + 0.05), (luminance(colour) + 0.05) / (luminance("111111") + 0.05)) > 4


def test_everything_about_one_experiment() -> None:
    shown = finished()
    page = notebook.experiment_page(shown.record, shown.courses(), shown.said)
    read = Read(page.html())
    facts = {row[0]: row[1] for row in read.rows if len(row) == 2}
    assert facts["ID"] == shown.record.id
    assert (facts["Name"], facts["Tags"], facts["Aliases"]) == ("warm-up fix", "base, paper", "@production")
    assert facts["Notes"] == "lower dropout after sweep 3\nsee the plot in the wiki"
    assert facts["dropout"] == "0.1"
    metrics = {row[0]: row[1:3] for row in read.rows if len(row) == 4}
    assert metrics["val_loss (min)"][0] == "0.1484"
    # Of forty checkpoints the last thirty.
    assert ["… 10 more"] in read.rows
    assert any(row[-1] == "best, @production" for row in read.rows)
    assert "Checkpoints (40)" in read.text


def test_a_best_checkpoint_of_long_ago_is_shown_before_the_last_ones() -> None:
    one = experiment("a1", *(checkpoint(f"c{step:06}", step, val_loss=1.0 + step) for step in range(100)))
    [*_, table] = notebook.experiment_page(one, courses([], one.checkpoints), None).parts
    rows = Read(Page("", parts=[table]).html()).rows
    assert [rows[1][0], rows[2][0], rows[3][0], len(rows)] == ["c000000", "… 69 more", "c000070", 33]


def test_checkpoints_of_several_experiments_say_whose_they_are() -> None:
    one, other = five()[0], five()[3]
    page = notebook.checkpoints_page([one, other], [*one.checkpoints, *other.checkpoints])
    rows = Read(page.html()).rows
    assert rows[0][:3] == ["ID", "EXPERIMENT", "STEP"]
    assert [row[1] for row in rows[1:]] == ["91af3b0", "91af3b0", "4591273", "4591273", "4591273"]
    assert [row[0] for row in rows[1:] if row[4].endswith("*")] == ["0c1fe22", "da0f8f6"]
    assert [row[-1] for row in rows[1:]] == ["best", "latest", "", "best", "latest"]


def test_a_checkpoint_and_a_history() -> None:
    shown = finished()
    best = shown.record.best()
    page = notebook.checkpoint_page(shown.record, best, [file("model.pth", 101_000_000)], shown.said)
    rows = Read(page.html()).rows
    assert ["val_loss (min)", "0.1484"] in rows
    assert ["101 MB", "5e1f09a", "model.pth"] in rows
    page = notebook.history_page(3, {"loss": [3.0, math.nan, 1.0], "note": ["a", "b", "c"]})
    rows = Read(page.html()).rows
    assert rows[1] == ["loss", "3", "3", "1", "1", "3", "█ ▁"]
    assert rows[2] == ["note", "3", "a", "c", "-", "-", ""]


def test_nothing_at_all_is_said() -> None:
    assert Read(table_of([]).html()).text == "No experiments"
    assert notebook.checkpoints_page([], []).text == ["No checkpoints"]
    assert Read(notebook.experiment_page(experiment("a1"), {}, None).html()).text.startswith("Experiment a100000")


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</td></tr></table><iframe src=//evil.example>",
    "</title></svg><script>x</script>",
    "\x1b]0;owned\x07\x1b[31m",
    "a\r\nb\u202eexe.txt\u2066\x00\x7f\x9b",
    "| a | b |\n|---|---|",
    "![x](http://evil.example/x.png) [y](javascript:alert(1))",
    "$\\href{javascript:alert(1)}{x}$ \\(x\\)",
    "`` ` ``` <b>",
    "&lt;script&gt; &#60;b&#62;",
    "# heading\n- list\n> quote\n    code",
    "https://evil.example www.evil.example me@evil.example",
    "@@0@@ ~~x~~ **b** __b__ \\| \\\\| |",
]

anything = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=40), st.lists(st.sampled_from(HOSTILE), max_size=3).map("".join))
"""Texts that try to be more than texts."""

values = st.one_of(anything, st.floats(), st.integers(), st.none(), st.booleans(), st.lists(anything, max_size=2))


@st.composite
def hostile_records(draw: st.DrawFn) -> Any:
    """Records in which every text is hostile."""
    names = draw(st.lists(anything, min_size=1, max_size=3, unique=True))
    metric = draw(st.one_of(st.none(), st.sampled_from(names)))
    checkpoints = [
        checkpoint(f"c{index}", index, ago=timedelta(minutes=index), m=1.0) for index in range(draw(st.integers(0, 3)))
    ]
    for one in checkpoints:
        one.metrics = {name: draw(values) for name in names}
        one.primary_metric = PrimaryMetric(metric, "minimize") if metric is not None else None
        one.path = draw(anything)
    fields = {name: draw(anything) for name in ("user", "host", "command", "python_version", "error", "path")}
    record = experiment("a1", *checkpoints, params={draw(anything): draw(values), "x": {draw(anything): draw(values)}}, **fields)
    record.git = {"commit": draw(anything), "branch": draw(anything), "remote": draw(anything), "dirty": True}
    record.system = {"os": draw(anything), "gpus": [{"name": draw(anything), "driver": draw(anything)}]}
    record.python_packages = {draw(anything): draw(anything)}
    record.ended, record.outcome = NOW, draw(st.sampled_from(["finished", "failed", "interrupted"]))
    return record


def pages(record: Any, said: Said) -> list[Page]:
    other = experiment("b2", params={"x": 1})
    one = Summary.of(record)
    one.annotation = said  # type: ignore[assignment]
    found = [
        notebook.experiments_page([one, Summary.of(other)], [notebook.course(record), []]),
        notebook.experiment_page(record, courses([], record.checkpoints), said, problem=said.notes),
        notebook.checkpoints_page([record, other], record.checkpoints),
        notebook.history_page(3, courses([], record.checkpoints)),
    ]
    files = [file(said.notes or "x", 3, digest=said.name)]
    return found + [notebook.checkpoint_page(record, one, files, said, problem=said.notes) for one in record.checkpoints[:1]]


annotations = st.builds(Said, name=anything, tags=st.tuples(anything), notes=anything, aliases=st.just({}))


def is_harmless(char: str) -> bool:
    return char in "\n\u200d" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


@given(record=hostile_records(), said=annotations)
def test_whatever_was_recorded_is_text_and_nothing_else(record: Any, said: Said) -> None:
    for page in pages(record, said):
        read = Read(page.html())  # raises at any tag or attribute that is not ours
        for shown in (read.text, page.markdown(), "\n".join(page.text)):
            assert all(map(is_harmless, shown)), ascii(shown)


def test_notebooks_do_not_typeset_what_was_recorded() -> None:
    assert 'class="keepsake tex2jax_ignore mathjax_ignore"' in table_of(five()).html()


def test_the_objects_show_their_pages(project: Project) -> None:
    with project.experiments.create(quiet=True, params={"lr": 0.1}, name="warm-up", tags=["base"]) as one:
        one.log({"loss": 3.0}, 0)
        one.checkpoint(step=1, metrics={"loss": 2.0, "val_loss": 1.0}, primary_metric=("val_loss", "minimize"))
        one.checkpoint(step=2, metrics={"loss": 1.0, "val_loss": 2.0})
        assert "running" in one._repr_mimebundle_()["text/plain"]
    one.best().alias("production")
    experiments = project.experiments.list()
    [found] = experiments
    for shown in (experiments, found, found.checkpoints, found.best(), found.history()):
        bundle = shown._repr_mimebundle_()
        assert set(bundle) == {"text/plain", "text/markdown", "text/html"}
        assert bundle["text/html"] == shown._repr_html_()
        Read(bundle["text/html"])
    assert "warm-up" in experiments._repr_html_()
    assert "best, @production" in found._repr_html_()
    # The course of what was logged, too.
    assert "█▅▁" in found._repr_mimebundle_()["text/plain"]


def test_what_cannot_be_read_is_said_and_the_rest_is_shown(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with project.experiments.create(quiet=True) as one:
        one.checkpoint(step=1, metrics={"loss": 2.0})
    [found] = project.experiments.list()

    def unreachable(*_: Any) -> Any:
        raise StorageUnavailable("no answer from <s3://acme>")

    monkeypatch.setattr(found.repository.storage, "list", unreachable)
    monkeypatch.setattr(found.repository.storage, "read", unreachable)
    assert "no answer from &lt;s3://acme&gt;" in found._repr_html_()
    assert found.latest().short_id() in found._repr_html_()
