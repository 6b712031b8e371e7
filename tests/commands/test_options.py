from dlens.commands.options import parse_layers


def test_layers_are_read_from_text() -> None:
    assert parse_layers("3, 5-7,-1") == [3, 5, 6, 7, -1]
