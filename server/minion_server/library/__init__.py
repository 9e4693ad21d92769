"""The bundled tasks: importing this module registers all of them."""

from minion_server.library.tasks import handle_upload, page_thumbnails, thumbnail_task

__all__ = ["handle_upload", "page_thumbnails", "thumbnail_task"]
