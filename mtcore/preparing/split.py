"""Splits: which clip lies in which part, in each fold. Never by clip alone: what shares a group or audio moves as one.

    groups, overlapping audio ─► components ─► given parts hold, the rest is drawn ─► per fold and clip: train, validation, test
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.sparse import coo_array, csr_array

from ..clip import PARTS
from ..errors import ExperimentError, LeakError
from ..streams import stream

__all__ = ["UNUSED", "Parts", "SplitDataset", "assign", "check_leaks", "connected", "draw_parts", "joined_groups", "labels_in_one_group"]

TRAIN, VALIDATION, TEST = range(len(PARTS))
UNUSED, FREE, TORN = -1, -2, -3
_TOLD = 50
"""Names that an error tells."""
_TICK = 1e-5
"""Seconds. What overlaps by less does not overlap: stretches that touch differ by rounding only."""
_TIE = 1e-6
"""Parts that lack the same but for this share of a group are equal, and chance decides."""


@dataclass(frozen=True)
class SplitDataset:
    """What a split needs to know of a dataset, per clip.

    groups      value of the chosen group; None: independent of all others
    audio       digest, start and stop in seconds (None: to the end); digest None: like no other
    parts       by scheme, as in `Clip.parts`
    labels      [clips, labels], dense or sparse: what shall be spread evenly, as counts; no columns: nothing
    parts_only  the only parts it is used in; None: all
    alike       number of the set of alike clips, of whatever datasets, that each lies in, -1: none; None: not looked for
    """

    name: str
    groups: Sequence[str | None]
    audio: Sequence[tuple[str | None, float, float | None]]
    parts: Sequence[Mapping[str, str]]
    labels: Any
    parts_only: tuple[str, ...] | None = None
    alike: Any = None


@dataclass(frozen=True)
class Parts:
    """By fold, by dataset: int8 per clip, an index of `PARTS` or -1 for unused; `notes` are lines for the log; `accepted` those of
    the names that leaks were accepted by."""

    folds: list[dict[str, np.ndarray]]
    notes: list[str] = field(default_factory=list)
    accepted: frozenset[str] = frozenset()


def joined_groups(datasets: Sequence[SplitDataset]) -> list[np.ndarray]:
    """Per dataset, the component of each clip. Clips with the same group value (of whatever dataset), overlapping stretches of
    identical audio, or alike are in one, and so is what hangs together through others."""
    pool = _Pool(datasets)
    return np.split(pool.component, np.cumsum(pool.sizes)[:-1])


def draw_parts(datasets: Sequence[SplitDataset], *, folds: int | str, test: float, validation: float, seed: int,
               accept: Collection[str] = ()) -> Parts:
    """Parts of all clips, the same whatever the order of the datasets.

    Given parts hold in every fold; a dataset that brings test clips is tested on those only, one that brings validation clips is
    validated on those only. Of the rest, every component is test in one of `folds` folds, or a share `test` is for one fold; a
    share `validation` of what is left for training is drawn per fold. With folds = "official" fold k is what the datasets'
    schemes `foldk` say; datasets without are drawn in the same number. With "groups" every fold tests one group of the dataset that has
    most of them (leave one group out).

    A component that given parts tear apart is a `LeakError`, unless `accept` holds all its names, as the error tells them: then its
    clips lie where they are given, and those that are not are unused.

    Raises `LeakError` where given parts tear a component apart, `ExperimentError` for shares, folds and too few groups.
    """
    datasets = sorted(datasets, key=lambda dataset: dataset.name)
    pool = _Pool(datasets, accept)
    number, own = _own_folds(datasets) if folds == "official" else (folds, np.zeros(len(datasets), bool))
    if folds == "groups":
        number = _most_groups(pool)
        if not number:
            raise ExperimentError('split.folds: "groups" tests one group per fold, but none is left to draw, since all parts are given')
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ExperimentError(f'split.folds: expected a number from 1 on, "official" or "groups", found {folds!r}')
    for name, share in (("test", test), ("validation", validation)):
        if not 0 <= share < 1:
            raise ExperimentError(f"split.{name}: expected a share from 0 to below 1, found {share!r}")
    given = pool.scheme("given")
    brings_test = own | pool.datasets_with(given == TEST)
    tested = _draw_test(pool, given, brings_test, number, test, stream(seed, "split", "test"))
    notes = [f"dataset {dataset.name} brings its own {'folds' if folded else 'test part'}"
             for dataset, brings, folded in zip(datasets, brings_test, own) if brings]
    drawn = []
    for fold in range(number):
        fixed = pool.scheme(f"fold{fold + 1}", given, own) if own.any() else given
        part = _whole(pool, fixed, f"the given parts of fold {fold + 1}" if own.any() else "the given parts")
        part = np.where(part != FREE, part, np.where(tested == fold, TEST, pool.default))
        part = _draw_validation(pool, fixed, part, validation, stream(seed, "split", "validation", fold))
        clips = part[pool.component].astype(np.int8)
        clips = np.where(clips == TORN, np.maximum(fixed, UNUSED), clips)
        unused = fixed == UNUSED
        clips[unused | ~pool.allowed[pool.dataset, clips]] = UNUSED
        drawn.append(dict(zip((d.name for d in datasets), np.split(clips, np.cumsum(pool.sizes)[:-1]))))
        notes += _remarks(datasets, drawn[-1], fold + 1, {TRAIN: 1, VALIDATION: validation, TEST: number > 1 or test})
    notes += [f"warning: accepted leak in {', '.join(places)}: {text}" for text, places in pool.torn.items()]
    return Parts(drawn, notes, frozenset(pool.accepted))


def check_leaks(datasets: Sequence[SplitDataset], parts: Parts, accept: Collection[str] = ()) -> None:
    """Raise `LeakError` if any component whose names are not accepted lies in two parts of one fold."""
    pool = _Pool(datasets, accept)
    for number, fold in enumerate(parts.folds, 1):
        _whole(pool, np.concatenate([fold[dataset.name] for dataset in datasets]), f"fold {number}")


def labels_in_one_group(labels: np.ndarray, components: np.ndarray) -> np.ndarray:
    """Per label: do all its clips lie in one component, although there are several? Then it cannot be both trained and tested.

    labels      [clips, labels], above 0 where a clip has the label
    components  [clips], as `joined_groups` gives them
    """
    if not len(components) or (components == components[0]).all():
        return np.zeros(labels.shape[1], bool)
    having = (components[labels[:, column] > 0] for column in range(labels.shape[1]))
    return np.array([len(some) > 0 and (some == some[0]).all() for some in having], bool)


# Drawing --------------------------------------------------------------------------------------------------------------


def connected(nodes: int, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Of each node the lowest one that edges from `one` to `other` connect it with. Each round, what has a lower neighbour joins the lowest
    one (Shiloach and Vishkin 1982); scipy's way brings its linear algebra along, whose import takes longer."""
    lowest = np.arange(nodes)
    while (lowest[one] != lowest[other]).any():
        ends = lowest[one], lowest[other]
        for end in ends:
            np.minimum.at(lowest, end, np.minimum(*ends))
        while (lowest[lowest] != lowest).any():
            lowest = lowest[lowest]
    return lowest


