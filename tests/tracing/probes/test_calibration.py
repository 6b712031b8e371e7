"""The text that ships with dlens."""

from dlens.tracing.probes.calibration import calibration_texts


def test_the_texts_are_many_unlike_and_the_same_at_every_call() -> None:
    texts = calibration_texts()
    assert texts == calibration_texts()
    assert len(texts) == len(set(texts)) == 24
    lengths = [len(text.split()) for text in texts]
    assert (min(lengths), max(lengths)) == (17, 100)
    assert all(text == text.strip("\n") and "---" not in text for text in texts)
    assert any("def " in text for text in texts) and any("Question:" in text for text in texts)
