import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';

import grpc from '@grpc/grpc-js';

const MIB = 1 << 20;
const EARLY_CALLS = 60;
const WORKERS = 8;
const same = (bytes) => bytes;
const path = (name) => `/t.Test/${name}`;
const within = (seconds) => ({ deadline: Date.now() + seconds * 1000 });

function open(addr, options = {}) {
  return new grpc.Client(addr, grpc.credentials.createInsecure(), {
    'grpc.enable_retries': 0,
    'grpc.max_receive_message_length': 8 * MIB,
    ...options,
  });
}

function unary(client, name, request, metadata = new grpc.Metadata(), options = within(60)) {
  return new Promise((resolve, reject) => {
    let trailers;
    const call = client.makeUnaryRequest(path(name), same, same, request, metadata, options, (error, answer) =>
      error ? reject(error) : setImmediate(() => resolve({ answer, trailers })));
    call.on('status', (status) => { trailers = status.metadata; });
  });
}

// Sends pieces as fast as the call takes them, and stops when the server has answered.
function upload(client, name, piece, count, options = within(60), metadata = new grpc.Metadata()) {
  return new Promise((resolve, reject) => {
    let ended = false;
    const call = client.makeClientStreamRequest(path(name), same, same, metadata, options, (error, answer) => {
      ended = true;
      if (error) reject(error);
      else resolve(answer);
    });
    const next = (left) => {
      if (ended) return;
      if (left === 0) call.end();
      else call.write(piece, () => next(left - 1));
    };
    next(count);
  });
}

async function download(client) {
  const call = client.makeServerStreamRequest(path('Download'), same, same, Buffer.from('32 1048576'), within(60));
  const sizes = [];
  for await (const message of call) sizes.push(message.length);
  assert.deepEqual(sizes, Array(32).fill(MIB));
}

async function failing(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error('it did not fail');
}

const gzip = () => ({ 'grpc.default_compression_algorithm': grpc.compressionAlgorithms.gzip });

async function checkUnary(client) {
  for (const size of [0, 1, 16379, 16380, 65536, 3 * MIB]) {
    const request = Buffer.alloc(size, 'a');
    const { answer } = await unary(client, 'Unary', request);
    assert.ok(answer.equals(request), `${size} bytes came back as others`);
  }
}

async function checkUpload(client) {
  const piece = Buffer.alloc(MIB, '0123456789abcdef');
  const hash = createHash('sha256');
  for (let i = 0; i < 32; i++) hash.update(piece);
  assert.equal((await upload(client, 'Upload', piece, 32)).toString(), hash.digest('hex'));
}

async function checkEarly(client) {
  for (let i = 0; i < EARLY_CALLS; i++) {
    assert.equal((await upload(client, 'Early', Buffer.alloc(100_000), 40)).toString(), 'stored');
  }
}

async function checkStatus(client) {
  const error = await failing(unary(client, 'Fail', Buffer.alloc(0)));
  assert.equal(error.code, grpc.status.NOT_FOUND);
  assert.equal(error.details, 'né %\n x');
  assert.equal((await failing(unary(client, 'Nothing', Buffer.alloc(0)))).code, grpc.status.UNIMPLEMENTED);
}

async function checkCancel(client) {
  const ended = new Promise((resolve) => {
    const call = client.makeClientStreamRequest(path('Wait'), same, same, new grpc.Metadata(), within(60), resolve);
    call.write(Buffer.alloc(100_000), async () => {
      await unary(client, 'Unary', Buffer.from('it runs'));
      call.cancel();
    });
  });
  assert.equal((await ended).code, grpc.status.CANCELLED);
  assert.equal((await unary(client, 'Cancelled', Buffer.alloc(0))).answer.toString(), 'yes');
}

async function checkDeadline(client) {
  const error = await failing(upload(client, 'Wait', Buffer.from('x'), 1, within(0.2)));
  assert.equal(error.code, grpc.status.DEADLINE_EXCEEDED);
  assert.equal((await unary(client, 'Cancelled', Buffer.alloc(0))).answer.toString(), 'yes');
}

async function checkMetadata(client) {
  const metadata = new grpc.Metadata();
  const binary = Buffer.from([0, 255, 1, 44]);
  // node's HTTP/2 takes header blocks of 16 KiB in all unless it is told otherwise
  const large = 'm'.repeat(12 * 1024);
  metadata.set('x-large', large);
  metadata.set('x-some-bin', binary);
  const { trailers } = await unary(client, 'Unary', Buffer.from('x'), metadata);
  assert.deepEqual(trailers.get('x-large'), [large]);
  assert.deepEqual(trailers.get('x-some-bin'), [binary]);
}

export function clientChecks(addr) {
  const client = open(addr);
  const packed = open(addr, gzip());
  return [
    ['unary', () => checkUnary(client)],
    ['unary gzip', () => checkUnary(packed)],
    ['upload', () => checkUpload(client)],
    ['upload gzip', () => checkUpload(packed)],
    ['download', () => download(client)],
    ['early answers', () => checkEarly(client)],
    ['status', () => checkStatus(client)],
    ['cancel', () => checkCancel(client)],
    ['deadline', () => checkDeadline(client)],
    ['metadata', () => checkMetadata(client)],
  ];
}

// With retries off, grpc-js fails what it started after node's HTTP/2 saw a GOAWAY and before it did itself; none of
// those calls reaches the server. With them on, as they are unless one asks, none may be lost.
export async function load(addr, total) {
  const client = open(addr, { 'grpc.enable_retries': 1 });
  let next = 0;
  let lost = 0;
  await Promise.all(Array.from({ length: WORKERS }, async () => {
    while (next < total) {
      next += 1;
      if (next % (total / 10) === 0) console.log('tick');
      try {
        await unary(client, 'Unary', Buffer.from('load'));
      } catch (error) {
        if (lost++ === 0) console.log(`first loss: ${error.message}`);
      }
    }
  }));
  console.log(lost ? `load: ${lost} of ${total} lost` : 'load: ok');
  return lost ? 1 : 0;
}
