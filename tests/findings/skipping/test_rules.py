from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlens.findings.skipping.rules import apart, best, best_run, heaviest_apart, paper_rule

SCORES = st.lists(st.floats(-1, 1, allow_nan=False), min_size=1, max_size=9)


def is_apart(layers: tuple[int, ...]) -> bool:
    return all(b - a > 1 for a, b in zip(sorted(layers), sorted(layers)[1:], strict=False))


@given(SCORES, st.data())
def test_the_dynamic_programme_equals_brute_force(scores: list[float], data: st.DataObject) -> None:
    allowed = data.draw(st.sets(st.sampled_from(range(len(scores)))))
    n = data.draw(st.integers(0, len(scores)))
    sets = [found for k in range(n + 1) for found in combinations(sorted(allowed), k) if is_apart(found)]
    found = heaviest_apart(scores, allowed, n)
    assert found in sets
    largest = max(map(len, sets))
    assert len(found) == largest
    sums = [sum(scores[layer] for layer in one) for one in sets if len(one) == largest]
    assert sum(scores[layer] for layer in found) == pytest.approx(max(sums), abs=1e-12)


@given(SCORES, st.integers(1, 5))
def test_the_most_similar_first_equals_the_algorithm_as_printed(scores: list[float], n: int) -> None:
    taken: list[int] = []
    for layer in sorted(range(len(scores)), key=lambda layer: -scores[layer]):
        if scores[layer] > 0.5 and len(taken) < n and layer - 1 not in taken and layer + 1 not in taken:
            taken.append(layer)
    candidates = [layer for layer, score in enumerate(scores) if score > 0.5]
    assert apart(scores, candidates, n) == tuple(taken)


@pytest.mark.parametrize(("n_layers", "keep_last", "most"), [(32, 8, 12), (32, 1, 15), (28, 8, 10), (28, 1, 13)])
def test_the_largest_set_apart_is_as_large_as_arithmetic_says(n_layers: int, keep_last: int, most: int) -> None:
    allowed = range(1, n_layers - keep_last)
    assert len(heaviest_apart([0.99] * n_layers, allowed, n_layers)) == most


def test_the_exact_set_stands_in_only_where_greedy_blocks_itself() -> None:
    scores = [0.96, 0.99, 0.97, 0.5, 0.98]
    assert paper_rule(scores, range(5), 2, 0.95) == ((1, 4), ())
    order, notes = paper_rule(scores, range(5), 3, 0.95)
    assert order == (4, 2, 0)
    assert notes == ("the most similar first gives 2; of the sets of 3 the most similar was taken",)


def test_neighbours_may_go_together_where_allowed() -> None:
    assert best([0.1, 0.9, 0.8], range(3), 2) == (1, 2)
    assert best([0.1, 0.9, 0.8], [0, 2], 5) == (2, 0)


@given(SCORES, st.integers(1, 4), st.integers(0, 3), st.integers(0, 3))
def test_a_run_is_the_best_of_those_inside(scores: list[float], n: int, first: int, last: int) -> None:
    allowed = range(first, len(scores) - last + n - 1)
    starts = [start for start in range(len(scores)) if first <= start and start + n <= allowed.stop]
    run = best_run(scores, allowed, n)
    assert bool(run) == bool(starts)
    if starts:
        assert run == tuple(range(run[0], run[0] + n)) and scores[run[0]] == max(scores[start] for start in starts)
