"""Each method by itself, on a small network: its formula, its invariants, its state, labels that lack, accumulation."""

from __future__ import annotations

import copy
import io
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mtcore_balancers.gradients import simplex
from mtcore_balancers.hooks import GRAMIAN, LOSSES, MEMORY, TORCHJD
from mtcore_balancers.solvers import harmless, least
from scipy.optimize import nnls
from torchjd import aggregation
from torchjd.aggregation import MGDAWeighting

from mtcore.errors import TrainingError
from mtcore.plugin import Representation
from mtcore.plugin.registry import Registry
from mtcore.testing import parametrize_checks

REGISTRY = Registry()
NAMES = [name for table in (LOSSES, TORCHJD, GRAMIAN, MEMORY) for name, _ in table.values()]
OF_LOSSES = [name for name, _ in LOSSES.values()]
OF_GRADIENTS = [name for name in NAMES if name not in OF_LOSSES]
BY_GRAMIAN = ["pcgrad", "aligned_mtl", "imtl_g", "fairgrad", "upgrad", "dualproj", "mgda", "cagrad", "config",
              "nash_mtl", "gradvac", "cr_mogm", "gradnorm", "pcd"]
SEVERAL_BATCHES = ["modo", "sdmgrad"]
TASKS = {"a": 1.0, "b": 2.0, "c": 0.5}


@parametrize_checks("balancers")
def test_conformance(check):
    check()


def build(name, weights=TASKS, **parameters):
    return REGISTRY.make("balancer", {"use": f"balancers.{name}", **parameters}).component.build(weights)


class World:
    """A trunk of linear layers with a head per task, and updates of it whose random choices are keyed by their number."""

    def __init__(self, name, weights=TASKS, micro=1, apart=True, lr=0.05, **parameters):
        torch.manual_seed(3)
        self.trunk = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 6), torch.nn.ReLU())
        self.heads = torch.nn.ModuleDict({task: torch.nn.Linear(6, 2) for task in weights})
        self.balancing, self.micro, self.apart = build(name, weights, **parameters), micro, apart
        self.own = list(self.balancing.parameters())
        self.optimizer = torch.optim.SGD([*self.trunk.parameters(), *self.heads.parameters(), *self.own], lr=lr, momentum=0.9)
        self.number = 0

    def rows(self, size, absent):
        """By task; each row belongs to one task unless not `apart`."""
        tasks = list(self.heads)
        found = {task: torch.arange(i, size, len(tasks)) if self.apart else torch.arange(i, size) for i, task in enumerate(tasks)}
        return {task: rows for task, rows in found.items() if task not in absent}

    def losses(self, x, y, rows, counts):
        vector = self.trunk(x)
        error = lambda task, at: ((self.heads[task](vector[at]) - y[at]) ** 2).sum()
        return vector, {task: error(task, at) / (2 * counts[task]) for task, at in rows.items()}

    def update(self, absent=(), representation=True):
        self.begin(absent)
        self.backward(range(self.micro), representation)
        self.end(range(self.micro))

    def begin(self, absent=()):
        self.number += 1
        generator = torch.Generator().manual_seed(self.number)
        self.data = torch.randn(12, 5, generator=generator), torch.randn(12, 2, generator=generator), self.rows(12, absent)
        self.counts = {task: len(rows) for task, rows in self.data[2].items()}
        torch.manual_seed(self.number)
        self.optimizer.zero_grad()

    def part(self, i):
        """Inputs, targets and rows of a micro-batch."""
        size, (x, y, rows) = 12 // self.micro, self.data
        rows = {task: at[(at >= i * size) & (at < (i + 1) * size)] - i * size for task, at in rows.items()}
        return x[i * size:(i + 1) * size], y[i * size:(i + 1) * size], {task: at for task, at in rows.items() if len(at)}

    def backward(self, numbers, representation=True):
        for i in numbers:
            x, y, rows = self.part(i)
            vector, losses = self.losses(x, y, rows, self.counts)
            given = {"main": Representation(vector)} if representation else None
            rows = {task: self.sliced(at) for task, at in rows.items()}
            self.balancing.backward(losses, list(self.trunk.parameters()), given, rows, i == numbers[-1])

    def sliced(self, at):
        """The same rows as the loop may hand them over."""
        return at

    def end(self, numbers):
        self.gradients = [None if p.grad is None else p.grad.clone() for p in self.parameters()]

        def closure():
            found = {}
            with torch.no_grad():
                for i in numbers:
                    for task, loss in self.losses(*self.part(i), self.counts)[1].items():
                        found[task] = found.get(task, 0) + loss
            return {task: self.balancing.reduce(found.get(task, torch.zeros(()))) for task in self.counts}

        self.optimizer.step()
        self.balancing.after_update(closure)
        if self.number % 4 == 0:
            self.balancing.epoch_ended({task: float(loss) for task, loss in closure().items()})

    def parameters(self):
        return [*self.trunk.parameters(), *self.heads.parameters(), *self.own]

    def jacobian(self, weights=TASKS):
        """[tasks, values] of the last update's data with the present parameters, by plain autograd, and the weighted losses."""
        x, y, rows = self.data
        _, losses = self.losses(x, y, rows, {task: len(at) for task, at in rows.items()})
        of = lambda loss: torch.autograd.grad(loss, list(self.trunk.parameters()), retain_graph=True)
        rows = [torch.cat([g.flatten() for g in of(weights[task] * loss)]) for task, loss in losses.items()]
        return torch.stack(rows).double().numpy(), np.array([weights[task] * loss.item() for task, loss in losses.items()])

    def direction(self):
        return torch.cat([g.flatten() for g in self.gradients[:4]]).double().numpy()


