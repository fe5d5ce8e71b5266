"""The tasks' Gramian out of one ordinary backward pass, where every row of a batch belongs to one task.

For a linear layer with inputs h_i and gradients d_i of its outputs, the gradient of task s is the sum of d_i h_i^T over its
rows i (of the bias: of d_i). So rows i of task s and j of task t add (d_i·d_j)(h_i·h_j + 1) to the product of the tasks'
gradients, and a weighted sum of these gradients is one product with weighted rows of d. That holds if nothing in the shared
network mixes rows, and if all its parameters are weights and biases of linear layers; anything else is left to one backward
pass per task.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge
from torch.nn.functional import linear

from mtcore.plugin import Representation

__all__ = ["one_pass"]

ROW_BY_ROW = frozenset(f"{name}Backward0" for name in (
    "Add", "Div", "Elu", "Gelu", "LeakyRelu", "Mul", "NativeDropout", "Relu", "ReshapeAlias", "Sigmoid", "Silu", "Sub", "Tanh",
    "ToCopy", "UnsafeView", "View"))


def leaf(node: Any) -> Tensor | None:
    """The parameter at the end of a graph's branch, transposed, cast or as it is."""
    while type(node).__name__ in ("TBackward0", "ToCopyBackward0"):
        [(node, _)] = node.next_functions
    return getattr(node, "variable", None)


def linear_layers(vectors: Iterable[Tensor], shared: Sequence[Tensor]) -> tuple[list[tuple[Any, Tensor, Tensor, Tensor]], set]:
    """(graph node, inputs, weight, bias) per layer, and all nodes; no layers unless each shared parameter belongs to one of
    them and nothing between them mixes rows."""
    nodes, seen, found = [vector.grad_fn for vector in vectors], {None}, []
    for node in nodes:
        if node in seen:
            continue
        seen.add(node)
        name, before = type(node).__name__, node.next_functions
        if name == "AddmmBackward0":
            (bias, _), (inputs, _), (weight, _) = before
            plain = type(weight).__name__ == "TBackward0" and node._saved_alpha == node._saved_beta == 1
            bias, weight = leaf(bias), leaf(weight)
            if bias is None or weight is None or not plain:
                return [], seen
            found.append((node, node._saved_mat1, weight, bias))
            nodes.append(inputs)
        elif name in ROW_BY_ROW or name == "CatBackward0" and node._saved_dim == 1:
            nodes += [one for one, _ in before]
        else:
            return [], seen
    covered = [id(parameter) for layer in found for parameter in layer[2:]]
    return (found if sorted(covered) == sorted(map(id, shared)) else []), seen


def other_leaves(losses: Iterable[Tensor], seen: set) -> list[Tensor]:
    """What the losses depend on beside the nodes that were `seen`: the heads' parameters."""
    nodes, seen, found = [loss.grad_fn for loss in losses], set(seen), []
    for node in nodes:
        if node not in seen:
            seen.add(node)
            if before := node.next_functions:
                nodes += [one for one, _ in before]
            elif hasattr(node, "variable"):
                found.append(node.variable)
    return found


def apart(rows: Iterable[Any], size: int) -> list[Sequence[int]] | None:
    """Each task's rows; None where a row has several tasks."""
    found = [range(size)[one] if isinstance(one, slice) else one.tolist() for one in rows]
    return found if len({row for own in found for row in own}) == sum(map(len, found)) else None


def one_pass(losses: Mapping[int, Tensor], starts: Mapping[int, Tensor], shared: Sequence[Tensor], representation: Any,
             rows: Mapping[int, Any], solve: Callable[[list[list[float]], list[int]], list[float]],
             kept: dict[Tensor, Tensor], scale: float = 1.0) -> bool:
    """Write all gradients of the losses times their factors (`starts`, tensors like them), the shared ones weighted by
    `solve(Gramian [n, n], tasks)`; False, and nothing done, where that is not to be had. `rows`: by task, the rows of the
    batch that it has; `kept`: memory of the weights' gradients from one update to the next; `scale` of the gradients within
    the network."""
    present = sorted(losses)
    if not present or rows.keys() != losses.keys() or not isinstance(representation, dict):
        return False
    if not all(isinstance(one, Representation) and one.frames is None for one in representation.values()):
        return False
    vectors = [one.vector for one in representation.values()]
    size = len(vectors[0])
    owned = apart([rows[i] for i in present], size)
    layers, seen = linear_layers(vectors, shared) if owned else ([], set())
    if not layers or any(len(h) != size for _, h, _, _ in layers):
        return False
    heads, own = other_leaves(losses.values(), seen), set(map(id, shared))
    if any(id(parameter) in own for parameter in heads):
        return False
    found = torch.autograd.grad([losses[i] for i in present], [*(GradientEdge(layer[0], 0) for layer in layers), *heads],
                                [starts[i] for i in present])
    for parameter, gradient in zip(heads, found[len(layers):]):
        parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
    slopes = [d.to(weight.dtype) for d, (_, _, weight, _) in zip(found, layers)]
    slopes = [d / scale for d in slopes] if scale != 1 else slopes
    inputs = [h.detach().to(weight.dtype) for _, h, weight, _ in layers]
    products, one = slopes[0].new_zeros(size, size), slopes[0].new_ones(size)
    for d, h in zip(slopes, inputs):
        products.addcmul_(linear(d, d), linear(h, h, one))
    member = array("d", bytes(8 * size * len(present)))  # not a tensor's, whose items take microseconds each
    for number, own in enumerate(owned):
        for row in own:
            member[number * size + row] = 1
    member = torch.frombuffer(member, dtype=torch.float64).view(-1, size).to(products)
    weights = solve(torch.mm(torch.mm(member, products), member.T).tolist(), present)
    share = torch.frombuffer(array("d", weights), dtype=torch.float64).to(products).view(1, -1).mm(member).T
    for d, h, (_, _, weight, bias) in zip(slopes, inputs, layers):
        if weight not in kept:
            kept[weight] = torch.empty_like(weight, memory_format=torch.contiguous_format, requires_grad=False)
        d = d * share
        weight.grad, bias.grad = torch.mm(d.T, h, out=kept[weight]), d.sum(0)
    return True
