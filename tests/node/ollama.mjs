// ollama-js: another host and a header, and nothing else.
import assert from "node:assert/strict";
import { Ollama } from "ollama";
import { z } from "zod";
import { all, feature, raised, run } from "./features.mjs";
import { City, HELLO, PARIS, PIXEL, PLACE, UNICODE } from "./samples.mjs";

const DEMO = { model: "demo", messages: HELLO };
const WEATHER = {
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather in a city",
    parameters: PLACE,
  },
};

function client(context, host = context.gateway, options = {}) {
  return new Ollama({ host, headers: { Authorization: `Bearer ${context.token}` }, ...options });
}

/** What every chat has: a scripted model and one question. */
function question(context, script) {
  return { model: context.model(script), messages: HELLO };
}

const content = (parts) => parts.map((part) => part.message.content).join("");

feature("models", "list", "client.list()", async (context) => {
  assert.deepEqual((await client(context, context.demo).list()).models.map((each) => each.name), ["demo:latest"]);
});

feature("models", "retrieve", "client.show(...)", async (context) => {
  const shown = await client(context, context.demo).show({ model: "demo" });
  assert(shown.capabilities.includes("completion"));
  assert.equal(shown.model_info["general.architecture"], "demo");
});

feature("models", "running", "client.ps()", async (context) => {
  assert.deepEqual((await client(context, context.demo).ps()).models.map((each) => each.name), ["demo:latest"]);
});

feature("native", "pull_and_push", "client.pull({ stream: true }), client.push({ stream: true })", async (context) => {
  const demo = client(context, context.demo);
  for (const [progress, first] of [[demo.pull, "pulling manifest"], [demo.push, "retrieving manifest"]]) {
    const parts = await all(await progress.call(demo, { model: "demo", stream: true }));
    assert.deepEqual([parts[0].status, parts.at(-1).status], [first, "success"]);
    assert(parts.some((part) => part.total && part.completed === part.total));
  }
});

feature("native", "pull_and_push__fails", "client.pull({ stream: true }) throws", async (context) => {
  const stream = await client(context, context.demo).pull({ model: "nobody-has-this", stream: true });
  assert.match((await raised(Error, all(stream))).message, /does not exist/);
});

feature("native", "create", "client.create({ from })", async (context) => {
  const answer = await client(context, context.demo).create({ model: "mine", from: "demo", system: "Be brief." });
  assert.equal(answer.status, "success");
});

feature("native", "copy_and_delete", "client.copy(...), client.delete(...)", async (context) => {
  const demo = client(context, context.demo);
  assert.equal((await demo.copy({ source: "demo", destination: "copied" })).status, "success");
  assert.equal((await raised(Error, demo.delete({ model: "demo" }))).status_code, 403);
  assert.equal((await raised(Error, demo.delete({ model: "nobody-has-this" }))).status_code, 404);
});

feature("native", "version", "client.version()", async (context) => {
  assert.match((await client(context, context.demo).version()).version, /^\d+\.\d+\.\d+$/);
});

feature("native", "single", "client.chat(...)", async (context) => {
  const answer = await client(context).chat({ ...question(context, "hello") });
  assert.deepEqual([answer.message.content, answer.done, answer.done_reason], ["Hello there", true, "stop"]);
  assert.deepEqual([answer.prompt_eval_count, answer.eval_count], [7, 3]);
});

feature("native", "streaming", "client.chat({ stream: true })", async (context) => {
  const demo = client(context, context.demo);
  const single = await demo.chat(DEMO);
  const parts = await all(await demo.chat({ ...DEMO, stream: true }));
  assert.equal(content(parts), single.message.content);
  assert.deepEqual([parts.at(-1).done, parts.at(-1).eval_count], [true, single.eval_count]);
});

feature("native", "unicode", "client.chat({ stream: true }) with cut characters", async (context) => {
  const parts = await all(await client(context).chat({ ...question(context, "unicode"), stream: true }));
  assert.equal(content(parts), UNICODE);
});

