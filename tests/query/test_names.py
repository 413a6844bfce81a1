"""Names mean the same everywhere: in filters, in sort keys, in columns."""

from __future__ import annotations

from keepsake.query.names import FIELDS, MISSING, PREFIXES, names, resolve, shadowed, shown_checkpoint, value_of
from tests.query.summaries import LOSS, checkpoint, summary


def test_every_field_can_be_asked_for() -> None:
    one = summary(checkpoints=[checkpoint(1, {})])
    assert set(FIELDS) <= set(names([one]))
    for name in FIELDS:
        assert resolve(name).value_of(one) != ""


def test_a_metric_is_that_of_the_best_checkpoint_else_of_the_latest() -> None:
    steps = [checkpoint(1, {"loss": 3.0}), checkpoint(2, {"loss": 1.0}), checkpoint(3, {"loss": 2.0})]
    assert value_of(summary(checkpoints=steps), "loss") == 2.0
    steps[0].primary_metric = LOSS
    one = summary(checkpoints=steps)
    assert value_of(one, "loss") == 1.0
    assert shown_checkpoint(one) == one.best()
    assert shown_checkpoint(summary()) is None


def test_dotted_names_reach_into_params_that_are_nested_in_any_way() -> None:
    one = summary(params={"a.b": 1, "a": {"b": 2, "c": {"d.e": 3}, "empty": {}}, "x.y": {"z": 4}, "best": {"loss": 5}, "n": None})
    found = {name: value_of(one, name) for name in ("a.b", "param.a.b", "a.c.d.e", "x.y.z", "best.loss", "n", "a.empty", "a.c")}
    assert list(found.values()) == [1, 1, 3, 4, 5, None, {}, {"d.e": 3}]
    for name in ("a.c.d", "a.x", "a.", ".a", "x.y.z.w", "best.", "param.", "y", "n.n", ".".join("a" * 200)):
        assert value_of(one, name) is MISSING


def test_every_prefix_has_nothing_to_say_of_an_empty_experiment() -> None:
    assert [value_of(summary(), f"{prefix}.x") for prefix in PREFIXES] == [MISSING] * len(PREFIXES)


def test_names_of_params_and_metrics_each_once() -> None:
    ones = [
        summary(params={"lr": 1, "optim": {"lr": 2}}),
        summary(params={"lr": 1}, checkpoints=[checkpoint(1, {"loss": 1}), checkpoint(2, {"acc": 1})]),
    ]
    assert names(ones) == [*FIELDS, "lr", "optim.lr", "loss", "acc"]


def test_what_may_have_been_meant_by_a_field_that_the_original_did_not_have() -> None:
    ones = [summary(params={"size": 3, "user": "x", "lr": 1}), summary(checkpoints=[checkpoint(1, {"error": 1, "size": 2})])]
    assert shadowed(["size", "user", "lr", "error", "size"], ones) == ["metric.size", "param.size", "metric.error"]
