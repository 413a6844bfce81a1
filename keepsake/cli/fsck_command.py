"""``keepsake fsck``: check a repository, and mend what can be mended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from keepsake.cli.errors import DAMAGED, FAILED
from keepsake.cli.options import common_options, examples, json_option, options, project_of, require_repository
from keepsake.exceptions import KeepsakeError

if TYPE_CHECKING:
    from keepsake.repository.verify import Finding, Report, Severity

HEADINGS: dict[Severity, str] = {"damage": "Damaged", "leftover": "Left behind", "note": "Worth knowing"}


@click.command(
    epilog=examples(
        "keepsake fsck",
        "keepsake fsck --quick -R file:///data/runs",
        "keepsake fsck --repair",
        "keepsake fsck --json | jq '.findings[].key'",
    )
)
@options(
    click.option("--quick", is_flag=True, help="Look at presence and sizes only, and read no archive."),
    click.option("--repair", is_flag=True, help="Mend what can be mended without losing anything, and remove leftovers."),
    json_option,
    common_options,
)
@click.pass_context
def fsck(ctx: click.Context, /, repository: str | None, *, quick: bool, repair: bool, as_json: bool) -> None:
    """Check that every record can be read, and that all files are there and are what was saved.

    Exits with 7 if something is damaged. Damaged records and files are never removed; keepsake rm does that.
    """
    from keepsake.cli import terminal
    from keepsake.repository import verify

    project = project_of(ctx, repository)
    # Where only repository.json is lost, there is one all the same.
    opened = project.repository_at_hand()
    if not any(True for _ in opened.storage.list("metadata")):
        opened = require_repository(project)
    with terminal.progress("reading", wanted=not as_json) as progress:
        report = verify.check(opened, quick=quick, progress=progress)
    outcomes = [_outcome(finding, repair=repair) for finding in report.findings]
    if as_json:
        _print_json(report, outcomes)
    else:
        _print_findings(report, outcomes)
        _print_summary(report, outcomes, quick=quick)
    ctx.exit(_exit_code(report, outcomes))


# --- repairing --------------------------------------------------------------------------------------------------------


def _outcome(finding: Finding, *, repair: bool) -> str:
    """Mend what was found, if that is wanted and possible, and return how it stands: ``open``, ``repaired`` or why it failed."""
    if not repair or finding.repair is None:
        return "open"
    try:
        finding.repair()
    except KeepsakeError as err:
        return f"cannot be repaired: {err.message}"
    return "repaired"


def _exit_code(report: Report, outcomes: list[str]) -> int:
    pairs = list(zip(report.findings, outcomes, strict=True))
    if any(finding.severity == "damage" and outcome != "repaired" for finding, outcome in pairs):
        return DAMAGED
    return FAILED if any(outcome not in ("open", "repaired") for outcome in outcomes) else 0


# --- printing ---------------------------------------------------------------------------------------------------------


def _print_json(report: Report, outcomes: list[str]) -> None:
    from keepsake.cli import json_output

    findings = [
        {
            "severity": finding.severity,
            "kind": finding.kind,
            "key": finding.key,
            "text": finding.text,
            "hint": finding.hint,
            "repairable": finding.repair is not None,
            "outcome": outcome,
        }
        for finding, outcome in zip(report.findings, outcomes, strict=True)
    ]
    counts = {"experiments": report.experiments, "checkpoints": report.checkpoints, "size_bytes": report.size_bytes}
    click.echo(json_output.dumps({**counts, "findings": findings}))


def _print_findings(report: Report, outcomes: list[str]) -> None:
    from keepsake.display.text import safe

    pairs = list(zip(report.findings, outcomes, strict=True))
    for severity, heading in HEADINGS.items():
        chosen = [(finding, outcome) for finding, outcome in pairs if finding.severity == severity]
        if not chosen:
            continue
        click.echo(f"{heading}:")
        for finding, outcome in chosen:
            click.echo(f"  {safe(finding.text)}")
            click.echo(f"    {safe(finding.key)}")
            if outcome != "open":
                click.echo(f"    {safe(outcome)}")
            elif finding.hint is not None:
                click.echo(f"    hint: {finding.hint}")
        click.echo()


def _print_summary(report: Report, outcomes: list[str], *, quick: bool) -> None:
    from keepsake.display.text import plural, size

    checked = f"{plural(report.experiments, 'experiment')}, {plural(report.checkpoints, 'checkpoint')}, {size(report.size_bytes)}"
    open_ones = [finding for finding, outcome in zip(report.findings, outcomes, strict=True) if outcome != "repaired"]
    damaged = sum(finding.severity == "damage" for finding in open_ones)
    repaired = outcomes.count("repaired")
    parts = [f"{damaged} damaged" if damaged else "no damage"] + ([f"{repaired} repaired"] if repaired else [])
    click.echo(f"{'Looked at' if quick else 'Checked'} {checked}: {', '.join(parts)}.")
    mendable = sum(
        finding.repair is not None for finding, outcome in zip(report.findings, outcomes, strict=True) if outcome == "open"
    )
    if mendable:
        click.echo(f"keepsake fsck --repair mends {mendable} of these.", err=True)
