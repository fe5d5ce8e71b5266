from mtcore.testing import parametrize_checks


@parametrize_checks("voiceprompts")
def test_conformance(check):
    check()