def first(name, **options):
    """A world after one update with a learning rate of 0, its matrix of gradients and its direction."""
    world = World(name, lr=0.0, **options)
    world.update()
    return world, *world.jacobian(options.get("weights", TASKS)), world.direction()


def same(one, two, tolerance):
    close = lambda x, y: torch.allclose(x, y, rtol=tolerance, atol=tolerance)
    return all((x is None) == (y is None) and (x is None or close(x, y)) for x, y in zip(one, two))


# What holds for all ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=2, deadline=None)
@given(before=st.integers(1, 6), after=st.integers(1, 4))
def test_continued_updates_equal_uninterrupted_ones_to_the_bit(name, before, after):
    absent = lambda number: ("b",) if number % 3 == 1 else ()
    world = World(name)
    for number in range(before):
        world.update(absent(number))
    file = io.BytesIO()
    torch.save({"balancing": dict(world.balancing.state_dict()), "optimizer": world.optimizer.state_dict(),
                "parameters": [p.detach() for p in world.parameters()]}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    for number in range(before, before + after):
        world.update(absent(number))
    other = World(name)
    with torch.no_grad():
        for parameter, value in zip(other.parameters(), saved["parameters"]):
            parameter.copy_(value)
    other.optimizer.load_state_dict(saved["optimizer"])
    other.balancing.load_state_dict(saved["balancing"])
    other.number = before
    for number in range(before, before + after):
        other.update(absent(number))
    assert all(torch.equal(x, y) for x, y in zip(world.parameters(), other.parameters()))
    assert repr(sorted(world.balancing.state_dict().items())) == repr(sorted(other.balancing.state_dict().items()))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SEVERAL_BATCHES])
def test_micro_batches_add_up_to_the_update(name):
    """Four micro-batches of three rows, in the second of which task c has no row, give the gradients of one batch of twelve."""
    whole, parts = World(name), World(name, micro=4)
    rows = {"a": torch.arange(12), "b": torch.arange(1, 12, 2), "c": torch.tensor([0, 7, 11])}
    whole.rows = parts.rows = lambda size, absent: rows
    for _ in range(3):
        whole.update()
        parts.update()
        assert same(whole.gradients, parts.gradients, 1e-4)


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_task_that_an_update_lacks_moves_nothing(name, apart):
    world = World(name, apart=apart)
    world.update()
    before = [p.detach().clone() for p in world.heads["b"].parameters()]
    for group in world.optimizer.param_groups:
        group["momentum"] = 0.0
    world.update(absent=("b",))
    assert all(p.grad is None for p in world.heads["b"].parameters())
    assert all(torch.equal(x, y) for x, y in zip(before, world.heads["b"].parameters()))
    assert all(torch.isfinite(g).all() for g in world.gradients if g is not None)
    alone, _ = World(name, apart=apart), world.update(absent=("a", "b", "c"))
    assert all(g is None or not g.any() for g in world.gradients)
    alone.update(absent=("a", "c"))
    assert np.isfinite(alone.direction()).all() and alone.direction().any()


