"""Blocks run one by one as in the model run whole."""

import pytest
import torch

import dlens
from dlens.compression.blockwise import Means, Readers, begin, by_input, observed, pass_block
from dlens.compression.matrices import matrices_of
from dlens.models.model import Model
from tests.whole.architectures import CONFIGS, build

IDS = torch.randint(3, 90, (5, 12), generator=torch.Generator().manual_seed(0))


def seen_whole(model: Model, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """What every linear matrix gets, and the final norm, in the model run whole."""
    seen: dict[str, torch.Tensor] = {}
    parts = {matrix.label: matrix.part for matrix in matrices_of(model)[0]}
    parts["norm"] = model.module.get_submodule(model.layout.norm)
    handles = [
        part.register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[0]}))
        for name, part in parts.items()
    ]
    with torch.no_grad():
        model.module(**model.family.inputs(ids, None))
    for handle in handles:
        handle.remove()
    return seen


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> Model:
    return dlens.load(build(CONFIGS[request.param][0]), verify=False)


@torch.no_grad()
def test_every_matrix_gets_what_it_gets_in_the_whole_model(model: Model) -> None:
    seen = seen_whole(model, IDS)
    stream = begin(model, IDS, 8, None)
    for layer in range(model.n_layers):
        readers = by_input(stream, layer, [matrix for matrix in matrices_of(model)[0] if matrix.layer == layer])
        for group, inputs in zip(readers, observed(stream, layer, readers, hessian=True), strict=True):
            for matrix in group.matrices:
                value = seen[matrix.label]
                assert torch.equal(value, seen[group.matrices[0].label])
                expected = torch.einsum("bpi, bpj -> ij", value, value) / len(IDS)
                assert torch.allclose(inputs.hessian, expected, rtol=1e-4, atol=1e-4)
        pass_block(stream, layer)
    assert torch.equal(stream.hidden[0], seen["norm"])


@torch.no_grad()
def test_matrices_that_read_the_same_are_together_in_order(llama: Model) -> None:
    stream = begin(llama, IDS, 2, None)
    groups = by_input(stream, 0, [matrix for matrix in matrices_of(llama)[0] if matrix.layer == 0])
    names = [[matrix.name.rpartition(".")[2] for matrix in group.matrices] for group in groups]
    assert names == [["q_proj", "k_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]]


@torch.no_grad()
def test_a_block_is_left_as_soon_as_all_were_seen(llama: Model) -> None:
    stream, ran = begin(llama, IDS, 2, None), []
    for name in ("self_attn", "mlp"):
        llama.blocks[0].get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name))
    first = [Readers(tuple(matrix for matrix in matrices_of(llama)[0] if matrix.layer == 0)[:3])]
    assert observed(stream, 0, first, hessian=False)[0] is not None and ran == []
    pass_block(stream, 0)
    assert ran == ["self_attn", "mlp"] * 3


@torch.no_grad()
def test_a_matrix_that_runs_twice_is_seen_twice(llama: Model) -> None:
    block = llama.blocks[0]
    forward = block.mlp.forward
    block.mlp.forward = lambda x: forward(x) + block.mlp.down_proj(torch.ones(*x.shape[:2], 48))
    stream = begin(llama, IDS, 8, None)
    groups = by_input(stream, 0, [matrix for matrix in matrices_of(llama)[0] if matrix.layer == 0])
    down = [group for group in groups if not group.once]
    assert [matrix.name for group in down for matrix in group.matrices] == ["mlp.down_proj"]
    once = observed(stream, 0, down, hessian=False)[0]
    # Half of the rows it reads are ones.
    assert once is not None and bool((once.norms >= IDS.shape[1] / 2).all())


def test_norms_are_means_over_rows_of_sums_over_positions() -> None:
    means = Means(hessian=False)
    batches = [torch.randn(n, 7, 3, generator=torch.Generator().manual_seed(n)) for n in (2, 3)]
    for batch in batches:
        means.add(batch)
    assert torch.allclose(means.inputs().norms, torch.cat(batches).square().sum(1).mean(0))


@torch.no_grad()
def test_a_model_whose_blocks_depend_on_more_than_the_stream_is_refused(llama: Model) -> None:
    llama.module.model.norm.register_forward_pre_hook(lambda part, args: (args[0] * 2,))
    with pytest.raises(ValueError, match=r"run one by one differ from the model run whole by 0\.5.*'magnitude'"):
        begin(llama, IDS, 2, None)


@pytest.fixture
def llama() -> Model:
    return dlens.load(build(CONFIGS["llama"][0]), verify=False)
