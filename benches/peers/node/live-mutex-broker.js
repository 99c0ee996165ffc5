'use strict';
// live-mutex's broker on the port that is the first argument; prints a line when it is ready.
const { Broker } = require('live-mutex');

const broker = new Broker({ host: '127.0.0.1', port: Number(process.argv[2]) });
broker.emitter.on('warning', () => {});
broker.emitter.on('error', (error) => console.error(error));
broker.ensure().then(() => console.log('ready'), (error) => {
  console.error(error);
  process.exit(1);
});
