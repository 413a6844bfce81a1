"""Data frames of the real pandas and polars: the right types, and nothing lost."""

from __future__ import annotations

from datetime import UTC
from typing import Any

import pandas
import polars
import pytest

from keepsake import Project
from keepsake.query.columns import Column
from keepsake.query.frames import to_frame


@pytest.fixture
def filled(project: Project) -> Project:
    params: list[dict[str, Any]] = [
        {"lr": 0.1, "depth": 3, "amp": True, "layers": [64, 64], "mixed": 1, "optim": {"name": "sgd"}},
        {"lr": 1, "amp": False, "mixed": "one", "optim": {"name": "adam"}},
    ]
    for number, one in enumerate(params):
        with project.experiments.create(params=one, quiet=True) as experiment:
            experiment.tag("prod")
            for step in range(2):
                experiment.checkpoint(
                    step=step,
                    metrics={"loss": [[0.5, 0.25], [float("nan"), 1]][number][step]},
                    primary_metric=("loss", "minimize"),
                )
    project.experiments.create(quiet=True).stop()
    return project


def test_pandas_gets_an_experiment_a_row_with_the_right_types(filled: Project) -> None:
    frame = filled.experiments.list().to_dataframe()
    types = {name: str(dtype) for name, dtype in frame.dtypes.items()}
    assert types["created"] == types["ended"] == "datetime64[us, UTC]"
    assert (types["checkpoints"], types["best.step"], types["duration_s"]) == ("int64", "Int64", "float64")
    assert (types["param.lr"], types["param.depth"], types["param.amp"]) == ("float64", "Int64", "boolean")
    assert (types["metric.loss"], types["param.layers"]) == ("float64", "object")
    assert types["id"] == types["param.optim.name"] == types["error"]
    assert frame["metric.loss"].tolist()[:2] == [0.25, 1.0]
    assert frame["best.step"].tolist()[:2] == [1, 1]
    assert frame["best.step"].isna().tolist() == [False, False, True]
    assert frame["param.layers"][0] == [64, 64]
    assert frame["param.mixed"].tolist()[:2] == [1, "one"]
    assert frame["tags"].tolist() == [["prod"], ["prod"], []]
    assert frame["created"][0].to_pydatetime() == filled.experiments.list()[0].created
    assert frame["created"][0].tzinfo == UTC or str(frame["created"].dt.tz) == "UTC"
    best = frame.loc[frame["metric.loss"].idxmin(), "id"]
    assert filled.experiments.get(best) == filled.experiments.best()


def test_polars_gets_the_same_with_one_type_a_column(filled: Project) -> None:
    frame = filled.experiments.list().to_dataframe(library="polars")
    assert frame.schema["created"] == polars.Datetime("us", "UTC")
    assert frame.schema["tags"] == polars.List(polars.String)
    assert frame.schema["param.layers"] == polars.List(polars.Int64)
    assert frame["param.mixed"].to_list() == ["1", "one", None]
    assert frame["param.lr"].to_list() == [0.1, 1.0, None]
    assert frame["best.step"].to_list() == [1, 1, None]
    assert frame["created"].to_list() == [one.created for one in filled.experiments.list()]


def test_numbers_of_more_than_64_bits_stay_whole() -> None:
    columns = {"param.seed": Column("whole", [2**63, None])}
    assert to_frame(columns)["param.seed"].tolist() == [2**63, None]
    assert to_frame(columns, "polars")["param.seed"].to_list() == [str(2**63), None]


def test_both_have_a_row_for_each_checkpoint_and_each_step(filled: Project) -> None:
    found = filled.experiments.list()
    frame = found.to_dataframe(checkpoints=True)
    assert frame["step"].tolist() == [0, 1, 0, 1]
    assert frame["best"].tolist() == [False, True, False, True]
    assert frame.groupby("param.optim.name")["metric.loss"].min().to_dict() == {"adam": 1.0, "sgd": 0.25}
    checkpoints = found.to_dataframe(checkpoints=True, library="polars")
    assert checkpoints["metric.loss"].is_nan().to_list() == [False, False, True, False]
    assert found[0].checkpoints[:1].to_dataframe()["metric.loss"].tolist() == [0.5]
    history = found[0].history().to_dataframe()
    assert (history["step"].tolist(), history["metric.loss"].tolist()) == ([0, 1], [0.5, 0.25])
    assert str(history["time"].dtype) == "datetime64[us, UTC]"


def test_no_experiments_are_an_empty_frame_with_the_columns(project: Project) -> None:
    for library in ("pandas", "polars"):
        frame = project.experiments.list().to_dataframe(library=library)  # type: ignore[arg-type]
        assert len(frame) == 0
        assert {"id", "created", "best.step"} <= set(frame.columns)
    assert isinstance(project.experiments.list().to_dataframe(), pandas.DataFrame)
