// The tasks of this worker: each exported function is one, under its name.

import { setTimeout as sleep } from 'node:timers/promises';

export function greet(job, name) {
  return `Hello, ${name}!`;
}

export async function crunch(job, numbers) {
  for (const done of numbers.keys()) {
    // Ends immediately when the job is cancelled.
    await sleep(500, undefined, { signal: job.signal });
    job.note({ done: done + 1 });
  }
  return numbers.reduce((sum, number) => sum + number, 0);
}
