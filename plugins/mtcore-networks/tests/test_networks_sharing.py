"""What holds for every sharing scheme on every network, and each scheme's formula computed anew."""

from __future__ import annotations

import math

import pytest
import torch
from mtcore_networks.convolutional import Resnet, Vgg
from mtcore_networks.experts import Cgc, Mmoe, Ple
from mtcore_networks.sequential import ConvTransformer, Crnn
from mtcore_networks.sharing import CrossStitch, Mtan, Soft

import mtcore
from mtcore.builtin.heads import Frames, Linear
from mtcore.builtin.trunks import Cnn, Cnn1d, Mlp
from mtcore.plugin import Named, ParameterError, Representation, Task, Trunk
from mtcore.training.model import build_model

TASKS = ("speaker", "pitch", "beep")
SPECTRUM, WAVE, VALUES = (2, 20, None), (1, None), (3, 5)
NETWORKS = {"mlp": (Mlp(hidden=[8, 6, 5]), VALUES, None), "cnn": (Cnn(channels=[4, 6, 5]), SPECTRUM, 8),
            "cnn1d": (Cnn1d(channels=[4, 5], kernel=9), WAVE, 64), "vgg": (Vgg(channels=[4, 6]), SPECTRUM, 4),
            "resnet": (Resnet(channels=[4, 6], blocks=[1, 2]), SPECTRUM, 8),
            "crnn": (Crnn(channels=[4, 5], pool=[3, 4], hidden=6, stride=2), SPECTRUM, 4),
            "conv_transformer": (ConvTransformer(channels=[4, 4], width=8, heads=2, layers=2, feed_forward=8), SPECTRUM, 4)}
SCHEMES = {"soft": lambda inner: Soft(trunk=inner), "cross_stitch": lambda inner: CrossStitch(trunk=inner),
           "mtan": lambda inner: Mtan(trunk=inner), "mmoe": lambda inner: Mmoe(expert=inner, experts=2),
           "cgc": lambda inner: Cgc(expert=inner), "ple": lambda inner: Ple(expert=inner)}
every = pytest.mark.parametrize("scheme", SCHEMES)
everywhere = pytest.mark.parametrize("name", NETWORKS)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(1)


def arrays(name, rows=3, frames=70):
    shape = NETWORKS[name][1]
    return {"main": torch.randn(rows, *(4 * frames if size is None and len(shape) == 2 else frames if size is None else size
                                        for size in shape))}


def moved(module):
    """With parameters that have left the beginning, each another way."""
    with torch.no_grad():
        for one in module.parameters():
            one += 0.1 * torch.randn(one.shape)
    return module


def made(scheme, name, tasks=TASKS):
    network, shape, _ = NETWORKS[name]
    torch.manual_seed(0)
    module = moved(SCHEMES[scheme](Named(f"some.{name}", network)).build({"main": shape}, tasks))
    module(arrays(name), None)  # running statistics other than those of the beginning
    return module


def summed(found):
    return found.vector.square().sum() + (0 if found.frames is None else found.frames.square().sum())


@every
@everywhere
def test_each_task_has_a_representation_of_its_own(scheme, name):
    network, shape, stride = NETWORKS[name]
    module, x = made(scheme, name).eval(), arrays(name)
    plain = network.build({"main": shape}).eval()(x, None)
    found = module(x, None)
    assert list(found) == list(TASKS)
    for one in found.values():
        assert one.vector.shape == plain.vector.shape and one.stride == plain.stride and one.vector.isfinite().all()
        assert one.frames is None if stride is None else one.frames.shape == plain.frames.shape
    vectors = [one.vector for one in found.values()]
    assert not torch.allclose(vectors[0], vectors[1]) and not torch.allclose(vectors[1], vectors[2])


@every
@everywhere
def test_gradients_reach_every_parameter(scheme, name):
    module = made(scheme, name).train()
    x = arrays(name)
    sum(summed(one) for one in module(x, None).values()).backward()
    assert all(one.grad is not None and one.grad.isfinite().all() for one in module.parameters())
    lacking = [key for key, one in module.named_parameters() if not one.grad.any()]
    assert not lacking


