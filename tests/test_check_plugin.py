"""`mtcore check-plugin`, and the same checks under pytest."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from mtcore.cli import main
from mtcore.testing import checks_of


@pytest.fixture(autouse=True)
def fewer_processes(request, monkeypatch):
    """Two hash seeds are enough where they are not what is tried."""
    if "hash_seeds" not in request.node.name:
        monkeypatch.setattr("mtcore.testing.readers.SEEDS", (1, 2))


NO_SOURCE = {"reader": [("f\"birds:{row['site']}\"", "row['site']")]}
"""Fails reader.calls.group_values."""


def test_parametrized_checks_are_strict(birds, pytester):
    birds({"reader": [("Clip(path.stem", "Clip('all'")]}, only="calls")
    source = """
        from mtcore.testing import parametrize_checks

        @parametrize_checks("birds", expected_failures={EXPECTED})
        def test_conformance(check):
            check()
    """
    pytester.makepyfile(test_declared=source.replace("EXPECTED", '"reader.calls.unique_ids": "one id for all"'))
    pytester.runpytest_inprocess("-q", "test_declared.py").assert_outcomes(passed=len(checks_of("birds")) - 1, xfailed=1)
    pytester.makepyfile(test_undeclared=source.replace("EXPECTED", ""))
    pytester.runpytest_inprocess("-q", "test_undeclared.py").assert_outcomes(passed=len(checks_of("birds")) - 1, failed=1)
    pytester.makepyfile(test_passes=source.replace("EXPECTED",
                                                   '"reader.calls.unique_ids": "x", "reader.calls.schemes": "it does not fail"'))
    pytester.runpytest_inprocess("-q", "test_passes.py").assert_outcomes(passed=len(checks_of("birds")) - 2, xfailed=1, failed=1)
    pytester.makepyfile(test_unknown=source.replace("EXPECTED", '"reader.calls.unique": "no such check"'))
    result = pytester.runpytest_inprocess("-q", "test_unknown.py")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*no check 'reader.calls.unique'*did you mean reader.calls.unique_ids?*"])


def test_the_command(birds):
    birds()
    result = CliRunner().invoke(main, ["check-plugin", "mtcore-birds"])
    assert result.exit_code == 0 and "passed      reader.calls.unique_ids" in result.output and "checks passed" in result.output


def test_the_command_names_what_failed_and_what_was_expected(birds):
    birds(NO_SOURCE)
    result = CliRunner().invoke(main, ["check-plugin", "birds"])
    assert result.exit_code == 3
    assert "failed      reader.calls.group_values: clip r0: expected site as \"source:value\", found 's0'" in result.output
    assert "expected: Values of groups carry their source" in result.output
    assert "birds fails 1 of" in result.output


def test_the_command_as_json(birds):
    birds({"METADATA": [("License: MIT\n", "")]})
    result = CliRunner().invoke(main, ["check-plugin", "birds", "--json"])
    assert result.exit_code == 3
    outcomes = {outcome["id"]: outcome for outcome in json.loads(result.stdout)}
    assert outcomes["plugin.described"]["status"] == "failed" and "license" in outcomes["plugin.described"]["message"]


def test_an_unknown_plugin_is_an_error_of_the_call():
    result = CliRunner().invoke(main, ["check-plugin", "cor"])
    assert result.exit_code == 2 and "did you mean core?" in result.output


def test_failures_may_be_expected(birds):
    birds(NO_SOURCE, only="calls")
    known = lambda *ids: CliRunner().invoke(main,
                                            ["check-plugin", "birds", *(word for name in ids for word in ("--expect", name))])
    result = known("reader.calls.group_values")
    assert result.exit_code == 0 and "1 failed as expected" in result.output
    result = known("reader.calls.group_values", "reader.calls.schemes")
    assert result.exit_code == 3 and "passes what --expect says it fails: reader.calls.schemes" in result.output
    result = known("reader.calls.group_value")
    assert result.exit_code == 2 and "did you mean reader.calls.group_values?" in result.output


def test_what_a_plugin_raises_is_told_once_and_with_its_line(birds):
    birds({"reader": [("labels = sorted(", "labels = None + sorted(")]}, only="calls")
    output = CliRunner().invoke(main, ["check-plugin", "birds"]).output
    assert output.count("TypeError: unsupported operand") < output.count("failed  ") / 3 and "birds_kit/reader.py, line " in output
    assert ": as reader.calls." in output
