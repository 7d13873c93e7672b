// Answers of every API, cut in every way: what is read is always the same.
import assert from "node:assert/strict";
import { test } from "node:test";
import { dialects, stream } from "./scripts.mjs";

const { DIALECTS, newAnswer, readFrame, readRefusal } = dialects;
const lines = (documents) => documents.map((document) => `${JSON.stringify(document)}\n`).join("");
const events = (documents) => documents.map((each) => (typeof each === "string" ? each : `event: ${each.type ?? ""}\ndata: ${JSON.stringify(each)}\n\n`)).join("");
const delta = (fields, more = {}) => ({ choices: [{ index: 0, delta: fields, ...more }] });
const CALL = { id: "call_1", name: "look_up", arguments: '{"name":"箱子"}' };

const STREAMS = {
  "ollama-chat": lines([
    { message: { role: "assistant", content: "", thinking: "想一想" } },
    { message: { role: "assistant", content: "你好，" } },
    { message: { role: "assistant", content: "世界 🌍\u2028" } },
    { message: { role: "assistant", content: "", tool_calls: [{ id: "call_1", function: { name: "look_up", arguments: { name: "箱子" } } }] } },
    { message: { role: "assistant", content: "" }, done: true, done_reason: "stop", prompt_eval_count: 5, eval_count: 8, eval_duration: 2_000_000_000 },
  ]),
  "ollama-generate": lines([
    { response: "", thinking: "想一想" },
    { response: "你好，" },
    { response: "世界 🌍\u2028" },
    { response: "", done: true, done_reason: "stop", prompt_eval_count: 5, eval_count: 8, eval_duration: 2_000_000_000 },
  ]),
  "openai-chat": events([
    ": waiting, 3rd of 7, about 12 s\n\n",
    delta({ role: "assistant", content: "", reasoning: "想一想", reasoning_content: "想一想" }),
    delta({ content: "你好，" }),
    ": \n\n",
    delta({ content: "世界 🌍\u2028" }),
    delta({ tool_calls: [{ index: 0, id: "call_1", type: "function", function: { name: "look_up", arguments: '{"name":' } }] }),
    delta({ tool_calls: [{ index: 0, function: { arguments: '"箱子"}' } }] }),
    delta({}, { finish_reason: "stop" }),
    { choices: [], usage: { prompt_tokens: 5, completion_tokens: 8 } },
    "data: [DONE]\n\n",
  ]),
  "openai-responses": events([
    { type: "response.created", response: {} },
    { type: "response.reasoning_text.delta", delta: "想一想" },
    { type: "response.reasoning_summary_text.delta", delta: "想一想" },
    { type: "response.output_item.added", item: { type: "message", id: "m" } },
    { type: "response.output_text.delta", delta: "你好，" },
    { type: "response.output_text.delta", delta: "世界 🌍\u2028" },
    { type: "response.output_item.added", item: { type: "function_call", id: "f", call_id: "call_1", name: "look_up", arguments: "" } },
    { type: "response.function_call_arguments.delta", item_id: "f", delta: '{"name":' },
    { type: "response.function_call_arguments.delta", item_id: "f", delta: '"箱子"}' },
    { type: "response.completed", response: { status: "stop", usage: { input_tokens: 5, output_tokens: 8 }, error: null } },
  ]),
  "anthropic-messages": events([
    { type: "message_start", message: { usage: { input_tokens: 0 } } },
    { type: "ping" },
    { type: "content_block_start", index: 0, content_block: { type: "thinking", thinking: "" } },
    { type: "content_block_delta", index: 0, delta: { type: "thinking_delta", thinking: "想一想" } },
    { type: "content_block_start", index: 1, content_block: { type: "text", text: "" } },
    { type: "content_block_delta", index: 1, delta: { type: "text_delta", text: "你好，" } },
    { type: "content_block_delta", index: 1, delta: { type: "text_delta", text: "世界 🌍\u2028" } },
    { type: "content_block_start", index: 2, content_block: { type: "tool_use", id: "call_1", name: "look_up", input: {} } },
    { type: "content_block_delta", index: 2, delta: { type: "input_json_delta", partial_json: '{"name":' } },
    { type: "content_block_delta", index: 2, delta: { type: "input_json_delta", partial_json: '"箱子"}' } },
    { type: "message_delta", delta: { stop_reason: "stop" }, usage: { input_tokens: 5, output_tokens: 8 } },
    { type: "message_stop" },
  ]),
};

