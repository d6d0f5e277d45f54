// grpc-js, unmodified, as the other end of an interoperability test.
//
//   node peer.js client ADDR          runs the test methods against a server, one line per check
//   node peer.js load ADDR COUNT      makes COUNT calls while the server is replaced
//   node peer.js server               serves the test methods; prints its port; ends when its standard input does
//
// A line is "name: ok" or "name: what went wrong". The exit code is 0 only when every check was ok.

import { clientChecks, load } from './client.js';
import { serve } from './server.js';

const [mode, addr, count] = process.argv.slice(2);

async function runAll(checks) {
  let failed = 0;
  for (const [name, run] of checks) {
    try {
      await run();
      console.log(`${name}: ok`);
    } catch (error) {
      console.log(`${name}: ${error.message}`);
      failed = 1;
    }
  }
  return failed;
}

if (mode === 'client') {
  process.exit(await runAll(clientChecks(addr)));
} else if (mode === 'load') {
  process.exit(await load(addr, Number(count)));
} else if (mode === 'server') {
  serve();
} else {
  console.error('usage: peer.js client ADDR | load ADDR COUNT | server');
  process.exit(2);
}
