// A worker on WorkerService.Work:  node worker.mjs [TASKS.mjs] [JOBS]
//
// One stream carries everything. Up go the demand (how many jobs there is room for), the outcomes, the
// notes, and heartbeats that say which jobs are held; down come jobs, receipts, and whatever the worker
// has to do: stop jobs, carry out commands, expect the end of the server.

import { hostname } from 'node:os';
import { resolve as resolvePath } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import grpc from '@grpc/grpc-js';
import * as json from './minion.mjs';

const FATAL = [grpc.status.UNAUTHENTICATED, grpc.status.INVALID_ARGUMENT, grpc.status.UNIMPLEMENTED];
const keyOf = ({ id, retries }) => `${id}/${retries}`;

class Worker {
  id; // Given by the server, kept for later calls.
  running = new Map(); // What runs, by id and generation.
  unanswered = []; // Outcomes and notes that the server has not confirmed, oldest first.
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
    this.reported = 0; // How much of `unanswered` has been sent in this call.
    this.read = 0;
    this.draining = false;
    this.stream = json.workers.work(json.metadata());
    this.stream.on('data', (response) => this.take(response));
    this.stream.on('error', () => {}); // The status tells it, too.
    this.send({ hello: this.hello() });
    return new Promise((resolve) => this.stream.on('status', resolve)).finally(() =>
      clearInterval(this.heartbeat),
    );
  }

  hello() {
    const held = [...this.running.keys(), ...this.unanswered.flatMap(({ outcome }) => outcome?.key ?? [])];
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
      holds: held.map((key) => ({ id: key.split('/')[0], retries: Number(key.split('/')[1]) })),
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
    const beat = () => this.send({ hello: this.hello() });
    this.heartbeat = setInterval(beat, (json.seconds(missingAfter) * 1000) / 6);
    this.report(); // What an earlier call has not confirmed.
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
    const key = keyOf({ id, retries });
    const controller = new AbortController();
    const run = { id, controller, revoked: false };
    this.running.set(key, run);
    const note = (members) => this.tell({ notes: { id, notes: json.toStruct(members) } });
    const { signal } = controller;
    const job = { id, task, retries, attempts, notes: json.fromStruct(notes), note, signal };
    let failed = false;
    let result;
    try {
      result = await this.tasks[task](job, ...json.fromList(args));
    } catch (error) {
      failed = true;
      result = String(error?.message ?? error);
    }
    this.running.delete(key);
    if (!run.revoked) {
      this.tell({ outcome: { key, job: { id, retries }, failed, result: json.toValue(result) } });
    }
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

  report() {
    clearImmediate(this.reporting);
    this.reporting = undefined;
    const news = this.unanswered.slice(this.reported);
    if (!news.length) return;
    this.reported = this.unanswered.length;
    const serial = ++this.serial;
    for (const each of news) each.serial = String(serial);
    const notes = news.flatMap(({ notes }) => notes ?? []);
    const outcomes = news.flatMap(({ outcome }) => outcome ?? []);
    this.send({ report: { serial, notes, outcomes } });
  }

  confirm({ serial, refusal }) {
    if (refusal) console.error(`the server refuses a report: ${refusal}`);
    const left = this.unanswered.filter((each) => each.serial !== serial);
    this.reported -= this.unanswered.length - left.length;
    this.unanswered = left;
  }

  obey({ command, args }) {
    const [first] = json.fromList(args);
    if (command === 'jobs') this.jobs = first;
    if (command === 'stop') {
      for (const { id, controller } of this.running.values()) if (id === String(first)) controller.abort();
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

const [tasks = './tasks.mjs', jobs = '4'] = process.argv.slice(2);
const worker = new Worker(await import(resolvePath(tasks)), { jobs: Number(jobs) });
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => worker.stop());
await worker.run();
process.exit(0);
