from mtcore.testing import parametrize_checks


@parametrize_checks("images")
def test_conformance(check):
    check()
