"""What is asked of a matrix by default."""

from dlens.compression.methods.method import Ask


def test_nothing_is_asked_by_default() -> None:
    ask = Ask()
    assert (ask.bits, ask.group, ask.sparsity, ask.kept) == (None, None, 0.0, None)
