// Connections of npm's graphql-ws, driven by lines of JSON: each line on standard input is a
// command, each on standard output what a connection heard.
//
//   {"do":"open","socket":"a","url":"ws://…","payload":{…},"deaf":false}   deaf: never answers a ping
//   {"do":"subscribe","socket":"a","id":"1","query":"…","variables":{…}}   heard as next:1, error:1, complete:1
//   {"do":"count","socket":"a","id":"1"}                                   from now on only every 500th is told
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(`${process.env.INFINIBAY_TEST_CLIENTS}/`);
const { createClient } = require("graphql-ws");
const { WebSocket } = require("ws");

const connections = new Map();
const say = (socket, heard, data) => process.stdout.write(`${JSON.stringify({ socket, heard, data })}\n`);

function open({ socket: name, url, payload, deaf }) {
  const connection = { counted: new Map() };
  connections.set(name, connection);
  class Socket extends WebSocket {
    constructor(address, protocols) {
      super(address, protocols, { autoPong: !deaf });
    }
  }
  connection.client = createClient({
    url, webSocketImpl: Socket, connectionParams: payload, lazy: false, retryAttempts: 0,
    onNonLazyError: (problem) => say(name, "problem", { code: problem.code ?? null }),
    on: {
      connected: () => say(name, "connected", {}),
      closed: (event) => say(name, "closed", { code: event.code ?? null }),
    },
  });
}

function subscribe({ socket: name, id, query, variables }) {
  const connection = connections.get(name);
  connection.client.subscribe({ query, variables }, {
    next: (answer) => {
      const seen = connection.counted.get(id);
      if (seen !== undefined && !answer.errors) {
        connection.counted.set(id, seen + 1);
        if ((seen + 1) % 500 === 0) say(name, `count:${id}`, seen + 1);
        return;
      }
      say(name, `next:${id}`, answer);
    },
    error: (problem) => say(name, `error:${id}`, Array.isArray(problem) ? problem : { code: problem.code ?? null }),
    complete: () => say(name, `complete:${id}`, {}),
  });
}

const commands = {
  open,
  subscribe,
  count: ({ socket, id }) => connections.get(socket).counted.set(id, 0),
};

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  commands[command.do](command);
}
process.exit(0);
