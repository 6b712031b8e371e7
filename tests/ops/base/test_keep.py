"""What captures and gradients share: name, places and words."""

from dataclasses import dataclass

import pytest

from dlens.ops.base.keep import Keep
from dlens.ops.base.op import Kept
from dlens.ops.base.scope import Scope
from tests.ops.targets import AR, DIFFUSION


@dataclass(frozen=True, kw_only=True)
class Note(Keep):
    """The smallest operation that keeps something."""

    def keeps(self) -> Kept:
        return Kept("record", self.key, "name it once")

    def words(self) -> str:
        return f"note {self.place_words()}"


@pytest.mark.parametrize(
    ("op", "key", "places", "words"),
    [
        (Note(point="z"), "z", (0, 1, 2, 3), "note z"),
        (Note(point="z", layers=(3, -4)), "z", (0, 3), "note z of layers 3, -4"),
        (Note(point="q", layers=(1,), single=1), "blocks.1.attn.hook_q", (1,), "note q of layers 1"),
        (Note(point="embed", scope=Scope(range(2))), "embed", (), "note embed at steps 0:2"),
        (Note(point="ln_final_scale"), "ln_final_scale", (), "note ln_final_scale"),
    ],
)
def test_name_places_and_words(op: Note, key: str, places: tuple[int, ...], words: str) -> None:
    op.check(DIFFUSION)
    assert (op.key, op.keeps().key, op.places(DIFFUSION), op.words()) == (key, key, places, words)
    layers = None if op.layers is None else list(op.layers)
    assert op.to_json() == {"op": "note", "point": op.point, "layers": layers} | op.scope.to_json()


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(IndexError, match="layer 4 of tiny"):
        Note(point="pattern", layers=(0, 4)).check(DIFFUSION)
    with pytest.raises(ValueError, match="noise=.* on tiny-ar; expected a diffusion model"):
        Note(point="embed", scope=Scope(noise=(0, 1))).check(AR)
