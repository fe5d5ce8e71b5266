from mtcore.testing import parametrize_checks


@parametrize_checks("trainers")
def test_conformance(check):
    check()