feature("native", "thinking", "client.chat({ think })", async (context) => {
  const asked = { ...question(context, "thinks"), think: "high" };
  const { message } = await client(context).chat({ ...asked });
  assert.deepEqual([message.thinking, message.content], ["Let me think.", "It is four."]);
  const parts = await all(await client(context).chat({ ...asked, stream: true }));
  assert.equal(parts.map((part) => part.message.thinking ?? "").join(""), "Let me think.");
  assert.deepEqual((await context.seen(asked.model)).map((call) => call.body.think), ["high", "high"]);
});

feature("native", "one_tool", "client.chat({ tools })", async (context) => {
  const asked = { ...question(context, "calls"), tools: [WEATHER], stream: true };
  const parts = await all(await client(context).chat(asked));
  const [call] = parts.flatMap((part) => part.message.tool_calls ?? []);
  assert.deepEqual([call.function.name, call.function.arguments], ["get_weather", { city: "北京" }]);
  assert.deepEqual((await context.seen(asked.model))[0].body.tools, [WEATHER]);
});

feature("native", "parallel_tools", "client.chat({ tools }) with two calls", async (context) => {
  const { message } = await client(context).chat({ ...question(context, "calls-two"), tools: [WEATHER] });
  assert.deepEqual(message.tool_calls.map((call) => call.function.arguments.city), ["Paris", "北京"]);
});

feature("native", "tool_round_trip", "client.chat({ messages: [..., { role: 'tool' }] })", async (context) => {
  const asked = { model: context.model("calls-two"), tools: [WEATHER] };
  const { message } = await client(context).chat({ ...asked, messages: HELLO });
  const results = message.tool_calls.map((call) => ({ role: "tool", tool_name: call.function.name, content: "warm" }));
  const messages = [...HELLO, message, ...results];
  assert.equal((await client(context).chat({ ...asked, messages })).message.content, "It is warm.");
  assert.deepEqual((await context.seen(asked.model))[1].body.messages, messages);
});

feature("native", "image", "client.chat({ messages: [{ images: [Uint8Array] }] })", async (context) => {
  const model = context.model("hello");
  const images = [Uint8Array.from(Buffer.from(PIXEL, "base64"))];
  await client(context).chat({ model, messages: [{ role: "user", content: "What is it?", images }] });
  assert.deepEqual((await context.seen(model))[0].body.messages[0].images, [PIXEL]);
});

feature("native", "json_schema", "client.chat({ format: z.toJSONSchema(...) })", async (context) => {
  const asked = { ...question(context, "city"), format: z.toJSONSchema(City) };
  const { message } = await client(context).chat({ ...asked });
  assert.deepEqual(City.parse(JSON.parse(message.content)), PARIS);
  assert.deepEqual((await context.seen(asked.model))[0].body.format, asked.format);
  const { message: example } = await client(context, context.demo).chat({ ...asked, model: "demo" });
  City.parse(JSON.parse(example.content));
});

feature("native", "length", "client.chat({ options: { num_predict } })", async (context) => {
  const answer = await client(context, context.demo).chat({ ...DEMO, options: { num_predict: 3 } });
  assert.deepEqual([answer.message.content, answer.done_reason, answer.eval_count], ["This answer is", "length", 3]);
});

feature("native", "stop", "client.chat({ options: { stop } })", async (context) => {
  const answer = await client(context, context.demo).chat({ ...DEMO, options: { stop: ["built-in"] } });
  assert.deepEqual([answer.message.content, answer.done_reason], ["This answer is from the ", "stop"]);
});

feature("native", "error_before", "client.chat(...) throws ResponseError with its status", async (context) => {
  for (const status of [400, 403, 404, 429, 500, 503]) {
    for (const stream of [false, true]) {
      const asked = { ...question(context, `status-${status}`), stream };
      const error = await raised(Error, client(context).chat(asked));
      assert.deepEqual([error.name, error.status_code, error.error], ["ResponseError", status, "what Ollama said"]);
      assert.equal(error.message, "what Ollama said");
    }
  }
});

feature("native", "error_before__missing_model", "client.chat(...) throws ResponseError 404", async (context) => {
  const error = await raised(Error, client(context, context.demo).chat({ model: "nobody-has-this", messages: HELLO }));
  assert.deepEqual([error.name, error.status_code], ["ResponseError", 404]);
  assert.match(error.message, /not found/);
});