@pytest.mark.parametrize("name", OF_GRADIENTS)
def test_heads_keep_the_gradient_of_their_own_task(name):
    world = World(name, lr=0.0)
    world.update()
    found = {task: [p.grad.clone() for p in head.parameters()] for task, head in world.heads.items()}
    x, y, rows = world.data
    _, losses = world.losses(x, y, rows, {task: len(at) for task, at in rows.items()})
    for task, loss in losses.items():
        wanted = torch.autograd.grad(TASKS[task] * loss, list(world.heads[task].parameters()), retain_graph=True)
        assert same(found[task], wanted, 1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_equal_tasks_pull_in_their_common_direction(name):
    """Three times the same task: whatever is combined points along its gradient."""
    world = World(name, {"a": 1.0, "b": 1.0, "c": 1.0}, apart=False, lr=0.0)
    state = {f"{i}": v for i, v in enumerate(world.heads["a"].parameters())}
    for task in ("b", "c"):
        for i, parameter in enumerate(world.heads[task].parameters()):
            parameter.data = state[str(i)].data.clone()
    world.rows = lambda size, absent: {task: torch.arange(size) for task in "abc"}
    world.update()
    jacobian, _ = world.jacobian({"a": 1.0, "b": 1.0, "c": 1.0})
    found = world.direction()
    assert found @ jacobian[0] / np.linalg.norm(found) / np.linalg.norm(jacobian[0]) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_balancer_trains(name):
    """Regression on one linear target for all tasks: every loss falls below 0.3 of the target's mean square."""
    torch.manual_seed(5)
    target = torch.randn(5, 2)
    world = World(name, lr=0.0, apart=False, **({"theta": 0.5} if name == "pbi" else {}))
    world.optimizer = torch.optim.Adam(world.parameters(), lr=0.05)
    plain = world.losses
    world.losses = lambda x, y, rows, counts: plain(x, x @ target, rows, counts)
    for _ in range(80):
        world.update()
    _, values = world.jacobian({task: 1.0 for task in TASKS})
    assert (values < 0.3 * float((target**2).sum() / 2)).all(), values


# Several processes, figures, mixed precision --------------------------------------------------------------------------


class Processes:
    """Threads that take turns, switching where one of them sums over all; each has random numbers of its own."""

    def __init__(self, number):
        self.turns, self.given = [threading.Semaphore(0) for _ in range(number)], [[] for _ in range(number)]

    def reduce(self, rank, values):
        self.given[rank].append(values.clone())
        state = torch.get_rng_state()
        self.turns[1 - rank].release()
        assert self.turns[rank].acquire(timeout=20), "one process sums where another does not"
        torch.set_rng_state(state)
        number = len(self.given[rank])
        return sum(given[number - 1] for given in self.given)

    def __call__(self, *calls):
        def turn(rank):
            assert self.turns[rank].acquire(timeout=20)
            torch.set_rng_state(state)
            try:
                calls[rank]()
            finally:
                self.turns[1 - rank].release()

        state = torch.get_rng_state()
        self.turns[0].release()
        with ThreadPoolExecutor(len(calls)) as pool:
            for one in [pool.submit(turn, rank) for rank in range(len(calls))]:
                one.result()
        assert len(set(map(len, self.given))) == 1
        self.__init__(len(calls))


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_equal_one_with_the_same_micro_batches(name):
    """Task c has no row in the first one's first micro-batch."""
    each = build(name).batches_per_update
    rows = {"a": torch.arange(12), "b": torch.arange(1, 12, 2), "c": torch.arange(6, 12)}
    run, whole, ranks = Processes(2), World(name, micro=2 * each), [World(name, micro=2 * each) for _ in range(2)]
    shared = len(list(whole.trunk.parameters()))
    for rank, world in enumerate(ranks):
        world.balancing.processes, world.balancing.rank, world.balancing.reduce = 2, rank, partial(run.reduce, rank)
    for world in (whole, *ranks):
        world.rows = lambda size, absent: rows
    numbers = range(0, 2 * each, 2), range(1, 2 * each, 2)
    for _ in range(3):
        whole.update()
        for world in ranks:
            world.begin()
        run(*(partial(world.backward, own) for world, own in zip(ranks, numbers)))
        for i, (one, two) in enumerate(zip(ranks[0].parameters(), ranks[1].parameters())):
            if i < shared and ranks[0].balancing.reduced:
                assert torch.equal(one.grad, two.grad)
            else:
                found = [p.grad for p in (one, two) if p.grad is not None]
                one.grad, two.grad = (sum(found) for _ in "12")
        run(*(partial(world.end, own) for world, own in zip(ranks, numbers)))
        assert same(whole.gradients, ranks[0].gradients, 1e-4)
    one, two, wanted = (world.balancing.state_dict() for world in (*ranks, whole))
    assert repr(one) == repr(two)
    assert ranks[0].balancing.figures() == pytest.approx(whole.balancing.figures(), rel=1e-3)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("graddrop", "moco", "db_mtl")])
