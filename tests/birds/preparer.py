"""Steps that keep every rule."""

import random
from dataclasses import dataclass
import numpy as np
from mtcore.plugin import Axis, Example, Moved, Preparer, param

def example(root):
    return Example(parameters={"seconds": 0.1})

@dataclass(frozen=True, kw_only=True)
class Scale(Preparer):
    acts_on = "feature"
    fitted = True
    share: float = param(1.0, help="of the peak", minimum=0.1)

    def prepare(self, context):
        seen = []

        def fit(arrays):
            return {"peak": np.array(self.share * max([float(np.abs(x).max()) for x in arrays]))}

        def fit_sums(sums):
            peak = max(float(np.abs(sums.maximum).max()), float(np.abs(sums.minimum).max()))
            return {"peak": np.array(self.share * peak)}

        def apply(x, state, rng):
            return (x / np.float32(state["peak"])).astype(np.float32)

        return context.then(apply, fit=fit, fit_sums=fit_sums)

@dataclass(frozen=True, kw_only=True)
class Gain(Preparer):
    random = True
    least: float = param(0.5, help="gain")

    def prepare(self, context):
        def apply(x, state, rng):
            return (x * np.float32(rng.uniform(self.least, 1))).astype(np.float32)

        def off(x, state):
            return x

        return context.then(apply, off=off)

@dataclass(frozen=True, kw_only=True)
class Delay(Preparer):
    seconds: float = param(help="by how much", unit="s")

    def prepare(self, context):
        n = round(self.seconds * context.rate)
        return context.then(lambda x, state, rng: Moved(np.pad(x, [(0, 0), (n, 0)]), by=-n / context.rate))

@dataclass(frozen=True, kw_only=True)
class Cut(Preparer):
    acts_on = "feature"
    window = True
    length: int = param(20, help="frames", minimum=1)

    def prepare(self, context):
        if context.axis is None:
            from mtcore.plugin import ParameterError
            raise ParameterError("no time")
        return context.then(lambda x, state, rng: x, shape=(*context.shape[:-1], self.length),
                            count=lambda shape, state: shape[-1] // self.length,
                            slice=lambda shape, i, state: (i * self.length, self.length))
