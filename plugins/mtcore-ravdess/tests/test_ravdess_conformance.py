from mtcore.testing import parametrize_checks


@parametrize_checks("ravdess")
def test_conformance(check):
    check()
