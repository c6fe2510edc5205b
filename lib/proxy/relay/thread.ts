/**
 * The relay thread: sleeps in epoll_wait(2), and reads its messages when it is woken for them.
 */
/// <reference lib="deno.worker" />
import { WakeCounter } from "../../linux/wake.ts";
import { type FromThread, GONE, type Start, type ToThread } from "./protocol.ts";
import { Tunnels } from "./tunnels.ts";

declare const self: DedicatedWorkerGlobalScope;

function post(message: FromThread): void {
  self.postMessage(message);
}

const inbox: ToThread[] = [];
let arrived = Promise.withResolvers<void>();

/** The next message; each was posted before its wake-up, so it comes without further delay. */
async function next(): Promise<ToThread> {
  for (;;) {
    const message = inbox.shift();
    if (message !== undefined) return message;
    await arrived.promise;
    arrived = Promise.withResolvers();
  }
}

async function work({ wakeFd, idleMs }: Start): Promise<void> {
  const wake = new WakeCounter(wakeFd);
  const tunnels = new Tunnels(wakeFd, idleMs, (ended) => post(ended));
  try {
    for (;;) {
      tunnels.run();
      for (let unread = wake.take(); unread > 0; unread--) {
        const message = await next();
        if (message.kind === "end") return;
        tunnels.add(message.id, message.clientFd, message.upstreamFd);
      }
    }
  } finally {
    tunnels.close();
  }
}

self.onmessage = (first: MessageEvent<Start>): void => {
  self.onmessage = ({ data }: MessageEvent<ToThread>): void => {
    inbox.push(data);
    arrived.resolve();
  };
  void work(first.data).then(() => {
    post(GONE);
    self.close();
  });
};
