// Tasks that the tests of the Node worker call.

import { appendFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** Leaves a line for each time that it is performed. */
export function record(job, path) {
  appendFileSync(path, `${job.id} node\n`);
  return 'node';
}

export function fail(job, text) {
  throw new Error(text);
}

export async function hold(job, milliseconds) {
  job.note({ holding: true });
  await sleep(milliseconds, undefined, { signal: job.signal });
  job.note({ holding: null, held: milliseconds });
  return [job.retries, { deep: [null, true, 1.5] }];
}
