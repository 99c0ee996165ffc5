'use strict';
// The closed loops of the generator, for packages that bring their own client.
//
//   node loops.js PACKAGE '{"address":..., "keys":[...], "warmUpMs":..., "measureMs":...}'
//
// One loop for each key in `keys`; loops with the same key wait for each other. Prints one
// line of JSON: {"latenciesUs": [...], "handoffs": ..., "elapsedMs": ...}, of the measured time only.

const packages = {
  'live-mutex': async ({ port }) => {
    const { Client } = require('live-mutex');
    const client = new Client({ host: '127.0.0.1', port });
    client.emitter.on('warning', () => {});
    await client.ensure();
    return {
      lock: (key) => client.acquire(key, { ttl: 30000, lockRequestTimeout: 30000 }),
      unlock: (key, held) => client.release(key, { id: held.id }),
      end: () => client.close(),
    };
  },
  lockfile: async ({ folder }) => {
    const { promisify } = require('util');
    const path = require('path');
    const lockfile = require('lockfile');
    const lock = promisify(lockfile.lock);
    const unlock = promisify(lockfile.unlock);
    const file = (key) => path.join(folder, `${key}.lock`);
    return {
      lock: (key) => lock(file(key), { wait: 60000, pollPeriod: 10 }),
      unlock: (key) => unlock(file(key)),
      end: () => {},
    };
  },
  redlock: async ({ port }) => {
    const Redis = require('ioredis').Redis;
    const Redlock = require('redlock');
    const redis = new Redis({ host: '127.0.0.1', port });
    const redlock = new Redlock([redis], { retryCount: -1, retryDelay: 10, retryJitter: 5 });
    return {
      lock: (key) => redlock.lock(key, 30000),
      unlock: (_key, held) => held.unlock(),
      end: () => redis.quit(),
    };
  },
};

async function main() {
  const spec = JSON.parse(process.argv[3]);
  const client = await packages[process.argv[2]](spec);
  const begun = performance.now();
  const from = begun + spec.warmUpMs;
  const until = from + spec.measureMs;
  const latenciesUs = [];
  const holders = new Map();
  let handoffs = 0;
  let last;
  const loop = async (key, index) => {
    for (let before = performance.now(); before < until;) {
      const held = await client.lock(key);
      const count = (holders.get(key) ?? 0) + 1;
      if (count > 1) throw new Error(`${count} hold ${key} at one time`);
      holders.set(key, count);
      holders.set(key, 0);
      await client.unlock(key, held);
      const after = performance.now();
      if (after >= from && after < until) {
        latenciesUs.push((after - before) * 1000);
        if (last !== index) handoffs++;
      }
      last = index;
      before = after;
    }
  };
  await Promise.all(spec.keys.map(loop));
  await client.end();
  process.stdout.write(`\n${JSON.stringify({ latenciesUs, handoffs, elapsedMs: spec.measureMs })}\n`, () =>
    process.exit(0));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
