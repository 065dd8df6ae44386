// The Node process that user code runs in: node --expose-internals evaluate.cjs REQUESTS REPLIES (file descriptors).
// Requests and replies are JSON, one a line:
//   {"id", "code", "typescript"} -> {"id", "data"?} or {"id", "error": {"name", "value", "traceback"}}
// SIGINT answers the request under way with an error. Code runs through V8's inspector, whose REPL mode knows top-level
// await and lets a name be declared again.
"use strict";

const acorn = require("internal/deps/acorn/acorn/dist/acorn"); // the parser that comes with Node
const fs = require("node:fs");
const { Session } = require("node:inspector");
const { createRequire, stripTypeScriptTypes } = require("node:module");
const net = require("node:net");
const path = require("node:path");
const { inspect } = require("node:util");
const vm = require("node:vm");

const [requests, replies] = process.argv.slice(2).map(Number);
const here = path.join(process.cwd(), "[code]"); // what `require` and `import` are relative to
const OURS = "code-interpreter";
const session = new Session();
session.connect();
let underWay = null;

function answer(id, reply) {
  if (underWay !== id) return; // it was interrupted, and has its answer
  underWay = null;
  const bytes = Buffer.from(`${JSON.stringify({ id, ...reply })}\n`);
  for (let sent = 0; sent < bytes.length; ) sent += fs.writeSync(replies, bytes, sent);
}

const problem = (name, value) => ({ error: { name, value, traceback: `${name}: ${value}` } });

function interrupted() {
  if (underWay !== null) answer(underWay, problem("KeyboardInterrupt", "the execution was interrupted"));
}

// With `breakOnSigint` an endless loop can be stopped. What waits for a promise is stopped by the handler of SIGINT.
const breakable = new vm.Script(`globalThis[Symbol.for("${OURS}")].run()`);
process.on("SIGINT", interrupted);

function execute({ id, code, typescript }) {
  underWay = id;
  let expression;
  try {
    expression = importing(typescript ? stripTypeScriptTypes(code, { mode: "transform" }) : code);
  } catch (error) {
    answer(id, problem("SyntaxError", error.message));
    return;
  }
  const how = { expression, replMode: true, awaitPromise: true };
  ours.run = () => session.post("Runtime.evaluate", how, (error, made) => evaluated(id, error, made));
  try {
    breakable.runInThisContext({ breakOnSigint: true });
  } catch (error) {
    if (error.code === "ERR_SCRIPT_EXECUTION_INTERRUPTED") interrupted();
    else answer(id, problem("Error", error.message));
  }
}

function evaluated(id, error, made) {
  if (underWay !== id) return;
  if (error?.message?.includes("terminated")) interrupted();
  else if (error) answer(id, problem("Error", error.message));
  else if (made.exceptionDetails) {
    const thrown = made.exceptionDetails.exception ?? { value: made.exceptionDetails.text };
    call("failure", thrown, (failure) => answer(id, failure ? { error: failure } : problem("Error", "no description")));
  } else if (made.result.type === "undefined") answer(id, {});
  else call("shown", made.result, (data) => answer(id, data ? { data } : problem("Error", "cannot show the result")));
}

// Calls one of our functions with a value that is known to the inspector.
function call(name, value, done) {
  const given = ["objectId", "unserializableValue", "value"].find((key) => key in value) ?? "value";
  const expression = `globalThis[Symbol.for("${OURS}")].${name}`;
  session.post("Runtime.evaluate", { expression }, (_, found) => {
    const functionDeclaration = "function (value) { return this(value); }";
    const how = { objectId: found.result.objectId, functionDeclaration, returnByValue: true };
    session.post("Runtime.callFunctionOn", { ...how, arguments: [{ [given]: value[given] }] }, (error, made) => {
      done(error || made.exceptionDetails ? null : made.result.value);
    });
  });
}

const ours = {
  // Code that is evaluated through the inspector may not import by itself.
  load: new vm.Script("(name, options) => import(name, options)", {
    filename: here,
    importModuleDynamically: vm.constants.USE_MAIN_CONTEXT_DEFAULT_LOADER,
  }).runInThisContext(),

  shown(value) {
    if (typeof value?.[Symbol.for("Jupyter.display")] === "function") return value[Symbol.for("Jupyter.display")]();
    const bundle = { "text/plain": inspect(value, { maxStringLength: Infinity }) };
    const isPlain = Array.isArray(value) || (typeof value === "object" && value?.constructor === Object);
    try {
      if (isPlain) bundle["application/json"] = JSON.parse(JSON.stringify(value));
    } catch {
      // It has cycles, or numbers that JSON has no form for: its text has to do.
    }
    return bundle;
  },

  failure(error) {
    if (!(error instanceof Error)) return problem("Error", inspect(error)).error;
    const isOurs = (line) => ["node:", "evalmachine", __filename].some((place) => line.includes(place));
    const lines = String(error.stack).split("\n").filter((line, number) => number === 0 || !isOurs(line));
    return { name: String(error.name), value: String(error.message), traceback: lines.join("\n") };
  },
};

// Import declarations and calls as calls of `load`, which may.
function importing(code) {
  let tree;
  try {
    tree = acorn.parse(code, { ecmaVersion: "latest", sourceType: "module", allowAwaitOutsideFunction: true });
  } catch {
    return code; // V8 says what is wrong with it
  }
  const load = `globalThis[Symbol.for("${OURS}")].load`;
  const edits = [];
  const visit = (node) => {
    if (node.type === "ImportExpression") edits.push([node.start, node.start + "import".length, load]);
    if (node.type === "ImportDeclaration") edits.push([node.start, node.end, declared(node, code, load)]);
    for (const child of Object.values(node).flat()) {
      if (child && typeof child.type === "string") visit(child);
    }
  };
  visit(tree);
  edits.sort((one, other) => other[0] - one[0]);
  for (const [start, end, text] of edits) code = code.slice(0, start) + text + code.slice(end);
  return code;
}

function declared(node, code, load) {
  const text = (part) => code.slice(part.start, part.end);
  const options = (node.attributes ?? []).map(text).join(", ");
  const loaded = `await ${load}(${text(node.source)}${options ? `, { with: { ${options} } }` : ""})`;
  const lines = "\n".repeat(text(node).split("\n").length - 1); // line numbers stay
  const all = node.specifiers.find((each) => each.type === "ImportNamespaceSpecifier");
  const named = node.specifiers.filter((each) => each !== all);
  const names = named.map((each) => `${each.imported ? text(each.imported) : "default"}: ${each.local.name}`).join(", ");
  if (!all) return `${names ? `const { ${names} } = ` : ""}${loaded};${lines}`;
  return `const ${all.local.name} = ${loaded};${names ? ` const { ${names} } = ${all.local.name};` : ""}${lines}`;
}

Object.defineProperty(globalThis, Symbol.for(OURS), { value: ours });
globalThis.require = createRequire(here);
globalThis.module = { exports: {} };
globalThis.exports = module.exports;
// What fails in a timer or a forgotten promise is said, and ends nothing.
process.on("uncaughtException", (error) => console.error("Uncaught", error));
process.on("unhandledRejection", (error) => console.error("Uncaught (in promise)", error));

let partial = "";
const input = new net.Socket({ fd: requests, readable: true, writable: false });
input.setEncoding("utf8");
input.on("data", (chunk) => {
  const lines = (partial + chunk).split("\n");
  partial = lines.pop();
  for (const line of lines) execute(JSON.parse(line));
});
input.on("close", () => process.kill(process.pid, "SIGKILL")); // whom this kernel belonged to is gone
