// What the clients have in common: `feature` declares a check, `run` does the checks and prints one JSON line for each.
//
// `node FILE` lists the features of a file; `node FILE all` or `node FILE chat/streaming ...` runs them, all at once,
// against the gateways named by the environment. Exit code 1 when one failed.
import assert from "node:assert/strict";
import { basename } from "node:path";

const { DEMO_URL, GATEWAY_URL, UPSTREAM_URL, GATEWAY_TOKEN } = process.env;
const LIMIT_MS = 45_000;
const declared = new Map();

// Standard output is for the rows alone; what a client has to say goes to the complaints.
console.log = console.info = console.error;
const print = (row) => process.stdout.write(`${JSON.stringify(row)}\n`);

/** Declares what `call` of a client must do for a feature of a dialect. Keep it on one line up to `async`. */
export function feature(dialect, name, call, check) {
  const key = `${dialect}/${name}`;
  assert(!declared.has(key), `${key} is declared twice`);
  declared.set(key, { call, check });
}

class Context {
  token = GATEWAY_TOKEN;
  /** The gateway that answers by itself, with the model "demo". */
  demo = DEMO_URL;
  /** The gateway in front of scripted models, see tests/sdk/scripted_models.py. */
  gateway = GATEWAY_URL;

  constructor(key) {
    this.tag = `${basename(process.argv[1], ".mjs")}-${key.replace("/", "-")}`;
  }

  /** A scripted model that nobody else asks. */
  model(script) {
    return `${script}:${this.tag}`;
  }

  /** What the upstream was asked of such a model, in order: `path`, `body`, and whether the gateway `left` early. */
  async seen(model) {
    return (await fetch(`${UPSTREAM_URL}/seen/${encodeURIComponent(model)}`)).json();
  }

  /** Waits until the gateway has left the first call of such a model. */
  async left(model) {
    const deadline = Date.now() + 5000;
    while (!(await this.seen(model))[0]?.left) {
      assert(Date.now() < deadline, "the gateway did not leave its upstream");
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

/** The error that something ends with, which must be of a class. */
export async function raised(kind, promise) {
  try {
    await promise;
  } catch (error) {
    assert(error instanceof kind, `${error?.constructor?.name} instead of ${kind.name}: ${error?.stack}`);
    return error;
  }
  assert.fail(`no ${kind.name}`);
}

/** Everything that an iteration gives. */
export async function all(iterable) {
  const items = [];
  for await (const item of iterable) items.push(item);
  return items;
}

async function outcome(key) {
  const { check } = declared.get(key);
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done after ${LIMIT_MS} ms`)), LIMIT_MS);
  });
  try {
    await Promise.race([check(new Context(key)), late]);
    return { feature: key, ok: true };
  } catch (error) {
    return { feature: key, ok: false, error: error?.stack ?? String(error) };
  } finally {
    clearTimeout(timer);
  }
}

/** Does what the command line asks for; the last line of every file. */
export async function run() {
  const asked = process.argv.slice(2);
  if (asked.length === 0) {
    for (const [key, { call }] of declared) print({ feature: key, call });
    return;
  }
  const keys = asked[0] === "all" ? [...declared.keys()] : asked;
  await Promise.all(
    keys.map(async (key) => {
      assert(declared.has(key), `no feature ${key}`);
      const row = await outcome(key);
      print(row);
      if (!row.ok) process.exitCode = 1;
    }),
  );
}
