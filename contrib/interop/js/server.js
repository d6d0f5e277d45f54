import { createHash } from 'node:crypto';

import grpc from '@grpc/grpc-js';

const same = (bytes) => bytes;
const waiting = [];
let cancels = 0;

function method(name, requestStream, responseStream) {
  return {
    path: `/t.Test/${name}`,
    requestStream,
    responseStream,
    requestSerialize: same,
    requestDeserialize: same,
    responseSerialize: same,
    responseDeserialize: same,
  };
}

const definition = {
  unary: method('Unary', false, false),
  upload: method('Upload', true, false),
  download: method('Download', false, true),
  chat: method('Chat', true, true),
  early: method('Early', true, false),
  fail: method('Fail', false, false),
  wait: method('Wait', true, false),
  cancelled: method('Cancelled', false, false),
};

function tell() {
  while (cancels > 0 && waiting.length > 0) {
    cancels -= 1;
    waiting.shift()(null, Buffer.from('yes'));
  }
}

const handlers = {
  unary(call, answer) {
    const trailers = new grpc.Metadata();
    for (const key of Object.keys(call.metadata.getMap())) {
      if (key.startsWith('x-')) for (const value of call.metadata.get(key)) trailers.add(key, value);
    }
    answer(null, call.request, trailers);
  },
  upload(call, answer) {
    const hash = createHash('sha256');
    call.on('data', (message) => hash.update(message));
    call.on('end', () => answer(null, Buffer.from(hash.digest('hex'))));
  },
  download(call) {
    const [count, size] = call.request.toString().split(' ').map(Number);
    const message = Buffer.from(Array.from({ length: size }, (_, index) => index & 255));
    const next = (left) => {
      while (left > 0 && call.write(message)) left -= 1;
      if (left > 0) call.once('drain', () => next(left - 1));
      else call.end();
    };
    next(count);
  },
  chat(call) {
    call.on('data', (message) => call.write(message));
    call.on('end', () => call.end());
  },
  early(call, answer) {
    answer(null, Buffer.from('stored'));
  },
  fail(call, answer) {
    const trailers = new grpc.Metadata();
    trailers.set('grpc-status-details-bin', Buffer.from([8, 5, 18, 2, 195, 169]));
    answer({ code: grpc.status.NOT_FOUND, details: 'né %\n x', metadata: trailers });
  },
  wait(call) {
    call.on('cancelled', () => {
      cancels += 1;
      tell();
    });
    call.on('data', () => {});
  },
  cancelled(call, answer) {
    waiting.push(answer);
    tell();
  },
};

export function serve() {
  const server = new grpc.Server({ 'grpc.max_receive_message_length': 8 << 20 });
  server.addService(definition, handlers);
  server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, port) => {
    if (error) throw error;
    console.log(port);
  });
  process.stdin.resume();
  process.stdin.on('end', () => {
    server.forceShutdown();
    process.exit(0);
  });
}
