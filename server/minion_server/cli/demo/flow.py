"""The steps of the demonstration."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grpc import StatusCode
from minion_client import AsyncClient, JobInfo, KeyRefusedError

from minion_server.app import Server, find_key
from minion_server.cli.demo import tasks
from minion_server.cli.demo.pages import write_comic
from minion_server.cli.demo.shapes import DETAIL, QUEUED, STATUS, find_deviation
from minion_server.settings.options import Settings

PAGES = 6
TIMEOUT_SECONDS = 60.0
DUPLICATE = "This file already exists in the Library."


class Deviation(Exception):
    """A response that is not as documented."""


async def demonstrate(directory: Path) -> int:
    """Run all steps in a directory, and return the exit status."""
    settings = Settings(
        data_dir=directory / "data",
        grpc_listen=("127.0.0.1", 0),
        http_listen=("127.0.0.1", 0),
        tasks=(tasks.__name__,),
        # One slot, in which jobs run in order.
        jobs=1,
        spare=0,
    )
    server = Server(settings)
    await server.start()
    started = time.monotonic()
    try:
        demo = Demo(f"http://{server.http_address}", server.grpc_address, find_key(settings))
        print(f"REST at {demo.url}, gRPC at {demo.target}, data in {directory}")
        async with demo.minion:
            await demo.run(directory)
    except Deviation as deviation:
        print(f"\nNOT AS DOCUMENTED: {deviation}", file=sys.stderr)
        return 1
    except TimeoutError:
        print(f"\nNO RESPONSE within {TIMEOUT_SECONDS:g} s", file=sys.stderr)
        return 1
    finally:
        await server.stop()
    print(f"\nAll {demo.checks} checks held, in {time.monotonic() - started:.1f} s.")
    return 0


class Demo:
    """The steps, over REST and gRPC.

    Attributes:
        url: Address of the REST API.
        target: Address of the gRPC API.
        minion: A client of it.
        checks: Number of checks that succeeded.
    """

    def __init__(self, url: str, target: str, key: str) -> None:
        self.url = url
        self.target = target
        self.minion = AsyncClient(target, key=key)
        self.checks = 0
        self._key = key

    async def run(self, directory: Path) -> None:
        """Run all steps; raise Deviation if a response is not as documented."""
        comic = directory / "comic.cbz"
        write_comic(comic, PAGES)

        print(f"\nUpload {comic.name}, {PAGES} pages, {comic.stat().st_size:,} bytes")
        uploaded = await self._run_job("handle_upload", [str(comic)])
        self._check(uploaded["state"] == "finished", "the upload finished")
        self._check(uploaded["result"]["success"] == 1, "the upload succeeded")
        archive_id = uploaded["result"]["id"]

        print("\nUpload it again")
        again = await self._run_job("handle_upload", [str(comic)])
        self._check(again["result"]["success"] == 0, "the second upload is refused")
        self._check(again["result"]["message"] == DUPLICATE, "with the reason")
        self._check(again["result"]["id"] == archive_id, "and the id of the archive")

        print("\nMake thumbnails of its pages, and watch their progress")
        await self._watch_thumbnails(archive_id)
        cover = await self._run_job("thumbnail_task", [str(directory), archive_id, 0])
        content = await asyncio.to_thread(Path(cover["result"]).read_bytes)
        self._check(content[:2] == b"\xff\xd8", "the thumbnail is a JPEG file")

        print("\nLet a job fail")
        failed = await self._run_job("demo_fail", [])
        self._check(failed["state"] == "failed", "the job failed")

        print("\nRequest what needs a key without one, and a job that does not exist")
        await self._refusals(failed["id"])

        print("\nLet three priorities overtake each other in one slot")
        await self._overtake()

    async def _watch_thumbnails(self, archive_id: str) -> None:
        job_id = await self._enqueue("page_thumbnails", [archive_id, 0])
        jobs = await self._watch(job_id)
        seen = [sum(note == "processed" for note in job.notes.values()) for job in jobs]
        self._check(seen == sorted(seen), "progress only grows")
        self._check(len(set(seen)) > 1, "progress is seen while it happens")
        detail = await self._show(job_id)
        pages = {str(page): "processed" for page in range(1, PAGES + 1)}
        expected = pages | {"total_pages": PAGES, "id": archive_id}
        self._check(detail["notes"] == expected, "there is a note for each page")
        self._check(detail["result"]["errors"] == [], "no page failed")

    async def _refusals(self, job_id: int) -> None:
        refused = await self._rest("GET", f"/api/minion/{job_id}/detail", 401, key=False)
        self._check(list(refused) == ["error"], "the detail needs a key")
        missing = await self._rest("GET", "/api/minion/999999", 404)
        self._check(missing["error"] == "No job with this ID.", "a job that does not exist")
        async with AsyncClient(self.target) as stranger:
            try:
                await stranger.get(job_id)
            except KeyRefusedError as error:
                print(f"    gRPC GetJobDetail without a key: {error}")
                self._check(
                    error.code is StatusCode.UNAUTHENTICATED, "it needs a key over gRPC too"
                )
            else:
                raise Deviation("GetJobDetail succeeds without a key")

    async def _overtake(self) -> None:
        holding = await self._enqueue("demo_hold", [])
        async with asyncio.timeout(TIMEOUT_SECONDS):
            async for job in self.minion.watch(holding):
                if job.state == "active":
                    break
        ids = {
            name: await self._enqueue("demo_turn", [name], priority)
            for name, priority in (("low", -5), ("middle", 0), ("high", 5))
        }
        tasks.GATE.set()
        for job_id in (holding, *ids.values()):
            await self._watch(job_id)
        jobs = {name: await self.minion.get(job_id) for name, job_id in ids.items()}
        order = sorted(jobs, key=lambda name: str(jobs[name].started))
        print(f"    enqueued: {', '.join(ids)}; started: {', '.join(order)}")
        self._check(order == ["high", "middle", "low"], "the highest priority started first")

    async def _run_job(self, task: str, args: list[Any]) -> dict[str, Any]:
        job_id = await self._enqueue(task, args)
        await self._watch(job_id)
        return await self._show(job_id)

    async def _enqueue(self, task: str, args: list[Any], priority: int = 0) -> int:
        query = urllib.parse.urlencode({"args": json.dumps(args), "priority": priority})
        response = await self._rest("POST", f"/api/minion/{task}/queue?{query}", 200, QUEUED)
        job_id: int = response["job"]
        return job_id

    async def _watch(self, job_id: int) -> list[JobInfo]:
        """Follow a job until it has ended, and return what was seen of it."""
        jobs = []
        async with asyncio.timeout(TIMEOUT_SECONDS):
            async for job in self.minion.watch(job_id):
                print(f"    WatchJob {job_id}: {job.state} {job.notes or ''}".rstrip())
                jobs.append(job)
        return jobs

    async def _show(self, job_id: int) -> dict[str, Any]:
        """Get a job by all paths and methods, compare them, and return its detail."""
        status = await self._rest("GET", f"/api/minion/{job_id}", 200, STATUS, key=False)
        detail = await self._rest("GET", f"/api/minion/{job_id}/detail", 200, DETAIL)
        by_grpc = await self.minion.get_status(job_id)
        print(f"    gRPC GetJob: {by_grpc}")
        self._check(by_grpc.state == status["state"], "GetJob has the same state")
        self._check(by_grpc.error == status["error"], "GetJob has the same error")
        whole = await self.minion.get(job_id)
        print(f"    gRPC GetJobDetail: {whole}")
        finished = "" if whole.finished is None else str(int(whole.finished.timestamp()))
        same = {"args": whole.args, "result": whole.result, "worker": whole.worker}
        for name, value in {**same, "finished": finished}.items():
            self._check(detail[name] == value, f"GetJobDetail has the same {name}")
        return detail

    async def _rest(
        self,
        method: str,
        path: str,
        expected: int,
        shape: Mapping[str, str] | None = None,
        *,
        key: bool = True,
    ) -> dict[str, Any]:
        request = urllib.request.Request(self.url + path, method=method)  # noqa: S310 - our own
        if key:
            request.add_header("Authorization", f"Bearer {self._key}")
        status, response = await asyncio.to_thread(_fetch, request)
        print(f"  {method} {urllib.parse.unquote_plus(path)}")
        print(f"    {status} {json.dumps(response)}")
        self._check(status == expected, f"{method} {path} has the status {expected}")
        if shape is not None:
            deviation = find_deviation(response, shape)
            self._check(deviation is None, f"{path} has the documented shape ({deviation})")
        assert isinstance(response, dict)
        return response

    def _check(self, held: bool, text: str) -> None:  # noqa: FBT001 - what is checked comes first
        if not held:
            raise Deviation(text)
        self.checks += 1


def _fetch(request: urllib.request.Request) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310 - our own
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)
