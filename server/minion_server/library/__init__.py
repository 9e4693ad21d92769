"""The bundled tasks: importing this module registers all of them."""

from minion_server.library.download_task import download_url
from minion_server.library.tasks import (
    backup_json,
    build_stat_hashes,
    find_duplicates,
    handle_upload,
    restore_backup,
    run_plugin,
)
from minion_server.library.thumbnail_tasks import (
    page_thumbnails,
    regen_all_thumbnails,
    tank_thumbnail_task,
    thumbnail_task,
    warm_cache,
)

__all__ = [
    "backup_json",
    "build_stat_hashes",
    "download_url",
    "find_duplicates",
    "handle_upload",
    "page_thumbnails",
    "regen_all_thumbnails",
    "restore_backup",
    "run_plugin",
    "tank_thumbnail_task",
    "thumbnail_task",
    "warm_cache",
]
