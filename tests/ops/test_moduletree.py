from __future__ import annotations

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from ckptfmt._core.interop.base import TensorInfo
from ckptfmt._core.ops.inspection.module_tree import Module, module_tree
from ckptfmt._core.ops.inspection.tensor_filter import TensorOrder, choose_tensors


def tensor(name: str, *shape: int, dtype: str = "F32", component: str = "net") -> TensorInfo:
    return TensorInfo(component, name, dtype, shape, math.prod(shape) * 4)


def outline(module: Module) -> list[str]:
    """Return the names in a tree, indented."""
    return [module.name, *(f" {line}" for child in module.children for line in outline(child))]


def test_modules_stand_in_their_order_and_lonely_ones_are_joined() -> None:
    tree = module_tree("net", [tensor("enc.conv.weight", 2, 3), tensor("enc.conv.bias", 3), tensor("head.weight", 5)])
    assert outline(tree) == ["net", " enc.conv", "  weight", "  bias", " head", "  weight"]
    assert (tree.tensors, tree.elements, tree.nbytes) == (3, 14, 56)


def test_equal_layers_are_folded_and_others_are_not() -> None:
    names = [f"h.{number}.{part}" for number in range(12) for part in ("attn.w", "mlp.w")]
    tree = module_tree("net", [*(tensor(name, 4) for name in names), tensor("h.12.attn.w", 5), tensor("h.12.mlp.w", 4)])
    (layers,) = tree.children
    assert [child.name for child in layers.children] == ["{0..11}", "12"]
    row = layers.children[0]
    assert (row.times, row.tensors, row.elements) == (12, 24, 96)
    assert outline(row) == ["{0..11}", " attn", "  w", " mlp", "  w"]
    assert row.children[0].elements == 4, "of each"


def test_layers_are_put_in_order_by_their_numbers() -> None:
    tree = module_tree("net", [tensor(f"h.{number}.w", 4) for number in (1, 10, 2, 0, 3, 4, 5, 6, 7, 8, 9)])
    assert outline(tree) == ["net", " h.{0..10}", "  w"]


def test_a_gap_in_the_numbers_or_another_dtype_ends_a_row() -> None:
    tree = module_tree("net", [tensor("0.w", 4), tensor("1.w", 4), tensor("3.w", 4), tensor("4.w", 4, dtype="F16")])
    assert [child.name for child in tree.children] == ["{0..1}", "3", "4"]


def test_a_tensor_that_has_others_below_its_name_stands_beside_them() -> None:
    tree = module_tree("net", [tensor("a", 1), tensor("a.b", 2), tensor("a.c", 3)])
    assert outline(tree) == ["net", " a", "  .", "  b", "  c"]


NAMES = st.lists(st.sampled_from(["a", "b", "0", "1", "2", "01", "", "x y"]), min_size=1, max_size=5).map(".".join)


@given(st.dictionaries(NAMES, st.tuples(st.integers(0, 3), st.sampled_from(["F32", "F16"])), max_size=20))
def test_no_tensor_is_lost(facts: dict[str, tuple[int, str]]) -> None:
    tensors = [tensor(name, size, dtype=dtype) for name, (size, dtype) in facts.items()]
    tree = module_tree("net", tensors)
    assert tree.tensors == len(tensors)
    assert tree.elements == sum(item.elements for item in tensors)
    json.dumps(tree.to_json())

    def check(module: Module) -> None:
        if module.children:
            times = module.times
            assert module.tensors == times * sum(child.tensors for child in module.children)
            assert module.nbytes == times * sum(child.nbytes for child in module.children)
        for child in module.children:
            check(child)

    check(tree)


def test_names_that_never_end_are_cut() -> None:
    tree = module_tree("net", [tensor(".".join(["a"] * depth + ["w"]), 1) for depth in (1, 10, 100, 1000, 10_000)])
    json.dumps(tree.to_json())
    assert tree.tensors == 5


def test_tensors_are_chosen_by_name_with_or_without_the_component_and_by_dtype() -> None:
    tensors = [tensor("conv.weight", 2), tensor("conv.bias", 9), tensor("state.0", 5, dtype="F64", component="opt")]

    def names(**options: object) -> list[str]:
        return [item.name for item in choose_tensors(tensors, **options)]  # type: ignore[arg-type]  # of several kinds

    assert names() == ["conv.weight", "conv.bias", "state.0"]
    assert names(patterns=["*.bias"]) == ["conv.bias"]
    assert names(patterns=["net.*"]) == ["conv.weight", "conv.bias"]
    assert names(patterns=["conv.weight", "opt.*"]) == ["conv.weight", "state.0"]
    assert names(dtypes=["f64"]) == ["state.0"]
    assert names(patterns=["nothing"]) == []
    assert names(order=TensorOrder.SIZE) == ["conv.bias", "state.0", "conv.weight"]
    assert names(order=TensorOrder.NAME) == ["conv.bias", "conv.weight", "state.0"]
    assert names(order=TensorOrder.DTYPE) == ["conv.bias", "conv.weight", "state.0"]


def test_numbers_in_names_are_ordered_by_value() -> None:
    tensors = [tensor(f"h.{number}.w", 1) for number in (10, 9, 1)]
    assert [item.name for item in choose_tensors(tensors, order=TensorOrder.NAME)] == ["h.1.w", "h.9.w", "h.10.w"]
