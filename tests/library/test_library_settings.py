from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest
from minion_client.tasks import REGISTRY, TaskKind
from minion_server.library import handle_upload, page_thumbnails, thumbnail_task
from minion_server.library.errors import SettingError
from minion_server.library.settings import DownloadSettings, Limits, Settings


def test_library_lies_where_its_variable_says(tmp_path: Path) -> None:
    settings = Settings.from_environment(
        {"MINION_LIBRARY_DIR": str(tmp_path / "a"), "MINION_DATA_DIR": str(tmp_path / "b")}
    )
    assert settings.directory == tmp_path / "a"
    assert settings.thumbnails == tmp_path / "a" / ".minion" / "thumbs"
    assert settings.limits == Limits()


def test_library_falls_back_to_the_data_directory_then_the_users() -> None:
    assert Settings.from_environment(
        {"MINION_DATA_DIR": "/data", "MINION_LIBRARY_DIR": ""}
    ).directory == Path("/data/library")
    assert (
        Settings.from_environment({}).directory == platformdirs.user_data_path("minion") / "library"
    )


def test_thumbnails_lie_where_their_variable_says(tmp_path: Path) -> None:
    settings = Settings.from_environment({"MINION_THUMB_DIR": str(tmp_path)})
    assert settings.thumbnails == tmp_path


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", "9" * 5000, "\u0661"])
@pytest.mark.parametrize("name", ["ENTRIES", "TOTAL_BYTES", "PAGE_BYTES", "RATIO", "PIXELS"])
def test_limit_that_is_no_count_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(SettingError, match=f"^MINION_LIBRARY_MAX_{name}: expected a .+, got "):
        Settings.from_environment({f"MINION_LIBRARY_MAX_{name}": value})


def test_limits_are_read() -> None:
    limits = Settings.from_environment(
        {
            "MINION_LIBRARY_MAX_ENTRIES": "1",
            "MINION_LIBRARY_MAX_TOTAL_BYTES": "2GiB",
            "MINION_LIBRARY_MAX_PAGE_BYTES": "3",
            "MINION_LIBRARY_MAX_RATIO": "4",
            "MINION_LIBRARY_MAX_PIXELS": "5",
        }
    ).limits
    assert limits == Limits(entries=1, total_bytes=2 * 2**30, page_bytes=3, ratio=4, pixels=5)


def test_download_settings_are_read() -> None:
    downloads = Settings.from_environment(
        {
            "MINION_LIBRARY_MAX_TOTAL_BYTES": "1MiB",
            "MINION_LIBRARY_DOWNLOAD_TIMEOUT": "10m",
            "MINION_LIBRARY_DOWNLOAD_IDLE_TIMEOUT": "5",
            "MINION_LIBRARY_ALLOW_PRIVATE_URLS": "yes",
        }
    ).downloads
    assert downloads == DownloadSettings(
        total_bytes=2**20, total_seconds=600, idle_seconds=5, allow_private=True
    )
    assert Settings.from_environment({}).downloads == DownloadSettings()
    assert not DownloadSettings().allow_private
    assert DownloadSettings().total_bytes == Limits().total_bytes


@pytest.mark.parametrize(
    ("name", "value"),
    [("DOWNLOAD_TIMEOUT", "0"), ("DOWNLOAD_IDLE_TIMEOUT", "x"), ("ALLOW_PRIVATE_URLS", "maybe")],
)
def test_download_settings_are_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(SettingError, match=f"^MINION_LIBRARY_{name}: expected .+, got "):
        Settings.from_environment({f"MINION_LIBRARY_{name}": value})


def test_importing_the_library_registers_its_tasks() -> None:
    functions = {
        "handle_upload": handle_upload,
        "thumbnail_task": thumbnail_task,
        "page_thumbnails": page_thumbnails,
    }
    for name, function in functions.items():
        registered = REGISTRY[name]
        assert registered.function is function
        assert registered.kind is TaskKind.PROCESS
        assert registered.timeout is not None


@pytest.mark.program
def test_importing_the_library_imports_nothing_slow() -> None:
    script = (
        "import sys, minion_server.library;"
        "print([name for name in ('PIL', 'grpc', 'google', 'starlette') if name in sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "[]"
