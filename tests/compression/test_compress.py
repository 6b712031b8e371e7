"""A compressed copy, as a user makes it."""

import threading
from pathlib import Path

import pytest
import torch

import dlens
from dlens.compression.matrices import matrices_of
from tests.reference import shallow
from tests.refusing import refused
from tests.standins import save_dream, save_llada
from tests.unchecked import unchecked
from tests.untouched import untouched
from tests.whole.architectures import CONFIGS, build

IDS = torch.randint(3, 90, (4, 12), generator=torch.Generator().manual_seed(0)).tolist()
WAYS = {
    "rtn": {"bits": 3, "group": 16},
    "gptq": {"bits": 3, "group": 16},
    "magnitude": {"sparsity": 0.3},
    "wanda": {"sparsity": 0.3},
    "sparsegpt": {"sparsity": 0.3},
}


def holds(small: dlens.Model, method: str) -> None:
    """Every matrix that is not named has the levels, or the zeros, that were asked for."""
    done = small.compression
    assert done is not None
    rows = {(row.layer, row.matrix): row for row in done.treated}
    matrices = [matrix for matrix in matrices_of(small)[0] if matrix.label not in done.left_out]
    assert len(rows) == len(matrices)
    for matrix in matrices:
        weight, row = matrix.weight, rows[matrix.layer, matrix.name]
        assert row.weights == weight.numel() and row.zeros == pytest.approx(float((weight == 0).float().mean()))
        if method in ("rtn", "gptq"):
            groups = weight.reshape(-1, 16)
            assert max(len(set(group.tolist())) for group in groups) == row.levels <= 8
        else:
            assert abs(float((weight == 0).sum()) - 0.3 * weight.numel()) <= len(weight)


@pytest.mark.parametrize("method", WAYS)
@pytest.mark.parametrize("name", CONFIGS)
def test_every_architecture_is_compressed_and_left_as_it_was(name: str, method: str) -> None:
    model = dlens.load(build(CONFIGS[name][0]), verify=False)
    with untouched(model):
        small = dlens.compress(model, method, **WAYS[method], texts=IDS)
    holds(small, method)
    assert small.compression.left_out == {} and small.name == f"{model.name} ({small.compression.words})"
    assert small.module is not model.module and small.fingerprint() != model.fingerprint()


@pytest.mark.parametrize("save", [save_llada, save_dream])
@pytest.mark.parametrize("method", WAYS)
def test_models_of_their_own_code_are_compressed(save, method: str, tmp_path: Path) -> None:
    model = dlens.load(save(tmp_path), trust_remote_code=True)
    small = dlens.compress(model, method, **WAYS[method], texts=[[token % 40 + 5 for token in row] for row in IDS])
    holds(small, method)
    assert small.compression.left_out == {} and small.compression.settings["calibration"] == "masked"


def test_whatever_takes_a_model_takes_a_small_one(diffusion: dlens.Model) -> None:
    model = shallow(diffusion, 3)
    dlens.trace(model).skip([1]).forward("Once upon a time")
    small = dlens.compress(model, "rtn", bits=3)
    record = dlens.trace(small).skip([1]).measure(dlens.Cosine()).generate("Once upon a time", 4)
    assert record.plan and record.measures["cosine"].sizes["layer"] == 3
    assert dlens.profile(small, ["Once upon a time"]).model == small.name
    again = dlens.compress(small, "magnitude", sparsity=0.5)
    assert again.compression.before == small.compression
    assert again.name == "trio/diffusion (rtn, 3 bits, whole rows) (magnitude, 50 % zeros, uniform)"
    assert "before that rtn, 3 bits" in repr(again.compression)


def test_a_module_that_nnsight_has_wrapped_gives_a_copy_without(ar: dlens.Model) -> None:
    model = shallow(ar, 2)
    assert model.nnsight is not None
    small = dlens.compress(model, "wanda", sparsity=0.5, rows=1)
    assert not any("__nnsight__" in vars(part) for part in small.module.modules())


