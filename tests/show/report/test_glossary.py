"""The words of a report are explained where it uses them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dlens.findings.study.claims import claims
from dlens.findings.study.study import Study
from dlens.show.report.glossary import glossary, terms
from dlens.show.report.report import report_page
from tests.findings.studies import EVEN, made_model, made_study


@pytest.fixture
def found() -> Study:
    return made_study({"trio/ar": made_model("ar", EVEN), "<b>dllm": made_model("diffusion", EVEN)})


def test_words_are_folded_and_come_first(found: Study) -> None:
    html = report_page(found, claims(found))
    before, _, rest = html.partition('<details class="words"><summary>What the words mean</summary>')
    assert "<table" not in before and 'class="matrix"' in rest
    assert rest.index("</details>") < rest.index('class="matrix"')


def test_every_word_is_there(found: Study) -> None:
    words = terms(found)
    for word in ("stream", "channel", "resid_pre, resid_post", "trio", "trio-code", "kept", "nats", "LLaDA's sampler"):
        assert word in words, word
    html = str(glossary(found))
    assert html.count("<dt>") == html.count("<dd>") == len(words)
    assert words["channel"] == "one index of that vector, hidden[..., channel], of 8"


def test_what_a_report_does_not_use_is_not_explained() -> None:
    ar = replace(made_study({"other": made_model("ar", EVEN)}), task="gsm8k")
    words = terms(ar)
    assert not {"trio", "trio-code", "masked", "LLaDA's sampler", "diffusion"} & set(words) and "AR" in words
    wide = made_study({"a": made_model("ar", EVEN), "b": replace(made_model("ar", EVEN), d_model=16)})
    assert terms(wide)["channel"].endswith("of 8 or 16")