function read(dialect, pieces) {
  const answer = newAnswer();
  const reader = new DIALECTS[dialect].Reader();
  const comments = [];
  for (const frames of [...pieces.map((piece) => reader.push(piece)), reader.end()]) {
    for (const frame of frames) {
      if (frame.comment) comments.push(frame.comment);
      readFrame(dialect, answer, frame);
    }
  }
  return { ...answer, calls: answer.calls.map(({ id, name, arguments: text }) => ({ id, name, arguments: text })), comments };
}
function* cuts(bytes) {
  yield [bytes];
  yield [...bytes].map((byte) => Uint8Array.of(byte));
  for (let at = 1; at < bytes.length; at += 1) yield [bytes.subarray(0, at), bytes.subarray(at)];
  for (const size of [2, 3, 5, 7, 64]) {
    yield Array.from({ length: Math.ceil(bytes.length / size) }, (_, number) => bytes.subarray(number * size, (number + 1) * size));
  }
}
const encode = (text) => new TextEncoder().encode(text);

for (const [dialect, text] of Object.entries(STREAMS)) {
  const expected = {
    text: "你好，世界 🌍\u2028",
    thinking: "想一想",
    calls: dialect === "ollama-generate" ? [] : [CALL],
    error: null,
    reason: "stop",
    isEnded: true,
    promptTokens: 5,
    completionTokens: 8,
    modelSeconds: dialect.startsWith("ollama") ? 2 : null,
    comments: dialect === "openai-chat" ? ["waiting, 3rd of 7, about 12 s"] : [],
  };
  test(`${dialect} is read however its bytes are cut`, () => {
    for (const pieces of cuts(encode(text))) assert.deepEqual(read(dialect, pieces), expected);
  });
  test(`${dialect} is read with the line ends of another system`, () => {
    for (const pieces of cuts(encode(text.replaceAll("\n", "\r\n")))) assert.deepEqual(read(dialect, pieces), expected);
  });
  test(`${dialect} that stops early has not ended`, () => {
    const half = encode(text).subarray(0, encode(text).length - 8);
    assert.equal(read(dialect, [half]).isEnded, false);
  });
}

const FAILURES = {
  "ollama-chat": '{"message":{"content":"Half"}}\n{"error":"out of memory"}\n',
  "ollama-generate": '{"response":"Half"}\n{"error":"out of memory"}\n',
  "openai-chat": `data: ${JSON.stringify(delta({ content: "Half" }))}\n\ndata: {"error":{"message":"out of memory","type":"server_error","code":"upstream"}}\n\n`,
  "openai-responses": events([
    { type: "response.output_text.delta", delta: "Half" },
    { type: "response.failed", response: { status: "failed", error: { code: "server_error", message: "out of memory" } } },
  ]),
  "anthropic-messages": events([
    { type: "content_block_delta", index: 0, delta: { type: "text_delta", text: "Half" } },
    { type: "error", error: { type: "overloaded_error", message: "out of memory" } },
  ]),
};
for (const [dialect, text] of Object.entries(FAILURES)) {
  test(`an error after the first byte is one in ${dialect}, and what came before stays`, () => {
    for (const pieces of cuts(encode(text))) {
      const answer = read(dialect, pieces);
      assert.equal(answer.text, "Half");
      assert.equal(answer.error.message, "out of memory");
    }
  });
}

test("bytes that are no JSON are an error", () => {
  assert.match(read("ollama-chat", [encode("<html>502</html>\n")]).error.message, /502/);
});

test("an event without its empty line has not arrived", () => {
  assert.equal(read("openai-chat", [encode('data: {"choices":[{"delta":{"content":"x"}}]}\n')]).text, "");
});

test("a refusal of every API has its text and code, and a page of another server its words", () => {
  assert.deepEqual(readRefusal('{"error":"model not found"}'), { message: "model not found", code: "" });
  assert.deepEqual(readRefusal('{"error":{"message":"no","type":"t","code":"model_not_allowed"}}'), { message: "no", code: "model_not_allowed" });
  assert.deepEqual(readRefusal('{"type":"error","error":{"type":"permission_error","message":"no"}}'), { message: "no", code: "permission_error" });
  assert.deepEqual(readRefusal("<html><b>413</b> Too Large</html>"), { message: "413 Too Large", code: "" });
  assert.deepEqual(readRefusal(""), { message: "", code: "" });
});

test("comments say what a request waits for", () => {
  assert.deepEqual(stream.readProgress("waiting, 3rd of 7, about 12 s"), { waiting: { place: 3, of: 7, seconds: 12 } });
  assert.deepEqual(stream.readProgress("waiting"), { waiting: {} });
  assert.deepEqual(stream.readProgress("loading qwen3:14b on box1"), { loading: { model: "qwen3:14b", box: "box1" } });
  assert.equal(stream.readProgress(""), null);
});