def test_what_is_asked_again_comes_out_again(diffusion: dlens.Model) -> None:
    model = shallow(diffusion, 1)
    first, second, other = (
        dlens.compress(model, "gptq", bits=3, rows=2, length=32, seed=seed).fingerprint() for seed in (0, 0, 1)
    )
    assert first == second != other


def test_settings_of_other_models_are_refused_before_compute(ar: dlens.Model) -> None:
    for settings, kind, came in (
        ({"bits": 3, "group": 60}, ValueError, "group=60 and layer 0 self_attn.q_proj of 192 columns"),
        ({"bits": 3, "group": 128}, ValueError, "group=128"),
        ({"bits": 0}, ValueError, "bits=0"),
        ({"method": "wanda", "sparsity": 1}, ValueError, "sparsity 1.0"),
        ({"method": "wanda", "sparsity": 0.9, "allocation": "early-sparser"}, ValueError, "sparsity=0.9"),
        ({"bits": 3, "calibration": "masked"}, ValueError, "calibration='masked' on trio/ar"),
        ({"bits": 3, "texts": [[5]]}, ValueError, "calibration text of 1 token"),
        ({"bits": 3, "texts": [[9999]]}, ValueError, "9999"),
        ({"bits": 3, "head": True}, ValueError, "head=True on trio/ar"),
        ({"bits": 3, "protect": [192]}, ValueError, "protect=[192]"),
        ({"bits": 3, "batch_size": 0}, ValueError, "batch_size=0"),
        ({"bits": 3, "device": "gpu"}, ValueError, "device='gpu'"),
        ({"bits": 3, "progress": "no"}, ValueError, "progress='no'"),
    ):
        with unchecked(), refused(ar, kind, came):
            dlens.compress(ar, **settings)


def test_weights_that_are_not_finite_are_refused() -> None:
    module = build(CONFIGS["llama"][0])
    module.model.layers[1].mlp.up_proj.weight.data[3, 4] = torch.inf
    with pytest.raises(ValueError, match=r"layer 1 mlp\.up_proj holds weights that are NaN or infinite; expected"):
        dlens.compress(dlens.load(module, verify=False), "rtn", bits=3)


def test_forwards_that_a_copy_would_share_are_refused() -> None:
    module = build(CONFIGS["llama"][0])
    forward = module.model.layers[0].mlp.forward
    module.model.layers[0].mlp.forward = lambda x: forward(x) * 2
    with pytest.raises(ValueError, match=r"another forward on model\.layers\.0\.mlp, which a copy would share with it"):
        dlens.compress(dlens.load(module, verify=False), "rtn", bits=3)


def test_a_model_without_matrices_is_refused() -> None:
    module = build(CONFIGS["llama"][0])
    model = dlens.load(module, verify=False)
    for block in module.model.layers:
        for name in ("self_attn", "mlp"):
            setattr(block, name, torch.nn.Identity())
    with pytest.raises(ValueError, match=r"has no linear matrices of floating-point numbers in its blocks"):
        dlens.compress(model, "rtn", bits=3)


def test_an_error_on_the_way_leaves_the_model_as_it_was(ar: dlens.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    model = shallow(ar, 2)
    monkeypatch.setattr(torch.linalg, "cholesky_ex", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
    with untouched(model), pytest.raises(KeyboardInterrupt):
        dlens.compress(model, "gptq", bits=3, rows=1)


def test_a_run_of_the_model_is_waited_for(ar: dlens.Model) -> None:
    model = shallow(ar, 1)
    done = threading.Event()

    def compress() -> None:
        dlens.compress(model, "rtn", bits=3)
        done.set()

    with model.lock:
        thread = threading.Thread(target=compress)
        thread.start()
        assert not done.wait(0.3)
    thread.join()
    assert done.is_set()
