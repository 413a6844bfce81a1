"""``keepsake show``: everything about one experiment or checkpoint, and its files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from keepsake.cli.options import cache_option, common_options, examples, json_option, options, project_of, view
from keepsake.cli.paging import page, pager_option
from keepsake.exceptions import ReadError
from keepsake.repository.layout import SHORT_ID_LENGTH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keepsake.checkpoint import Checkpoint
    from keepsake.display.details import Annotated
    from keepsake.display.tables import View
    from keepsake.experiment import Experiment
    from keepsake.repository.archive import ArchivedFile


@click.command(
    epilog=examples(
        "keepsake show 4591273",
        "keepsake show 4591273 --all",
        "keepsake show da0f8f6 --files",
        "keepsake show 4591273 --path train.py",
        "keepsake show 4591273 --json | jq .params",
    )
)
@click.argument("id")
@options(
    click.option("--all", "every", is_flag=True, help="Show all params, packages, metrics and checkpoints, and nothing cut."),
    click.option("--files", is_flag=True, help="List the files of the checkpoint, or of the experiment's code."),
    click.option("--code", is_flag=True, help="Show the experiment's code as a tree."),
    click.option("--path", metavar="FILE", help="Print this saved file."),
    json_option,
    cache_option,
    pager_option,
    common_options,
)
@click.pass_context
def show(
    ctx: click.Context,
    id: str,
    repository: str | None,
    every: bool,
    files: bool,
    code: bool,
    path: str | None,
    as_json: bool,
    pager: bool,
) -> None:
    """Show an experiment or a checkpoint. ID is any start of its ID that fits nothing else.

    --path prints a file of the experiment's code, else of its best checkpoint, else of the latest; of a checkpoint one of its own
    files, else of the code. A terminal gets text that is safe to print, a pipe the very bytes.
    """
    asked = [name for name, is_given in (("--files", files), ("--code", code), ("--path", path is not None)) if is_given]
    if as_json and not files:
        asked.append("--json")
    if len(asked) > 1:
        raise click.UsageError(f"{' and '.join(asked)} cannot be given together", ctx)
    project = project_of(ctx, repository)
    experiment, checkpoint = project.experiments.find(id)
    page(ctx, wanted=pager)
    if path is not None:
        from keepsake.cli.stored_file import print_file

        print_file(experiment, checkpoint, path, reference=id)
        return
    if as_json:
        _print_json(experiment, checkpoint, with_files=files)
    elif code:
        _print_code(experiment.files(), view(ctx, short=SHORT_ID_LENGTH, every=every))
    elif files:
        _print_files((checkpoint or experiment).files(), view(ctx, short=SHORT_ID_LENGTH, every=every))
    else:
        wanted = view(ctx, short=project.index().short_length(), every=every)
        _print_lines(_page(experiment, checkpoint, wanted, _options_to_repeat(ctx, repository)))


def _page(experiment: Experiment, checkpoint: Checkpoint | None, view: View, options: Sequence[str]) -> list[str]:
    from keepsake.display.details import checkpoint_details, experiment_details

    record, annotation = experiment.record, _annotation(experiment)
    if checkpoint is None:
        courses = experiment.repository.courses(record)
        return experiment_details(record, view, courses=courses, annotation=annotation, options=options)
    files = _files_at_hand(checkpoint)
    return checkpoint_details(record, checkpoint.record, view, files=files, annotation=annotation, options=options)


def _annotation(experiment: Experiment) -> Annotated | None:
    """Return what people have said of an experiment: its summary knows."""
    return experiment.project.index().summary(experiment.id)


def _options_to_repeat(ctx: click.Context, repository: str | None) -> list[str]:
    """Return those options of this command that decide which repository it looks at, for commands that are to be pasted."""
    directory = ctx.ensure_object(dict).get("project_directory")
    return [*(["-R", repository] if repository is not None else []), *(["-D", directory] if directory is not None else [])]


def _print_lines(lines: Sequence[str]) -> None:
    for line in lines:
        click.echo(line, color=True)


def _print_json(experiment: Experiment, checkpoint: Checkpoint | None, *, with_files: bool) -> None:
    from keepsake.cli import json_output

    record, annotation = experiment.record, _annotation(experiment)
    if checkpoint is None:
        shown = json_output.shown(record, annotation)
    else:
        shown = json_output.shown_checkpoint(record, checkpoint.record, annotation)
    if with_files:
        shown["files"] = [
            json_output.archived_file(file) for file in (checkpoint or experiment).files() if file.kind != "directory"
        ]
    click.echo(json_output.dumps(shown))


# --- what was saved ---------------------------------------------------------------------------------------------------


def _print_code(files: Sequence[ArchivedFile], view: View) -> None:
    from keepsake.display.files import tree

    _print_lines(tree(files, view))
    _print_totals(files)


def _print_files(files: Sequence[ArchivedFile], view: View) -> None:
    from keepsake.display.files import file_table

    _print_lines(file_table(files, view))
    _print_totals(files)


def _print_totals(files: Sequence[ArchivedFile]) -> None:
    from keepsake.cli import terminal
    from keepsake.display.files import totals

    if terminal.is_terminal():
        terminal.print_lines("", totals(files))


def _files_at_hand(checkpoint: Checkpoint) -> list[ArchivedFile]:
    """Return a checkpoint's files as far as its page is to wait for them: an archive without an index is not read from end to end."""
    from keepsake import messages

    if checkpoint.archive is None or checkpoint.archive.index_sha256 is None:
        return []
    try:
        return checkpoint.files()
    except ReadError as err:
        messages.warning(err.message)
        return []
