import pytest

from rewards.config.input_error import InputError
from rewards.config.strict_model import StrictModel
from rewards.config.strict_yaml import validated


class Section(StrictModel):
    share: float = 0.5
    name: str = "a"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"shar": 0.1}, "Did you mean 'share'"),
        ({"share": "0.1"}, "share"),
        ({"name": 3}, "name"),
        ({"share": float("inf")}, "share: .*finite number"),
        ({"share": float("nan")}, "share: .*finite number"),
    ],
)
def test_what_is_unknown_converted_or_infinite_is_refused(content, says):
    with pytest.raises(InputError, match=says):
        validated(Section, content, where="a.yaml")


def test_nothing_changes_once_it_is_read():
    with pytest.raises(ValueError, match="frozen"):
        validated(Section, {"share": 1.0}, where="a.yaml").share = 0.2
