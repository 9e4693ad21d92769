"""What the demonstration does, step by step."""

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

import grpc
from google.protobuf.json_format import MessageToDict
from minion.v1 import minion_service_pb2 as pb
from minion.v1 import minion_service_pb2_grpc

from minion_server.app import Server, find_key
from minion_server.cli.demo import tasks
from minion_server.cli.demo.pages import write_comic
from minion_server.cli.demo.shapes import DETAIL, QUEUED, STATUS, Check, find_deviation
from minion_server.settings.options import Settings

PAGES = 6
TIMEOUT_SECONDS = 60.0
NO_SUCH_ID = "0" * 40
DUPLICATE = "This file already exists in the Library."


class Deviation(Exception):
    """An answer that is not as it should be."""


async def demonstrate(directory: Path) -> int:
    """Run everything in a directory, and answer the exit status."""
    settings = Settings(
        data_dir=directory / "data",
        grpc_listen=("127.0.0.1", 0),
        http_listen=("127.0.0.1", 0),
        tasks=(tasks.__name__,),
        # One slot, which shows the order.
        jobs=1,
        spare=0,
    )
    server = Server(settings)
    await server.start()
    started = time.monotonic()
    try:
        async with grpc.aio.insecure_channel(server.grpc_address) as channel:
            demo = Demo(f"http://{server.http_address}", channel, find_key(settings), directory)
            print(f"REST at {demo.url}, gRPC at {server.grpc_address}, data in {directory}")
            await demo.run()
    except Deviation as deviation:
        print(f"\nNOT AS DOCUMENTED: {deviation}", file=sys.stderr)
        return 1
    except TimeoutError:
        print(f"\nNO ANSWER within {TIMEOUT_SECONDS:g} s", file=sys.stderr)
        return 1
    finally:
        await server.stop()
    print(f"\nAll {demo.checks} checks held, in {time.monotonic() - started:.1f} s.")
    return 0


