"""A stream holds what records hold, goes on where it was killed, and refuses to mix."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import dlens
from dlens.files import alone
from dlens.tracing.chain import Trace
from dlens.tracing.streams.header import INDEX, read_header, write_header
from tests.reference import shallow
from tests.refusing import refused
from tests.unchecked import unchecked

PROMPTS = ["Once upon a time", "The dog", "Tom has 3 red apples and", "A", "The little fox ran", "Question: Rose has"]
# Six files of a few rows.
SMALL: dict[str, Any] = {"batch_size": 2, "shard_bytes": 6000, "progress": False}


@pytest.fixture(scope="module")
def diffusing(diffusion: dlens.Model) -> Trace:
    return dlens.trace(shallow(diffusion, 2)).skip([0], part="mlp").capture("resid_post")


@pytest.fixture(scope="module")
def appending(ar: dlens.Model) -> Trace:
    return dlens.trace(shallow(ar, 2)).capture("blocks.1.hook_resid_post", "z", tokens=[0, 3])


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def cut(folder: Path, to: Path, n: int) -> Path:
    """A copy of a stream as it was when `n` of its files were written."""
    to.mkdir()
    for number, (name, content) in enumerate(bytes_of(folder).items()):
        if name == INDEX or number <= n:
            (to / name).write_bytes(content)
    header = read_header(to)
    write_header(to, type(header)(**vars(header) | {"complete": False}))
    return to


def expected_rows(record: dlens.Record, row: int, step: int | None) -> Tensor:
    """What a record of one prompt has at its real positions, [layer, position, d_model]."""
    values = record["resid_post"] if step is None else record["resid_post"][step]
    return values[:, row, ~record.is_pad[row]]


def test_forwards_hold_the_rows_of_records(diffusing: Trace, tmp_path: Path) -> None:
    kept = diffusing.stream(PROMPTS, tmp_path / "kept", **SMALL)
    assert len(kept.shards) > 2 and (kept.header.kind, kept.header.n_prompts) == ("forward", 6)
    rows = kept.read()
    by_length = sorted(range(6), key=lambda i: -len(diffusing.model.tokenizer(PROMPTS[i])["input_ids"]))
    assert rows.prompt[rows.layer == 0].unique_consecutive().tolist() == by_length
    for pair in (by_length[:2], by_length[2:4], by_length[4:]):
        record = diffusing.forward([PROMPTS[i] for i in pair])
        for row, prompt in enumerate(pair):
            own = rows.at(rows.prompt == prompt)
            values = expected_rows(record, row, None)
            assert torch.equal(own.values, values.flatten(0, 1))
            n = values.shape[1]
            assert (
                own.position.tolist() == [*range(n)] * 2 and own.token.tolist()[:n] == record.tokens[row, -n:].tolist()
            )
            assert own.step.unique().tolist() == own.state.unique().tolist() == [0] and (own.noise == 0).all()


def test_denoising_holds_the_rows_of_records(diffusing: Trace, tmp_path: Path) -> None:
    sampler = dlens.samplers.LLaDA(steps=3)
    kept = diffusing.stream(PROMPTS[:2], tmp_path / "kept", max_new_tokens=6, sampler=sampler, **SMALL)
    record = diffusing.generate(PROMPTS[:2], 6, sampler=sampler)
    mask = diffusing.model.family.mask_token_id
    rows, generated = kept.read(), record.canvas[0] == mask
    assert (kept.header.kind, kept.header.n_steps) == ("denoising", 3)
    for step in range(3):
        for prompt in range(2):
            own = rows.at((rows.prompt == prompt) & (rows.step == step))
            real = ~record.is_pad[prompt]
            canvas, masked = record.canvas[step, prompt, real], record.canvas[step, prompt, real] == mask
            n = len(own) // 2
            assert torch.equal(own.values[:n], expected_rows(record, prompt, step)[0, own.position[:n]])
            assert own.token.tolist()[:n] == canvas[own.position[:n]].tolist()
            state = torch.where(masked, 1, torch.where(generated[prompt, real], 2, 0))
            assert own.state.tolist()[:n] == state[own.position[:n]].tolist()
            assert own.noise.tolist() == [float(masked.sum()) / 6] * len(own)


def test_decoding_holds_chosen_positions_of_records(appending: Trace, tmp_path: Path) -> None:
    kept = appending.stream(PROMPTS, tmp_path / "kept", max_new_tokens=4, batch_size=1, progress=False)
    assert kept.header.points[1].layers == (0, 1) and kept.header.kind == "decoding"
    for prompt in (1, 2):
        record = appending.generate(PROMPTS[prompt], 4, progress=False)
        rows = kept.select(point="z", prompts=prompt, layers=1).read()
        # The last token is computed by no step.
        n = record.tokens.shape[-1]
        assert rows.position.tolist() == [position for position in (0, 3) if position < n - 1]
        assert torch.equal(rows.values, record["z"][1, 0, rows.position.long()])
        assert rows.token.tolist() == record.tokens[0, rows.position.long()].tolist() and rows.noise.isnan().all()


def test_types_and_points_outside_of_blocks(ar: dlens.Model, tmp_path: Path) -> None:
    trace = dlens.trace(shallow(ar, 1)).capture("embed", dtype="bfloat16", tokens="last")
    kept = trace.stream(PROMPTS[:2], tmp_path / "kept", progress=False)
    rows = kept.read()
    assert rows.values.dtype == torch.bfloat16 and rows.layer.tolist() == [-1] * 2 and kept.shape == (2, 192)
    assert torch.equal(rows.values[1], trace.model.embed.weight[rows.token[1]].bfloat16())


@pytest.mark.parametrize("new", [None, 6])
def test_whatever_was_written_the_rest_is_the_same(diffusing: Trace, tmp_path: Path, new: int | None) -> None:
    asked: dict[str, Any] = SMALL | {"max_new_tokens": new, "shard_bytes": 6000 if new is None else 40000}
    asked |= {} if new is None else {"sampler": dlens.samplers.LLaDA(steps=3, temperature=0.7), "seed": 3}
    whole = tmp_path / "whole"
    n_files = len(diffusing.stream(PROMPTS, whole, **asked).shards)
    assert n_files >= 3
    for n in range(n_files + 1):
        again = cut(whole, tmp_path / f"again {n}", n)
        (again / ".shard-00009.safetensors.elsewhere-1-00000000.unfinished").touch()
        diffusing.stream(PROMPTS, again, **asked)
        expected = bytes_of(whole)
        assert {name: content for name, content in bytes_of(again).items() if name[0] != "."} == expected


SCRIPT = """
import os, signal, sys
import tests.conftest  # the same checks of types, so that the code is the same
import dlens
import torch
from dlens.tracing.streams import writer
from tests.reference import shallow
from tests.tracing.test_stream import PROMPTS, SMALL

