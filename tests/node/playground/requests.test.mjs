// What the form becomes: the request of each API, and the same call as a program.
import assert from "node:assert/strict";
import { test } from "node:test";
import { CALL, TOOLS, dialects, samples } from "./scripts.mjs";

const { DIALECTS, readTools } = dialects;
const PLAIN = { model: "demo", system: "", temperature: null, maxTokens: null, seed: null, think: "", tools: [], turns: [{ role: "user", text: "Hi", images: [] }] };
const URL = "data:image/png;base64,iVBORw0KGgo=";
const USER = CALL.turns[0].text;

test("what the form leaves open is not sent", () => {
  const build = (dialect) => DIALECTS[dialect].build(PLAIN);
  const messages = [{ role: "user", content: "Hi" }];
  assert.deepEqual(build("ollama-chat"), { model: "demo", messages, stream: true });
  assert.deepEqual(build("ollama-generate"), { model: "demo", prompt: "Hi", stream: true });
  assert.deepEqual(build("openai-chat"), { model: "demo", messages, stream: true, stream_options: { include_usage: true } });
  assert.deepEqual(build("openai-responses"), { model: "demo", input: messages, stream: true });
  assert.deepEqual(build("anthropic-messages"), { model: "demo", max_tokens: 4096, messages, stream: true });
});

test("Ollama's chat gets everything", () => {
  assert.deepEqual(DIALECTS["ollama-chat"].build(CALL), {
    model: "demo",
    messages: [
      { role: "system", content: CALL.system },
      { role: "user", content: USER, images: ["iVBORw0KGgo="] },
      { role: "assistant", content: "", tool_calls: [{ function: { name: "look_up", arguments: { name: "box1" } } }] },
      { role: "tool", tool_name: "look_up", content: "up" },
      { role: "assistant", content: "It is up." },
      { role: "user", content: "Thanks" },
    ],
    tools: [{ type: "function", function: TOOLS[0] }],
    think: "low",
    options: { temperature: 0, num_predict: 64, seed: 7 },
    stream: true,
  });
});

test("Ollama's generate gets the last message only", () => {
  const body = DIALECTS["ollama-generate"].build(CALL);
  assert.deepEqual(body, { model: "demo", system: CALL.system, prompt: "Thanks", think: "low", options: { temperature: 0, num_predict: 64, seed: 7 }, stream: true });
});

test("chat completions get everything", () => {
  const body = DIALECTS["openai-chat"].build(CALL);
  assert.deepEqual(body.messages.slice(1, 4), [
    { role: "user", content: [{ type: "image_url", image_url: { url: URL } }, { type: "text", text: USER }] },
    { role: "assistant", content: "", tool_calls: [{ id: "call_1", type: "function", function: { name: "look_up", arguments: '{"name":"box1"}' } }] },
    { role: "tool", tool_call_id: "call_1", content: "up" },
  ]);
  const { temperature, max_completion_tokens, seed, reasoning_effort, tools } = body;
  assert.deepEqual({ temperature, max_completion_tokens, seed, reasoning_effort }, { temperature: 0, max_completion_tokens: 64, seed: 7, reasoning_effort: "low" });
  assert.deepEqual(tools, [{ type: "function", function: TOOLS[0] }]);
});

test("Responses get everything", () => {
  const body = DIALECTS["openai-responses"].build(CALL);
  assert.deepEqual(body.input.slice(0, 3), [
    { role: "user", content: [{ type: "input_image", detail: "auto", image_url: URL }, { type: "input_text", text: USER }] },
    { type: "function_call", call_id: "call_1", name: "look_up", arguments: '{"name":"box1"}' },
    { type: "function_call_output", call_id: "call_1", output: "up" },
  ]);
  assert.equal(body.instructions, CALL.system);
  assert.deepEqual(body.reasoning, { effort: "low" });
  assert.deepEqual(body.tools, [{ type: "function", strict: false, ...TOOLS[0] }]);
});

test("Messages get everything", () => {
  const body = DIALECTS["anthropic-messages"].build(CALL);
  assert.deepEqual(body.messages.slice(0, 3), [
    { role: "user", content: [{ type: "image", source: { type: "base64", media_type: "image/png", data: "iVBORw0KGgo=" } }, { type: "text", text: USER }] },
    { role: "assistant", content: [{ type: "tool_use", id: "call_1", name: "look_up", input: { name: "box1" } }] },
    { role: "user", content: [{ type: "tool_result", tool_use_id: "call_1", content: "up" }] },
  ]);
  assert.deepEqual(body.thinking, { type: "adaptive" });
  assert.deepEqual(body.output_config, { effort: "low" });
  assert.deepEqual(body.tools, [{ name: "look_up", description: TOOLS[0].description, input_schema: TOOLS[0].parameters }]);
});

test("thinking is switched on and off in the words of each API", () => {
  const build = (dialect, think) => DIALECTS[dialect].build({ ...PLAIN, think });
  assert.equal(build("ollama-chat", "on").think, true);
  assert.equal(build("ollama-chat", "off").think, false);
  assert.equal(build("openai-chat", "off").reasoning_effort, "none");
  assert.deepEqual(build("openai-responses", "on").reasoning, { effort: "medium" });
  assert.deepEqual(build("anthropic-messages", "off").thinking, { type: "disabled" });
  assert.equal(build("anthropic-messages", "on").output_config, undefined);
});

test("tools may have the form of any API", () => {
  const parameters = { type: "object", properties: {} };
  for (const tool of [
    { type: "function", function: { name: "f", parameters } },
    { type: "function", name: "f", parameters },
    { name: "f", input_schema: parameters },
    { name: "f" },
  ]) assert.deepEqual(readTools(JSON.stringify(tool)), [{ name: "f", parameters }]);
  assert.deepEqual(readTools("  "), []);
  for (const wrong of ["{", "[1]", "[{}]", '["f"]', "[null]"]) assert.throws(() => readTools(wrong));
});

test("programs take the token from the environment, and name pictures instead of containing them", () => {
  for (const dialect of Object.keys(DIALECTS)) {
    const written = samples.writeSamples(dialect, { ...CALL, turns: CALL.turns.slice(0, 1) }, "https://gw.example");
    assert.match(written.curl, /\$TOKEN"/);
    assert.match(written.python, /os\.environ\[["']TOKEN["']\]/);
    assert.match(written.javascript, /process\.env\.TOKEN/);
    for (const text of Object.values(written)) {
      assert.match(text, /https:\/\/gw\.example/);
      assert.match(text, /<a\.png in base64>/);
      assert.doesNotMatch(text, /iVBORw0KGgo/);
    }
  }
});
