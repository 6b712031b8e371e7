"""Chosen rows of hand-written forwards, with where they come from."""

import torch

from dlens.ops.capture import Capture
from dlens.tracing.step.gather import Gather
from dlens.tracing.step.program import Spot
from dlens.tracing.step.state import Group, StepState, denoising_state
from dlens.tracing.step.window import window_of
from dlens.tracing.streams.shard import Mark, Part

REAL = torch.tensor([[False, True, True, True, True], [True, True, True, True, True]])
GENERATED = torch.tensor([[False, False, False, True, True]] * 2)
MASKED = torch.tensor([[False, False, False, False, True], [False, False, False, True, True]])
IDS = torch.tensor([[0, 11, 12, 13, 99], [20, 21, 22, 99, 99]])
VALUES = torch.arange(10.0).reshape(2, 5, 1).expand(2, 5, 3)
OP = Capture(point="resid_post", dtype=torch.float16)


def state(step: int, ends: torch.Tensor | None = None) -> StepState:
    none = torch.zeros_like(REAL)
    group = Group((0, 1), 0)
    return denoising_state(step, group, REAL, GENERATED, MASKED, none if ends is None else ends, 1)


def gathered(
    tokens: object, states: list[StepState], done: int = 0, fixed: torch.Tensor | None = None, width: int = 5
) -> list[Part]:
    parts: list[Part] = []
    gather = Gather(tokens, parts.append)  # type: ignore[arg-type]
    gather.start(Mark(4, done), torch.tensor([7, 2]), torch.tensor([1, 0]), fixed, width)
    for own in states:
        gather.begin(own, IDS)
        value = VALUES if own.window is None else own.window.take(VALUES)
        gather.take(OP, value, Spot("resid_post", 3, own))
    gather.end()
    return parts


def test_each_row_says_where_it_comes_from() -> None:
    (part,) = gathered("all", [state(5)])
    assert part.places.prompt.tolist() == [7] * 4 + [2] * 5
    assert part.places.position.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 4]
    assert part.places.token.tolist() == [11, 12, 13, 99, 20, 21, 22, 99, 99]
    assert part.places.state.tolist() == [0, 0, 2, 1, 0, 0, 0, 1, 1]
    assert part.places.noise.tolist() == [0.5] * 4 + [1.0] * 5 and part.places.step.tolist() == [5] * 9
    values = part.values["blocks.3.hook_resid_post"]
    assert values.dtype == torch.float16 and values[:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_positions_are_chosen() -> None:
    assert gathered("masked", [state(0)])[0].places.token.tolist() == [99] * 3
    fixed = torch.zeros_like(REAL)
    fixed[:, 2] = True
    assert gathered([2], [state(0)], fixed=fixed)[0].places.token.tolist() == [12, 22]
    ends = torch.zeros_like(REAL)
    ends[0, 3] = True
    assert gathered("all", [state(0, ends)])[0].places.token.tolist() == [11, 12, 13, 20, 21, 22, 99, 99]


def test_a_forward_is_handed_on_when_the_next_begins_and_one_that_is_on_disk_is_not() -> None:
    parts = gathered("masked", [state(0), state(1), state(2)], done=1)
    assert [part.places.step[0].item() for part in parts] == [1, 2]
    assert [part.mark for part in parts] == [Mark(4, 2), Mark(5)]


def test_columns_that_an_earlier_forward_computed_are_left_out() -> None:
    whole = state(3)
    again = StepState(
        **{name: getattr(whole, name) for name in StepState.__dataclass_fields__ if name != "fresh"}, fresh=4
    )
    assert gathered("all", [again])[0].places.position.tolist() == [3, 4]


def test_a_step_with_a_cache_has_the_columns_that_it_computes() -> None:
    computed = torch.tensor([[False, True, False, True, False], [False, False, True, False, False]])
    for fixed, tokens, expected in ((None, "all", [11, 13, 22]), (torch.ones_like(REAL)[:, :3], [1], [11, 22])):
        (part,) = gathered(tokens, [state(2).within(window_of(computed))], fixed=fixed)
        assert part.places.token.tolist() == expected and part.places.position.tolist()[-1] == 2
        assert part.values["blocks.3.hook_resid_post"][0, 0] == 1
        assert part.places.noise.tolist() == [0.5] * (len(expected) - 1) + [1.0]


def test_what_makes_a_canvas_block_whole_is_left_out() -> None:
    assert gathered("all", [state(0)], width=4)[0].places.position.tolist() == [0, 1, 2, 0, 1, 2, 3]


def test_rows_are_copies() -> None:
    parts: list[Part] = []
    gather, live, own = Gather("all", parts.append), VALUES.clone(), state(0)
    gather.start(Mark(0), torch.tensor([0, 1]), torch.tensor([1, 0]), None, 5)
    gather.begin(own, IDS)
    gather.take(Capture(point="resid_post"), live, Spot("resid_post", 0, own))
    live.zero_()
    gather.end()
    assert parts[0].values["blocks.0.hook_resid_post"][:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_what_is_known_of_a_forward_is_not_read_off_it() -> None:
    parts: list[Part] = []
    gather, known = Gather("masked", parts.append), state(0)
    for ids in (IDS, IDS + 100):
        gather.start(Mark(0), torch.tensor([0, 1]), torch.tensor([1, 0]), None, 5)
        if ids is not IDS:
            gather.know(known, IDS)
        gather.begin(known, ids if ids is IDS else ids.to("meta"))
        gather.take(OP, VALUES, Spot("resid_post", 3, known))
        gather.end()
    assert [part.places.token.tolist() for part in parts] == [[99] * 3] * 2