def assign(counts: Any, shares: Sequence[float], rng: np.random.Generator, everywhere: int = 0) -> np.ndarray:
    """Divide groups into parts so that each label is spread in the given shares; gives the part of each group.

    counts      [groups, labels], dense or sparse, no row empty
    shares      [parts], above 0, their sum is 1
    everywhere  so many first labels get into every part, if they have as many groups as there are parts; they weigh as much as
                all others together

    Greedy: the groups with the largest share of any label come first, and each goes where it lowers Pearson's chi-squared of
    parts and labels most: to the part that lacks most of its labels, in units of what is expected there. For single clips this
    does what iterative stratification does (Sechidis, Tsoumakas and Vlahavas, ECML PKDD 2011), for one label each what
    stratified sampling does.
    """
    counts = csr_array(counts, dtype=float)
    shares = np.asarray(shares, float)
    total = counts.sum(axis=0)
    rarity = np.divide(1, total, out=np.zeros_like(total), where=total > 0)
    need = total[:, None] * shares
    # Groups with the same counts are interchangeable and divided at once: a million clips need as many steps as there are labels.
    _, first, kind = np.unique(counts @ rng.random(len(total)), return_index=True, return_inverse=True)
    shuffled = rng.permutation(len(kind))
    members = np.split(shuffled[np.argsort(kind[shuffled], kind="stable")], np.cumsum(np.bincount(kind))[:-1])
    chance = rng.random((len(first), len(shares))) * _TIE
    largest = (counts * rarity).max(axis=1).toarray().ravel()[first]
    # Many small labels must not outvote the size of a part.
    rarity[:everywhere] *= max(1, len(total) / max(everywhere, 1) - 1)
    scaled = counts * rarity
    weights = scaled.data / np.repeat(scaled.multiply(counts).sum(axis=1), np.diff(counts.indptr))
    part = np.empty(len(kind), np.int64)
    for block in np.lexsort((chance[:, 0], -largest)).tolist():
        row = slice(*counts.indptr[first[block]:first[block] + 2])
        labels, groups = counts.indices[row], members[block]
        lacking = weights[row] @ need[labels] - 0.5 + chance[block]  # in groups of this kind, on average over the next one
        if len(groups) == 1:
            part[groups[0]] = chosen = (lacking / shares).argmax()
            need[labels, chosen] -= counts.data[row]
        else:
            taken = _divide(lacking, shares, len(groups))
            need[labels] -= counts.data[row][:, None] * taken
            part[groups] = np.repeat(np.arange(len(shares)), taken)
    _fill_empty(part, counts, shares, everywhere)
    return part


