"""Einstein sums, of any number of tensors; see `tracing.product`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gnnrl_lightning.tracing.labels import Value, support
from gnnrl_lightning.tracing.product import Product
from gnnrl_lightning.tracing.records import Contraction
from gnnrl_lightning.tracing.rules.elementwise import combined, produce_outer
from gnnrl_lightning.tracing.rules.products import arguments, note_scores, produce, without_positions
from gnnrl_lightning.tracing.walk import Walk, rule


@rule("einsum", kind="linear")
def einsum(walk: Walk, equation: str, operands: list[Value], *, path: list[int] | None = None, **_: Any) -> Value:
    """Einstein summation, by its subscripts: those left out on the right are contracted, or summed in a single tensor.

    Tensors that contract nothing are multiplied elementwise; more than two are contracted in pairs, as torch does, in
    the order of `path`, or each with the product of those before. Diagonals are frozen.
    """
    left, right = _spelled(equation.replace(" ", ""), [len(operand.shape) for operand in operands])
    subscripts, number = left.split(","), walk.call_number()
    plain = all(len({*letters}) == len(letters) for letters in subscripts)
    if plain and len(operands) > 1 and {*left} - {","} == {*right} and not walk.macs():
        return _elementwise(walk, operands, subscripts, right)
    if not plain:
        for operand in operands:
            walk.freeze(operand, "is part of an einsum with a diagonal")
        walk.contract(())
        return Value(walk.shape)
    if len(operands) == 1:
        return _one_operand(walk, operands[0], left, right)
    halved = [_halves(walk, value, letters, left, right) for value, letters in zip(operands, subscripts, strict=True)]
    sources = arguments(walk)[1]
    made = _in_pairs(walk, [*zip(sources, halved, subscripts, strict=True)], right, number, path or [])
    return Value(walk.shape, made.labels)


Operand = tuple[Any, Value, str]
"""A tensor of an Einstein summation: its node, None for a product of others; its labels; its subscripts."""


def _in_pairs(walk: Walk, operands: list[Operand], right: str, number: int, path: list[int]) -> Value:
    """Contract tensors in pairs, and record the MACs of each pair."""
    assert walk.node is not None
    counted = walk.macs()
    products: list[tuple[Product, int]] = []
    every = [letters for *_, letters in operands]
    while len(operands) > 1:
        places = path[2 * len(products) :][:2] or [0, 1]
        pair = [operands[place] for place in places]
        others = [operand for place, operand in enumerate(operands) if place not in places]
        wanted = {*right}.union(*(letters for *_, letters in others))
        sizes = {letter: n for _, value, mine in pair for letter, n in zip(mine, value.shape, strict=True) if n > 1}
        known = dict.fromkeys("".join(letters for *_, letters in pair))
        result = "".join(letter for letter in known if letter in wanted) if others else right
        nodes, letters = [node for node, *_ in pair], [mine for *_, mine in pair]
        values = without_positions(walk, nodes, [value for _, value, _ in pair], letters, result)
        product = Product(walk, nodes, values, letters, result, number, masked=False, noted=every)
        shape = tuple(sizes.get(letter, 1) for letter in result)
        value = Value(shape, product.labels())
        product.keep_made()
        produce(walk, nodes, values, letters, right)
        if None not in nodes:
            note_scores(walk, nodes, product)
        summed = [letter for letter in known if letter not in result and all(letter in mine for mine in letters)]
        alone = {letter for letter in known if letter not in result} - {*summed}
        costs = any(sizes.get(letter, 1) > 1 for letter in summed)
        products.append((product, math.prod(n for x, n in sizes.items() if x not in alone) if costs else 0))
        made = (None, value, result)
        operands = [made, *others] if not path else [*others, made]
    if len(products) == 1:
        walk.contract(tuple(products[0][0].sizes) if counted else ())
    elif sum(macs for _, macs in products) != counted:
        raise ValueError(f"{sum(macs for _, macs in products)} MACs where {counted} are counted")
    else:
        for product, macs in products:
            if macs:
                factor = macs // math.prod(len(size) for size in product.sizes)
                walk.contractions.append(Contraction(walk.node.name, None, factor, tuple(product.sizes)))
    return operands[0][1]


def _spelled(equation: str, dims: Sequence[int]) -> tuple[str, str]:
    """The subscripts of operands and result, with letters in place of ellipses and of a result that is not given.

    Args:
        equation: The equation, without spaces.
        dims: Number of dimensions of each operand.
    """
    left, arrow, right = equation.partition("->")
    free = [letter for letter in map(chr, range(ord("A"), ord("Z") + 1)) if letter not in equation]
    named = left.split(",")
    more = [ndim - len(letters.replace("...", "")) for ndim, letters in zip(dims, named, strict=True)]
    rest = "".join(free[: max(more)]) if "." in left else ""
    if not arrow:
        once = sorted(letter for letter in {*left} - {*",."} if left.count(letter) == 1)
        right = ("..." if rest else "") + "".join(once)
    spelled = [letters.replace("...", rest[len(rest) - n :]) for letters, n in zip(named, more, strict=True)]
    return ",".join(spelled), right.replace("...", rest)


def _elementwise(walk: Walk, operands: Sequence[Value], subscripts: Sequence[str], right: str) -> Value:
    """Einstein summation that contracts nothing: an elementwise product of tensors that are broadcast."""
    laid = []
    for value, letters in zip(operands, subscripts, strict=True):
        order = [letters.index(letter) for letter in right if letter in letters]
        gone = [place for place, letter in enumerate(right) if letter not in letters]
        sizes = [value.shape[letters.index(letter)] if letter in letters else 1 for letter in right]
        found = []
        for labels in value.labels:
            labels = labels.permute(order)
            for place in gone:
                labels = labels.unsqueeze(place)
            found.append(labels)
        laid.append(Value(tuple(sizes), tuple(found)))
    walk.contract(())
    produce_outer(walk, laid)
    return combined(walk, laid)


def _halves(walk: Walk, value: Value, letters: str, left: str, right: str) -> Value:
    """A tensor whose channels a view has split, of which one dimension alone passes: they go together along the others.

    The channels of a graph convolution are those of each of its matrices: `nkctv, kvw -> nctw`.
    """
    found = []
    for labels in value.labels:
        dims = support(labels)
        free = [dim for dim in dims if letters[dim] in right and left.count(letters[dim]) == 1]
        gone = [dim for dim in dims if letters[dim] not in right]
        found.append(walk.together(labels, gone) if len(free) == 1 and gone else labels)
    changed = any(labels is not before for labels, before in zip(found, value.labels, strict=True))
    return Value(value.shape, tuple(found)) if changed else value


def _one_operand(walk: Walk, value: Value, left: str, right: str) -> Value:
    """Einstein summation of one tensor: a permutation, and sums."""
    made = []
    for labels in value.labels:
        if any(left[dim] not in right for dim in support(labels)):
            walk.freeze(labels, "is summed over")
        elif support(labels):
            gone = [dim for dim, letter in enumerate(left) if letter not in right]
            kept = [letter for letter in left if letter in right]
            squeezed = labels.squeeze(gone) if gone else labels
            made.append(squeezed.permute([kept.index(letter) for letter in right]))
    walk.contract(())
    return Value(walk.shape, tuple(made))
