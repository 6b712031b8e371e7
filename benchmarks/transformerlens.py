"""What the bridge of TransformerLens 4.3 costs for the same work: `make bench-transformerlens`.

It runs in an environment of its own and does not import dlens.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from tempfile import TemporaryDirectory

import torch

from benchmarks.shapes import qwen2_like
from benchmarks.timing import interleaved


def main() -> None:
    """Measure and print ratios to the plain forward."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    timings = interleaved(_cases(), arguments.rounds)
    for name in ("forward", "cache resid_post", "cache all"):
        ratio = timings.ratio(name, "plain")
        print(f"| {name} / plain | 113 M | {ratio.value:.3f} | {ratio.low:.3f} to {ratio.high:.3f} |")


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
        "cache resid_post": run(lambda: bridge.run_with_cache(ids, names_filter=resid_post)),
        "cache all": run(lambda: bridge.run_with_cache(ids)),
    }


if __name__ == "__main__":
    main()
