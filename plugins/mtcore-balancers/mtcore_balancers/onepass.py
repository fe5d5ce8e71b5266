"""The tasks' Gramian out of one ordinary backward pass, where every row of a batch belongs to one task.

For a linear layer with inputs h_i and gradients d_i of its outputs, the gradient of task s is the sum of d_i h_i^T over its
rows i (of the bias: of d_i). So rows i of task s and j of task t add (d_i·d_j)(h_i·h_j + 1) to the product of the tasks'
gradients, and a weighted sum of these gradients is one product with weighted rows of d. That holds if nothing in the shared
network mixes rows, and if all its parameters are weights and biases of linear layers; anything else is left to one backward
pass per task.
"""

from __future__ import annotations

from typing import Any, Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["one_pass"]

ROW_BY_ROW = frozenset(f"{name}Backward0" for name in (
    "Add", "Div", "Elu", "Gelu", "LeakyRelu", "Mul", "NativeDropout", "Relu", "ReshapeAlias", "Sigmoid", "Silu", "Sub", "Tanh",
    "UnsafeView", "View"))


def leaf(node: Any) -> Tensor | None:
    """The parameter at the end of a graph's branch, transposed or not."""
    if node is not None and node.name() == "TBackward0":
        node = node.next_functions[0][0]
    return getattr(node, "variable", None)


def linear_layers(vectors: Iterable[Tensor], shared: Sequence[Tensor]) -> list[tuple[Any, Tensor, Tensor]] | None:
    """(graph node, weight, bias) per layer, if each shared parameter belongs to one of them and nothing between them mixes
    rows."""
    stack, seen, found = [vector.grad_fn for vector in vectors], set(), []
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name, before = node.name(), [one for one, _ in node.next_functions]
        if name == "AddmmBackward0":
            bias, weight = leaf(before[0]), leaf(before[2])
            plain = before[2].name() == "TBackward0" and (node._saved_alpha, node._saved_beta) == (1, 1)
            if bias is None or weight is None or not plain:
                return None
            found.append((node, weight, bias))
            stack.append(before[1])
        elif name in ROW_BY_ROW or name == "CatBackward0" and node._saved_dim == 1:
            stack += before
        else:
            return None
    covered = [id(parameter) for _, *both in found for parameter in both]
    return found if sorted(covered) == sorted(map(id, shared)) else None


def other_leaves(losses: Iterable[Tensor], shared: Sequence[Tensor]) -> list[Tensor]:
    """What the losses depend on beside the shared parameters: the heads'."""
    apart, stack, seen, found = set(map(id, shared)), [loss.grad_fn for loss in losses], set(), []
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            variable = getattr(node, "variable", None)
            if variable is not None and id(variable) not in apart:
                found.append(variable)
            stack += [one for one, _ in node.next_functions]
    return found


def one_pass(losses: Mapping[int, Tensor], shared: Sequence[Tensor], representation: Any, rows: Mapping[int, Tensor],
             solve: Callable[[Tensor, list[int]], Tensor]) -> bool:
    """Write all gradients, the shared ones weighted by `solve(Gramian [n, n], tasks)`; False, and nothing done, where that is
    not to be had. `rows`: by task, the rows of the batch that it has."""
    present = sorted(losses)
    if not present or set(rows) != set(present) or not isinstance(representation, dict):
        return False
    if any(one.frames is not None for one in representation.values()):
        return False
    vectors = [one.vector for one in representation.values()]
    owned = torch.cat([rows[i] for i in present])
    layers = linear_layers(vectors, shared) if len(owned.unique()) == len(owned) else None
    if not layers or any(len(node._saved_mat1) != len(vectors[0]) for node, _, _ in layers):
        return False
    member = torch.zeros(len(present), len(vectors[0]), dtype=vectors[0].dtype, device=vectors[0].device)
    for number, i in enumerate(present):
        member[number, rows[i]] = 1
    inputs, slopes = [node._saved_mat1.detach() for node, _, _ in layers], {}
    for number, (node, _, _) in enumerate(layers):
        node.register_prehook(lambda gradients, number=number: slopes.__setitem__(number, gradients[0]))
    wanted = [*other_leaves(losses.values(), shared), *(bias for _, _, bias in layers)]
    torch.autograd.backward(sum(losses.values()), inputs=wanted)
    products = sum((d @ d.T) * (h @ h.T + 1) for d, h in ((slopes[number], h) for number, h in enumerate(inputs)))
    share = solve(member @ products @ member.T, present) @ member
    for number, (_, weight, bias) in enumerate(layers):
        weight.grad = (slopes[number] * share[:, None]).T @ inputs[number]
        bias.grad = share @ slopes[number]
    return True
