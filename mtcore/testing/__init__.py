"""The conformance kit for plugins, for pytest and for `mtcore check-plugin`.

    # tests/test_conformance.py of a plugin
    from mtcore.testing import parametrize_checks

    @parametrize_checks("birds")
    def test_conformance(check):
        check()

Nothing is downloaded: readers are checked on the miniature that their spec's example builds, extractors and preparers on
generated arrays or those of their example.
"""

from . import calls, extractors, plugins, preparers, readers, surroundings  # noqa: F401  they register the rules
from .kit import Check, CheckFailed, Outcome, checks_of, parametrize_checks, run_checks
from .sounds import write_tone

__all__ = ["Check", "CheckFailed", "Outcome", "checks_of", "parametrize_checks", "run_checks", "write_tone"]