torch.set_num_threads(1)
write = writer.write_shard

def killed(path, parts, mark, stream):
    write(path, parts, mark, stream)
    if path.name == "shard-00001.safetensors":
        os.kill(os.getpid(), signal.SIGKILL)

writer.write_shard = killed
model = shallow(dlens.load("trio/ar", verify=False), 1)
dlens.trace(model).capture("resid_post").stream(PROMPTS, sys.argv[1], **SMALL)
"""


def test_a_killed_process_loses_nothing_that_it_wrote(ar: dlens.Model, tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path / "killed")], cwd=Path(__file__).parents[2])
    assert killed.returncode == -signal.SIGKILL
    left, trace = bytes_of(tmp_path / "killed"), dlens.trace(shallow(ar, 1)).capture("resid_post")
    assert sorted(left) == [INDEX, *(f"shard-0000{n}.safetensors" for n in range(2))]
    trace.stream(PROMPTS, tmp_path / "killed", **SMALL)
    trace.stream(PROMPTS, tmp_path / "whole", **SMALL)
    assert bytes_of(tmp_path / "killed") == bytes_of(tmp_path / "whole")
    assert left.items() - bytes_of(tmp_path / "whole").items() == {(INDEX, left[INDEX])}


def test_a_finished_stream_is_not_computed_again(diffusing: Trace, tmp_path: Path) -> None:
    diffusing.stream(PROMPTS[:2], tmp_path / "kept", **SMALL)
    before = bytes_of(tmp_path / "kept")
    calls: list[int] = []
    handle = diffusing.model.embed.register_forward_hook(lambda *_: calls.append(1))
    # A hook of somebody's own makes it another model.
    handle.remove()
    again = diffusing.stream(PROMPTS[:2], tmp_path / "kept", **SMALL)
    assert calls == [] and bytes_of(tmp_path / "kept") == before and len(again) > 0


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("model", lambda t, f: dlens.trace(shallow(t.model, 1)).capture("resid_post").stream(PROMPTS, f, **SMALL)),
        ("operations", lambda t, f: t.capture("embed").stream(PROMPTS, f, **SMALL)),
        ("prompts", lambda t, f: t.stream(PROMPTS[:-1], f, **SMALL)),
        ("decoding", lambda t, f: t.stream(PROMPTS, f, max_new_tokens=2, **SMALL)),
        ("batch_size", lambda t, f: t.stream(PROMPTS, f, **SMALL | {"batch_size": 3})),
    ],
)
def test_something_else_is_refused(
    diffusing: Trace, tmp_path_factory: pytest.TempPathFactory, what: str, change: Callable[..., Any]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "refusing"
    diffusing.stream(PROMPTS, folder, **SMALL)
    before = bytes_of(folder)
    with pytest.raises(ValueError, match=f"with another .*{what}.*; expected the same, as a stream goes on"):
        change(diffusing, folder)
    assert bytes_of(folder) == before


REFUSED: dict[str, tuple[type[Exception], str, Callable[[Trace, Path], Any]]] = {
    "nothing": (ValueError, "a trace without captures", lambda t, f: dlens.trace(t.model).stream(PROMPTS, f)),
    "batch": (ValueError, "batch_size=0", lambda t, f: t.stream(PROMPTS, f, batch_size=0)),
    "shard": (ValueError, "shard_bytes=0", lambda t, f: t.stream(PROMPTS, f, shard_bytes=0)),
    "progress": (ValueError, "progress='no'", lambda t, f: t.stream(PROMPTS, f, progress="no")),
    "cancel": (ValueError, "cancel=3", lambda t, f: t.stream(PROMPTS, f, cancel=3)),
    "folder": (ValueError, "folder=3", lambda t, f: t.stream(PROMPTS, 3)),
    "no prompts": (ValueError, "got no prompts", lambda t, f: t.stream([], f)),
    "long": (ValueError, "the longest prompt has 600", lambda t, f: t.stream([[5], [5] * 600], f)),
    "masks": (
        ValueError,
        "prompt 1 holds the mask",
        lambda t, f: t.stream([[5], [6, mask_of(t)]], f, max_new_tokens=2),
    ),
    "position": (
        IndexError,
        "tokens names position 30",
        lambda t, f: dlens.trace(t.model).capture("embed", tokens=[30]).stream(PROMPTS, f),
    ),
    "a later batch": (
        IndexError,
        "tokens names position 3",
        lambda t, f: t.steer([0.0] * 192, tokens=[3]).stream(PROMPTS, f, batch_size=1),
    ),
}


def mask_of(trace: Trace) -> int:
    mask = trace.model.family.mask_token_id
    assert mask is not None
    return mask


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_run_is_refused_before_anything(diffusing: Trace, tmp_path: Path, case: str) -> None:
    kind, came, action = REFUSED[case]
    with unchecked(), refused(diffusing.model, kind, came):
        action(diffusing, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_folders_of_others_are_left_alone(diffusing: Trace, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(FileExistsError, match="holds other files; expected a new folder or an older stream; give"):
        diffusing.stream(PROMPTS, tmp_path)
    (tmp_path / "held").mkdir()
    with alone(tmp_path / "held"), pytest.raises(BlockingIOError, match="is written to by another run"):
        diffusing.stream(PROMPTS, tmp_path / "held")


def test_a_stream_without_rows_is_no_stream(diffusing: Trace, tmp_path: Path) -> None:
    trace = dlens.trace(diffusing.model).capture("embed", tokens="masked")
    with pytest.raises(ValueError, match="no prompt had a row to keep; expected some; check tokens= of 'capture embed"):
        trace.stream(PROMPTS[:1], tmp_path / "kept", progress=False)


def test_an_operation_that_acts_in_some_batches_alone_is_said(diffusing: Trace, tmp_path: Path) -> None:
    trace = dlens.trace(diffusing.model).ablate(1, tokens="masked").capture("resid_post")
    with pytest.warns(dlens.UnfiredWarning, match="found nothing to act on in 1 of 2 batches"):
        trace.stream([[5, mask_of(trace), 7], [5, 6]], tmp_path / "kept", batch_size=1, progress=False)
    record = trace.forward([[5, mask_of(trace), 7]])
    rows = dlens.load_activations(tmp_path / "kept").select(prompts=0, layers=1).read()
    assert torch.equal(rows.values, record["resid_post"][1, 0]) and (rows.values[1] == 0).all()


def test_a_cancelled_stream_goes_on(diffusing: Trace, tmp_path: Path) -> None:
    stop, calls = threading.Event(), []

    def count(value: Tensor, hook: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            stop.set()

    trace = diffusing.hook("hook_embed", count)
    with pytest.raises(dlens.Cancelled, match="cancelled before batch 2; what .* holds stays; stream again to go on"):
        trace.stream(PROMPTS, tmp_path / "kept", cancel=stop, **SMALL)
    assert len(dlens.load_activations(tmp_path / "kept", partial=True)) > 0
