import pytest
import torch

from dlens.measures import CommitOrder, Cosine, LogitLens, Measure, Readout, TopTokens
from dlens.measures.base import readout as module

LOGITS = torch.tensor([[0.0, 1.0, 2.0]])


@pytest.mark.parametrize("measure", [LogitLens(), CommitOrder(), TopTokens()], ids=lambda measure: measure.key)
def test_what_reads_tokens_reads_them_where_a_block_ends(measure: Measure) -> None:
    assert measure.reads_tokens and measure.points == ("resid_post",)


def test_other_measures_do_not_ask_for_a_readout() -> None:
    assert not Cosine().reads_tokens


def test_probabilities_are_of_what_a_sampler_may_take() -> None:
    whole, without = (Readout(lambda h: h.clone(), 3, mask_token_id=mask) for mask in (None, 2))
    torch.testing.assert_close(whole.probabilities(LOGITS), LOGITS.double().softmax(-1))
    torch.testing.assert_close(without.probabilities(LOGITS)[:, :2], LOGITS[:, :2].double().softmax(-1))
    assert without.probabilities(LOGITS)[0, 2] == 0
    torch.testing.assert_close(without.log_probabilities(LOGITS), LOGITS.double().log_softmax(-1))


def test_a_shifted_position_is_read_one_before_unless_nothing_stands_there() -> None:
    state = torch.tensor([[-1, 0, 1, 1]])
    ((rows, columns, read),) = Readout(lambda h: h, 3, shift=1).chunks(state >= 0, state)
    assert (rows.tolist(), columns.tolist(), read.tolist()) == ([0, 0, 0], [1, 2, 3], [1, 1, 2])


def test_as_many_positions_at_a_time_as_their_logits_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AT_A_TIME", 7)
    state = torch.zeros(1, 5, dtype=torch.long)
    chunks = list(Readout(lambda h: h, 3).chunks(state >= 0, state))
    assert [columns.tolist() for _, columns, _ in chunks] == [[0, 1], [2, 3], [4]]
