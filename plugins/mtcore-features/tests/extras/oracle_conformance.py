"""The whole conformance kit, where all extras are installed."""

from mtcore.testing import parametrize_checks


@parametrize_checks("features")
def test_conformance(check):
    check()
