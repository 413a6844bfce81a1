"""The documents are true: links lead somewhere, Python in them compiles, commands in them exist."""

from __future__ import annotations

import re
import runpy
import shlex
import tomllib

import pytest

from tests.conftest import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")


def blocks(language: str) -> list[object]:
    return [
        pytest.param(code, id=f"{document.name}-{number}")
        for document in DOCUMENTS
        for number, (found, code) in enumerate(FENCE.findall(document.read_text(encoding="utf-8")))
        if found == language
    ]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files_and_headings(document) -> None:
    for link in LINK.findall(document.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path) if path else document
        assert target.exists(), f"{document.name} links to {link}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, f"{document.name} links to {link}"


@pytest.mark.parametrize("code", blocks("python"))
def test_python_in_the_documents_compiles(code: str) -> None:
    compile(code, "document", "exec")


@pytest.mark.parametrize("code", blocks("sh"))
def test_commands_in_the_documents_exist(code: str) -> None:
    from click.testing import CliRunner

    from keepsake.cli import cli

    for line in code.splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] != ["keepsake"]:
            continue
        command = cli.get_command(None, words[1])  # type: ignore[arg-type]
        assert command is not None, f"no command {words[1]}"
        described = CliRunner().invoke(cli, [words[1], "--help"]).output
        for option in (word for word in words[2:] if re.fullmatch(r"--?[a-zA-Z][\w-]*", word)):
            assert re.search(rf"(?<![\w-]){re.escape(option)}\b", described), f"{words[1]} has no option {option}"


def test_the_readme_gives_the_two_commands_and_ci_runs_the_second() -> None:
    commands = [code.strip() for language, code in FENCE.findall((ROOT / "README.md").read_text("utf-8")) if language == "sh"]
    demo, tests = commands[:2]
    assert demo.endswith("tox run -e demo")
    assert tests.endswith("tox run")
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert [line for line in script if line and not line.startswith(("#", "set ", "cd "))] == [tests]


def test_every_extra_that_a_document_names_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for document in DOCUMENTS:
        for named in re.findall(r"keepsake\[([\w,]+)\]", document.read_text(encoding="utf-8")):
            assert set(named.split(",")) <= set(extras), document.name


def test_the_reference_of_the_command_line_is_what_the_commands_say() -> None:
    generator = runpy.run_path(str(ROOT / "docs" / "generate_cli_reference.py"))
    written = (ROOT / "docs" / "cli-reference.md").read_text(encoding="utf-8")
    assert written == generator["reference"](), "make it anew: python docs/generate_cli_reference.py"
