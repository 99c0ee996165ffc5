'use strict';
// What users of npm's live-mutex do, against whatever broker listens at LMX_PORT or
// LMX_UDS. One scenario per run: `node scenarios.js NAME`. LIVE_MUTEX is the package.

const assert = require('assert');
const {fork} = require('child_process');
const fs = require('fs');
const os = require('os');
const path = require('path');

const lib = process.env.LIVE_MUTEX || 'live-mutex';
const {Client, RWLockClient, RWLockWritePrefClient} = require(lib);

const where = process.env.LMX_UDS
  ? {udsPath: process.env.LMX_UDS}
  : {port: Number(process.env.LMX_PORT), host: '127.0.0.1'};

const open = [];

async function connect(opts, Class = Client) {
  const client = new Class({...where, ...opts});
  client.errors = [];
  client.warnings = [];
  client.emitter.on('error', e => client.errors.push(e));
  client.emitter.on('warning', w => client.warnings.push(w));
  open.push(client);
  await client.ensure();
  return client;
}

// A connection of its own for each step keeps nothing back: this resolves once the
// broker has handled everything the client sent before.
const settled = client => new Promise(resolve => client.ls(resolve));

const info = (client, key) => new Promise((resolve, reject) =>
  client.requestLockInfo(key, (err, {data}) => err ? reject(err) : resolve(data)));

async function until(what, isSo) {
  while (!await isSo()) {
    await new Promise(resolve => setImmediate(resolve));
  }
}

const fails = async (promise, pattern) => {
  const err = await promise.then(
    () => assert.fail('it should have failed with ' + pattern), e => e);
  const text = typeof err === 'string' ? err : `${err.code} ${err.message}`;
  assert.match(text, pattern);
  return err;
};

