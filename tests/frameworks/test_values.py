"""Values of the real frameworks become JSON."""

from __future__ import annotations

import json
import math
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
import torch

from keepsake.values import convert_metrics, convert_params

TORCH_TYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.int64,
    torch.int8,
    torch.uint8,
]
NUMPY_TYPES = [np.float64, np.float32, np.float16, np.longdouble, np.int64, np.int8, np.uint64, ml_dtypes.bfloat16]
JAX_TYPES = [jnp.float32, jnp.float16, jnp.bfloat16, jnp.int32, jnp.uint8]
TENSORFLOW_TYPES = [tf.float64, tf.float32, tf.float16, tf.bfloat16, tf.int64, tf.uint8]

TWOS = [
    *(torch.tensor(2, dtype=dtype) for dtype in TORCH_TYPES),
    *(torch.tensor([[2]], dtype=dtype) for dtype in TORCH_TYPES),
    torch.tensor(2.0, requires_grad=True),
    torch.nn.Parameter(torch.tensor([2.0])),
    *(np.array(2).astype(dtype) for dtype in NUMPY_TYPES),
    *(np.array([2]).astype(dtype) for dtype in NUMPY_TYPES),
    *(np.array(2).astype(dtype)[()] for dtype in NUMPY_TYPES),
    np.ma.masked_array([2.0], mask=[False]),
    *(jnp.array(2, dtype=dtype) for dtype in JAX_TYPES),
    *(jnp.array([2], dtype=dtype) for dtype in JAX_TYPES),
    jnp.bfloat16(2),
    *(tf.constant(2, dtype=dtype) for dtype in TENSORFLOW_TYPES),
    *(tf.constant([2], dtype=dtype) for dtype in TENSORFLOW_TYPES),
    tf.Variable(2.0),
    tf.keras.Variable(2.0),
]


@pytest.mark.parametrize(
    "value",
    TWOS,
    ids=lambda value: (
        f"{type(value).__module__}.{type(value).__name__}-{value.dtype}-{value.ndim if hasattr(value, 'ndim') else ''}"
    ),
)
def test_scalars_and_arrays_of_one_element_are_numbers_among_metrics(value: Any) -> None:
    converted, problems = convert_metrics({"loss": value})
    assert converted == {"loss": 2}
    assert type(converted["loss"]) in (int, float)
    assert problems == []
    json.dumps(converted)


@pytest.mark.parametrize("value", [np.bool_(True), np.array(True), torch.tensor(True), jnp.array(True), tf.constant(True)])
def test_truth_values_stay_truth_values(value: Any) -> None:
    assert convert_metrics({"ok": value})[0]["ok"] is True


@pytest.mark.parametrize(
    "value", [np.float32("nan"), torch.tensor(math.nan, dtype=torch.bfloat16), jnp.array(math.nan), tf.constant(math.nan)]
)
def test_nan_stays_nan(value: Any) -> None:
    assert math.isnan(convert_metrics({"loss": value})[0]["loss"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value",
    [
        np.array([[1, 2], [3, 4]]),
        torch.tensor([[1, 2], [3, 4]], dtype=torch.bfloat16),
        torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True),
        jnp.array([[1, 2], [3, 4]], dtype=jnp.bfloat16),
        tf.constant([[1, 2], [3, 4]], dtype=tf.bfloat16),
        np.array([[1, 2], [3, 4]], dtype=object),
    ],
)
def test_arrays_become_lists(value: Any) -> None:
    assert convert_params({"a": value}) == ({"a": [[1, 2], [3, 4]]}, [])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.zeros((40, 50), np.float32), "array((40, 50), float32)"),
        (torch.zeros(40, 50), "array((40, 50), torch.float32)"),
        (torch.zeros(2, device="meta"), "array((2,), torch.float32)"),
        (torch.eye(2).to_sparse(), "array((2, 2), torch.float32)"),
        (jnp.zeros((40, 50)), "array((40, 50), float32)"),
        (tf.zeros((40, 50)), "array((40, 50), float32)"),
        (tf.keras.Input((3,), name="in"), "array((None, 3), float32)"),
    ],
)
def test_arrays_that_are_large_or_have_no_elements_become_one_line(value: Any, text: str) -> None:
    converted, [problem] = convert_params({"a": value})
    assert converted == {"a": text}
    assert problem.startswith('param "a" is an array ')


def test_inside_a_traced_function_there_is_no_value_yet() -> None:
    seen: list[Any] = []

    @jax.jit
    def traced(x: Any) -> Any:
        seen.append(convert_metrics({"loss": x})[0])
        return x

    traced(jnp.array(1.0))
    assert seen == [{"loss": "array((), float32)"}]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        (torch.nn.Linear, "torch.nn.modules.linear.Linear"),
        (torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1), "torch.optim.sgd.SGD"),
        (torch.float32, "torch.float32"),
        (torch.device("cpu"), "cpu"),
        (torch.Size([2, 3]), [2, 3]),
        (np.dtype("float32"), "float32"),
        (np.float32, "numpy.float32"),
        (np.str_("text"), "text"),
        (np.bytes_(b"x"), "b'x'"),
        (np.datetime64("2026-01-02T03:04:05.123456789"), "2026-01-02T03:04:05.123456789"),
        (np.array(["2026-01-02"], dtype="datetime64[D]"), ["2026-01-02"]),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array((1, 2.5), dtype=[("a", int), ("b", float)]), [1, 2.5]),
        (np.complex64(1 + 2j), "(1+2j)"),
        (np.tanh, "numpy.tanh"),
        (tf.float32, "<dtype: 'float32'>"),
        (tf.keras.layers.Dense(2), "keras.src.layers.core.dense.Dense"),
        (tf.keras.optimizers.SGD, "keras.src.optimizers.sgd.SGD"),
        (tf.keras.optimizers.SGD(0.1), "keras.src.optimizers.sgd.SGD"),
        (jnp.tanh, "jax.numpy.tanh"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_objects_have_an_obvious_form(value: Any, expected: Any) -> None:
    assert convert_params({"a": value}) == ({"a": expected}, [])
