"""The tasks' Gramian out of one ordinary backward pass, where every row of a batch belongs to one task.

For a linear layer with inputs h_i and gradients d_i of its outputs, the gradient of task s is the sum of d_i h_i^T over its
rows i (of the bias: of d_i). So rows i of task s and j of task t add (d_i·d_j)(h_i·h_j + 1) to the product of the tasks'
gradients, and a weighted sum of these gradients is one product with weighted rows of d. That holds if nothing in the shared
network mixes rows, and if all its parameters are weights and biases of linear layers; anything else is left to one backward
pass per task.
"""

from __future__ import annotations

from typing import Any, Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from mtcore.plugin import Representation

__all__ = ["one_pass"]

ROW_BY_ROW = frozenset(f"{name}Backward0" for name in (
    "Add", "Div", "Elu", "Gelu", "LeakyRelu", "Mul", "NativeDropout", "Relu", "ReshapeAlias", "Sigmoid", "Silu", "Sub", "Tanh",
    "ToCopy", "UnsafeView", "View"))


def leaf(node: Any) -> Tensor | None:
    """The parameter at the end of a graph's branch, transposed, cast or as it is."""
    while node is not None and node.name() in ("TBackward0", "ToCopyBackward0"):
        node = node.next_functions[0][0]
    return getattr(node, "variable", None)


def linear_layers(vectors: Iterable[Tensor], shared: Sequence[Tensor]) -> tuple[list[tuple[Any, Tensor, Tensor]], set]:
    """(graph node, weight, bias) per layer, and all nodes; no layers unless each shared parameter belongs to one of them and
    nothing between them mixes rows."""
    stack, seen, found = [vector.grad_fn for vector in vectors], set(), []
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name, before = node.name(), [one for one, _ in node.next_functions]
        if name == "AddmmBackward0":
            bias, weight = leaf(before[0]), leaf(before[2])
            plain = before[2].name() == "TBackward0" and node._saved_alpha == node._saved_beta == 1
            if bias is None or weight is None or not plain:
                return [], seen
            found.append((node, weight, bias))
            stack.append(before[1])
        elif name in ROW_BY_ROW or name == "CatBackward0" and node._saved_dim == 1:
            stack += before
        else:
            return [], seen
    covered = [id(parameter) for _, *both in found for parameter in both]
    return (found if sorted(covered) == sorted(map(id, shared)) else []), seen


def other_leaves(losses: Iterable[Tensor], seen: set) -> list[Tensor]:
    """What the losses depend on beside the nodes that were `seen`: the heads' parameters."""
    stack, seen, found = [loss.grad_fn for loss in losses], set(seen), []
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            if before := node.next_functions:
                stack += [one for one, _ in before]
            elif hasattr(node, "variable"):
                found.append(node.variable)
    return found


def membership(rows: Sequence[Any], size: int) -> list[list[float]] | None:
    """[tasks, size], 1 where the task has the row; None where a row has several tasks."""
    lines, owned = [], []
    for one in rows:
        line, own = [0.0] * size, range(size)[one] if isinstance(one, slice) else one.tolist()
        for row in own:
            line[row] = 1.0
        lines.append(line)
        owned += own
    return lines if len(set(owned)) == len(owned) else None


def one_pass(losses: Mapping[int, Tensor], factors: Mapping[int, float], shared: Sequence[Tensor], representation: Any,
             rows: Mapping[int, Any], solve: Callable[[np.ndarray, list[int]], np.ndarray], kept: dict[Tensor, Tensor]) -> bool:
    """Write all gradients of the losses times their factors, the shared ones weighted by `solve(Gramian [n, n], tasks)`;
    False, and nothing done, where that is not to be had. `rows`: by task, the rows of the batch that it has; `kept`: memory
    of the weights' gradients from one update to the next."""
    present = sorted(losses)
    if not present or set(rows) != set(present) or not isinstance(representation, dict):
        return False
    if not all(isinstance(one, Representation) and one.frames is None for one in representation.values()):
        return False
    vectors = [one.vector for one in representation.values()]
    apart = membership([rows[i] for i in present], len(vectors[0]))
    layers, seen = linear_layers(vectors, shared) if apart is not None else ([], set())
    if not layers or any(len(node._saved_mat1) != len(vectors[0]) for node, _, _ in layers):
        return False
    heads, own = other_leaves(losses.values(), seen), set(map(id, shared))
    if any(id(parameter) in own for parameter in heads):
        return False
    inputs = [node._saved_mat1.detach().to(weight.dtype) for node, weight, _ in layers]
    found = torch.autograd.grad([losses[i] for i in present], [*(GradientEdge(node, 0) for node, _, _ in layers), *heads],
                                [torch.full_like(losses[i], factors[i]) for i in present])
    for parameter, gradient in zip(heads, found[len(layers):]):
        parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
    slopes = [d.to(h.dtype) for d, h in zip(found, inputs)]
    member = inputs[0].new_tensor(apart)
    one, products = member.new_ones(1, 1), member.new_zeros(member.shape[1], member.shape[1])
    for d, h in zip(slopes, inputs):
        products.addcmul_(d @ d.T, torch.addmm(one, h, h.T))
    solved = solve((member @ products @ member.T).double().numpy(force=True), present)
    share = member.new_tensor(solved.tolist()) @ member
    for d, h, (_, weight, bias) in zip(slopes, inputs, layers):
        if weight not in kept:
            kept[weight] = torch.empty_like(weight, memory_format=torch.contiguous_format, requires_grad=False)
        weight.grad = torch.mm((d * share[:, None]).T, h, out=kept[weight])
        bias.grad = share @ d
    return True
