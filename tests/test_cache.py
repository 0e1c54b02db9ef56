"""The user's cache folder: what it keeps can be made again, so nothing fails for it."""

from pathlib import Path

import pytest

from stemma.resources.cache import cache_folder, cached, keep


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STEMMA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_is_kept_is_found_by_its_kind_and_name(folder: Path) -> None:
    assert cached("outlines", "stemma.hashing") is None
    keep("outlines", "stemma.hashing", {"key": "é"})
    assert cached("outlines", "stemma.hashing") == {"key": "é"}
    assert cached("faithful", "stemma.hashing") is None
    assert (folder / "outlines").stat().st_mode & 0o077 == 0
    assert cache_folder() == folder
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["stemma.hashing"]


@pytest.mark.parametrize("damage", [b"", b'{"key": "a"}', b"\xff\xfe"])
def test_what_is_no_entry_counts_as_absent(folder: Path, damage: bytes) -> None:
    keep("outlines", "module", {"key": "a"})
    (folder / "outlines" / "module").write_bytes(damage)
    assert cached("outlines", "module") is None


def test_an_entry_with_any_byte_changed_or_missing_counts_as_absent(folder: Path) -> None:
    keep("outlines", "module", {"key": "a"})
    file = folder / "outlines" / "module"
    whole = file.read_bytes()
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert cached("outlines", "module") is None, place
        file.write_bytes(whole[:place])
        assert cached("outlines", "module") is None, place
    file.write_bytes(whole)
    assert cached("outlines", "module") == {"key": "a"}


@pytest.mark.parametrize("name", ["../escaped", "a/b", ".hidden", "x" * 300])
def test_names_that_are_no_files_are_not_kept(folder: Path, name: str) -> None:
    keep("outlines", name, {"key": "a"})
    assert cached("outlines", name) is None
    assert not [path for path in folder.parent.rglob("*") if path.is_file()]


def test_a_cache_that_cannot_be_written_keeps_nothing(folder: Path) -> None:
    folder.write_text("a file where the folder should be")
    keep("outlines", "module", {"key": "a"})
    assert cached("outlines", "module") is None
