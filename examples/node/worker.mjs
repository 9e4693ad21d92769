// A worker on WorkerService.Work:  node worker.mjs [TASKS.mjs] [JOBS]
//
// One stream carries everything. Up go the demand (how many jobs there is room for), the outcomes, the
// notes, and heartbeats that say which jobs are held; down come jobs, receipts, and whatever the worker
// has to do: stop jobs, carry out commands, expect the end of the server.

import { hostname } from 'node:os';
import { resolve as resolvePath } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';
import grpc from '@grpc/grpc-js';
import * as json from './minion.mjs';

const FATAL = [grpc.status.UNAUTHENTICATED, grpc.status.INVALID_ARGUMENT, grpc.status.UNIMPLEMENTED];
const MAX_REPORT_BYTES = 1 << 20; // Of one report, unless a single outcome is larger.
const MAX_NEWS_BYTES = (4 << 20) - 1024; // gRPC servers accept messages of up to 4 MiB.
const MAX_ERROR_LENGTH = 10_000;
const PATIENCE_MS = Number(process.env.MINION_PATIENCE_MS ?? 30_000); // For a receipt; then the call is dead.
const keyOf = ({ id, retries }) => `${id}/${retries}`;

class Worker {
  id; // Given by the server, kept for later calls.
  running = new Map(); // What runs, by id and generation.
  unanswered = []; // Outcomes and notes without a receipt, oldest first.
  serial = 0; // Numbers demands and reports.
  stopping = false;

  constructor(tasks, { jobs = 4, queues = ['default'] } = {}) {
    Object.assign(this, { tasks, jobs, queues });
  }

  /** Works until told to stop; connects again, more and more slowly, when the call breaks. */
  async run() {
    this.failures = 0;
    for (;;) {
      const { code, details } = await this.connect();
      if (FATAL.includes(code)) throw new Error(details);
      if (this.stopping && this.isIdle()) return;
      const pause = Math.min(5000, 100 * 2 ** this.failures++) * (0.5 + Math.random() / 2);
      console.error(`the call ended (${details || 'by the server'}): again in ${Math.round(pause)} ms`);
      await sleep(pause);
    }
  }

  /** Takes no more jobs; the worker ends when what runs has ended and is reported. */
  stop() {
    this.stopping = true;
    this.ask(0);
    this.finishIfIdle();
  }

  connect() {
    this.demanded = 0; // The serial of the demand that is open, 0 if none is.
    this.awaited = new Map([['welcome', performance.now()]]); // When it was sent, by serial of the report.
    this.read = 0;
    this.draining = false;
    this.stream = json.workers.work(json.metadata());
    this.stream.on('data', (response) => this.take(response));
    this.stream.on('error', () => {}); // The status tells it, too.
    this.send({ hello: this.hello() });
    this.beatEvery(PATIENCE_MS / 3);
    return new Promise((resolve) => this.stream.on('status', resolve)).finally(() =>
      clearInterval(this.heartbeat),
    );
  }