feature("native", "wrong_key", "new Ollama({ headers: { Authorization } })", async (context) => {
  for (const headers of [{}, { Authorization: "Bearer wrong" }]) {
    const error = await raised(Error, client(context, context.gateway, { headers }).list());
    assert.deepEqual([error.name, error.status_code], ["ResponseError", 401]);
  }
});

feature("native", "key_in_the_host", "new Ollama({ host: '.../k/<token>' })", async (context) => {
  const bare = client(context, `${context.demo}/k/${context.token}`, { headers: {} });
  assert.equal((await bare.list()).models.length, 1);
  assert((await bare.chat(DEMO)).message.content);
});

feature("native", "error_in_the_middle", "client.chat({ stream: true }) throws", async (context) => {
  const parts = [];
  const stream = await client(context).chat({ ...question(context, "boom"), stream: true });
  const reading = (async () => {
    for await (const part of stream) parts.push(part);
  })();
  assert.match((await raised(Error, reading)).message, /boom/);
  assert.equal(content(parts), "Hel");
});

feature("native", "truncated", "client.chat({ stream: true }) throws where the model server stopped", async (context) => {
  for (const script of ["ends-early", "cut"]) {
    const stream = await client(context).chat({ ...question(context, script), stream: true });
    assert.match((await raised(Error, all(stream))).message, /stopped in the middle/);
  }
});

feature("native", "retries", "client.chat(...) asks once", async (context) => {
  const asked = { ...question(context, "status-503") };
  await raised(Error, client(context).chat(asked));
  assert.equal((await context.seen(asked.model)).length, 1);
});

feature("native", "timeout", "new Ollama({ fetch }) with AbortSignal.timeout(...)", async (context) => {
  const hasty = (url, options) => fetch(url, { ...options, signal: AbortSignal.timeout(2000) });
  const asked = { ...question(context, "silent") };
  const error = await raised(DOMException, client(context, context.gateway, { fetch: hasty }).chat(asked));
  assert.equal(error.name, "TimeoutError");
  await context.left(asked.model);
});

feature("native", "leaving", "client.abort()", async (context) => {
  const leaving = client(context);
  const asked = { ...question(context, "hangs"), stream: true };
  const stream = await leaving.chat(asked);
  const reading = (async () => {
    for await (const part of stream) if (part.message.content) leaving.abort();
  })();
  assert.equal((await raised(DOMException, reading)).name, "AbortError");
  await context.left(asked.model);
});

feature("native", "generate", "client.generate(...)", async (context) => {
  const asked = { model: context.model("thinks"), prompt: "Hello!", system: "Be brief.", think: true };
  const answer = await client(context).generate({ ...asked });
  assert.deepEqual([answer.response, answer.thinking, answer.done_reason], ["It is four.", "Let me think.", "stop"]);
  const [{ path, body }] = await context.seen(asked.model);
  assert.deepEqual([path, body.prompt, body.system, body.stream], ["/api/generate", "Hello!", "Be brief.", false]);
});

feature("native", "generate__as_a_stream", "client.generate({ stream: true })", async (context) => {
  const asked = { model: context.model("unicode"), prompt: "Hello!", stream: true };
  const parts = await all(await client(context).generate(asked));
  assert.equal(parts.map((part) => part.response).join(""), UNICODE);
  assert.deepEqual([parts.at(-1).done, parts.at(-1).done_reason], [true, "stop"]);
});

feature("embeddings", "many", "client.embed({ input: [...] })", async (context) => {
  const { embeddings } = await client(context, context.demo).embed({ model: "demo", input: ["a", "b"], dimensions: 8 });
  assert.deepEqual(embeddings.map((vector) => vector.length), [8, 8]);
  assert.notDeepEqual(embeddings[0], embeddings[1]);
});

feature("embeddings", "one", "client.embeddings({ prompt })", async (context) => {
  const { embedding } = await client(context, context.demo).embeddings({ model: "demo", prompt: "a" });
  assert.equal(embedding.length, 64);
});

await run();