const scenarios = {

  async callbacks() {
    const c = await connect();
    await new Promise((resolve, reject) => {
      c.lock('k', (err, unlock) => {
        if (err) return reject(err);
        assert.strictEqual(unlock.acquired, true);
        assert.strictEqual(unlock.key, 'k');
        unlock((err, done) => {
          if (err) return reject(err);
          assert.strictEqual(done.unlocked, true);
          c.lock('k', {ttl: 3000}, (err, v) => {
            if (err) return reject(err);
            c.unlock('k', v.id, err => {
              if (err) return reject(err);
              c.lock('k', (err, v) => err ? reject(err)
                : c.unlock(v.key, {_uuid: v.lockUuid}, err => err ? reject(err) : resolve()));
            });
          });
        });
      });
    });
    assert.deepStrictEqual(c.errors, []);
  },

  async promises() {
    const c = await connect();
    const {key, id} = await c.acquire('k');
    assert.strictEqual(key, 'k');
    assert.strictEqual((await c.release(key, id)).unlocked, true);
    const unlock = await c.acquireLock('k', {ttl: 4000});
    await c.execUnlock(unlock);
    const again = await c.acquire('k');
    await c.runUnlock(again.unlock);
    const last = await c.acquire('k');
    await c.releaseLock('k', {id: last.id});
    assert.deepStrictEqual(c.errors, []);
  },

  async fifo() {
    const holder = await connect();
    const held = await holder.acquire('k');
    const order = [];
    const waits = [];
    for (let n = 0; n < 12; n++) {
      const c = await connect();
      waits.push(c.acquire('k').then(async v => {
        order.push(n);
        await c.release('k', v.id);
      }));
      await settled(c);
    }
    assert.strictEqual((await info(holder, 'k')).lockRequestCount, 12);
    await holder.release('k', held.id);
    await Promise.all(waits);
    assert.deepStrictEqual(order, [...Array(12).keys()]);
  },

  async wrong_ids() {
    const [a, b] = [await connect(), await connect()];
    const {id} = await a.acquire('k');
    await fails(b.release('k', 'wrong'), /You need to pass the correct uuid, or use force\./);
    await fails(b.release('k'), /You need to pass the correct uuid, or use force\./);
    assert.strictEqual((await info(b, 'k')).isLocked, true);
    await b.release('k', id);
    await fails(a.release('k', id), /You need to pass the correct uuid, or use force\./);
    // Nobody has ever held this one: a warning, no failure.
    await a.release('never locked');
    assert(a.warnings.some(w => String(w).includes('no lock with key => "never locked"')));
    // Whatever became of the id.
    await a.release('never locked either', id);
  },

  async force() {
    const [a, b, c] = [await connect(), await connect(), await connect()];
    const {id} = await a.acquire('k');
    const waits = c.acquire('k');
    await settled(c);
    await b.release('k', {force: true});
    const next = await waits;
    // Its own unlock still succeeds, and does not touch the next holder.
    await a.release('k', id);
    assert.deepStrictEqual((await info(a, 'k')).lockholderUUIDs, [next.id]);
    await c.release('k', true);
  },

  async expiry() {
    const [a, b] = [await connect(), await connect()];
    // From before the lock was asked for, so that no delay of this process can matter.
    const asked = performance.now();
    const first = await a.acquire('k', {ttl: 150});
    const second = await b.acquire('k', {ttl: null});
    assert(performance.now() - asked >= 149, 'granted before the ttl ran out');
    await a.release('k', first.id);
    assert.deepStrictEqual((await info(a, 'k')).lockholderUUIDs, [second.id]);
    await b.release('k', second.id);
  },

  async time_outs() {
    const [a, b] = [await connect(), await connect()];
    const {id} = await a.acquire('k', {ttl: null});
    const opts = {lockRequestTimeout: 60, maxRetries: 3};
    await fails(b.acquire('k', opts), /request_timeout .*timed out after 180 ms/);
    await until('the waiter is gone', async () => (await info(a, 'k')).lockRequestCount === 0);
    await a.release('k', id);
    await b.release('k', (await b.acquire('k')).id);
    assert.deepStrictEqual(b.errors, []);
  },

  async retries() {
    const [a, b, c] = [await connect(), await connect(), await connect()];
    const {id} = await a.acquire('k', {ttl: null});
    const order = [];
    const first = b.acquire('k', {lockRequestTimeout: 250, maxRetries: 20})
      .then(v => (order.push('b'), b.release('k', v.id)));
    await settled(b);
    const second = c.acquire('k').then(v => (order.push('c'), c.release('k', v.id)));
    await settled(c);
    // Several retries later it still has its place, once.
    await until('it retries', () => b.warnings.filter(w => /retry attempt/.test(w)).length > 2);
    await settled(b);
    assert.strictEqual((await info(a, 'k')).lockRequestCount, 2);
    await a.release('k', id);
    await Promise.all([first, second]);
    assert.deepStrictEqual(order, ['b', 'c']);
  },

  // The client writes into its caller's options, which many use again.
  async shared_options() {
    const [a, b] = [await connect(), await connect()];
    const {id} = await a.acquire('k', {ttl: null});
    const opts = {lockRequestTimeout: 60, maxRetries: 20};
    const first = b.acquire('k', opts);
    await until('it retries', () => b.warnings.some(w => /retry attempt/.test(w)));
    await a.release('k', id);
    await b.release('k', (await first).id);
    for (const key of ['k', 'other', 'k']) {
      await b.release(key, (await b.acquire(key, opts)).id);
    }
    assert.deepStrictEqual(b.errors, []);
  },

  // Each try leaves a request in the queue, which must not cost time each.
  async tries() {
    const [a, b] = [await connect(), await connect()];
    const {id} = await a.acquire('k', {ttl: null});
    for (let n = 0; n < 20; n++) {
      await fails(b.acquire('k', {wait: false, ttl: null}), /wait_option_is_false/);
    }
    await a.release('k', id);
    const next = await b.acquire('k', {lockRequestTimeout: 20000});
    await b.release('k', next.id);
  },

  async no_wait() {
    const [a, b, c] = [await connect(), await connect(), await connect()];
    const {id} = await a.acquire('k', {ttl: null});
    await fails(b.acquire('k', {wait: false, ttl: null}), /wait_option_is_false/);
    // The client forgets such a request, but it still waits at the broker (the option is
    // not on the wire): when it is granted, nobody must be locked out.
    await a.release('k', id);
    const next = await c.acquire('k', {lockRequestTimeout: 8000});
    await c.release('k', next.id);
  },

  async semaphores() {
    const clients = await Promise.all([...Array(6)].map(() => connect()));
    // The client writes into its options: each call gets its own.
    const opts = () => ({max: 3, ttl: null});
    const held = [];
    for (const c of clients.slice(0, 3)) {
      held.push(await c.acquire('k', opts()));
    }
    const fourth = clients[3].acquire('k', opts());
    await settled(clients[3]);
    let seen = await info(clients[0], 'k');
    assert.strictEqual(seen.lockholderUUIDs.length, 3);
    assert.strictEqual(seen.lockRequestCount, 1);
    await clients[0].release('k', held[0].id);
    await clients[3].release('k', (await fourth).id);
    // Raised: two at once get in.
    const raised = await Promise.all(
      [clients[4].acquire('k', {max: 4, ttl: null}), clients[5].acquire('k', {max: 4, ttl: null})]);
    // Lowered: nobody more until there is room again.
    const low = clients[0].acquire('k', {max: 1, ttl: null});
    await settled(clients[0]);
    assert.strictEqual((await info(clients[0], 'k')).lockRequestCount, 1);
    for (const [c, v] of [[1, held[1]], [2, held[2]], [4, raised[0]], [5, raised[1]]]) {
      await clients[c].release('k', v.id);
    }
    await clients[0].release('k', (await low).id);
  },

  async disconnects() {
    const [a, b, c, stranger] =
      [await connect(), await connect(), await connect(), await connect()];
    const kept = await b.acquire('other', {ttl: null});
    await a.acquire('k', {ttl: null});
    const dead = c.acquire('k', {ttl: null, lockRequestTimeout: 8000}).catch(() => {});
    await settled(c);
    const d = await connect();
    const next = d.acquire('k', {ttl: null, lockRequestTimeout: 8000});
    await settled(d);
    // A stranger's end frees nothing; a waiter's end leaves its place.
    stranger.close();
    c.close();
    await until('the waiter is gone', async () => (await info(d, 'k')).lockRequestCount === 1);
    assert.strictEqual((await info(d, 'k')).isLocked, true);
    a.close();
    const {id} = await next;
    assert.deepStrictEqual((await info(d, 'other')).lockholderUUIDs, [kept.id]);
    await d.release('k', id);
    await b.release('other', kept.id);
    void dead;
  },

  async reconnects() {
    const a = await connect();
    const lost = await a.acquire('k', {ttl: null});
    a._invokeBrokerSideDestroyCall();
    await until('it is reconnected',
      () => a.warnings.some(w => /"close" event|"end" event/.test(w)));
    await a.ensure();
    // It does not know what it has lost: an error would end a program without a listener.
    await a.release('k', lost.id);
    assert.deepStrictEqual(a.errors, []);
    const again = await a.acquire('k', {ttl: null});
    await a.release('k', again.id);
    a._invokeBrokerSideEndCall();
    await until('it is reconnected again',
      () => a.warnings.filter(w => /"close" event|"end" event/.test(w)).length > 1);
    await a.ensure();
    await a.release('k', (await a.acquire('k')).id);
  },

  async keeps() {
    const b = await connect();
    for (const [constructor, call] of [
      [{keepLocksOnExit: true}, {}], [{keepLocksAfterDeath: true}, {}],
      [{}, {keepLocksAfterDeath: true}], [{}, {keepLocksOnExit: true}],
    ]) {
      const a = await connect(constructor);
      const {id} = await a.acquire('kept', {ttl: null, ...call});
      const other = await a.acquire('marker', {ttl: null, keepLocksAfterDeath: false});
      a.close();
      if (Object.keys(constructor).length === 0) {
        // What is not kept shows that the end was seen.
        await b.release('marker', (await b.acquire('marker')).id);
      } else {
        await b.release('marker', other.id);
      }
      assert.deepStrictEqual((await info(b, 'kept')).lockholderUUIDs, [id]);
      await b.release('kept', id);
      await b.release('kept', (await b.acquire('kept')).id);
    }
    const a = await connect({keepLocksOnExit: true});
    await a.acquire('kept', {ttl: 300});
    a.close();
    await b.release('kept', (await b.acquire('kept')).id);
  },

  async versions() {
    const a = await connect();
    const {id} = await a.acquire('k', {ttl: null});
    const b = await connect();
    a._simulateVersionMismatch();
    await until('it is told', () => a.errors.some(e => e && e.type === 'version-mismatch'));
    await fails(a.acquire('k'), /cannot_continue|recovering/);
    await b.release('k', (await b.acquire('k')).id);
    void id;
  },

  async inquiries() {
    const a = await connect();
    assert.deepStrictEqual((await new Promise((resolve, reject) =>
      a.ls((err, v) => err ? reject(err) : resolve(v)))).ls_result, []);
    const {id} = await a.acquire('k');
    const {ls_result} = await new Promise((resolve, reject) =>
      a.ls((err, v) => err ? reject(err) : resolve(v)));
    assert.deepStrictEqual(ls_result, ['k']);
    const seen = await info(a, 'k');
    assert.deepStrictEqual(
      [seen.isLocked, seen.lockholderUUIDs, seen.lockRequestCount], [true, [id], 0]);
    assert.strictEqual((await info(a, 'free')).isLocked, false);
    await a.release('k', id);
  },

  async writers_preferred() {
    const clients = await Promise.all([...Array(6)].map(() => connect({}, RWLockWritePrefClient)));
    let readers = 0, writers = 0, ends = 0;
    // Readers overlap.
    const both = await Promise.all(clients.slice(0, 2).map(c => c.acquireReadLockp('k', {})));
    const finish = release => new Promise((resolve, reject) =>
      release(err => err ? reject(err) : resolve()));
    // A writer behind them waits, and lets them end.
    let isWriting = false;
    const writer = clients[2].acquireWriteLockp('k').then(release => (isWriting = true, release));
    await settled(clients[2]);
    await finish(both[0]);
    await settled(clients[2]);
    assert.strictEqual(isWriting, false, 'a writer was let in with a reader');
    await finish(both[1]);
    await finish(await writer);
    // Many of both.
    await Promise.all(clients.map(async (c, n) => {
      for (let i = 0; i < 20; i++) {
        const isWriter = (n + i) % 3 === 0;
        const release = isWriter ? await c.acquireWriteLockp('k') : await c.acquireReadLockp('k', {});
        isWriter ? writers++ : readers++;
        assert(writers === 0 || (writers === 1 && readers === 0), `${writers} w, ${readers} r`);
        await new Promise(resolve => setImmediate(resolve));
        isWriter ? writers-- : readers--;
        await finish(release);
        ends++;
      }
    }));
    assert.strictEqual(ends, 120);
    // Dead readers and writers are gone.
    await clients[0].acquireReadLockp('k', {});
    clients[0].close();
    await clients[1].acquireWriteLockp('k');
    clients[1].close();
    await finish(await clients[2].acquireWriteLockp('k'));
    await finish(await clients[3].acquireReadLockp('k', {}));
  },

  async readers_preferred() {
    // In this version its constructor throws; its methods are all there.
    assert.throws(() => new RWLockClient(where));
    const clients = await Promise.all([...Array(5)].map(async () =>
      Object.setPrototypeOf(await connect(), RWLockClient.prototype)));
    const writeKey = 'w';
    let readers = 0, writers = 0;
    // Readers overlap.
    const both = await Promise.all(clients.slice(0, 2).map(c => c.beginReadp('r', {writeKey})));
    const finish = release => new Promise((resolve, reject) =>
      release(err => err ? reject(err) : resolve()));
    let isWriting = false;
    const writer = clients[2].beginWritep(writeKey).then(release => (isWriting = true, release));
    await settled(clients[2]);
    await finish(both[0]);
    await settled(clients[2]);
    assert.strictEqual(isWriting, false, 'a writer was let in with a reader');
    await finish(both[1]);
    const release = await writer;
    await new Promise((resolve, reject) => release({}, err => err ? reject(err) : resolve()));
    await Promise.all(clients.map(async (c, n) => {
      for (let i = 0; i < 15; i++) {
        if ((n + i) % 3 === 0) {
          const end = await c.beginWritep(writeKey, {lockRequestTimeout: 9000});
          writers++;
          assert(writers === 1 && readers === 0, `${writers} w, ${readers} r`);
          await new Promise(resolve => setImmediate(resolve));
          writers--;
          await new Promise((resolve, reject) => end({}, err => err ? reject(err) : resolve()));
        } else {
          const end = await c.beginReadp('r', {writeKey, lockRequestTimeout: 9000});
          readers++;
            assert(writers === 0, `${writers} w, ${readers} r`);
          await new Promise(resolve => setImmediate(resolve));
          readers--;
          await finish(end);
        }
      }
    }));
  },

  async processes() {
    const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'lmx-')), 'counter');
    fs.writeFileSync(file, '0');
    await Promise.all([...Array(4)].map(() => new Promise((resolve, reject) =>
      fork(__filename, ['count', file]).on('exit', code =>
        code === 0 ? resolve() : reject(new Error(`a child exited with ${code}`))))));
    assert.strictEqual(fs.readFileSync(file, 'utf8'), '100');
    fs.rmSync(path.dirname(file), {recursive: true});
  },

  // A child of `processes`: adds 1 to the file, 25 times, with nothing but the lock
  // (whose key is the file's path) between it and the others.
  async count() {
    const file = process.argv[3];
    const key = file;
    const c = await connect();
    for (let i = 0; i < 25; i++) {
      const {id} = await c.acquire(key, {lockRequestTimeout: 20000});
      const value = Number(fs.readFileSync(file, 'utf8'));
      await new Promise(resolve => setImmediate(resolve));
      fs.writeFileSync(file, String(value + 1));
      await c.release(key, id);
    }
  },

  async ten_thousand_cycles() {
    const c = await connect({lockRequestTimeout: 30000});
    let cycles = 0, inside = 0;
    const worker = async () => {
      while (cycles < 10000) {
        cycles++;
        await new Promise((resolve, reject) => c.lock('k', (err, unlock) => {
          if (err) return reject(err);
          assert.strictEqual(++inside, 1);
          inside--;
          unlock(err => err ? reject(err) : resolve());
        }));
      }
    };
    const started = process.hrtime.bigint();
    await Promise.all([...Array(20)].map(worker));
    const ms = Number(process.hrtime.bigint() - started) / 1e6;
    console.log(`${cycles} cycles in ${ms.toFixed(0)} ms`);
    assert.deepStrictEqual(c.errors, []);
  },

  // The releases of 0.0 and 0.1.
  async older() {
    const [a, b, c, d] = await Promise.all([...Array(4)].map(() => connect()));
    const lock = (c, key, opts) => new Promise((resolve, reject) =>
      c.lock(key, opts || {}, (err, unlock) => err ? reject(err) : resolve(unlock)));
    const end = unlock => new Promise((resolve, reject) =>
      unlock(err => err ? reject(err) : resolve()));
    const unlock = (c, key, opts) => new Promise((resolve, reject) =>
      c.unlock(key, opts || {}, err => err ? reject(err) : resolve()));

    // In 0.0 an unlock needs no id, but it ends nobody else's hold.
    const first = await lock(a, 'k');
    const wrong = /You need to pass the correct uuid, or use force\./;
    await fails(unlock(b, 'k'), wrong);
    if (!a._simulateVersionMismatch) {
      await unlock(a, 'k');
      const {lockUuid: id} = await lock(a, 'k');
      await fails(unlock(b, 'k', {_uuid: 'wrong'}), wrong);
      await unlock(b, 'k', {_uuid: id});
    } else {
      await fails(unlock(a, 'k'), wrong);
      await end(first);
    }

    // One at a time, in spite of retries.
    let inside = 0;
    await Promise.all([a, b, c, d, a, b, c, d].map(async client => {
      for (let i = 0; i < 10; i++) {
        const release = await lock(client, 'k', {lockRequestTimeout: 2000, maxRetries: 20});
        assert.strictEqual(++inside, 1);
        await new Promise(resolve => setImmediate(resolve));
        inside--;
        await end(release);
      }
    }));

    // Who gives up leaves nothing behind, and who dies neither.
    const held = await lock(a, 'k', {ttl: 60000});
    await fails(lock(b, 'k', {lockRequestTimeout: 30, maxRetries: 2}), /timed out after 60 ms/);
    const next = lock(c, 'k', {lockRequestTimeout: 9000});
    await until('it waits', async () => (await info(c, 'k')).lockRequestCount === 1);
    a.close();
    await end(await next);
    assert(held.acquired !== false);
    assert.strictEqual((await info(c, 'k')).isLocked, false);
    await lock(c, 'k', {ttl: 50});
    await end(await lock(d, 'k'));
    for (const client of [a, b, c, d]) {
      assert(!client.warnings.some(w => /Malformed/.test(w)), client.warnings);
    }
  },

  // Driven over standard input by a test that holds the other side's locks.
  async driven() {
    const c = await connect({lockRequestTimeout: 60000});
    const held = {};
    console.log('ready');
    for await (const line of require('readline').createInterface({input: process.stdin})) {
      const [verb, key] = line.split(' ');
      if (verb === 'lock') {
        c.acquire(key, {ttl: null}).then(v => {
          held[key] = v.id;
          console.log(`locked ${key} ${v.id}`);
        });
        await settled(c);
        console.log(`asked ${key}`);
      } else if (verb === 'unlock') {
        await c.release(key, held[key]);
        console.log(`unlocked ${key}`);
      } else if (verb === 'force') {
        await c.release(key, {force: true});
        console.log(`forced ${key}`);
      }
    }
  },
};

const name = process.argv[2];
scenarios[name]().then(
  () => {
    open.forEach(c => c.close());
    process.exit(0);
  },
  err => {
    console.error(name, err);
    process.exit(1);
  });
