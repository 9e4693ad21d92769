"""A worker of the unary verbs alone: `simple_worker.py ADDRESS`, its key in MINION_API_KEY."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Value
from minion.v1 import worker_service_pb2 as pb
from minion.v1 import worker_service_pb2_grpc

AT_ONCE = 20


def main(address: str) -> None:
    metadata = (("authorization", f"Bearer {os.environ['MINION_API_KEY']}"),)
    with grpc.insecure_channel(address) as channel:
        workers = worker_service_pb2_grpc.WorkerServiceStub(channel)
        registration = pb.RegisterWorkerRequest(host="localhost", pid=os.getpid())
        registration.id = workers.RegisterWorker(registration, metadata=metadata).id
        claim = pb.DequeueJobsRequest(
            id=registration.id, tasks=["record"], max_jobs=AT_ONCE, wait=Duration(seconds=5)
        )
        while True:
            jobs = workers.DequeueJobs(claim, metadata=metadata).jobs
            if not jobs:
                # The heartbeat.
                workers.RegisterWorker(registration, metadata=metadata)
            for job in jobs:
                with Path(job.args.values[0].string_value).open("a", encoding="utf-8") as log:
                    log.write(f"{job.id} python\n")
                finish = pb.FinishJobRequest(
                    id=job.id, retries=job.retries, result=Value(string_value="python")
                )
                assert workers.FinishJob(finish, metadata=metadata).accepted


if __name__ == "__main__":
    main(sys.argv[1])