  hello() {
    const unreported = this.unanswered.flatMap(({ outcome }) => outcome?.job ?? []);
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
      jobs.forEach((job) => this.perform(job));
    }
    for (const receipt of response.receipts) this.confirm(receipt);
    for (const key of response.revoked) this.revoke(this.running.get(keyOf(key)));
    for (const command of response.commands) this.obey(command);
    if (response.draining) this.draining = true;
    this.demand();
    this.finishIfIdle();
  }

  welcome({ id, missingAfter }) {
    this.id = id;
    this.failures = 0;
    this.awaited.delete('welcome');
    this.beatEvery(Math.min(PATIENCE_MS / 3, (json.seconds(missingAfter) * 1000) / 6));
    this.report(); // What an earlier call has not confirmed.
  }

  beatEvery(milliseconds) {
    clearInterval(this.heartbeat);
    this.heartbeat = setInterval(() => this.beat(), milliseconds);
  }

  /** Says hello again; the receipt of an empty report shows that the server still listens. */
  beat() {
    const [oldest = Infinity] = this.awaited.values();
    if (performance.now() - oldest > PATIENCE_MS) return this.stream.cancel(); // `run` connects again.
    if (this.awaited.has('welcome')) return;
    this.send({ hello: this.hello() });
    this.sendReport([]);
  }

  /** Asks for as many jobs as there is room for; one demand at a time, so that none is too many. */
  demand() {
    const room = this.jobs - this.running.size;
    if (!this.demanded && room > 0 && !this.stopping && !this.draining) this.ask(room);
  }

  ask(credits) {
    this.demanded = ++this.serial;
    const demand = { serial: this.demanded, credits, queues: this.queues, tasks: Object.keys(this.tasks) };
    this.send({ demand });
  }

  async perform({ id, retries, task, args, attempts, notes }) {
    const key = { id, retries };
    const run = { key, controller: new AbortController(), revoked: false };
    this.running.set(keyOf(key), run);
    const note = (members) => this.tell(sized({ notes: { id, notes: json.toStruct(members) } }));
    const { signal } = run.controller;
    const job = { id, task, retries, attempts, notes: json.fromStruct(notes), note, signal };
    let news;
    try {
      news = outcome(key, await this.tasks[task](job, ...json.fromList(args)));
    } catch (error) {
      news = failure(key, error);
    }
    this.running.delete(keyOf(key));
    if (!run.revoked) this.tell(news);
    this.demand();
    this.finishIfIdle();
  }

  /** Stops a job that has moved on: nobody asks how it ends here. */
  revoke(run) {
    if (!run) return;
    run.revoked = true;
    run.controller.abort();
  }

  tell(news) {
    this.unanswered.push(news);
    // Once for all that has come together until the loop turns.
    this.reporting ??= setImmediate(() => this.report());
  }

  /** Sends what has not been sent in this call. */
  report() {
    clearImmediate(this.reporting);
    this.reporting = undefined;
    if (this.awaited.has('welcome')) return;
    const unsent = this.unanswered.filter(({ serial }) => !this.awaited.has(serial));
    for (const batch of batches(unsent)) this.sendReport(batch);
  }

  sendReport(batch) {
    const serial = String(++this.serial);
    this.awaited.set(serial, performance.now());
    for (const news of batch) news.serial = serial;
    const notes = batch.flatMap((news) => news.notes ?? []);
    const outcomes = batch.flatMap((news) => news.outcome ?? []);
    this.send({ report: { serial, notes, outcomes } });
  }

  confirm({ serial, refusal }) {
    this.awaited.delete(serial);
    const reported = this.unanswered.filter((news) => news.serial === serial);
    if (refusal && reported.length > 1) {
      // Nothing was accepted. Each again in a report of its own shows which is to blame.
      for (const news of reported) news.alone = true;
      return this.report();
    }
    this.unanswered = this.unanswered.filter((news) => news.serial !== serial);
    if (!refusal) return;
    console.error(`the server refuses a report: ${refusal}`);
    for (const { outcome } of reported) {
      // Without any outcome the job would be put back, and run and be refused again.
      if (outcome && !outcome.failed) this.tell(failure(outcome.job, `the result was refused: ${refusal}`));
      else if (outcome) this.tell(failure(outcome.job, 'the error was refused'));
    }
  }

  obey({ command, args }) {
    const [first] = json.fromList(args);
    if (command === 'jobs' && Number.isInteger(first)) this.jobs = first;
    if (command === 'stop') {
      for (const { key, controller } of this.running.values()) if (key.id === String(first)) controller.abort();
    }
  }

  isIdle() {
    return !this.running.size && !this.unanswered.length;
  }

  /** Closes this side of the call, so that the server forgets the worker and ends it. */
  finishIfIdle() {
    if (this.stopping && !this.demanded && this.isIdle()) this.stream.end();
  }
}

function outcome(job, value) {
  return sized({ outcome: { job, failed: false, result: json.toValue(value) } });
}

/** Whatever was thrown, it makes an outcome that can be sent. */
function failure(job, error) {
  const text = typeof error?.message === 'string' ? error.message : error;
  const shown = (typeof text === 'string' ? text : inspect(text)).slice(0, MAX_ERROR_LENGTH);
  const result = json.toValue(shown.replace(json.LONE_SURROGATE, '\ufffd'));
  return sized({ outcome: { job, failed: true, result } });
}

function sized(news) {
  const { notes = [], outcome = [] } = news;
  news.size = json.sizeOfRequest({ report: { notes: [notes].flat(), outcomes: [outcome].flat() } });
  if (news.size <= MAX_NEWS_BYTES) return news;
  throw new RangeError(`too large: ${news.size} bytes, expected at most ${MAX_NEWS_BYTES}`);
}

/** Splits news into reports of a bounded size; what must be alone is. */
function* batches(allNews) {
  let batch = [];
  let size = 0;
  for (const news of allNews) {
    size += news.size;
    if (batch.length && (news.alone || batch[0].alone || size > MAX_REPORT_BYTES)) {
      yield batch;
      batch = [];
      size = news.size;
    }
    batch.push(news);
  }
  if (batch.length) yield batch;
}

const [tasks = './tasks.mjs', jobs = '4'] = process.argv.slice(2);
const worker = new Worker(await import(resolvePath(tasks)), { jobs: Number(jobs) });
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => worker.stop());
await worker.run();
process.exit(0);
