// Enqueues a job and prints its changes:  node enqueue.mjs greet '["Ada"]'

import { randomUUID } from 'node:crypto';
import { call, fromStruct, fromValue, metadata, minion, toList } from './minion.mjs';

const [task, args = '[]'] = process.argv.slice(2);
if (!task) {
  console.error('usage: node enqueue.mjs TASK [ARGS]');
  process.exit(2);
}

const { id } = await call(minion, 'enqueueJob', {
  task,
  args: toList(JSON.parse(args)),
  attempts: 3,
  // With a request id the call can be repeated and enqueues one job.
  requestId: randomUUID(),
});
console.log(`job ${id} is in the queue`);

// The current job, then each change until it ends.
let job;
for await (const response of minion.watchJob({ id }, metadata())) {
  job = response.job;
  console.log(job.state, fromStruct(job.notes));
}
console.log(fromValue(job.result));
process.exit(job.state === 'finished' ? 0 : 1);
