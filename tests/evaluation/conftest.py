"""lm-eval describes the machine after every run, by programs that take longer than the tests."""

import pytest


@pytest.fixture(autouse=True)
def no_description_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda storage: None)
    monkeypatch.setattr("lm_eval.evaluator.get_git_commit_hash", lambda: None)
