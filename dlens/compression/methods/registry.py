"""The methods by their names: a new one is a file beside this and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dlens.compression.methods.gptq import gptq
from dlens.compression.methods.magnitude import magnitude
from dlens.compression.methods.method import Method
from dlens.compression.methods.rtn import rtn
from dlens.compression.methods.sparsegpt import sparsegpt
from dlens.compression.methods.wanda import wanda

__all__ = ["METHODS"]

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        method.name: method
        for method in (
            Method("rtn", "bits", "nothing", False, rtn, "each weight to the nearest level of its group"),
            Method("gptq", "bits", "hessian", True, gptq, "GPTQ (arXiv 2210.17323)"),
            Method(
                "magnitude", "sparsity", "nothing", False, magnitude, "the smallest weights of each matrix are zero"
            ),
            Method("wanda", "sparsity", "norms", False, wanda, "Wanda (arXiv 2306.11695)"),
            Method("sparsegpt", "sparsity", "hessian", True, sparsegpt, "SparseGPT (arXiv 2301.00774)"),
        )
    }
)
"""Word -> method."""