def _divide(lacking: np.ndarray, shares: np.ndarray, number: int) -> np.ndarray:
    """How many of `number` equal groups each part gets, each where most is lacking then, in units of the share."""
    # What groups that can be divided would fill up to one level, rounded down; the few that are left one by one.
    order = np.argsort(-lacking / shares)
    levels = (np.cumsum(lacking[order]) - number) / np.cumsum(shares[order])
    level = levels[np.sum((lacking / shares)[order] > levels) - 1]
    taken = np.maximum(lacking - level * shares, 0).astype(np.int64)
    for _ in range(number - taken.sum()):
        taken[((lacking - taken) / shares).argmax()] += 1
    return taken


def _fill_empty(part: np.ndarray, counts: csr_array, shares: np.ndarray, everywhere: int) -> None:
    """Give each part that has no group with one of the first labels the smallest such group of the part that has most."""
    having = counts[:, :everywhere].tocsc()
    tally = np.zeros((len(shares), everywhere), np.int64)
    np.add.at(tally, (part[having.indices], np.repeat(np.arange(everywhere), np.diff(having.indptr))), 1)
    for label, empty in zip(*np.nonzero((tally == 0).T & (shares > 0))):
        source = tally[:, label].argmax()
        column = slice(having.indptr[label], having.indptr[label + 1])
        groups = having.indices[column][np.argsort(having.data[column], kind="stable")]
        for group in groups[part[groups] == source]:
            labels = counts.indices[counts.indptr[group]:counts.indptr[group + 1]]
            labels = labels[labels < everywhere]
            if (tally[source, labels] > 1).all():
                part[group] = empty
                tally[source, labels] -= 1
                tally[empty, labels] += 1
                break


def _most_groups(pool: _Pool) -> int:
    """Groups that can be drawn of the dataset that has most."""
    given = pool.scheme("given")
    drawn = (~pool.datasets_with(given == TEST) & pool.allowed[:, TEST])[pool.dataset] & (given == FREE)
    return int(max(pool.tally(pool.counts(pool.has(drawn), drawn)), default=0))


