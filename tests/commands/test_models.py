import json

import pytest

from dlens.cli import main


def test_models_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["models"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:3] == ["trio/ar", "autoregressive", "autoregressive"]
    assert any(line.startswith("llada") for line in lines)


def test_models_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    main(["models", "--json", "-"])
    [first, *_] = json.loads(capsys.readouterr().out)["models"]
    assert first["name"] == "trio/ar" and first["layers"] == 16


def test_where_the_parts_of_a_model_are_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    main(["models", "--explain", "trio/ar"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:2] == ["blocks", "model.layers"] and "16 modules that run once each" in lines[1]
