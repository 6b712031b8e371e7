"""What a release and its workflows read says the same everywhere."""

import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def test_every_page_names_the_version() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == VERSION
    heads = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")]
    assert heads[0] == "## [Unreleased]" and heads[1].startswith(f"## [{VERSION}] - ")


def test_workflows_run_what_contributors_run() -> None:
    for name, job in (("test", "test"), ("release", "build")):
        workflow = yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text())
        assert {"run": ".ci/run"} in workflow["jobs"][job]["steps"]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    lint = (ROOT / "Makefile").read_text()
    for hook in hooks:
        tool = hook["entry"].removeprefix(".venv/bin/").removesuffix(" --force-exclude")
        assert tool.split(" .venv")[0] in lint


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_asks_something_that_must_be_answered(path: Path) -> None:
    form = yaml.safe_load(path.read_text())
    ids = [field["id"] for field in form["body"]]
    assert form["name"] and form["description"] and len(ids) == len(set(ids))
    assert any(field.get("validations", {}).get("required") for field in form["body"])
