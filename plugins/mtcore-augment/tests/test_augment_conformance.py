"""What the conformance kit expects of every plugin; what needs the library of an extra is tried in extras/."""

import pytest

from mtcore.testing import checks_of

CHECKS = [check for check in checks_of("augment") if not (check.subject.spec and check.subject.spec.name == "audiomentations")]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_conformance(check):
    check()
