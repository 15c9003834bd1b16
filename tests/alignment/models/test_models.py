"""Models by name: a folder that is built appears whole or not at all."""

import pytest

from alignment.models.prepared import built_whole


def test_a_folder_appears_only_when_it_is_whole(tmp_path):
    with built_whole(tmp_path / "init") as place:
        place.mkdir()
        (place / "config.json").write_text("{}")
        assert not (tmp_path / "init").exists()
    assert [file.name for file in tmp_path.rglob("*.json")] == ["config.json"]
    assert [folder.name for folder in tmp_path.iterdir()] == ["init"]


def test_what_breaks_off_leaves_no_folder_and_the_next_attempt_starts_afresh(tmp_path):
    def attempt(name, fails):
        with built_whole(tmp_path / "init") as place:
            place.mkdir()
            (place / name).write_text("{}")
            if fails:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt("half.json", fails=True)
    assert not (tmp_path / "init").exists()
    attempt("config.json", fails=False)
    assert [file.name for file in tmp_path.rglob("*.json")] == ["config.json"]
