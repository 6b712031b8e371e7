"""A trace as a model of lm-eval, registered there as `dlens`; importing this file needs lm-eval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window, simple_parse_args_string

from dlens.evaluation.arguments import read_arguments
from dlens.evaluation.generation import Asked, answers
from dlens.evaluation.likelihood import Bound, Likelihood, Pair, log_likelihoods
from dlens.findings.scores.decoding import Decoding
from dlens.tracing.chain import Trace

__all__ = ["TraceLM"]

# What lm-eval takes where a config does not say.
_POSITIONS = 2048


@final
class TraceLM(TemplateLM):
    """What lm-eval asks, answered by a trace.

    Token boundaries, the token that stands for an empty context, and cutting from the left are those of lm-eval's own
    `HFLM`.

    Args:
        trace: the model with whatever operations it has.
        bound: draws and guidance of a diffusion model's likelihood.
        decoding: sampler, batches and seed.

    Examples:
        >>> import dlens
        >>> lm = TraceLM.create_from_arg_string("pretrained=trio/ar,skip=3-5,batch_size=4")
        >>> print(lm.trace)
        trace of trio/ar (16 layers, autoregressive)
          skip layers 3, 5
    """

    def __init__(self, trace: Trace, bound: Bound | None = None, decoding: Decoding | None = None) -> None:
        super().__init__()
        if trace.model.tokenizer is None:
            raise ValueError(
                f"{trace.model.name} has no tokenizer; expected one, as tasks are text; load with "
                f"dlens.load(..., tokenizer=...)"
            )
        self.trace = trace
        self.bound = Bound() if bound is None else bound
        self.decoding = Decoding(batch_size=8) if decoding is None else decoding
        self.tokenizer = trace.model.tokenizer
        self._device = trace.model.device

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict[str, Any] | None = None) -> TraceLM:
        """The model of `--model_args`; see `dlens.evaluation.arguments`."""
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: Mapping[str, Any], additional_config: Mapping[str, Any] | None = None
    ) -> TraceLM:
        """The same of arguments that were read; what lm-eval adds gives way to them."""
        added = {name: value for name, value in (additional_config or {}).items() if value is not None}
        return cls(*read_arguments(added | dict(arg_dict)))

    @property
    def eot_token_id(self) -> int:
        """The end of a text."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text without a context."""
        first = self.tokenizer.bos_token_id
        return self.eot_token_id if first is None else first

    @property
    def n_positions(self) -> int:
        """Positions that the model has."""
        return self.trace.model.n_positions or _POSITIONS

    @property
    def max_length(self) -> int:
        """The most tokens of a continuation: one before it is left, which in an AR model needs no position."""
        return self.n_positions - (self.trace.model.family.objective == "diffusion")

    @property
    def tokenizer_name(self) -> str:
        """By what lm-eval tells requests apart that it keeps."""
        return self.tokenizer.name_or_path.replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Token ids; a text that begins with the first special token gets none again."""
        if add_special_tokens is None and string.startswith(self.tokenizer.decode(self.prefix_token_id)):
            add_special_tokens = False
        asked = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return self.tokenizer.encode(string, **asked)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Messages as the text that the model was trained on."""
        return self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """The log-likelihood of continuations, and whether greedy decoding gives them."""
        # The forwards have a bar of their own.
        return super().loglikelihood(requests, disable_tqdm=True)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        found = self._likelihoods([(context, continuation) for _, context, continuation in requests])
        return [(each.value, each.greedy) for each in found]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of whole texts, window by window."""
        windows = [self._windows(*request.args) for request in requests]
        found = iter(self._likelihoods([window for own in windows for window in own]))
        return [sum(next(found).value for _ in own) for own in windows]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answers, each up to its first stop string."""
        given: list[Any] = [request.args for request in requests]
        prompts = [self.tok_encode(context) or [self.prefix_token_id] for context, _ in given]
        asked = [Asked.of(keywords) for _, keywords in given]
        return answers(self.trace, prompts, asked, self.decoding, self.n_positions)

    def _windows(self, text: str) -> list[tuple[list[int], list[int]]]:
        windows = get_rolling_token_windows(
            token_list=self.tok_encode(text),
            prefix_token=self.prefix_token_id,
            max_seq_len=self.max_length,
            context_len=1,
        )
        return list(map(make_disjoint_window, windows))

    def _likelihoods(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[Likelihood]:
        return log_likelihoods(self.trace, [self._cut(*pair) for pair in pairs], self.bound, self.decoding)

    def _cut(self, context: list[int], continuation: list[int]) -> Pair:
        """A pair that fits into the model, its context cut from the left."""
        if len(continuation) > self.max_length:
            raise ValueError(
                f"a continuation of {len(continuation)} tokens; expected at most {self.max_length}, which "
                f"{self.trace.model.name} has room for; leave the task out, or take a model with a longer context"
            )
        kept = context[-(self.max_length + 1 - len(continuation)) :]
        return Pair(tuple(kept), tuple(continuation))


# Not as a decorator, which would hide from type checkers what the class takes.
register_model("dlens")(TraceLM)
