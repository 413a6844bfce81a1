"""What is asked of the modules, optimizers and schedulers of PyTorch, whichever framework trains with them.

Nothing is imported: they are asked for what all of their kind have.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from keepsake.integrations._base import guarded

if TYPE_CHECKING:
    from collections.abc import Sequence

HOW_AND_NOT_WHAT = {"capturable", "decoupled_weight_decay", "differentiable", "foreach", "fused"}
"""Options of optimizers that say how a step is computed, and not which one."""


@guarded
def size_of(module: Any) -> dict[str, int]:
    """Return how many parameters a module has, and how many of them are trained."""
    parameters = list(module.parameters())
    # Those of a lazy module have no size before the first batch.
    sizes = [(int(one.numel()), bool(one.requires_grad)) for one in parameters if not hasattr(one, "materialize")]
    if len(sizes) < len(parameters):
        return {}
    return {
        "num_parameters": sum(size for size, _ in sizes),
        "num_trainable_parameters": sum(size for size, is_trained in sizes if is_trained),
    }


def optimizers(found: Sequence[Any]) -> dict[str, Any]:
    """Return what optimizers are called and were given: of a single one directly, of several by their number."""
    return _numbered([_optimizer(one) or {} for one in found])


def schedulers(found: Sequence[Any]) -> dict[str, Any]:
    """Return what schedulers of the learning rate are called and were given: of a single one directly, of several by their number."""
    return _numbered([_scheduler(one) or {} for one in found])


def _numbered(described: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return described[0] if len(described) == 1 else {str(number): one for number, one in enumerate(described)}


@guarded
def _optimizer(optimizer: Any) -> dict[str, Any]:
    # What was given to its constructor. The values in its groups are those of the moment: a scheduler changes them, and so does a
    # checkpoint that the training goes on from.
    given = {
        name: value
        for name, value in optimizer.defaults.items()
        if value is not None and value is not False and name not in HOW_AND_NOT_WHAT
    }
    groups: list[dict[str, Any]] = [{"num_parameters": _count(group["params"])} for group in optimizer.param_groups]
    for option in given.keys() & {"lr", "weight_decay"}:
        # A scheduler writes down which learning rate it has begun with.
        values = [group.get(f"initial_{option}", group.get(option)) for group in optimizer.param_groups]
        if any(value != values[0] for value in values):
            del given[option]
            groups = [{**group, option: value} for group, value in zip(groups, values, strict=True)]
        elif option != "lr" or "initial_lr" in optimizer.param_groups[0]:
            given[option] = values[0]
    differ = any(len(group) > 1 for group in groups)
    return {"name": type(optimizer).__name__, **given, **({"groups": groups} if differ else {})}


def _count(parameters: Sequence[Any]) -> int:
    return sum(int(one.numel()) for one in parameters)


@guarded
def learning_rate(optimizers: Sequence[Any]) -> float | None:
    """Return the learning rate of the moment; None where there are several optimizers, or none that has one."""
    rate = optimizers[0].param_groups[0].get("lr") if len(optimizers) == 1 else None
    return float(rate) if rate is not None else None


@guarded
def _scheduler(scheduler: Any) -> dict[str, Any]:
    # What its constructor takes and it keeps under the same name. Its state tells more: where the schedule is at the moment.
    names = [name for name in inspect.signature(type(scheduler)).parameters if name not in ("optimizer", "last_epoch", "verbose")]
    kept = {name: value for name in names if (value := getattr(scheduler, name, None)) is not None}
    # Milestones are kept as a counter.
    plain = {name: sorted(value) if isinstance(value, dict) else value for name, value in kept.items()}
    return {
        "name": type(scheduler).__name__,
        **{name: value for name, value in plain.items() if isinstance(value, int | float | str | list | tuple)},
    }
