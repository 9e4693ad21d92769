// What the worker and the enqueuer have in common: the services, the key, and JSON.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import loader from '@grpc/proto-loader';

const PROTO = process.env.MINION_PROTO ?? fileURLToPath(new URL('../../proto', import.meta.url));
// protobufjs brings google/api/annotations.proto.
const COMMON = dirname(createRequire(import.meta.url).resolve('protobufjs/package.json'));

const definition = loader.loadSync(
  ['minion', 'worker'].map((name) => `minion/v1/${name}_service.proto`),
  // Ids have 64 bits, which a number of JavaScript has not: they are strings here.
  { includeDirs: [PROTO, COMMON], longs: String, enums: String, defaults: true, oneofs: true },
);
const { MinionService, WorkerService } = grpc.loadPackageDefinition(definition).minion.v1;

export const target = process.env.MINION_TARGET ?? '127.0.0.1:50051';
const credentials = grpc.credentials.createInsecure();
export const minion = new MinionService(target, credentials);
export const workers = new WorkerService(target, credentials);

export function metadata() {
  const metadata = new grpc.Metadata();
  metadata.set('authorization', `Bearer ${key()}`);
  return metadata;
}

function key() {
  const kept = join(homedir(), '.local/share/minion/api-key');
  return process.env.MINION_API_KEY ?? readFileSync(kept, 'utf8').trim();
}

/** Calls a unary method, and answers a promise of the response. */
export function call(client, method, request, seconds = 30) {
  return new Promise((resolve, reject) => {
    const options = { deadline: Date.now() + seconds * 1000 };
    client[method](request, metadata(), options, (error, response) =>
      error ? reject(error) : resolve(response),
    );
  });
}

// Plain JSON as google.protobuf.Value, Struct and ListValue, and back.

export function toValue(json) {
  if (json === null || json === undefined) return { nullValue: 'NULL_VALUE' };
  if (typeof json === 'number') return { numberValue: json };
  if (typeof json === 'string') return { stringValue: json };
  if (typeof json === 'boolean') return { boolValue: json };
  return Array.isArray(json) ? { listValue: toList(json) } : { structValue: toStruct(json) };
}

export const toList = (json) => ({ values: json.map(toValue) });

export const toStruct = (json) => ({
  fields: Object.fromEntries(Object.entries(json).map(([name, value]) => [name, toValue(value)])),
});

export function fromValue(value) {
  switch (value?.kind) {
    case 'listValue':
      return fromList(value.listValue);
    case 'structValue':
      return fromStruct(value.structValue);
    case 'nullValue':
    case undefined:
      return null;
    default:
      return value[value.kind];
  }
}

export const fromList = (list) => (list?.values ?? []).map(fromValue);

export const fromStruct = (struct) =>
  Object.fromEntries(
    Object.entries(struct?.fields ?? {}).map(([name, value]) => [name, fromValue(value)]),
  );

/** Seconds of a google.protobuf.Duration. */
export const seconds = (duration) => Number(duration.seconds) + duration.nanos / 1e9;
