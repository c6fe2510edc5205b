import { equal, ok, throws } from "node:assert/strict";
import {
  bindLibc,
  checked,
  errnoName,
  errnoText,
  lastErrno,
  SystemError,
} from "../../lib/linux/libc.ts";

const libc = bindLibc({
  close: { parameters: ["i32"], result: "i32" },
  getpid: { parameters: [], result: "i32" },
});

Deno.test("bindLibc() binds calls of the C library", () => {
  equal(libc.getpid(), Deno.pid);
});

Deno.test("bindLibc() says that the library cannot be opened when a symbol does not exist", () => {
  throws(
    () => bindLibc({ outcall_no_such_call: { parameters: [], result: "void" } }),
    /C library cannot be opened/,
  );
});

Deno.test("lastErrno() is the error of the call that just failed", () => {
  equal(libc.close(-1), -1);
  equal(errnoName(lastErrno()), "EBADF");
});

Deno.test("checked() passes results on and turns a failure into a SystemError", () => {
  equal(checked("getpid", libc.getpid()), Deno.pid);
  throws(
    () => checked("close", libc.close(-1)),
    (error: unknown) =>
      error instanceof SystemError && error.code === "EBADF" && error.operation === "close" &&
      error.message === "close: Bad file descriptor",
  );
});

Deno.test("SystemError keeps the kernel's own explanation", () => {
  const error = new SystemError("create bridge outcall0", 1, "attribute failed policy validation");
  equal(
    error.message,
    "create bridge outcall0: Operation not permitted (attribute failed policy validation)",
  );
});

Deno.test("errnoText() describes numbers that have no name, too", () => {
  ok(errnoText(1).startsWith("Operation not permitted"));
  ok(errnoText(4000).length > 0);
});