class Demo:
    """The steps, and the two APIs they use.

    Attributes:
        url: Where REST is served.
        checks: How many checks held.
    """

    def __init__(self, url: str, channel: grpc.aio.Channel, key: str, directory: Path) -> None:
        self.url = url
        self.checks = 0
        self._stub = minion_service_pb2_grpc.MinionServiceStub(channel)
        self._key = key
        self._metadata = (("authorization", f"Bearer {key}"),)
        self._directory = directory

    async def run(self) -> None:
        """Take all steps.

        Raises:
            Deviation: An answer is not as documented.
        """
        comic = self._directory / "comic.cbz"
        write_comic(comic, PAGES)

        _title(f"Upload {comic.name}, {PAGES} pages, {comic.stat().st_size:,} bytes")
        uploaded = await self._perform("handle_upload", [str(comic)])
        self._check(uploaded["state"] == "finished", "the upload finished")
        self._check(uploaded["result"]["success"] == 1, "the upload succeeded")
        archive_id = uploaded["result"]["id"]

        _title("Upload it again")
        again = await self._perform("handle_upload", [str(comic)])
        self._check(again["result"]["success"] == 0, "the second upload is refused")
        self._check(again["result"]["message"] == DUPLICATE, "and says why")
        self._check(again["result"]["id"] == archive_id, "and names the archive")

        _title("Make thumbnails of its pages, and watch their progress")
        await self._watch_thumbnails(archive_id)

        _title("Let a job fail: a thumbnail of an archive that is not there")
        failed = await self._perform("thumbnail_task", [str(self._directory), NO_SUCH_ID, 0])
        self._check(failed["state"] == "failed", "the job failed")

        _title("Ask for what needs a key, without one; and for a job that is not there")
        await self._refusals(failed["id"])

        _title("Let three priorities overtake each other in one slot")
        await self._overtake()

    async def _perform(self, task: str, args: list[Any]) -> dict[str, Any]:
        job_id = await self._queue(task, args)
        await self._finished(job_id)
        return await self._show(job_id)

    async def _queue(self, task: str, args: list[Any], priority: int = 0) -> int:
        query = urllib.parse.urlencode({"args": json.dumps(args), "priority": priority})
        answer = await self._rest("POST", f"/api/minion/{task}/queue?{query}", 200, QUEUED)
        job_id: int = answer["job"]
        return job_id

    async def _finished(self, job_id: int) -> None:
        """Wait for the end of a job by its stream, as a client would."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            request = pb.WatchJobRequest(id=job_id)
            async for response in self._stub.WatchJob(request, metadata=self._metadata):
                print(f"    WatchJob {job_id}: {response.job.state}")

    async def _show(self, job_id: int) -> dict[str, Any]:
        """Show a job through the documented paths, and that gRPC says the same."""
        status = await self._rest("GET", f"/api/minion/{job_id}", 200, STATUS, key=False)
        detail = await self._rest("GET", f"/api/minion/{job_id}/detail", 200, DETAIL)
        by_grpc = await self._stub.GetJob(pb.GetJobRequest(id=job_id))
        print(f"    gRPC GetJob: {json.dumps(MessageToDict(by_grpc))}")
        self._check(by_grpc.state == status["state"], "GetJob gives the same state")
        self._check((by_grpc.error or None) == status["error"], "GetJob gives the same error")
        whole = await self._stub.GetJobDetail(
            pb.GetJobDetailRequest(id=job_id), metadata=self._metadata
        )
        print(f"    gRPC GetJobDetail: {json.dumps(MessageToDict(whole))}")
        same = {
            "args": MessageToDict(whole.job.args),
            "result": MessageToDict(whole.job)["result"],
            "finished": str(whole.job.finished.seconds),
            "worker": whole.job.worker,
        }
        for key, value in same.items():
            self._check(detail[key] == value, f"GetJobDetail gives the same {key}")
        return detail

    async def _watch_thumbnails(self, archive_id: str) -> None:
        job_id = await self._queue("page_thumbnails", [archive_id, 0])
        seen: list[int] = []
        async with asyncio.timeout(TIMEOUT_SECONDS):
            request = pb.WatchJobRequest(id=job_id)
            async for response in self._stub.WatchJob(request, metadata=self._metadata):
                notes = MessageToDict(response.job.notes)
                done = sum(value == "processed" for value in notes.values())
                seen.append(done)
                print(f"    WatchJob {job_id}: {response.job.state}, {done} of {PAGES} pages")
        self._check(seen == sorted(seen), "progress only grows")
        self._check(len(set(seen)) > 1, "progress is seen while it happens")
        detail = await self._show(job_id)
        expected = {str(page): "processed" for page in range(1, PAGES + 1)} | {
            "total_pages": PAGES,
            "id": archive_id,
        }
        self._check(detail["notes"] == expected, "there is a note for each page")
        self._check(detail["result"]["errors"] == [], "no page failed")
        cover = await self._perform("thumbnail_task", [str(self._directory), archive_id, 0])
        content = await asyncio.to_thread(Path(cover["result"]).read_bytes)
        self._check(content[:2] == b"\xff\xd8", "the thumbnail is a JPEG file")

    async def _refusals(self, job_id: int) -> None:
        refused = await self._rest("GET", f"/api/minion/{job_id}/detail", 401, key=False)
        self._check(list(refused) == ["error"], "the detail needs a key")
        missing = await self._rest("GET", "/api/minion/999999", 404)
        self._check(missing["error"] == "No job with this ID.", "a job that is not there")
        try:
            await self._stub.GetJobDetail(pb.GetJobDetailRequest(id=job_id))
        except grpc.aio.AioRpcError as error:
            print(f"    gRPC GetJobDetail without a key: {error.code().name}")
            self._check(error.code() == grpc.StatusCode.UNAUTHENTICATED, "so it does over gRPC")
        else:
            raise Deviation("GetJobDetail answered without a key")

    async def _overtake(self) -> None:
        holding = await self._queue("demo_hold", [])
        await self._until_active(holding)
        jobs = {
            name: await self._queue("demo_turn", [name], priority)
            for name, priority in (("low", -5), ("middle", 0), ("high", 5))
        }
        tasks.GATE.set()
        for job_id in (holding, *jobs.values()):
            await self._finished(job_id)
        started = {name: await self._started(job_id) for name, job_id in jobs.items()}
        order = sorted(started, key=lambda name: started[name])
        print(f"    enqueued: {', '.join(jobs)}; started: {', '.join(order)}")
        self._check(order == ["high", "middle", "low"], "the highest priority started first")

    async def _until_active(self, job_id: int) -> None:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            request = pb.WatchJobRequest(id=job_id)
            async for response in self._stub.WatchJob(request, metadata=self._metadata):
                if response.job.state == "active":
                    return

    async def _started(self, job_id: int) -> float:
        whole = await self._stub.GetJobDetail(
            pb.GetJobDetailRequest(id=job_id), metadata=self._metadata
        )
        return whole.job.started.seconds + whole.job.started.nanos / 1e9

    async def _rest(
        self,
        method: str,
        path: str,
        expected: int,
        shape: Mapping[str, Check] | None = None,
        *,
        key: bool = True,
    ) -> dict[str, Any]:
        request = urllib.request.Request(self.url + path, method=method)  # noqa: S310 - our own
        if key:
            request.add_header("Authorization", f"Bearer {self._key}")
        status, answer = await asyncio.to_thread(_fetch, request)
        print(f"  {method} {urllib.parse.unquote_plus(path)}")
        print(f"    {status} {json.dumps(answer)}")
        self._check(status == expected, f"{method} {path} answers {expected}")
        if shape is not None:
            deviation = find_deviation(answer, shape)
            self._check(deviation is None, f"{path} has the documented shape ({deviation})")
        assert isinstance(answer, dict)
        return answer

    def _check(self, held: bool, what: str) -> None:  # noqa: FBT001 - what is checked comes first
        if not held:
            raise Deviation(what)
        self.checks += 1


def _fetch(request: urllib.request.Request) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310 - our own
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def _title(text: str) -> None:
    print(f"\n{text}")
