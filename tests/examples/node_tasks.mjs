// Tasks that the tests of the Node worker call.

import { appendFileSync, existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** Appends a line for each run. */
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

const values = {
  nul: () => '\0',
  whole: () => 2 ** 53,
  half: () => '\ud800',
  bigint: () => 1n,
  circle: () => {
    const circle = [];
    circle.push(circle);
    return circle;
  },
  large: () => 'x'.repeat(3 << 20),
  huge: () => 'x'.repeat(5 << 20),
  plain: () => 'plain',
  nothing: () => {
    throw Object.create(null);
  },
  nulError: () => {
    throw new Error('\0');
  },
  longError: () => {
    throw new Error('x'.repeat(5 << 20));
  },
  badNote: (job) => {
    job.note({ text: '\0' });
    return 'noted';
  },
  hugeNote: (job) => job.note({ text: 'x'.repeat(5 << 20) }),
};

let gathered = [];

/** Returns one of the values, at the same time as other jobs. */
export async function gather(job, others, value) {
  await new Promise((resolve) => {
    gathered.push(resolve);
    if (gathered.length < others) return;
    for (const resume of gathered) resume();
    gathered = [];
  });
  return values[value](job);
}

/** Ends when a file exists, after appending a line to a log. */
export async function await_file(job, path, log, value) {
  job.note({ waiting: true });
  while (!existsSync(path)) await sleep(5);
  appendFileSync(log, `${job.id}\n`);
  return values[value](job);
}
