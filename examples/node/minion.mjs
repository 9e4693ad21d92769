// Shared by worker and client: the services, the key, and JSON.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import loader from '@grpc/proto-loader';

const PROTO = process.env.MINION_PROTO ?? fileURLToPath(new URL('../../proto', import.meta.url));
// protobufjs contains google/api/annotations.proto.
const COMMON = dirname(createRequire(import.meta.url).resolve('protobufjs/package.json'));

const definition = loader.loadSync(
  ['minion', 'worker'].map((name) => `minion/v1/${name}_service.proto`),
  // 64-bit ids as strings: JavaScript numbers have 53 bits.
  { includeDirs: [PROTO, COMMON], longs: String, enums: String, defaults: true, oneofs: true },
);
const { MinionService, WorkerService } = grpc.loadPackageDefinition(definition).minion.v1;

export const target = process.env.MINION_TARGET ?? '127.0.0.1:50051';
const credentials = grpc.credentials.createInsecure();
// Detects dead connections; servers allow a ping every 10 seconds.
const options = { 'grpc.keepalive_time_ms': 20_000, 'grpc.keepalive_timeout_ms': 10_000 };
export const minion = new MinionService(target, credentials, options);
export const workers = new WorkerService(target, credentials, options);

export function metadata() {
  const metadata = new grpc.Metadata();
  metadata.set('authorization', `Bearer ${key()}`);
  return metadata;
}

function key() {
  const folder = process.platform === 'darwin' ? 'Library/Application Support' : '.local/share';
  const kept = join(homedir(), folder, 'minion/api-key');
  return process.env.MINION_API_KEY ?? readFileSync(kept, 'utf8').trim();
}

/** Calls a unary method, and returns a promise of the response. */
export function call(client, method, request, seconds = 30) {
  return new Promise((resolve, reject) => {
    const options = { deadline: Date.now() + seconds * 1000 };
    client[method](request, metadata(), options, (error, response) =>
      error ? reject(error) : resolve(response),
    );
  });
}

/** Bytes of a WorkRequest on the wire. */
export const sizeOfRequest = (request) => WorkerService.service.Work.requestSerialize(request).length;

// Plain JSON as google.protobuf.Value, Struct and ListValue, and back.

/** A lone surrogate, which JavaScript allows in strings and UTF-8 does not. */
export const LONE_SURROGATE = /\p{Surrogate}/gu;

function checked(text) {
  if (text.search(LONE_SURROGATE) < 0) return text;
  throw new TypeError('expected text without lone surrogates');
}

const MAX_DEPTH = 30; // Protobuf parsers refuse deeper values.

export function toValue(json, depth = 0) {
  if (depth > MAX_DEPTH) throw new RangeError(`nested more than ${MAX_DEPTH} deep`);
  if (json === null || json === undefined) return { nullValue: 'NULL_VALUE' };
  if (typeof json === 'number') return { numberValue: json };
  if (typeof json === 'string') return { stringValue: checked(json) };
  if (typeof json === 'boolean') return { boolValue: json };
  if (typeof json !== 'object') throw new TypeError(`expected JSON, got ${typeof json}`);
  return Array.isArray(json) ? { listValue: toList(json, depth) } : { structValue: toStruct(json, depth) };
}

export const toList = (json, depth = 0) => ({ values: json.map((value) => toValue(value, depth + 1)) });

export const toStruct = (json, depth = 0) => ({
  fields: Object.fromEntries(
    Object.entries(json).map(([name, value]) => [checked(name), toValue(value, depth + 1)]),
  ),
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
