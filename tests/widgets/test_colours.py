import pytest

from dlens.widgets.colours import ink_on, ramp


def test_text_on_every_colour_can_be_read() -> None:
    def light(colour: str) -> float:
        """Relative luminance, as WCAG 2 has it."""
        if len(colour) == 4:
            colour = "#" + "".join(2 * each for each in colour[1:])
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for i in range(101):
        colour = ramp(i / 100)
        low, high = sorted([light(colour), light(ink_on(colour))])
        assert (high + 0.05) / (low + 0.05) >= 4.5, colour


@pytest.mark.parametrize(
    "share, colour",
    [(-1, "#123570"), (0, "#123570"), (1 / 3, "#666970"), (1, "#fdea45"), (7, "#fdea45")],
)
def test_a_share_has_its_colour(share: float, colour: str) -> None:
    assert ramp(share) == colour


def test_a_place_between_two_points_is_mixed() -> None:
    # Half-way from (18, 53, 112) to (60, 77, 110).
    assert ramp(1 / 12) == "#27416f"
