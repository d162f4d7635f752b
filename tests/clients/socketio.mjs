// Sockets of npm's socket.io-client, driven by lines of JSON: each line on standard input is a
// command, each on standard output what a socket heard.
//
//   {"do":"open","socket":"a","url":"http://…","auth":{…},"transports":["websocket"]}
//   {"do":"ask","socket":"a","event":"subscribe:vm","data":"…","tag":"1"}   answered by its ack
//   {"do":"emit","socket":"a","event":"subscribe:vm","data":"…"}
//   {"do":"close","socket":"a"}
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(`${process.env.INFINIBAY_TEST_CLIENTS}/`);
const { io } = require("socket.io-client");

const sockets = new Map();
const say = (socket, heard, data) => process.stdout.write(`${JSON.stringify({ socket, heard, data })}\n`);

function open({ socket: name, url, auth, transports, headers }) {
  const socket = io(url, { auth, transports, extraHeaders: headers, reconnection: false, forceNew: true, timeout: 5000 });
  sockets.set(name, socket);
  socket.on("connect", () => say(name, "connect", { transport: socket.io.engine.transport.name }));
  socket.on("connect_error", (error) => say(name, "connect_error", { message: error.message }));
  socket.on("disconnect", (reason) => say(name, "disconnect", { reason }));
  socket.io.engine.on("upgrade", (transport) => say(name, "upgrade", { transport: transport.name }));
  socket.onAny((event, ...data) => say(name, event, data.length === 1 ? data[0] : data));
}

const commands = {
  open,
  emit: ({ socket, event, data }) => sockets.get(socket).emit(event, data),
  ask: ({ socket, event, data, tag }) => sockets.get(socket).emit(event, data, (answer) => say(socket, `ack:${tag}`, answer)),
  close: ({ socket }) => sockets.get(socket).close(),
};

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  commands[command.do](command);
}
process.exit(0);
