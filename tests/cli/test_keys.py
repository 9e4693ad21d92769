from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from minion_server.settings.keys import make_key, read_key


def test_a_key_is_made_once_by_many_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "data" / "api-key"
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: make_key(path), range(8)))
    assert made == {read_key(path)}
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["api-key"]


def test_a_key_is_kept_where_there_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: Path, _target: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    path = tmp_path / "api-key"
    assert make_key(path) == read_key(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["api-key"]