def _draw_test(pool: _Pool, given: np.ndarray, brings: np.ndarray, folds: int, test: float,
               rng: np.random.Generator) -> np.ndarray:
    """The fold in which each component is tested; other numbers: in none, or given."""
    drawn = ~brings & pool.allowed[:, TEST] & (pool.rest != TEST)
    clips = drawn[pool.dataset]
    free = (_whole(pool, given, "the given parts") == FREE) & ~pool.has(brings[pool.dataset]) & pool.has(clips)
    if folds == 1 and not test:
        return np.full(len(free), UNUSED)
    counts, least = pool.counts(free, clips), max(folds, 2)
    for number, (dataset, groups) in enumerate(zip(pool.datasets, pool.tally(counts))):
        if 0 < groups < least:
            names = pool.names(np.flatnonzero(free & pool.has(pool.dataset == number)))
            raise ExperimentError(f"dataset {dataset.name}: expected at least {least} groups to draw "
                                  f"{f'{folds} folds' if folds > 1 else 'a test part'} from, found {groups}: {names}; choose "
                                  f"fewer folds (split.folds) or another group (datasets.{dataset.name}.group)")
    shares = [1 / folds] * folds if folds > 1 else [test, 1 - test]
    return pool.spread(free, counts, shares, rng)


def _draw_validation(pool: _Pool, fixed: np.ndarray, part: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """`part` per component, with validation drawn out of training."""
    if not share:
        return part
    used = fixed != UNUSED
    brings = pool.datasets_with(fixed == VALIDATION)
    drawn = ~brings & pool.allowed[:, VALIDATION] & (pool.rest == TRAIN)
    clips = drawn[pool.dataset] & used
    free = (part == TRAIN) & ~pool.has(brings[pool.dataset] & used) & pool.has(clips)
    single = pool.tally(pool.counts(free, clips)) == 1  # the last group is for training
    free &= ~pool.has(single[pool.dataset] & used)
    return np.where(pool.spread(free, pool.counts(free, clips), [1 - share, share], rng) == 1, VALIDATION, part)


def _remarks(datasets: Sequence[SplitDataset], fold: Mapping[str, np.ndarray], number: int,
             shares: Mapping[int, float]) -> Iterator[str]:
    for dataset in datasets:
        clips = fold[dataset.name]
        missing = [PARTS[part] for part, share in shares.items() if share and PARTS[part] in (dataset.parts_only or PARTS)
                   and part not in clips]
        if missing:
            yield f"fold {number}: dataset {dataset.name} has no clips for {' and '.join(missing)}: too few groups to divide"
        if unused := np.sum(clips == UNUSED):
            yield f"fold {number}: {unused} clips of dataset {dataset.name} are not used"


# Checks and bookkeeping -----------------------------------------------------------------------------------------------


def _own_folds(datasets: Sequence[SplitDataset]) -> tuple[int, np.ndarray]:
    """Number of the datasets' own folds, and which datasets have them."""
    numbers = []
    for dataset in datasets:
        schemes = {scheme for parts in dataset.parts for scheme in parts}
        numbers.append(sorted(int(scheme[4:]) for scheme in schemes if re.fullmatch("fold[1-9][0-9]*", scheme)))
        if numbers[-1] != list(range(1, len(numbers[-1]) + 1)):
            raise ExperimentError(f"dataset {dataset.name}: expected schemes fold1, fold2, …, found "
                                  f"{', '.join(f'fold{number}' for number in numbers[-1])}")
    found = {dataset.name: len(some) for dataset, some in zip(datasets, numbers) if some}
    if not found:
        raise ExperimentError('split.folds = "official": expected a dataset with folds of its own, found none among '
                              f"{', '.join(dataset.name for dataset in datasets)}; give a number of folds")
    if len(set(found.values())) > 1:
        raise ExperimentError('split.folds = "official": expected datasets with the same number of own folds, found '
                              f"{', '.join(f'{name}: {number}' for name, number in found.items())}; give a number of folds")
    return next(iter(found.values())), np.array([bool(some) for some in numbers])


def _whole(pool: _Pool, parts: np.ndarray, where: str) -> np.ndarray:
    """The part of each component, FREE where no clip says, TORN where its clips say different ones and all its names are accepted;
    `LeakError` where not all are."""
    holds = np.stack([pool.has(parts == part) for part in range(len(PARTS))])
    found = np.where(holds.any(axis=0), holds.argmax(axis=0), FREE)
    torn = np.flatnonzero(holds.sum(axis=0) > 1)
    names = pool.all_names(torn)
    leaks = np.array([not pool.accept.issuperset(some) for some in names], bool)
    if leaks.any():
        of = pool.names_of(np.isin(pool.component, torn[leaks]) & (parts >= 0))
        known = sorted(pool.accept.intersection(map(pool._name, range(len(pool.component)))))
        wanted = list(dict.fromkeys([*known, *(name for some, leak in zip(names, leaks) if leak for name in some)]))
        raise LeakError(f"{where}: expected every group in one part, found {leaks.sum()} in two or more (dataset {of}): "
                        f"{pool.names(torn[leaks], holds)}; choose as `group` what the parts keep together, correct the parts, or "
                        f"accept what cannot be helped in [split]: accept_leaks = {_listed(wanted)}")
    for component, some in zip(torn, names):
        pool.accepted.update(some)
        places = pool.torn.setdefault(pool.names([component], holds), [])
        places += [where] * (where not in places)
    found[torn] = TORN
    return found


def _listed(names: Sequence[str]) -> str:
    """As TOML, which JSON's strings are."""
    return json.dumps(names[:_TOLD], ensure_ascii=False) + (f" and {len(names) - _TOLD} more" if len(names) > _TOLD else "")


class _Pool:
    """All clips of all datasets in one row, with the component of each."""

    def __init__(self, datasets: Sequence[SplitDataset], accept: Collection[str] = ()):
        self.datasets, self.accept = datasets, frozenset(accept)
        self.accepted: set[str] = set()
        self.torn: dict[str, list[str]] = {}
        self.sizes = [len(dataset.groups) for dataset in datasets]
        self.dataset = np.repeat(np.arange(len(datasets), dtype=np.int32), self.sizes)
        self.component = self._join()
        self.size = int(self.component.max(initial=-1)) + 1
        self.allowed = np.array([[part in (d.parts_only or PARTS) for part in PARTS] for d in datasets], bool)
        self.rest = self.allowed.argmax(axis=1)  # the part of what is not drawn for another
        self.default = np.full(self.size, TEST)
        for part in (VALIDATION, TRAIN):
            self.default[self.has((self.rest == part)[self.dataset])] = part

    def _join(self) -> np.ndarray:
        """A clip is an edge between its chain of overlapping stretches and its group, and another to what it is alike."""
        codes: dict[str, int] = {}
        values = (value for dataset in self.datasets for value in dataset.groups)
        group = np.fromiter((-1 if value is None else codes.setdefault(value, len(codes)) for value in values),
                            np.int64, len(self.dataset))
        chain = self._chains()
        alike = np.concatenate([np.full(n, -1) if d.alike is None else d.alike for n, d in zip(self.sizes, self.datasets)] or [group])
        chains, grouped, similar = int(chain.max(initial=-1)) + 1, group >= 0, alike >= 0
        nodes = chains + len(codes) + int(alike.max(initial=-1)) + 1
        ends = np.r_[chain[grouped], chain[similar]], np.r_[chains + group[grouped], chains + len(codes) + alike[similar]]
        return np.unique(connected(nodes, *ends)[chain], return_inverse=True)[1].astype(np.int32)

    def _chains(self) -> np.ndarray:
        """Number of the uninterrupted run of identical audio that each clip is cut from."""
        codes: dict[Any, int] = {}
        column = lambda number: (audio[number] for dataset in self.datasets for audio in dataset.audio)
        count = len(self.dataset)
        code = np.fromiter((codes.setdefault(object() if digest is None else digest, len(codes)) for digest in column(0)),
                           np.int64, count)
        start = np.fromiter((round(time / _TICK) for time in column(1)), np.int64, count)
        stop = np.fromiter((-1 if time is None else round(time / _TICK) for time in column(2)), np.int64, count)
        span = max(start.max(initial=0), stop.max(initial=0)) + 2
        begin, end = code * span + start, code * span + np.where(stop < 0, span - 1, stop)
        order = np.argsort(begin, kind="stable")
        reached = np.maximum.accumulate(end[order])
        chain = np.empty(count, np.int64)
        chain[order] = np.cumsum(np.r_[True, begin[order][1:] >= reached[:-1]]) - 1
        return chain

    def scheme(self, name: str, given: np.ndarray | None = None, own: np.ndarray | None = None) -> np.ndarray:
        """Part of each clip in a scheme, FREE where it has none; in own folds `given` counts too, UNUSED where neither is."""
        code = {part: number for number, part in enumerate(PARTS)} | {None: FREE}
        parts = np.fromiter((code[parts.get(name)] for d in self.datasets for parts in d.parts), np.int8, len(self.dataset))
        if own is None:
            return parts
        differ = own[self.dataset] & (parts != FREE) & (given != FREE) & (parts != given)
        if differ.any():
            raise LeakError(f"{name}: expected parts as in `given`, which holds in every fold, found {differ.sum()} clips with "
                            f"others (dataset {self.names_of(differ)}); correct the reader's or the table's parts")
        parts = np.where((parts != FREE) & own[self.dataset], parts, given)
        return np.where((parts == FREE) & own[self.dataset], np.int8(UNUSED), parts)

    def has(self, clips: np.ndarray) -> np.ndarray:
        """Components that hold one of these clips."""
        return np.bincount(self.component[clips], minlength=self.size) > 0

    def datasets_with(self, clips: np.ndarray) -> np.ndarray:
        return np.bincount(self.dataset[clips], minlength=len(self.datasets)) > 0

    def counts(self, components: np.ndarray, clips: np.ndarray) -> csr_array:
        """[components, datasets + labels of each]: number of clips, so that each dataset is divided too, and counts of labels."""
        number = np.cumsum(components) - 1
        chosen = clips & components[self.component]
        rows, columns, values = [number[self.component[chosen]]], [self.dataset[chosen]], [np.ones(chosen.sum())]
        width, first = len(self.datasets), 0
        for dataset, size in zip(self.datasets, self.sizes):
            labels = coo_array(dataset.labels)
            here = chosen[first + labels.row]
            rows.append(number[self.component[first + labels.row[here]]])
            columns.append(width + labels.col[here])
            values.append(labels.data[here])
            width, first = width + labels.shape[1], first + size
        triples = np.concatenate(values).astype(float), (np.concatenate(rows), np.concatenate(columns))
        return csr_array(triples, shape=(int(components.sum()), width))

    def tally(self, counts: csr_array) -> np.ndarray:
        """Components per dataset."""
        return np.bincount(counts.indices[counts.indices < len(self.datasets)], minlength=len(self.datasets))

    def spread(self, components: np.ndarray, counts: csr_array, shares: Sequence[float], rng: np.random.Generator) -> np.ndarray:
        """What `assign` makes of these components; UNUSED for the others."""
        part = np.full(self.size, UNUSED)
        if components.any():
            part[components] = assign(counts, shares, rng, everywhere=len(self.datasets))
        return part

    def names_of(self, clips: np.ndarray) -> str:
        """The datasets of these clips."""
        return ", ".join(dataset.name for dataset, some in zip(self.datasets, self.datasets_with(clips)) if some)

    def names(self, components: np.ndarray, holds: np.ndarray | None = None) -> str:
        """The first few components by their groups, or by their audio, with the parts they lie in."""
        texts = []
        for component in components[:5]:
            clips = np.flatnonzero(self.component == component)
            found = dict.fromkeys(self._name(clip) for clip in clips[:1000])
            parts = "" if holds is None else f" ({', '.join(np.array(PARTS)[holds[:, component]])})"
            texts.append(" + ".join(list(found)[:3]) + (" + …" if len(found) > 3 else "") + parts)
        return ", ".join(texts) + (", …" if len(components) > 5 else "")

    def all_names(self, components: np.ndarray) -> list[list[str]]:
        """Of each of these components, what it has to be accepted by."""
        names: dict[int, dict[str, None]] = {component: {} for component in components.tolist()}
        for clip in np.flatnonzero(np.isin(self.component, components)) if names else ():
            names[int(self.component[clip])].setdefault(self._name(clip))
        return [list(some) for some in names.values()]

    def _name(self, clip: int) -> str:
        dataset = self.dataset[clip]
        place = clip - sum(self.sizes[:dataset])
        group, digest = self.datasets[dataset].groups[place], self.datasets[dataset].audio[place][0]
        return group if group is not None else f"audio {(digest or 'without digest')[:8]}"
