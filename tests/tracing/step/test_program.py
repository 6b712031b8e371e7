"""What stands in the program of a step: groups of measures, quiet places, skipped rows."""

from __future__ import annotations

import torch

import dlens
from dlens.ops.base.op import Op
from dlens.ops.base.target import Target
from dlens.tracing.planning.plan import plan_run
from dlens.tracing.step.compile import compile_step
from dlens.tracing.step.program import Active, MeasureGroup, StepProgram, around_blocks

TARGET = Target("tiny", n_layers=4, d_model=3, has_noise=True)
REAL = torch.ones(2, 3, dtype=torch.bool)


def program(chain: dlens.Trace, rows: dict[int, tuple[bool, ...]] | None = None) -> StepProgram:
    """The program of a step at which all operations act, some in some rows only."""
    plan = plan_run(chain.ops, TARGET, 1, REAL)
    return compile_step([Active(planned, (rows or {}).get(planned.index)) for planned in plan.planned], TARGET)


def chain(diffusion: dlens.Model) -> dlens.Trace:
    return dlens.trace(diffusion)


def test_measures_with_nothing_written_between_them_are_one_group(diffusion: dlens.Model) -> None:
    trace = chain(diffusion).measure(dlens.Cosine()).capture("resid_post").measure(dlens.Outliers())
    trace = trace.ablate(2).measure(dlens.Cosine(name="after"))
    groups = program(trace).layers[0].groups
    assert [[active.planned.index for active in group.measures] for group in groups] == [[0, 2], [4]]
    assert groups[0].points == {"resid_pre", "resid_post"} and groups[0].around


def test_a_place_is_quiet_where_it_is_only_read(diffusion: dlens.Model) -> None:
    trace = chain(diffusion).measure(dlens.Cosine()).capture("resid_post", layers=[1]).ablate(2)
    trace = trace.capture("resid_pre", layers=[3])
    assert program(trace).quiet == {0, 1}
    here = program(trace).layers[1].points["resid_post"]
    assert [one.use for one in here] == ["measure", "keep"] and isinstance(here[0], MeasureGroup)


def test_what_acts_at_one_place_stands_in_the_order_written(diffusion: dlens.Model) -> None:
    trace = chain(diffusion).capture("z", layers=[1]).hook("z", print, layers=1).capture("blocks.1.attn.hook_z")
    assert [one.use for one in program(trace).layers[1].points["z"]] == ["keep", "write", "keep"]


def test_rows_in_which_a_block_is_skipped(diffusion: dlens.Model) -> None:
    todo = program(chain(diffusion).skip([1]), {0: (True, False)}).layers[1]
    skipped = todo.skipped_rows(2)
    assert skipped == (True, False) and not todo.quiet
    assert program(chain(diffusion).skip([1], part="attn")).layers[1].skipped_rows(2) is None


def test_swaps_order_the_blocks_and_rows_keep_their_own(diffusion: dlens.Model) -> None:
    trace = chain(diffusion).swap(0, 1).swap(1, 2)
    assert program(trace).blocks == (1, 2, 0, 3)
    mixed = program(trace, {1: (True, False)})
    assert mixed.blocks == (1, 0, 2, 3)
    assert {place: mixed.layers[place].other_blocks for place in mixed.layers} == {
        1: [(2, (True, False))],
        2: [(0, (True, False))],
    }


def test_operations_that_change_what_runs_are_the_signature(diffusion: dlens.Model) -> None:
    trace = chain(diffusion).ablate(0).skip([1]).measure(dlens.Cosine()).repeat(2)
    assert program(trace, {3: (False, True)}).structural == ((1, None), (3, (False, True)))


def test_what_hooks_around_blocks_can_read(diffusion: dlens.Model) -> None:
    def around(ops: tuple[Op, ...]) -> list[bool]:
        return [around_blocks(planned) for planned in plan_run(ops, TARGET, 1, REAL).planned]

    trace = chain(diffusion).measure(dlens.Cosine()).capture("resid_post").capture("resid_pre")
    trace = trace.capture("z", layers=[0]).skip([1])
    assert around(trace.ops[:4]) == [True, True, False, False] and around(trace.ops[4:]) == [False]
