"""Count the floating-point operations of what a module runs; an operation that nobody knows how to count is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dlens.models.packed import is_packed

__all__ = ["Counted", "counting"]

Formula = Callable[..., int]

# Moving, making and comparing numbers; by convention only products of matrices are counted. Elementwise
# operations, reductions and views say themselves what they are.
_FREE = frozenset(
    """
    alias all amax amin any arange argmax argmin argsort bernoulli bincount bucketize cat clone complex
    constant_pad_nd contiguous copy copy_ count_nonzero cummax cumprod cumsum dequantize detach embedding empty
    empty_like empty_strided equal expand eye fill fill_ flip floor_divide full full_like _fused_rms_norm gather
    histc index index_add index_add_ index_copy index_copy_ index_fill index_put index_put_ index_select
    _is_all_true is_same_size isin item kthvalue lift lift_fresh lift_fresh_copy linalg_vector_norm linspace
    _local_scalar_dense log_sigmoid_forward _log_softmax logcumsumexp logsumexp masked_fill masked_fill_
    masked_scatter masked_scatter_ masked_select max mean median min multinomial native_dropout native_group_norm
    native_layer_norm new_empty new_empty_strided new_full new_ones new_zeros nonzero norm normal_ one_hot ones
    ones_like pin_memory polar prod quantize_per_channel quantize_per_tensor rand rand_like randint randn
    randn_like random_ renorm repeat repeat_interleave reshape resize_ rms_norm roll _safe_softmax scalar_tensor
    scatter scatter_ scatter_add scatter_add_ scatter_reduce scatter_reduce_ searchsorted set_ slice_scatter
    _softmax sort split_with_sizes stack std sum sym_size take tile _to_copy topk tril tril_indices triu
    triu_indices unbind unfold uniform_ _unique2 unique_consecutive unique_dim _unsafe_index _unsafe_index_put
    _unsafe_view var where zero_ zeros zeros_like
    """.split()
)


def _attention(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **named: Any) -> int:
    """Scores and values: 2 · rows · heads · queries · keys · (width of keys + width of values)."""
    batch, heads, queries, width = query.shape
    return 2 * batch * heads * queries * key.shape[-2] * (width + value.shape[-1])


def _groups(left: Tensor, right: Tensor, *rest: Any, **named: Any) -> int:
    """Each row meets the matrix of its group alone, whichever side holds the groups side by side."""
    return _product(left[0] if left.ndim > right.ndim else left, right)


def _vector(matrix: Tensor, vector: Tensor, *rest: Any, **named: Any) -> int:
    return 2 * matrix.numel()


def _added_vector(added: Tensor, matrix: Tensor, vector: Tensor, *rest: Any, **named: Any) -> int:
    return 2 * matrix.numel()


def _product(left: Tensor, right: Tensor, *rest: Any, **named: Any) -> int:
    return 2 * left.numel() * right.shape[-1]


def _triangular(matrix: Tensor, right: Tensor, *rest: Any, **named: Any) -> int:
    """Half a product: each unknown meets those that were found before it."""
    return right.numel() * matrix.shape[-1]


# What torch's own table lacks, by the name of the operation.
_FORMULAS: Mapping[str, Formula] = MappingProxyType(
    {
        "aten::_scaled_dot_product_flash_attention_for_cpu": _attention,
        "aten::_scaled_dot_product_fused_attention_overrideable": _attention,
        # Their formulas in torch refuse fewer key heads than query heads before 2.13.
        "aten::_scaled_dot_product_flash_attention": _attention,
        "aten::_scaled_dot_product_efficient_attention": _attention,
        "aten::_scaled_dot_product_cudnn_attention": _attention,
        "aten::_grouped_mm": _groups,
        "aten::_scaled_grouped_mm": _groups,
        "transformers::grouped_mm_fallback": _groups,
        "aten::_int_mm": _product,
        "aten::mv": _vector,
        "aten::addmv": _added_vector,
        "aten::dot": _vector,
        "aten::linalg_solve_triangular": _triangular,
        "aten::vdot": _vector,
    }
)


@final
@dataclass
class Counted:
    """What a forward cost.

    Args:
        flops: two for each multiplication of matrices.
        unknown: names of operations that could not be counted.
    """

    flops: int = 0
    unknown: set[str] = field(default_factory=set)

    def total(self, model: str) -> int:
        """All of them.

        Raises:
            NotImplementedError: something ran that cannot be counted.
        """
        if self.unknown:
            raise NotImplementedError(
                f"{model} runs {', '.join(sorted(self.unknown))}, whose FLOPs dlens cannot count; expected operations "
                f"with a formula, as an unknown one would count as none; use another kernel, such as "
                f"attn_implementation='sdpa', or do without record.flops"
            )
        return self.flops


@contextmanager
def counting(module: nn.Module) -> Iterator[Counted]:
    """Count what a module runs.

    A linear layer costs the same whatever its weights are stored in, so those whose weights are no plain
    matrix are counted by their widths.
    """
    counted = Counted()
    counter = _Counter(counted)
    with ExitStack() as stack:
        for part in module.modules():
            if is_packed(part):
                before = part.register_forward_pre_hook(lambda *_: counter.enter())
                after = part.register_forward_hook(lambda own, _, output: counter.leave(own, output), always_call=True)
                stack.callback(before.remove)
                stack.callback(after.remove)
        stack.enter_context(counter)
        yield counted


@final
class _Counter(TorchDispatchMode):
    """Sees every operation that torch runs."""

    def __init__(self, counted: Counted) -> None:
        super().__init__()
        self._counted = counted
        self._within = 0

    def enter(self) -> None:
        self._within += 1

    def leave(self, part: Any, output: Any) -> None:
        self._within -= 1
        first = output[0] if isinstance(output, (tuple, list)) else output
        if not self._within and isinstance(first, Tensor):
            self._counted.flops += 2 * first.numel() * int(part.in_features)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = _formula(func)
        if self._within or formula is None and _is_free(func):
            return func(*args, **kwargs)
        if formula is None:
            with self:
                whole = func.decompose(*args, **kwargs)
            if whole is not NotImplemented:
                return whole
            self._counted.unknown.add(str(func))
        returned = func(*args, **kwargs)
        if formula is not None:
            self._counted.flops += formula(*args, **kwargs, out_val=returned)
        return returned


def _formula(func: Any) -> Formula | None:
    from torch.utils.flop_counter import flop_registry

    packet = getattr(func, "_overloadpacket", func)
    own = _FORMULAS.get(getattr(packet, "_qualified_op_name", ""))
    return own or flop_registry.get(packet)


def _is_free(func: Any) -> bool:
    tags = (torch.Tag.pointwise, torch.Tag.reduction, torch.Tag.view_copy)
    name = func._overloadpacket._qualified_op_name
    namespace, _, short = name.partition("::")
    return namespace in ("aten", "prim") and (func.is_view or short in _FREE or any(tag in func.tags for tag in tags))
