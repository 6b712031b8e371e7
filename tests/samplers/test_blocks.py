import torch

from dlens.samplers.blocks import block_columns, infilled


def test_blocks_split_the_new_tokens_and_the_first_takes_the_masks_of_the_prompt() -> None:
    generated = torch.zeros(2, 10, dtype=torch.bool)
    generated[:, 4:] = True
    assert [b.tolist() for b in block_columns(generated, 6, 3)] == [[4, 5, 6], [7, 8, 9]]
    assert infilled(generated, 6) == 0
    generated[0, 1] = generated[1, 1] = generated[1, 3] = True
    assert [b.tolist() for b in block_columns(generated, 6, 3)] == [[1, 3, 4, 5, 6], [7, 8, 9]]
    assert infilled(generated, 6) == 2


def test_without_new_tokens_the_masks_of_the_prompt_are_the_only_block() -> None:
    generated = torch.zeros(1, 5, dtype=torch.bool)
    generated[0, [1, 3]] = True
    assert [b.tolist() for b in block_columns(generated, 0, 1)] == [[1, 3]]
    assert infilled(generated, 0) == 2
