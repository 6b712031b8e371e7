import pytest

from dlens.cli import main


def test_models_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["models"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:3] == ["trio/ar", "autoregressive", "autoregressive"]
    assert any(line.startswith("llada") for line in lines)
