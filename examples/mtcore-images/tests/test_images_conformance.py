from click.testing import CliRunner

from mtcore.cli import main
from mtcore.testing import parametrize_checks


@parametrize_checks("images")
def test_conformance(check):
    check()


def test_demo_of_data_without_time(tmp_path):
    """Pictures have no rate: the demo takes them as they are."""
    result = CliRunner().invoke(main, ["demo", "images.digits", "--runs", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache")])
    assert result.exit_code == 0 and "digit: recall_macro" in result.output, result.output
