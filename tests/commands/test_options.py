from dlens.commands.options import named_workers, parse_layers


def test_layers_are_read_from_text() -> None:
    assert parse_layers("3, 5-7,-1") == [3, 5, 6, 7, -1]


def test_workers_are_read_from_text() -> None:
    assert [named_workers(text) for text in ("0", "12", "slurm")] == [0, 12, "slurm"]
