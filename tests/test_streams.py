"""Counter-based streams: the same for the same key, unrelated otherwise, the same in every process."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtcore.streams import derive, stream

KEY = st.lists(st.one_of(st.integers(), st.text(max_size=4)), max_size=3).map(tuple)


@given(one=st.tuples(st.integers(), KEY), other=st.tuples(st.integers(), KEY))
@settings(max_examples=300, deadline=None)
def test_equal_exactly_when_seed_and_key_are(one, other):
    same = repr(one) == repr(other)
    assert (derive(one[0], *one[1]) == derive(other[0], *other[1])) is same


def test_boundaries_and_types_of_the_key_count():
    keys = [("ab", "c"), ("a", "bc"), ("abc",), ("1",), (1,), ("1", ""), (), ("",), ("a', 'b",), ("a", "b")]
    assert len({derive(7, *key) for key in keys}) == len(keys)


def test_numpy_numbers_count_as_numbers():
    assert derive(np.int64(3), np.str_("clip"), np.int32(5)) == derive(3, "clip", 5)
    with pytest.raises(TypeError):
        derive(3, 0.5)


def test_streams_repeat_and_differ():
    first = stream(1, "augment", 3, "clip").random(1000)
    assert (first == stream(1, "augment", 3, "clip").random(1000)).all()
    assert abs(np.corrcoef(first, stream(1, "augment", 4, "clip").random(1000))[0, 1]) < 0.15


def test_the_same_in_another_process_and_for_ever():
    code = "from mtcore.streams import derive; print(derive(123, 'größe', -4))"
    outputs = {subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True,
                              check=True).stdout.strip() for seed in "12"}
    assert outputs == {str(derive(123, "größe", -4))} == {"80892540271664319915065560330140380334"}
