"""What the conformance kit expects of every plugin; what needs the libraries of extras is tried in extras/."""

import pytest

from mtcore.testing import checks_of

EXTRAS = {"opensmile", "transformers", "onnx"}
CHECKS = [check for check in checks_of("features") if not (check.subject.spec and check.subject.spec.name in EXTRAS)]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_conformance(check):
    check()
