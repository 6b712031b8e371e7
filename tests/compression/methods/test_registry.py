"""The table of methods."""

from dlens.compression.methods.registry import METHODS


def test_methods_are_known_by_their_names() -> None:
    assert list(METHODS) == ["rtn", "gptq", "magnitude", "wanda", "sparsegpt"]
    assert all(method.name == name and method.words for name, method in METHODS.items())
    assert {name for name, method in METHODS.items() if method.kind == "bits"} == {"rtn", "gptq"}
    assert [name for name, method in METHODS.items() if method.needs == "nothing"] == ["rtn", "magnitude"]
