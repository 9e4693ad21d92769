// A worker on WorkerService.Work:  node worker.mjs [TASKS.mjs] [JOBS]
//
// One stream carries everything. The worker sends its demand (how many jobs it can take), outcomes, notes,
// and heartbeats with the jobs it holds. The server sends jobs, receipts, jobs to stop, and commands.

import { hostname } from 'node:os';
import { resolve as resolvePath } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';
import grpc from '@grpc/grpc-js';
import * as json from './minion.mjs';

const { INVALID_ARGUMENT, PERMISSION_DENIED, UNAUTHENTICATED, UNIMPLEMENTED } = grpc.status;
const FATAL = [INVALID_ARGUMENT];
// After a welcome these can be temporary: a key that is being changed, or a proxy without a server.
const FATAL_AT_FIRST = [...FATAL, PERMISSION_DENIED, UNAUTHENTICATED, UNIMPLEMENTED];
const MAX_REPORT_BYTES = 1 << 20; // Limit of a report, unless a single outcome is larger.
const MAX_ENTRY_BYTES = (4 << 20) - 1024; // gRPC servers accept messages of up to 4 MiB.
const MAX_ERROR_LENGTH = 10_000;
const PATIENCE_MS = Number(process.env.MINION_PATIENCE_MS ?? 30_000); // Time until a receipt; after it the call is dead.
const keyOf = ({ id, retries }) => `${id}/${retries}`;

class Worker {
  id; // Assigned by the server, used in later calls.
  running = new Map(); // Running jobs, by id and generation.
  unconfirmed = []; // Outcomes and notes without a receipt, oldest first.
  serial = 0; // Numbers demands and reports.
  stopping = false;

  constructor(tasks, { jobs = 4, queues = ['default'] } = {}) {
    Object.assign(this, { tasks, jobs, queues });
  }

  /** Runs until stopped; reconnects with growing delays when the call breaks. */
  async run() {
    this.failures = 0;
    for (;;) {
      const { code, details } = await this.connect();
      if ((this.id ? FATAL : FATAL_AT_FIRST).includes(code)) throw new Error(details);
      if (this.stopping && this.isIdle()) return;
      const pause = Math.min(5000, 100 * 2 ** this.failures++) * (0.5 + Math.random() / 2);
      console.warn(`the call ended (${details || 'by the server'}): again in ${Math.round(pause)} ms`);
      await sleep(pause);
    }
  }

  /** Takes no more jobs; the worker ends when its running jobs have ended and are reported. */
  stop() {
    this.stopping = true;
    this.sendDemand(0);
    this.finishIfIdle();
  }

  connect() {
    this.demanded = 0; // The serial of the open demand, or 0.
    this.awaited = new Map([['welcome', performance.now()]]); // When it was sent, by serial of the report.
    this.read = 0;
    this.draining = false;
    this.stream = json.workers.work(json.metadata());
    this.stream.on('data', (response) => this.take(response));
    this.stream.on('error', () => {}); // The status has it too.
    this.send({ hello: this.hello() });
    this.beatEvery(PATIENCE_MS / 3);
    return new Promise((resolve) => this.stream.on('status', resolve)).finally(() =>
      clearInterval(this.heartbeat),
    );
  }

  hello() {
    const unreported = this.unconfirmed.flatMap(({ outcome }) => outcome?.job ?? []);
    return {
      id: this.id,
      host: hostname(),
      pid: process.pid,
      status: json.toStruct({
        jobs: this.jobs,
        queues: this.queues,
        tasks: Object.keys(this.tasks),
        type: 'Node',
      }),
      holds: [...[...this.running.values()].map(({ key }) => key), ...unreported],
    };
  }

  send(request) {
    this.stream.write({ ...request, read: this.read });
  }

  take(response) {
    this.read = response.serial;
    if (response.welcome) this.welcome(response.welcome);
    for (const { serial, jobs } of response.jobs) {
      if (serial === String(this.demanded)) this.demanded = 0;
      jobs.forEach((job) => this.runJob(job));
    }
    for (const receipt of response.receipts) this.confirm(receipt);
    for (const key of response.revoked) this.revoke(this.running.get(keyOf(key)));
    for (const command of response.commands) this.runCommand(command);
    if (response.draining) this.draining = true;
    this.demand();
    this.finishIfIdle();
  }

  welcome({ id, missingAfter }) {
    this.id = id;
    this.failures = 0;
    this.awaited.delete('welcome');
    this.beatEvery(Math.min(PATIENCE_MS / 3, (json.seconds(missingAfter) * 1000) / 6));
    this.report(); // Reports without a receipt from an earlier call.
  }

  beatEvery(milliseconds) {
    clearInterval(this.heartbeat);
    this.heartbeat = setInterval(() => this.beat(), milliseconds);
  }

  /** Sends hello again; the receipt of an empty report shows that the server still responds. */
  beat() {
    const [oldest = Infinity] = this.awaited.values();
    if (performance.now() - oldest > PATIENCE_MS) return this.stream.cancel(); // `run` reconnects.
    if (this.awaited.has('welcome')) return;
    this.send({ hello: this.hello() });
    this.sendReport([]);
  }

