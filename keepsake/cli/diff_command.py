"""``keepsake diff``: what differs between experiments, checkpoints and the working directory."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from keepsake.cli.options import cache_option, common_options, examples, json_option, options, project_of, view
from keepsake.cli.paging import page, pager_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keepsake.checkpoint import Checkpoint
    from keepsake.display.tables import View
    from keepsake.experiment import Experiment
    from keepsake.project import Project
    from keepsake.query.compare import Comparison, Side
    from keepsake.query.saved import SavedFiles

WORKING_DIRECTORY = "."

PATCH_MEMORY_BYTES = 64 << 20
"""Longer patches are kept in a temporary file until all of it is there."""


def _sections(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> list[str]:
    """Read the sections that are wanted, in the order in which they are shown; none for all."""
    from keepsake.query.compare import SECTIONS

    wanted = [word.strip() for value in values for word in value.split(",") if word.strip()]
    for word in wanted:
        if word not in SECTIONS:
            import difflib

            close = difflib.get_close_matches(word, SECTIONS, n=1)
            meant = f'did you mean "{close[0]}"?' if close else f"there are {', '.join(SECTIONS)}"
            raise click.BadParameter(f'no section "{word}", {meant}', ctx, param)
    return [section for section in SECTIONS if section in wanted]


@click.command(
    epilog=examples(
        "keepsake diff eb96def 4591273",
        "keepsake diff 4591273                        # with the working directory",
        "keepsake diff eb96def 4591273 bfb06bc --code",
        "keepsake diff . 4591273 --only code | git apply",
        "keepsake diff eb96def 4591273 --exit-code && echo same",
    )
)
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@options(
    click.option(
        "--only",
        multiple=True,
        metavar="SECTIONS",
        callback=_sections,
        help="Only these, with commas between: params, metrics, env, code, files.",
    ),
    click.option("--path", "globs", multiple=True, metavar="GLOB", help="Only files that match, and only code and files."),
    click.option("--code", is_flag=True, help="Of three or more, also what of their code differs from the first, line by line."),
    click.option("--stat", is_flag=True, help="Of code, only how many lines differ in which file."),
    click.option("--word", "words", is_flag=True, help="Of code, mark the words that differ: [-old-]{+new+}."),
    click.option("--all", "every", is_flag=True, help="Also show what is the same."),
    click.option(
        "-U", "--unified", "context", type=click.IntRange(0), default=3, metavar="N", help="Equal lines around others; 3."
    ),
    click.option("--tool", metavar="COMMAND", help='Compare the code with a program, such as "meld {a} {b}".'),
    json_option,
    click.option("--exit-code", "use_exit_code", is_flag=True, help="Exit with 1 if anything differs."),
    cache_option,
    pager_option,
    common_options,
)
@click.pass_context
def diff(
    ctx: click.Context,
    ids: tuple[str, ...],
    repository: str | None,
    only: list[str],
    globs: tuple[str, ...],
    code: bool,
    stat: bool,
    words: bool,
    every: bool,
    context: int,
    tool: str | None,
    as_json: bool,
    use_exit_code: bool,
    pager: bool,
) -> None:
    """Compare experiments or checkpoints with the first one, or one with the working directory.

    Of an experiment the best checkpoint is compared, else the latest. A dot, and no second ID, mean the working directory. Into a
    pipe, --only code prints a patch for git apply.
    """
    from keepsake.cli import terminal
    from keepsake.query.compare import SECTIONS, compare
    from keepsake.query.saved import SavedFiles

    if words and (as_json or stat or tool is not None):
        raise click.UsageError("--word goes with neither --json nor --stat nor --tool", ctx)
    if code and (as_json or stat or tool is not None):
        raise click.UsageError("--code goes with neither --json nor --stat nor --tool", ctx)
    project = project_of(ctx, repository)
    first, *others = _sides(ctx, project, ids)
    if tool is None:
        page(ctx, wanted=pager)
    if words and len(others) > 1:
        raise click.UsageError("--word compares two", ctx)
    sections = only or (["code", "files"] if globs else list(SECTIONS))
    with ExitStack() as stack:
        saved = SavedFiles(project.repository_at_hand(), project.directory, stack, globs, context)
        if tool is not None:
            ctx.exit(_run_tool(ctx, tool, saved, [first, *others]))
        if sections == ["code"] and len(others) == 1 and not (as_json or stat or words or terminal.is_terminal()):
            differs = _print_patch(saved, first, others[0])
        else:
            comparisons = [compare(first, other, sections, saved) for other in others]
            differs = any(comparison.differs for comparison in comparisons)
            if as_json:
                _print_json(comparisons)
            else:
                wanted = view(ctx, short=project.index().short_length(), every=every)
                _print_report(comparisons, wanted, code=code, stat=stat, words=words)
    if use_exit_code and differs:
        ctx.exit(1)


def _sides(ctx: click.Context, project: Project, ids: Sequence[str]) -> list[Side]:
    from keepsake.query.compare import Side

    wanted = [*ids, WORKING_DIRECTORY] if len(ids) == 1 else ids
    if wanted.count(WORKING_DIRECTORY) > 1:
        raise click.UsageError("the working directory can be compared with experiments only", ctx)
    found = iter(project.experiments.find_all(id for id in wanted if id != WORKING_DIRECTORY))
    return [_side(*next(found)) if id != WORKING_DIRECTORY else Side(None) for id in wanted]


def _side(experiment: Experiment, checkpoint: Checkpoint | None) -> Side:
    from keepsake.comparing import side_of

    return side_of(checkpoint or experiment)


def _print_patch(saved: SavedFiles, left: Side, right: Side) -> bool:
    """Print the true bytes of a patch, and return whether there are any."""
    import shutil
    import tempfile

    from keepsake.display.patch import file_patch

    # All of it before any of it: a program would take a part for the whole.
    with tempfile.SpooledTemporaryFile(PATCH_MEMORY_BYTES) as patch:
        for change in saved.code_changes(left, right):
            patch.write(file_patch(change))
        differs = patch.tell() > 0
        patch.seek(0)
        shutil.copyfileobj(patch, sys.stdout.buffer)
    return differs


def _print_json(comparisons: Sequence[Comparison]) -> None:
    from keepsake.cli import json_output

    written = json_output.compared(comparisons[0]) if len(comparisons) == 1 else json_output.compared_with_first(comparisons)
    click.echo(json_output.dumps(written))


def _print_report(comparisons: Sequence[Comparison], view: View, *, code: bool, stat: bool, words: bool) -> None:
    from keepsake.display.comparison import code_lines, comparison_lines
    from keepsake.display.side_by_side import side_by_side_lines

    if len(comparisons) == 1:
        lines = comparison_lines(comparisons[0], view, stat=stat, words=words)
    else:
        lines = side_by_side_lines(comparisons, view)
        for found in [code_lines(comparison, view) for comparison in comparisons] if code else []:
            lines += ["", *found] if found else []
    for line in lines:
        click.echo(line, color=True)


def _run_tool(ctx: click.Context, tool: str, saved: SavedFiles, sides: Sequence[Side]) -> int:
    """Run a program over copies of two sides' code, which are gone when it has ended, and return its exit code."""
    import shlex
    import subprocess
    import tempfile
    from pathlib import Path

    if len(sides) != 2:
        raise click.UsageError("--tool compares two", ctx)
    words = shlex.split(tool)
    if not any(name in word for word in words for name in ("{a}", "{b}")):
        words += ["{a}", "{b}"]
    with tempfile.TemporaryDirectory(prefix="keepsake-diff-") as directory:
        places = {name: str(saved.code_directory(side, Path(directory) / name)) for name, side in zip("ab", sides, strict=True)}
        command = [word.replace("{a}", places["a"]).replace("{b}", places["b"]) for word in words]
        try:
            return subprocess.run(command, check=False).returncode
        except OSError as err:
            raise click.BadParameter(f"cannot run {command[0]}: {err.strerror or err}", ctx, param_hint="--tool") from err
