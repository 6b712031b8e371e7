"""What the bridge of TransformerLens 4.3 costs for the same work: `make bench-transformerlens`.

It runs in an environment of its own and does not import dlens.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.rows import Row, publish
from benchmarks.shapes import qwen2_like
from benchmarks.timing import interleaved


def main(rounds: int = 15, json: Path | None = None, threads: int = 2) -> None:
    """Measure and print ratios to the plain forward.

    Args:
        rounds: how often each is timed.
        json: where to write the same as JSON.
        threads: of torch.
    """
    torch.set_num_threads(threads)
    cases = _cases()
    timings = interleaved(cases, rounds)
    rows = [Row.of(f"{name} / plain", "113 M", timings.ratio(name, "plain")) for name in cases if name != "plain"]
    publish(rows, json, "benchmarks.transformerlens", rounds=rounds, threads=threads)


def _cases() -> dict[str, Callable[[], object]]:
    from transformer_lens.model_bridge import TransformerBridge  # pyright: ignore[reportMissingImports]

    plain, wrapped = qwen2_like(), qwen2_like()
    with TemporaryDirectory() as folder:
        wrapped.config.save_pretrained(folder)  # pyright: ignore
        bridge = TransformerBridge.boot_transformers(folder, hf_model=wrapped, device="cpu")
    ids = torch.randint(8, 16384, (1, 256), generator=torch.Generator().manual_seed(0))

    def resid_post(name: str) -> bool:
        return name.endswith("hook_resid_post") or name.endswith("hook_out") and name.count(".") == 2

    def run(case: Callable[[], object]) -> Callable[[], object]:
        return torch.no_grad()(case)

    return {
        "plain": run(lambda: plain(input_ids=ids, use_cache=False).logits),
        "forward": run(lambda: bridge(ids)),
        "cache of `resid_post` of all layers": run(lambda: bridge.run_with_cache(ids, names_filter=resid_post)),
        "cache of everything": run(lambda: bridge.run_with_cache(ids)),
    }


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