def test_figures_are_the_weights_of_the_direction(name):
    for representation in (True, False):
        world = World(name, lr=0.0)
        world.begin()
        world.backward(range(1), representation)
        world.end(range(1))
        weights = np.linalg.lstsq(world.jacobian()[0].T, world.direction(), rcond=None)[0]
        found = world.balancing.figures()
        np.testing.assert_allclose([found[task] for task in TASKS], weights, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("name", ["mean", "moco", "db_mtl", "random"])
def test_figures_are_means_over_the_epoch(name):
    world, seen = World(name), []
    note = world.balancing.note
    world.balancing.note = lambda present, weights: seen.append(list(weights)) or note(present, weights)
    for number in range(1, 7):
        world.update(absent=("b",) if number == 5 else ())
        if number == 4:
            first = world.balancing.figures()
    assert first == pytest.approx(dict(zip(TASKS, np.mean(seen[:4], 0))))
    last = world.balancing.figures()
    assert last["b"] == pytest.approx(seen[5][1]) and last["a"] == pytest.approx((seen[4][0] + seen[5][0]) / 2)
    assert build("graddrop").figures() == {}


@pytest.mark.parametrize("name", NAMES)
def test_mixed_precision_gives_nearly_the_gradients_of_single_precision(name, monkeypatch):
    import mtcore_balancers.gradients as module

    calls, real = [], module.one_pass
    monkeypatch.setattr(module, "one_pass", lambda *arguments: calls.append(real(*arguments)) or calls[-1])
    world, plain = World(name, lr=0.0), World(name, lr=0.0)
    plain.update()
    exact = plain.losses

    def losses(*arguments):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            vector, found = exact(*arguments)
        assert vector.dtype == torch.bfloat16
        return vector, {task: loss.float() for task, loss in found.items()}

    exact, world.losses = world.losses, losses
    world.update()
    assert all(g is None or g.dtype == torch.float32 and torch.isfinite(g).all() for g in world.gradients)
    found, wanted = world.direction(), plain.direction()
    assert calls == [True] * len(calls) and bool(calls) == (name in BY_GRAMIAN)
    if name != "sdmgrad":  # its weights take steps of 10, which lead from corner to corner
        assert np.linalg.norm(found - wanted) < 0.1 * np.linalg.norm(wanted)


@pytest.mark.parametrize("name", ["upgrad", "db_mtl", "gls", "modo"])
def test_rows_as_slices_are_the_same_rows(name):
    whole, sliced = World(name), World(name)
    sliced.sliced = lambda at: slice(int(at[0]), int(at[-1]) + 1)
    for world in (whole, sliced):
        world.rows = lambda size, absent: {task: torch.arange(4 * i, 4 * i + 4) for i, task in enumerate(TASKS)}
        world.update()
        world.update(representation=False)
    assert same(whole.gradients, sliced.gradients, 1e-6)


# One backward pass ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BY_GRAMIAN)
def test_one_backward_pass_gives_what_one_per_task_gives(name, monkeypatch):
    once, each = World(name), World(name)
    calls = []
    import mtcore_balancers.gradients as module

    real = module.one_pass
    monkeypatch.setattr(module, "one_pass", lambda *arguments: calls.append(real(*arguments)) or calls[-1])
    for _ in range(4):
        once.update()
        each.update(representation=False)
        assert same(once.gradients, each.gradients, 1e-3) and not any(g.requires_grad for g in once.gradients)
    assert calls == [True, False] * 4


def layers(*modules):
    return torch.nn.Sequential(*modules)


@pytest.mark.parametrize("trunk, apart, once", [
    (lambda: layers(torch.nn.Linear(5, 6), torch.nn.GELU(), torch.nn.Dropout(0.5)), True, True),
    (lambda: layers(torch.nn.Linear(5, 6), torch.nn.ReLU()), False, False),
    (lambda: layers(torch.nn.Linear(5, 6, bias=False), torch.nn.ReLU()), True, False),
    (lambda: layers(torch.nn.Linear(5, 6), torch.nn.BatchNorm1d(6)), True, False),
    (lambda: layers(torch.nn.Unflatten(1, (1, 5)), torch.nn.Conv1d(1, 2, 3), torch.nn.Flatten()), True, False),
], ids=["dropout", "shared rows", "no bias", "batch norm", "convolution"])
def test_what_one_pass_cannot_do_is_left_to_one_pass_per_task(trunk, apart, once, monkeypatch):
    import mtcore_balancers.gradients as module

    calls, real, found = [], module.one_pass, []
    monkeypatch.setattr(module, "one_pass", lambda *arguments: calls.append(real(*arguments)) or calls[-1])
    for representation in (True, False):
        world = World("imtl_g", apart=apart, lr=0.0)
        torch.manual_seed(0)
        world.trunk = trunk()
        world.update(representation=representation)
        found.append(world.gradients)
    assert calls == [once, False] and same(*found, 1e-4)


# Each against its formula or another implementation -------------------------------------------------------------------


def test_pcgrad_of_two_tasks_is_the_papers_projection():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        g = rng.standard_normal((2, 3))
        inner = min(g[0] @ g[1], 0)
        wanted = g[0] - inner / (g[1] @ g[1]) * g[1] + g[1] - inner / (g[0] @ g[0]) * g[0]
        np.testing.assert_allclose(build("pcgrad", {"a": 1, "b": 1}).solve(g @ g.T, [0, 1]) @ g, wanted, atol=1e-9)


matrices = st.integers(0, 10_000).map(lambda seed: np.random.default_rng(seed)).map(
    lambda rng: rng.standard_normal((rng.integers(2, 6), 8)) * rng.uniform(0.1, 5, (1, 1)) + rng.uniform(-1, 1, (1, 8)))
SMALL = settings(max_examples=15, deadline=None)


def weighed(name, j, **parameters):
    tasks = {f"t{i}": 1.0 for i in range(len(j))}
    return np.array(build(name, tasks, **parameters).solve((j @ j.T).tolist(), list(range(len(j)))))


@SMALL
@given(matrices)
def test_mgda_is_the_shortest_point_of_the_simplex(j):
    w = weighed("mgda", j)
    assert w.min() >= 0 and w.sum() == pytest.approx(1)
    d = w @ j
    assert (j @ d).min() >= d @ d - 1e-8 * np.trace(j @ j.T)  # Frank-Wolfe's gap is 0
    other = MGDAWeighting(epsilon=1e-9, max_iters=500)(torch.from_numpy(j @ j.T)).numpy()  # converges slowly, from above
    assert d @ d <= other @ j @ j.T @ other + 1e-9 and np.linalg.norm(d - other @ j) < 0.05 * np.linalg.norm(j)


@SMALL
@given(matrices)
def test_cagrad_solves_the_papers_primal(j):
    c = 0.5
    d, mean = weighed("cagrad", j, c=c) @ j, j.mean(0)
    assert np.linalg.norm(d - mean) <= c * np.linalg.norm(mean) * (1 + 1e-6)
    rng = np.random.default_rng(0)
    ball = rng.standard_normal((2000, 8))
    others = mean + c * np.linalg.norm(mean) * ball / np.linalg.norm(ball, axis=1, keepdims=True)
    assert (j @ d).min() >= (others @ j.T).min(1).max() - 1e-6 * np.trace(j @ j.T)
    np.testing.assert_allclose(weighed("cagrad", j, c=0.0), 1 / len(j), atol=1e-6)


@SMALL
@given(matrices)
def test_nash_mtl_solves_the_bargaining_equation(j):
    w = weighed("nash_mtl", j, max_norm=0.0)
    np.testing.assert_allclose(j @ j.T @ w * w, 1, rtol=1e-4)
    assert np.linalg.norm(weighed("nash_mtl", j) @ j) == pytest.approx(1, rel=1e-4)


@SMALL
@given(matrices)
def test_fairgrad_and_imtl_g_and_config_have_their_papers_properties(j):
    w = weighed("fairgrad", j, alpha=2.0)
    np.testing.assert_allclose(j @ j.T @ w, w**-0.5, rtol=1e-3)
    units = j / np.linalg.norm(j, axis=1, keepdims=True)
    projections = units @ (weighed("imtl_g", j) @ j)
    np.testing.assert_allclose(projections, projections[0], rtol=1e-5, atol=1e-8)
    d = weighed("config", j) @ j
    np.testing.assert_allclose(units @ d, (units @ d)[0], rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(d, aggregation.ConFIG()(torch.from_numpy(j)).numpy(), rtol=1e-5, atol=1e-8)


@SMALL
@given(matrices)
def test_aligned_mtl_has_orthogonal_components_of_the_smallest_length(j):
    d = weighed("aligned_mtl", j) @ j
    u, s, v = np.linalg.svd(j, full_matrices=False)
    np.testing.assert_allclose(d, np.full(len(j), 1 / len(j)) @ (s.min() * u @ v), atol=1e-6)


@pytest.mark.parametrize("n", [2, 3, 8])
@pytest.mark.parametrize("name, oracle", [
    ("pcgrad", aggregation.PCGradWeighting()), ("imtl_g", aggregation.IMTLGWeighting()),
    ("fairgrad", aggregation.FairGradWeighting(1.0)),
    *(({"use": "aligned_mtl", "scale": scale}, aggregation.AlignedMTLWeighting(scale_mode=scale))
      for scale in ("min", "median", "rmse")),
    *(({"use": "fairgrad", "alpha": alpha}, aggregation.FairGradWeighting(alpha)) for alpha in (0.5, 3.0)),
], ids=lambda value: str(getattr(value, "alpha", "")))
def test_weights_are_torchjds(name, oracle, n):
    use, parameters = (name, {}) if isinstance(name, str) else (name["use"], {k: v for k, v in name.items() if k != "use"})
    for seed in range(5):
        rng = np.random.default_rng(seed)
        j = rng.standard_normal((n, 12)) * rng.uniform(0.3, 3, (n, 1)) + rng.uniform(-1, 1, 12)
        torch.manual_seed(seed)
        wanted = oracle(torch.from_numpy(j @ j.T)).numpy()
        torch.manual_seed(seed)
        np.testing.assert_allclose(weighed(use, j, **parameters), wanted, rtol=1e-3, atol=1e-3 * abs(wanted).max())


@SMALL
@given(matrices)
def test_projections_harm_no_task_and_are_the_nearest(j):
    for name in ("upgrad", "dualproj"):
        assert (j @ (weighed(name, j) @ j)).min() >= -1e-5 * np.trace(j @ j.T)
    gramian = j @ j.T
    u = np.full(len(j), 1 / len(j))
    [v] = harmless(gramian, u[None])
    slope = gramian @ v  # optimality: v >= u, G v >= 0, and (v - u) G v = 0
    assert (v >= u - 1e-12).all() and abs((v - u) @ slope) < 1e-5 * np.trace(gramian)


@pytest.mark.parametrize("n", [1, 3, 8, 30])
def test_the_least_of_what_is_not_below_0_is_scipys(n):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        root, b = rng.standard_normal((n + 2, n)) / n + rng.uniform(-1, 1, n) / n, rng.standard_normal(n + 2)
        np.testing.assert_allclose(least((root.T @ root).tolist(), (root.T @ b).tolist()), nnls(root, b)[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", BY_GRAMIAN)
def test_gradients_that_depend_on_each_other_are_combined_in_spite_of_rounding(name):
    """Single precision makes eigenvalues of their Gramian that are 0 a little less: nothing fails, and no direction is long."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(3, 10))
        j = (rng.standard_normal((n, 2)) @ rng.standard_normal((2, 30))).astype(np.float32)
        method = build(name, {f"t{i}": 1.0 for i in range(n)})
        method.values = torch.ones(n)
        found = np.linalg.norm(np.array(method.solved((j @ j.T).tolist(), list(range(n)))) @ j)
        assert np.isfinite(found) and found < 20 * np.linalg.norm(j)


@SMALL
@given(matrices)
def test_gradvac_is_pcgrad_with_a_goal_of_0_and_learns_the_cosines(j):
    tasks = {f"t{i}": 1.0 for i in range(len(j))}
    method, oracle = build("gradvac", tasks, beta=0.5), aggregation.GradVacWeighting(beta=0.5, eps=0.0)
    for number in range(3):
        torch.manual_seed(number)
        found = method.solve(j[:2] @ j[:2].T, [0, 1])
        np.testing.assert_allclose(found, oracle(torch.from_numpy(j[:2] @ j[:2].T)).numpy(), rtol=1e-6, atol=1e-9)
    torch.manual_seed(0)
    found = build("gradvac", tasks, beta=0.0).solve(j[:2] @ j[:2].T, [0, 1])
    np.testing.assert_allclose(found, weighed("pcgrad", j[:2]), atol=1e-9)


@SMALL
@given(matrices)
def test_pcd_equals_torchjd_and_keeps_its_promise(j):
    tasks = {f"t{i}": 1.0 for i in range(len(j))}
    method, oracle = build("pcd", tasks, tau=0.1), aggregation.PCDWeighting(tau=0.1)
    for scale in (1.0, 3.0):
        gramian = scale**2 * j @ j.T
        wanted = oracle(torch.from_numpy(gramian)).numpy()
        np.testing.assert_allclose(method.solve(gramian, list(range(len(j)))), wanted, rtol=1e-4, atol=1e-5)


def test_pcd_names_its_tasks():
    with pytest.raises(Exception, match="one of a, b, c; found 'd'"):
        build("pcd", primary="d")


@SMALL
@given(matrices)
def test_moving_weights_stay_on_the_simplex_and_follow_torchjd(j):
    tasks, present = {f"t{i}": 1.0 for i in range(len(j))}, list(range(len(j)))
    gramian = j @ j.T / np.trace(j @ j.T)
    for name, oracle in (("modo", aggregation.MoDoWeighting(gamma=0.1, rho=0.0)), ("sdmgrad", aggregation.SDMGradWeighting())):
        method = build(name, tasks)
        for _ in range(3):
            wanted = oracle(torch.from_numpy(gramian)).numpy()
            np.testing.assert_allclose(method.solve(gramian, present), wanted, rtol=1e-5, atol=1e-6)
        kept = method.state["weights"].numpy()
        assert kept.sum() == pytest.approx(1) and kept.min() >= 0
    smoothed = build("cr_mogm", tasks, alpha=0.75).solve(gramian, present)
    np.testing.assert_allclose(smoothed, 0.75 / len(j) + 0.25 * weighed("mgda", j), atol=1e-9)


def test_excess_mtl_weighs_by_the_excess_risk_that_is_left():
    """Equations 6, 7 and 9 in numpy; the first update is the unit of each risk, so its weights are equal."""
    rng = np.random.default_rng(0)
    method, w, squares, unit = build("excess_mtl", step=0.5), np.full(3, 1 / 3), 0, None
    for scale in ([1, 1, 1], [1, 3, 0.5], [2, 0.5, 1]):
        j = rng.standard_normal((3, 8)) * np.array(scale)[:, None]
        squares = squares + j**2
        risk = (j**2 / np.sqrt(squares + 1e-7)).sum(1)
        unit = risk if unit is None else unit
        w = w * np.exp(0.5 * risk / unit)
        w = w / w.sum()
        np.testing.assert_allclose(method.direction(torch.from_numpy(j), [0, 1, 2]).numpy(), w @ j, rtol=1e-5, atol=1e-8)
    assert w.max() - w.min() > 0.05


def test_graddrop_takes_each_value_from_one_sign():
    _, j, _, direction = first("graddrop")
    positive, negative = np.where(j > 0, j, 0).sum(0), np.where(j < 0, j, 0).sum(0)
    distance = np.minimum(abs(direction - positive), abs(direction - negative))
    assert distance.max() < 1e-5 and (abs(direction - positive) < 1e-5).mean() < 0.95


def test_moco_tracks_each_gradient():
    world, j, _, direction = first("moco", beta=0.25, gamma=0.3)
    y, w = 0.25 * j, np.full(3, 1 / 3)
    w = simplex(w - 0.3 * y @ y.T @ w)
    np.testing.assert_allclose(direction, w @ y, rtol=1e-4, atol=1e-6)


def test_db_mtl_brings_gradients_of_log_losses_to_one_length():
    world, j, values, direction = first("db_mtl", beta=0.5)
    g = 0.5 * j / values[:, None]
    norms = np.linalg.norm(g, axis=1)
    np.testing.assert_allclose(direction, (norms.max() / norms) @ g, rtol=1e-3, atol=1e-5)


def test_gradnorm_brings_the_norms_together():
    """Fixed gradients and losses: after many updates all weighted norms are equal, as the paper's toy shows."""
    method = build("gradnorm", lr=0.01, alpha=1.5)
    method.values = torch.tensor([1.0, 2.0, 3.0])
    norms = np.array([1.0, 3.0, 10.0])
    for _ in range(3000):
        w = method.solve(np.diag(norms**2), [0, 1, 2])
    assert w.sum() == pytest.approx(3)
    np.testing.assert_allclose(w * norms, (w * norms).mean(), rtol=0.15)


@pytest.mark.parametrize("mass", [1.0, 0.3])
def test_simplex_is_the_nearest_point(mass):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        values = rng.normal(size=4)
        found = simplex(values, mass)
        others = mass * rng.dirichlet(np.ones(4), 500)
        assert found.sum() == pytest.approx(mass) and found.min() >= 0
        assert ((values - found) ** 2).sum() <= ((values - others) ** 2).sum(1).min() + 1e-12


# Loss weighting -------------------------------------------------------------------------------------------------------


def factors(name, **parameters):
    """The weights that an update's gradient gives to each task's gradient, and the weighted losses."""
    world, j, values, direction = first(name, **parameters)
    return np.linalg.lstsq(j.T, direction, rcond=None)[0], values, world


def test_loss_weights_are_those_of_the_formulas():
    close = lambda found, wanted: np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=1e-5)
    w, values, _ = factors("mean")
    close(w, 1 / 3)
    w, values, _ = factors("uncertainty", initial=0.7)
    close(w, 0.5 * math.exp(-0.7))
    w, values, _ = factors("gls")
    close(w, np.prod(values) ** (1 / 3) / 3 / values)
    w, values, _ = factors("stch", mu=0.2)
    parts = np.exp((values - values.max()) / 3 / 0.2)
    close(w, parts / parts.sum() / 3)
    w, values, _ = factors("famo")
    close(w, 1 / values / (1 / values).sum())
    w, values, _ = factors("random")
    assert w.sum() == pytest.approx(1, abs=1e-3) and w.min() > 0 and w.max() - w.min() > 0.05
    w, values, _ = factors("pbi", theta=2.0)
    u = np.full(3, 3**-0.5)
    rest = values - values @ u * u
    close(w, u + 2 * rest / np.linalg.norm(rest))
    w, values, _ = factors("cosmos", penalty=0.5)
    unit = values / np.linalg.norm(values)
    close(w, 1 / 3 - 0.5 * (u - u @ unit * unit) / np.linalg.norm(values))


@pytest.mark.parametrize("name, sign", [("uncertainty", 1), ("imtl_l", -1)])
def test_learned_scales_reach_the_optimum_that_the_losses_have(name, sign):
    """With fixed losses Kendall's log variance is the log of the loss; IMTL-L's scale is its inverse."""
    method, values = build(name), np.array([0.2, 1.0, 5.0])
    [learned] = method.parameters()
    optimizer = torch.optim.Adam([learned], lr=0.05)
    for _ in range(500):
        optimizer.zero_grad()
        losses = {task: torch.tensor(value / TASKS[task], dtype=torch.float32) for task, value in zip("abc", values)}
        method.backward(losses, [], None, {})
        optimizer.step()
    np.testing.assert_allclose(learned.detach().numpy(), sign * np.log(values), atol=0.02)


def test_dwa_prefers_the_task_whose_loss_falls_slowly():
    method = build("dwa", temperature=1.0)
    assert torch.equal(method.factors(), torch.ones(3))
    method.epoch_ended({"a": 1.0, "b": 1.0, "c": 1.0})
    assert torch.equal(method.factors(), torch.ones(3))
    method.epoch_ended({"a": 0.5, "b": 0.9})  # c was absent
    ratios = np.array([0.5, 0.9, 1.0])
    np.testing.assert_allclose(method.factors().numpy(), 3 * np.exp(ratios) / np.exp(ratios).sum(), rtol=1e-5)


def test_famo_moves_its_weights_against_the_task_that_fell_more():
    method = build("famo", {"a": 1.0, "b": 1.0}, decay=0.0)
    x = torch.tensor([2.0, 2.0], requires_grad=True)
    method.backward({"a": x[0], "b": x[1]}, [], None, {})
    method.after_update(lambda: {"a": torch.tensor(0.5), "b": torch.tensor(1.9)})
    a, b = method.logits.tolist()
    assert a == pytest.approx(-0.025, rel=1e-3) and b == pytest.approx(0.025, rel=1e-3)


@pytest.mark.parametrize("name", ["gls", "famo"])
def test_logarithms_of_losses_below_0_are_refused_with_the_task(name):
    x = torch.tensor([1.0, -1.0], requires_grad=True)
    with pytest.raises(TrainingError, match="b .-2"):
        build(name).backward({"a": x[0], "b": x[1]}, [], None, {})


def test_two_batches_are_taken_apart():
    """MoDo's matrix is the product of the gradients of the even and the odd micro-batches, each as a mean over its own rows."""
    world = World("modo", micro=4, lr=0.0)
    seen = []
    solve = world.balancing.solve
    world.balancing.solve = lambda gramian, present: seen.append(gramian) or solve(gramian, present)
    world.update()
    x, y, rows = world.data
    halves = []
    for half in (0, 1):
        inside = (torch.arange(12) // 3) % 2 == half
        at = {task: index[inside[index]] for task, index in rows.items()}
        world.data = x, y, at
        halves.append(world.jacobian()[0])
    np.testing.assert_allclose(seen[0], halves[0] @ halves[1].T, rtol=1e-3, atol=1e-6)


def test_state_of_one_run_is_not_that_of_another():
    one = World("gradvac")
    one.update()
    state = copy.deepcopy(one.balancing.state_dict())
    saved = one.balancing.state_dict()
    one.update()
    assert all(torch.equal(state[key], saved[key]) for key in state)


def test_tasks_whose_weights_have_gone_to_others_keep_none():
    """An update may hold just those: there is nothing to move among them."""
    assert simplex(np.array([0.3, -1.0]), 0.0).tolist() == [0, 0]
