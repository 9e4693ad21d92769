// Enqueues a job and shows what becomes of it:  node enqueue.mjs greet '["Ada"]'

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
  // With it the call can be repeated, whatever became of it, and enqueues one job.
  requestId: randomUUID(),
});
console.log(`job ${id} is in the queue`);

// The job as it is, and again at each change, until it has ended.
let job;
for await (const response of minion.watchJob({ id }, metadata())) {
  job = response.job;
  console.log(job.state, fromStruct(job.notes));
}
console.log(fromValue(job.result));
process.exit(job.state === 'finished' ? 0 : 1);
