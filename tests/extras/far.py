"""Runs mtcore where torch finds an accelerator "far", made of the CPU's memory: what lies on it meets nothing that lies elsewhere
but single numbers, as on other accelerators. `python far.py run EXPERIMENT …` is `mtcore run EXPERIMENT …`."""

from __future__ import annotations

import sys

import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only


class Backend(backend_registration._DummyBackendModule):
    """Random numbers are the CPU's."""

    get_rng_state = staticmethod(lambda device=None: torch.get_rng_state())
    set_rng_state = staticmethod(lambda state, device=None: torch.set_rng_state(state))
    manual_seed = staticmethod(torch.default_generator.manual_seed)


class Far(torch.Tensor):
    @staticmethod
    def __new__(cls, near):
        return torch.Tensor._make_wrapper_subclass(cls, near.shape, strides=near.stride(), dtype=near.dtype, device="far:0")

    def __init__(self, near):
        self.near = near

    def tolist(self):
        return self.near.tolist()

    def numpy(self, *, force=False):
        if not force:
            raise TypeError("can't convert a tensor on far:0 to numpy")
        return self.near.detach().numpy()

    @classmethod
    def __torch_dispatch__(cls, operation, types, arguments=(), options=None):
        return computed(operation, arguments, options or {})


class Everywhere(TorchDispatchMode):
    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        return computed(operation, arguments, options or {})


def computed(operation, arguments, options):
    name, device = operation._schema.name, options.get("device")
    tensors = [one for one in tree_leaves((arguments, options)) if isinstance(one, torch.Tensor)]
    far = [one for one in tensors if isinstance(one, Far)]
    moves, by_index = name in ("aten::copy_", "aten::_to_copy"), name.startswith(("aten::index", "aten::_index_put"))
    changes = name.endswith("_") and not isinstance(tensors[0], Far)
    if far and not moves and not by_index and (changes or any(one.dim() for one in tensors if not isinstance(one, Far))):
        raise RuntimeError(f"{name}: expected all tensors on far:0, found some on the cpu")
    if device is not None:
        options = {**options, "device": torch.device("cpu")}
    arguments, options = tree_map_only(Far, lambda one: one.near, (arguments, options))
    result = operation(*arguments, **options)
    to_far = device.type == "far" if device is not None else isinstance(tensors[0], Far) if name == "aten::copy_" else bool(far)
    known = {id(one.near): one for one in far}
    return tree_map_only(torch.Tensor, lambda one: known[id(one)] if id(one) in known else Far(one), result) if to_far else result


@torch.library.impl("aten::empty_strided", "PrivateUse1")
def empty_strided(size, stride, dtype=None, layout=None, device=None, pin_memory=None):
    return Far(torch.empty_strided(size, stride, dtype=dtype, device="cpu"))


@torch.library.impl("aten::_copy_from", "PrivateUse1")
def copy_from(source, target, non_blocking=False):
    near, there = (one.near if isinstance(one, Far) else one for one in (source, target))
    there.copy_(near)
    return target


if __name__ == "__main__":
    backend_registration._setup_privateuseone_for_python_backend("far", Backend())
    from mtcore.cli import main

    with Everywhere():
        main(sys.argv[1:])
