"""Numerics of matrices as small as the number of tasks, as rows of floats, in plain Python around LAPACK. An update's products
empty the processor's caches, so what each further function of numpy costs is its way there, more than its work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import compress
from math import log, sqrt
from operator import mul

from scipy.linalg.lapack import dposv, dpotrf, dsyev

__all__ = ["Rows", "averse", "bargained", "definite", "dot", "harmless", "least", "norms", "shortest", "spectrum", "through",
           "times"]

Rows = Sequence[Sequence[float]]


def dot(x: Sequence[float], y: Sequence[float]) -> float:
    return sum(map(mul, x, y))


def times(matrix: Rows, x: Sequence[float]) -> list[float]:
    return [sum(map(mul, row, x)) for row in matrix]


def norms(gramian: Rows) -> list[float]:
    """Of the gradients."""
    return [sqrt(max(row[i], 0)) for i, row in enumerate(gramian)]


def definite(gramian: Rows) -> tuple[list[list[float]], float]:
    """G / trace, and the trace; positive definite with what its diagonal needs for that in spite of rounding."""
    trace, ridge = max(sum(row[i] for i, row in enumerate(gramian)), 1e-30), 1e-10
    matrix = [[value / trace for value in row] for row in gramian]
    while True:
        for i, row in enumerate(matrix):
            row[i] += ridge
        if not dpotrf(matrix)[1]:
            return matrix, trace
        ridge *= 10


def solution(matrix: Rows, right: Sequence[float]) -> list[float]:
    """x with M x = right for M positive definite."""
    return dposv(matrix, right)[1].tolist() if right else []


def spectrum(matrix: Rows) -> list[tuple[float, tuple[float, ...]]]:
    """Eigenvalues above rounding with their vectors, the smallest first."""
    values, vectors, _ = dsyev(matrix)
    values = values.tolist()
    return [pair for pair in zip(values, zip(*vectors.tolist())) if pair[0] > values[-1] * len(values) * 2e-16]


def through(pairs: Sequence[tuple[float, Sequence[float]]], function: Callable[[float], float],
            x: Sequence[float]) -> list[float]:
    """f(M) x for M of this spectrum."""
    parts = [(function(value) * dot(vector, x), vector) for value, vector in pairs]
    return [sum(part * vector[i] for part, vector in parts) for i in range(len(x))]


def least(matrix: Rows, right: Sequence[float], first: bool = False) -> list[float]:
    """The x >= 0 with the least x M x / 2 - x·right for M positive definite, of a size about 1: M x >= right, and equal where
    x > 0, at first all or none. By exchanging all that violate this at once, the last one only where that leads nowhere (Júdice
    and Pires 1994, "A block principal pivoting algorithm for large-scale strictly monotone linear complementarity problems")."""
    positive, fewest, tries = [first] * len(right), len(right) + 1, 3
    for _ in range(20 + 2 * len(right)):
        inner = [list(compress(row, positive)) for row in compress(matrix, positive)]
        found = iter(solution(inner, list(compress(right, positive))))
        x = [next(found) if one else 0.0 for one in positive]
        excess = [value if one else dot(row, x) - wanted for one, value, row, wanted in zip(positive, x, matrix, right)]
        wrong = [i for i, value in enumerate(excess) if value < -1e-12]
        if not wrong:
            break
        if len(wrong) < fewest:
            fewest, tries = len(wrong), 3
        elif tries:
            tries -= 1
        else:
            wrong = wrong[-1:]
        for i in wrong:
            positive[i] = not positive[i]
    return [max(value, 0.0) for value in x]


def on_simplex(matrix: Rows) -> list[float]:
    """The weights of the simplex with the least w M w: the shares of the x >= 0 with the least x M x + (sum x - 1)^2, since for
    x = s w the best s gives w M w / (w M w + 1), which falls with w M w."""
    found = least([[value + 1 for value in row] for row in matrix], [1.0] * len(matrix), first=True)
    total = sum(found)
    return [value / total for value in found]


def shortest(gramian: Rows) -> list[float]:
    """The weights of the simplex with the least w G w."""
    return on_simplex(definite(gramian)[0])


def harmless(gramian: Rows, wanted: Rows) -> list[list[float]]:
    """For each row u the v >= u with the least v G v, whose direction harms no task: v = u + x with x >= 0."""
    matrix, _ = definite(gramian)
    return [[one + more for one, more in zip(u, least(matrix, [-value for value in times(matrix, u)]))] for u in wanted]


def averse(gramian: Rows, c: float) -> list[float]:
    """u + c |g_0| w / |g_w| with u = 1 / n, g_0 = g_u, and the w of the simplex with the least g_w·g_0 + c |g_0| |g_w|: it makes
    |g_w + s g_0| least for the s = |g_w| / (c |g_0|)."""
    n, (matrix, _) = len(gramian), definite(gramian)
    uniform = [1 / n] * n
    with_mean = times(matrix, uniform)
    square = dot(with_mean, uniform)
    radius = c * sqrt(square)
    if radius < 1e-9:
        return uniform

    s = before = last = 0.0
    for _ in range(50):
        w = on_simplex([[value + s * (a + b + s * square) for value, b in zip(row, with_mean)]
                        for row, a in zip(matrix, with_mean)])
        length = sqrt(max(dot(w, times(matrix, w)), 0))
        lacking = length / radius - s
        if abs(lacking) * radius < 1e-6:
            break
        slope = min((lacking - last) / (s - before), -0.01) if s else -1  # the length grows with s, so it is -1 or more
        before, last, s = s, lacking, max(s - lacking / slope, 0.0)
    return [1 / n + radius / length * value for value in w] if length > 1e-9 else uniform


def bargained(gramian: Rows, power: float) -> list[float]:
    """The w > 0 with G w = w^-power: the minimum of w G w / 2 - sum of the integral of w^-power, which is convex; by Newton's
    method, halving steps that lead nowhere."""
    matrix, trace = definite(gramian)
    gain = (lambda w: sum(map(log, w))) if power == 1 else lambda w: sum(one ** (1 - power) for one in w) / (1 - power)
    value = lambda w: dot(w, times(matrix, w)) / 2 - gain(w)  # noqa: E731
    moved = lambda w, share: [one - share * change for one, change in zip(w, step)]  # noqa: E731
    w = [row[i] ** (-1 / (1 + power)) for i, row in enumerate(matrix)]
    for _ in range(100):
        inverse = [one**-power for one in w]
        slope = [one - other for one, other in zip(times(matrix, w), inverse)]
        curved = [[*row] for row in matrix]
        for i, row in enumerate(curved):
            row[i] += power * inverse[i] / w[i]
        step = solution(curved, slope)
        decrement, share = dot(slope, step), min(1, 0.9 / max(1e-30, max(change / one for change, one in zip(step, w))))
        if decrement > 0.05:
            before = value(w)
            while value(moved(w, share)) > before - 0.1 * share * decrement and share > 1e-9:
                share /= 2
        w = moved(w, share)
        if decrement < 1e-9:  # the error left is of its square
            break
    return [one * trace ** (-1 / (1 + power)) for one in w]