  /** Requests jobs for all free slots, with one demand at a time so that there are never too many. */
  demand() {
    const room = this.jobs - this.running.size;
    if (!this.demanded && room > 0 && !this.stopping && !this.draining) this.sendDemand(room);
  }

  sendDemand(credits) {
    this.demanded = ++this.serial;
    const demand = { serial: this.demanded, credits, queues: this.queues, tasks: Object.keys(this.tasks) };
    this.send({ demand });
  }

  async runJob({ id, retries, task, args, attempts, notes }) {
    const key = { id, retries };
    const run = { key, controller: new AbortController(), revoked: false };
    this.running.set(keyOf(key), run);
    const note = (members) => this.queue(sized({ notes: { id, notes: json.toStruct(members) } }));
    const { signal } = run.controller;
    const job = { id, task, retries, attempts, notes: json.fromStruct(notes), note, signal };
    let entry;
    try {
      entry = outcome(key, await this.tasks[task](job, ...json.fromList(args)));
    } catch (error) {
      entry = failure(key, error);
    }
    this.running.delete(keyOf(key));
    if (!run.revoked) this.queue(entry);
    this.demand();
    this.finishIfIdle();
  }

  /** Stops a revoked job; its outcome is not reported. */
  revoke(run) {
    if (!run) return;
    run.revoked = true;
    run.controller.abort();
  }

  queue(entry) {
    this.unconfirmed.push(entry);
    // One report for all entries of this turn of the loop.
    this.reporting ??= setImmediate(() => this.report());
  }

  /** Sends what has not been sent in this call. */
  report() {
    clearImmediate(this.reporting);
    this.reporting = undefined;
    if (this.awaited.has('welcome')) return;
    const unsent = this.unconfirmed.filter(({ serial }) => !this.awaited.has(serial));
    for (const batch of batches(unsent)) this.sendReport(batch);
  }

  sendReport(batch) {
    const serial = String(++this.serial);
    this.awaited.set(serial, performance.now());
    for (const entry of batch) entry.serial = serial;
    const notes = batch.flatMap((entry) => entry.notes ?? []);
    const outcomes = batch.flatMap((entry) => entry.outcome ?? []);
    this.send({ report: { serial, notes, outcomes } });
  }

  confirm({ serial, refusal }) {
    this.awaited.delete(serial);
    const reported = this.unconfirmed.filter((entry) => entry.serial === serial);
    if (refusal && reported.length > 1) {
      // Nothing was accepted. Separate reports show which one is refused.
      for (const entry of reported) entry.alone = true;
      return this.report();
    }
    this.unconfirmed = this.unconfirmed.filter((entry) => entry.serial !== serial);
    if (!refusal) return;
    console.error(`the server refuses a report: ${refusal}`);
    for (const { outcome } of reported) {
      // Without any outcome the job would be put back, run again and be refused again.
      if (outcome && !outcome.failed) this.queue(failure(outcome.job, `the result was refused: ${refusal}`));
      else if (outcome) this.queue(failure(outcome.job, 'the error was refused'));
    }
  }

  runCommand({ command, args }) {
    const [first] = json.fromList(args);
    if (command === 'jobs' && Number.isInteger(first)) this.jobs = first;
    if (command === 'stop') {
      for (const { key, controller } of this.running.values()) if (key.id === String(first)) controller.abort();
    }
  }

  isIdle() {
    return !this.running.size && !this.unconfirmed.length;
  }

  /** Closes this side of the call, so that the server forgets the worker and ends it. */
  finishIfIdle() {
    if (this.stopping && !this.demanded && this.isIdle()) this.stream.end();
  }
}

function outcome(job, value) {
  return sized({ outcome: { job, failed: false, result: json.toValue(value) } });
}

/** Makes an outcome that can be sent from anything that was thrown. */
function failure(job, error) {
  const text = typeof error?.message === 'string' ? error.message : error;
  const shown = (typeof text === 'string' ? text : inspect(text)).slice(0, MAX_ERROR_LENGTH);
  const result = json.toValue(shown.replace(json.LONE_SURROGATE, '\ufffd'));
  return sized({ outcome: { job, failed: true, result } });
}

function sized(entry) {
  const { notes = [], outcome = [] } = entry;
  entry.size = json.sizeOfRequest({ report: { notes: [notes].flat(), outcomes: [outcome].flat() } });
  if (entry.size <= MAX_ENTRY_BYTES) return entry;
  throw new RangeError(`too large: ${entry.size} bytes, expected at most ${MAX_ENTRY_BYTES}`);
}

/** Splits entries into reports of a bounded size, or of one entry. */
function* batches(entries) {
  let batch = [];
  let size = 0;
  for (const entry of entries) {
    size += entry.size;
    if (batch.length && (entry.alone || batch[0].alone || size > MAX_REPORT_BYTES)) {
      yield batch;
      batch = [];
      size = entry.size;
    }
    batch.push(entry);
  }
  if (batch.length) yield batch;
}

const [tasks = './tasks.mjs', jobs = '4'] = process.argv.slice(2);
const worker = new Worker(await import(resolvePath(tasks)), { jobs: Number(jobs) });
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => worker.stop());
await worker.run();
process.exit(0);
