// Loaded by every Node that a login shell starts (NODE_OPTIONS in /etc/profile; docs/reference/fork.md).
//
// A copy of this sandbox goes on with the same memory, so with the same random numbers to come. The guest daemon sends
// SIGURG to every process of a copy. Neither V8's generator nor the OpenSSL inside Node can be seeded again, so from
// then on both are bypassed in favour of the kernel's entropy, which is a copy's own.
"use strict";

process.on("SIGURG", () => {
  const fs = require("node:fs");
  const crypto = require("node:crypto");
  const source = fs.openSync("/dev/urandom", "r");

  const fill = (target) => {
    const bytes = Buffer.from(target.buffer ?? target, target.byteOffset ?? 0, target.byteLength);
    for (let have = 0; have < bytes.length; ) have += fs.readSync(source, bytes, have, bytes.length - have, null);
    return target;
  };
  const below = (bound) => {
    for (;;) {
      const drawn = fill(Buffer.alloc(6)).readUIntBE(0, 6);
      if (drawn < 2 ** 48 - (2 ** 48 % bound)) return drawn % bound;
    }
  };
  const later = (callback, value) => process.nextTick(callback, null, value);

  Math.random = () => fill(Buffer.alloc(7)).readUIntBE(0, 6) / 2 ** 48;
  crypto.randomBytes = (size, callback) => {
    const bytes = fill(Buffer.alloc(size));
    return callback ? later(callback, bytes) : bytes;
  };
  crypto.randomFillSync = (target, offset = 0, size = target.byteLength - offset) => {
    fill(new Uint8Array(target.buffer ?? target, (target.byteOffset ?? 0) + offset, size));
    return target;
  };
  crypto.randomFill = (target, ...rest) => {
    const callback = rest.pop();
    later(callback, crypto.randomFillSync(target, ...rest));
  };
  crypto.randomInt = (low, high, callback) => {
    if (high === undefined || typeof high === "function") [low, high, callback] = [0, low, high];
    const drawn = low + below(high - low);
    return callback ? later(callback, drawn) : drawn;
  };
  crypto.randomUUID = () => {
    const bytes = fill(Buffer.alloc(16));
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  };
  for (const [name, value] of [["getRandomValues", fill], ["randomUUID", crypto.randomUUID]]) {
    Object.defineProperty(crypto.webcrypto, name, { value, configurable: true, writable: true });
  }
  require("node:module").syncBuiltinESMExports();
});