@every
@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "mlp"])
def test_padding_does_not_show(scheme, name):
    module, x = made(scheme, name).eval(), arrays(name)
    total = x["main"].shape[-1]
    lengths = [total - 3, total // 3, 1]
    with torch.no_grad():
        found = module(x if name not in ("cnn", "cnn1d") else {"main": torch.stack([  # those of the core take zeros
            torch.where(torch.arange(total) < length, row, 0.0) for row, length in zip(x["main"], lengths)])},
            {"main": torch.tensor(lengths)})
        for row, length in enumerate(lengths):
            alone = module({"main": x["main"][row:row + 1, ..., :length]}, None)
            for task in TASKS:
                vector, frames, stride, left = found[task]
                own = math.ceil(length / stride)
                assert left[row] == own
                torch.testing.assert_close(vector[row:row + 1], alone[task].vector, rtol=1e-4, atol=1e-5)
                torch.testing.assert_close(frames[row:row + 1, :, :own], alone[task].frames, rtol=1e-4, atol=1e-5)
                assert not frames[row, :, own:].any()


@every
@everywhere
def test_same_bits_again_and_through_a_saved_state(scheme, name):
    x, one, other = arrays(name), made(scheme, name), made(scheme, name)
    again = SCHEMES[scheme](NETWORKS[name][0]).build({"main": NETWORKS[name][1]}, TASKS)  # a component without a name will do
    again.load_state_dict(one.state_dict())
    wanted = one.eval()(x, None)
    for module in (other.eval(), again.eval()):
        assert all(torch.equal(wanted[task].vector, found.vector) for task, found in module(x, None).items())


@every
@everywhere
def test_one_row_of_one_task_trains(scheme, name):
    module = made(scheme, name, TASKS[:1]).train()
    sum(summed(one) for one in module(arrays(name, rows=1), None).values()).backward()
    assert all(one.grad is not None and one.grad.isfinite().all() for one in module.parameters())


PRIVATE = {"soft": lambda key, task: key.startswith(f"networks.{task}."),
           "mtan": lambda key, task: key.startswith(f"masks.{task}."),
           "mmoe": lambda key, task: key.startswith(f"gates.{task}."),
           "cgc": lambda key, task: key.startswith((f"gates.{task}.", f"own.{task}.")),
           "ple": lambda key, task: key.startswith(f"gates.{task}.1.")}


@pytest.mark.parametrize("scheme", PRIVATE)
@everywhere
def test_a_task_does_not_touch_the_private_part_of_another(scheme, name):
    module = made(scheme, name).train()
    summed(module(arrays(name), None)["pitch"]).backward()
    touched = {key for key, one in module.named_parameters() if one.grad is not None and one.grad.any()}
    for task, expected in (("pitch", True), ("speaker", False), ("beep", False)):
        private = {key for key, _ in module.named_parameters() if PRIVATE[scheme](key, task)}
        assert private and (private <= touched if expected else not private & touched)
    assert scheme == "soft" or any(not PRIVATE[scheme](key, task) for key in touched for task in TASKS)


@everywhere
def test_networks_that_are_not_stitched_are_strangers(name):
    network, shape, _ = NETWORKS[name]
    module = CrossStitch(trunk=network, own=1.0).build({"main": shape}, TASKS)
    summed(module(arrays(name), None)["pitch"]).backward()
    for key, one in module.networks.named_parameters():
        assert key.startswith("pitch.") or not one.grad.any()
    assert any(one.grad[1, 0].any() for one in module.weights) and not any(one.grad[0].any() for one in module.weights)


def test_distance_of_soft_sharing():
    module = moved(Soft(trunk=Mlp(hidden=[4, 3]), strength=0.5).build({"main": VALUES}, TASKS))
    flat = torch.stack([torch.nn.utils.parameters_to_vector(one.parameters()) for one in module.networks.values()])
    cost, = module.costs().values()
    torch.testing.assert_close(cost, 0.5 * flat.var(0, correction=0).sum() * 3)
    cost.backward()
    first = torch.cat([one.grad.flatten() for one in module.networks["speaker"].parameters()])
    torch.testing.assert_close(first, flat[0] - flat.mean(0))
    for tasks in (TASKS, TASKS[:1]):  # in the beginning, and alone
        assert sum(Soft(trunk=Mlp()).build({"main": VALUES}, tasks).costs().values()) < 1e-9


@pytest.mark.parametrize("channels", [True, False])
def test_mixing_of_cross_stitch(channels):
    module = moved(CrossStitch(trunk=Mlp(hidden=[6, 5]), channels=channels).build({"main": VALUES}, ("a", "b")))
    x = torch.randn(4, *VALUES)
    a, b = (list(network.layers) for network in module.networks.values())
    one = two = x.flatten(1)
    for i, weights in enumerate(module.weights):
        assert weights.shape == (2, 2, (6, 5)[i] if channels else 1)
        one, two = a[3 * i](one).relu(), b[3 * i](two).relu()
        one, two = weights[0, 0] * one + weights[0, 1] * two, weights[1, 0] * one + weights[1, 1] * two
    found = module({"main": x}, None)
    torch.testing.assert_close(found["a"].vector, one)
    torch.testing.assert_close(found["b"].vector, two)
    first = CrossStitch(trunk=Mlp(), own=0.8).build({"main": VALUES}, TASKS).weights[0]
    torch.testing.assert_close(first[..., 0], torch.tensor([[.8, .1, .1], [.1, .8, .1], [.1, .1, .8]]))


def test_gates_of_mmoe():
    module = moved(Mmoe(expert=Cnn(channels=[4]), experts=3).build({"main": SPECTRUM}, ("a", "b"))).eval()
    x, lengths = torch.randn(2, 2, 20, 9), torch.tensor([9, 4])
    x[1, ..., 4:] = 0
    found = module({"main": x}, {"main": lengths})
    for row, length in enumerate(lengths.tolist()):
        mine = x[row:row + 1, ..., :length]
        seen = torch.cat([mine.mean(3).flatten(1), mine.amax(3).flatten(1)], 1)
        for task in ("a", "b"):
            logits = seen @ module.gates[task][0].linear.weight.T + module.gates[task][0].linear.bias
            weights = logits.exp() / logits.exp().sum()
            each = [expert({"main": mine}, None) for expert in module.shared]
            wanted = sum(weights[0, i] * one.vector for i, one in enumerate(each))
            torch.testing.assert_close(found[task].vector[row:row + 1], wanted)
            wanted = sum(weights[0, i] * one.frames for i, one in enumerate(each))
            torch.testing.assert_close(found[task].frames[row:row + 1, :, :wanted.shape[-1]], wanted)


def test_levels_of_ple():
    module = moved(Ple(expert=Mlp(hidden=[6, 5, 4]), levels=3, own=2).build({"main": VALUES}, ("a", "b")))
    x = torch.randn(4, *VALUES)
    values = {"a": x.flatten(1), "b": x.flatten(1), "shared": x.flatten(1)}
    experts = {"a": module.own["a"], "b": module.own["b"], "shared": module.shared}
    for level in range(3):
        gates = {"a": module.gates["a"][level], "b": module.gates["b"][level]}
        found = {key: [one.layers[3 * level](values[key]).relu() for one in group] for key, group in experts.items()}
        among = {"a": [*found["shared"], *found["a"]], "b": [*found["shared"], *found["b"]]}
        if level < 2:
            gates["shared"], among["shared"] = module.shared_gates[level], [*found["shared"], *found["a"], *found["b"]]
        weights = {key: torch.softmax(gate.linear(values[key]), 1) for key, gate in gates.items()}
        values = {key: sum(weights[key][:, i:i + 1] * one for i, one in enumerate(among[key])) for key in among}
    for task, one in module({"main": x}, None).items():
        torch.testing.assert_close(one.vector, values[task])


@pytest.mark.parametrize("name", ["mlp", "cnn", "crnn"])
def test_ple_of_one_level_is_cgc(name):
    network, shape, _ = NETWORKS[name]
    one, two = (scheme.build({"main": shape}, TASKS).eval() for scheme in (Cgc(expert=network), Ple(expert=network, levels=1)))
    two.load_state_dict(one.state_dict())
    x = arrays(name)
    assert all(torch.equal(one(x, None)[task].vector, two(x, None)[task].vector) for task in TASKS)


def test_masks_of_mtan():
    module = moved(Mtan(trunk=Cnn(channels=[3, 4], batch_norm=False)).build({"main": (1, 8, None)}, ("a", "b"))).eval()
    x = torch.randn(2, 1, 8, 12)

    def pointwise(layers, y):
        return torch.einsum("oi,bikt->bokt", layers.linear.weight[:, :, 0], y) / math.sqrt(1 + 1e-5) \
            * layers.norm.weight[:, None, None] + layers.norm.bias[:, None, None]

    shared = [module.network.blocks[0](x)]
    shared.append(module.network.blocks[1](shared[0]))
    for task, (first, second) in module.masks.items():
        own = shared[0] * pointwise(first.second, pointwise(first.first, shared[0]).relu()).sigmoid()
        brought = torch.nn.functional.max_pool2d(pointwise(second.bring, own).relu(), 2)
        seen = torch.cat([shared[1], brought], 1)
        own = shared[1] * pointwise(second.second, pointwise(second.first, seen).relu()).sigmoid()
        torch.testing.assert_close(module({"main": x}, None)[task].frames, own.flatten(1, 2))


class Unstaged(Trunk):
    """A network that is no sequence."""

    def build(self, shapes):
        class Network(torch.nn.Module):
            def forward(self, inputs, lengths=None):
                return Representation(inputs["main"].flatten(1))

        return Network()


@pytest.mark.parametrize("scheme", ["soft", "mmoe", "cgc"])
def test_any_network_will_do(scheme):
    found = SCHEMES[scheme](Unstaged()).build({"main": VALUES}, TASKS)({"main": torch.randn(2, *VALUES)}, None)
    assert {one.vector.shape for one in found.values()} == {(2, 15)}


@pytest.mark.parametrize("scheme", ["cross_stitch", "mtan", "ple"])
def test_without_stages_it_says_what_will_do(scheme):
    with pytest.raises(ParameterError, match=f"{scheme} acts between the stages .* of Unstaged is no .*use soft, mmoe or cgc"):
        SCHEMES[scheme](Unstaged()).build({"main": VALUES}, TASKS)


@every
def test_a_scheme_in_a_scheme_is_refused(scheme):
    with pytest.raises(ParameterError, match=f"{scheme} takes a trunk with one representation .*, found networks.soft, which"):
        SCHEMES[scheme](Named("networks.soft", Soft(trunk=Mlp()))).build({"main": VALUES}, TASKS)


def test_more_levels_than_stages():
    with pytest.raises(ParameterError, match="expected levels of at most 2, the stages of the expert, found 3"):
        Ple(expert=Mlp(hidden=[4, 4]), levels=3).build({"main": VALUES}, TASKS)


@every
def test_what_the_network_cannot_take_is_said(scheme):
    with pytest.raises(ParameterError, match="cnn takes arrays"):
        SCHEMES[scheme](Cnn()).build({"main": WAVE}, TASKS)


def test_gates_look_at_several_inputs():
    shapes = {"values": (7,), "table": (2, 3), "spectrum": (1, 4, 6), "wave": (1, 3000)}
    module = Mmoe(expert=Mlp(hidden=[4])).build(shapes, TASKS)
    x = {name: torch.randn(2, *shape) for name, shape in shapes.items()}
    assert module.look(x, None).shape == (2, 7 + 2 * 3 + 2 * 4 + 2)
    torch.testing.assert_close(module.look(x, None)[:, 13:17], x["spectrum"].mean(3).flatten(1))


@every
def test_heads_of_frames_and_vectors_stand_on_it(scheme):
    tasks = {"tone": Task.multiclass("tone", ("low", "high")), "beep": Task.events("beep", ("beep",))}
    trunk = SCHEMES[scheme](NETWORKS["crnn"][0])
    model = build_model({"main": trunk}, {"main": ["mel"]}, {"mel": (2, 20, None)}, tasks, {"tone": Linear(), "beep": Frames()},
                        dict.fromkeys(tasks, ["main"]))
    found = model.train()({"mel": torch.randn(3, 2, 20, 33)}, {"mel": torch.tensor([33, 7, 20])})
    assert {name: tuple(one.shape) for name, one in found.tasks.items()} == {"tone": (3, 2), "beep": (3, 1, 9)}
    assert list(found.costs) == (["main.distance"] if scheme == "soft" else [])


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def train(tmp_path, cache):
    def run(trunk, epochs, count, runs="runs"):
        one, = mtcore.Experiment({
            "name": "tones", "datasets": {"tones": {"reader": {"use": "core.tones", "count": count}}},
            "inputs": {"main": {"extractor": {"use": "core.spectrogram", "hop": 0.02}, "steps": ["core.standardize"]}},
            "split": {"folds": 1, "validation": 0.15}, "model": {"trunk": trunk},
            "train": {"epochs": epochs, "batch_size": 8, "optimizer": {"use": "adamw", "lr": 5e-3}},
            "report": {"reporters": []}}, tmp_path, tmp_path / runs, cache).run()
        return one.folder

    return run


CNN = {"use": "cnn", "channels": [8, 16]}
RUNS = [{"use": "soft", "trunk": CNN}, {"use": "cross_stitch", "trunk": CNN}, {"use": "mtan", "trunk": CNN},
        {"use": "mmoe", "expert": CNN}, {"use": "cgc", "expert": CNN}, {"use": "ple", "expert": CNN}]


@pytest.mark.parametrize("trunk", RUNS, ids=lambda trunk: trunk["use"])
def test_it_learns_two_tasks_of_one_dataset(train, trunk):
    """Of four timbres, and pitches whose mean explains nothing (r2 = 0)."""
    found = {line["metric"]: line["value"] for line in train(trunk, 6, 120).metrics("test")
             if line["metric"] in ("accuracy", "r2") and line["checkpoint"] == "last"}
    assert found["accuracy"] >= 0.45 and found["r2"] >= 0.5


@pytest.mark.parametrize("trunk", RUNS[1:3], ids=lambda trunk: trunk["use"])
def test_a_run_and_its_continuation(train, trunk):
    train(trunk, 1, 24, "cut")
    one, two = (torch.load(train(trunk, 2, 24, runs).checkpoint("last"), weights_only=True)["model"] for runs in ("cut", "whole"))
    assert all(torch.equal(one[key], two[key]) for key in two)


def test_the_cost_of_distance_holds_networks_together(train):
    def distance(strength):
        folder = train({"use": "soft", "trunk": CNN, "strength": strength}, 2, 24, f"runs{strength}")
        state = torch.load(folder.checkpoint("last"), weights_only=True)["model"]
        pairs = [(one, state[key.replace(".pitch.", ".timbre.")]) for key, one in state.items() if "networks.pitch." in key]
        assert pairs
        return sum((one - other).square().sum() for one, other in pairs if one.dim() > 1)

    assert distance(10.0) < 0.5 * distance(0.0)


@every
def test_tasks_may_be_called_like_what_a_module_has(scheme):
    """The same numbers under the same names, but for the tasks'."""
    usual, names = ("a", "b", "c", "d"), ("half", "keys", "training", "forward")
    one, other = made(scheme, "mlp", usual), made(scheme, "mlp", names)
    called = dict(zip(usual, names))
    state = {".".join(called.get(part, part) for part in name.split(".")): value for name, value in one.state_dict().items()}
    other.train().load_state_dict(state)
    given = arrays("mlp")
    found, expected = other.eval()(given, None), one.eval()(given, None)
    assert list(found) == list(names)
    assert all(torch.equal(found[called[task]].vector, expected[task].vector) for task in usual)
