from mtcore.testing import parametrize_checks


@parametrize_checks("dcase", expected_failures={
    "reader.scenes2017.groups_within_parts": "six of the published segments are tested in two folds, so that a recording may lie in two parts"})
def test_conformance(check):
    check()
