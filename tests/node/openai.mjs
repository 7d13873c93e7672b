// openai-node: another base URL and key, and nothing else.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { LengthFinishReasonError } from "openai/core/error";
import { zodFunction, zodResponseFormat, zodResponsesFunction, zodTextFormat } from "openai/helpers/zod";
import { all, feature, raised, run } from "./features.mjs";
import { City, HELLO, PARIS, PIXEL, PLACE, Place, UNICODE } from "./samples.mjs";

const DEMO = { model: "demo", messages: HELLO };
const CITY = zodResponseFormat(City, "city");
const ERRORS = {
  400: OpenAI.BadRequestError,
  403: OpenAI.PermissionDeniedError,
  404: OpenAI.NotFoundError,
  429: OpenAI.RateLimitError,
  500: OpenAI.InternalServerError,
  503: OpenAI.InternalServerError,
};
const WEATHER = {
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather in a city",
    parameters: PLACE,
  },
};

function client(context, url = context.gateway, options = {}) {
  const settings = { baseURL: `${url}/v1`, apiKey: context.token, maxRetries: 0, dangerouslyAllowBrowser: true };
  return new OpenAI({ ...settings, ...options });
}

/** What every chat has: a scripted model and one question. */
function question(context, script) {
  return { model: context.model(script), messages: HELLO };
}

/** What `zodFunction` makes of a function; `asked` gets the cities. */
function weather(asked) {
  return zodFunction({
    name: "get_weather",
    parameters: Place,
    function: ({ city }) => {
      asked.push(city);
      return `warm in ${city}`;
    },
  });
}

feature("models", "list", "client.models.list()", async (context) => {
  const models = await all(client(context, context.demo).models.list());
  assert.deepEqual(models.map((each) => each.id), ["demo:latest"]);
});

feature("models", "retrieve", "client.models.retrieve(...)", async (context) => {
  const { models } = client(context, context.demo);
  assert.equal((await models.retrieve("library/demo")).id, "library/demo");
  await raised(OpenAI.NotFoundError, models.retrieve("nobody-has-this"));
});

feature("models", "wrong_key", "client.models.list() raises AuthenticationError", async (context) => {
  const wrong = client(context, context.gateway, { apiKey: "wrong" });
  assert.equal((await raised(OpenAI.AuthenticationError, wrong.models.list())).code, "invalid_api_key");
});

feature("chat", "single", "client.chat.completions.create(...)", async (context) => {
  const answer = await client(context).chat.completions.create(question(context, "hello"));
  const [choice] = answer.choices;
  assert.deepEqual([choice.message.role, choice.message.content], ["assistant", "Hello there"]);
  assert.deepEqual([answer.object, choice.finish_reason, answer.usage.total_tokens], ["chat.completion", "stop", 10]);
  assert(answer._request_id);
});

feature("chat", "streaming", "client.chat.completions.create({ stream: true })", async (context) => {
  const { completions } = client(context, context.demo).chat;
  const single = await completions.create(DEMO);
  const chunks = await all(await completions.create({ ...DEMO, stream: true }));
  assert.equal(chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join(""), single.choices[0].message.content);
  assert.deepEqual(chunks.flatMap((chunk) => chunk.choices[0].finish_reason ?? []), ["stop"]);
});

feature("chat", "unicode", "client.chat.completions.stream(...).on('content', ...)", async (context) => {
  const pieces = [];
  const stream = client(context).chat.completions.stream(question(context, "unicode"));
  stream.on("content", (delta) => pieces.push(delta));
  assert.equal(await stream.finalContent(), UNICODE);
  assert.equal(pieces.join(""), await stream.finalContent());
});

feature("chat", "usage", "client.chat.completions.stream(...).totalUsage()", async (context) => {
  const asked = { ...question(context, "hello"), stream_options: { include_usage: true } };
  const usage = await client(context).chat.completions.stream(asked).totalUsage();
  assert.deepEqual([usage.prompt_tokens, usage.completion_tokens, usage.total_tokens], [7, 3, 10]);
});

feature("chat", "thinking", "client.chat.completions.create({ reasoning_effort })", async (context) => {
  const asked = { ...question(context, "thinks"), reasoning_effort: "low" };
  const { completions } = client(context).chat;
  const { message } = (await completions.create(asked)).choices[0];
  assert.deepEqual([message.reasoning_content, message.reasoning], ["Let me think.", "Let me think."]);
  assert.equal(message.content, "It is four.");
  const chunks = await all(await completions.create({ ...asked, stream: true }));
  const deltas = chunks.map((chunk) => chunk.choices[0].delta);
  assert.equal(deltas.map((delta) => delta.reasoning_content ?? "").join(""), "Let me think.");
  assert.equal(deltas.map((delta) => delta.content ?? "").join(""), "It is four.");
  assert.deepEqual((await context.seen(asked.model)).map((call) => call.body.think), ["low", "low"]);
});

feature("chat", "one_tool", "client.chat.completions.stream(...).finalFunctionToolCall()", async (context) => {
  const asked = { ...question(context, "calls"), tools: [WEATHER] };
  const stream = client(context).chat.completions.stream(asked);
  const called = await stream.finalFunctionToolCall();
  assert.deepEqual([called.name, JSON.parse(called.arguments)], ["get_weather", { city: "北京" }]);
  const [choice] = (await stream.finalChatCompletion()).choices;
  assert.deepEqual([choice.finish_reason, choice.message.content], ["tool_calls", "Let me look."]);
  assert(choice.message.tool_calls[0].id);
});

feature("chat", "parallel_tools", "client.chat.completions.stream(...).on('tool_calls.function.arguments.done', ...)", async (context) => {
  const done = [];
  const stream = client(context).chat.completions.stream({ ...question(context, "calls-two"), tools: [WEATHER] });
  stream.on("tool_calls.function.arguments.done", ({ index, name, arguments: text }) => {
    done.push([index, name, JSON.parse(text)]);
  });
  const { tool_calls: calls } = (await stream.finalChatCompletion()).choices[0].message;
  assert.deepEqual(done, [[0, "get_weather", { city: "Paris" }], [1, "get_weather", { city: "北京" }]]);
  assert.equal(new Set(calls.map((call) => call.id)).size, 2);
});

feature("chat", "tool_round_trip", "client.chat.completions.runTools({ stream: true })", async (context) => {
  const asked = [];
  const request = { model: context.model("calls-two"), stream: true, messages: HELLO, tools: [weather(asked)] };
  const runner = client(context).chat.completions.runTools(request);
  assert.equal(await runner.finalContent(), "It is warm.");
  assert.deepEqual(asked, ["Paris", "北京"]);
  const [, second] = await context.seen(request.model);
  const [, assistant, ...results] = second.body.messages;
  assert.deepEqual(assistant.tool_calls.map((call) => call.function.arguments.city), ["Paris", "北京"]);
  assert.deepEqual(results.map((result) => [result.role, result.tool_name, result.content]), [
    ["tool", "get_weather", "warm in Paris"],
    ["tool", "get_weather", "warm in 北京"],
  ]);
});

feature("chat", "tool_round_trip__single", "client.chat.completions.runTools(...)", async (context) => {
  const asked = [];
  const tools = [weather(asked)];
  const messages = [{ role: "user", content: "Use get_weather for a city" }];
  const runner = client(context, context.demo).chat.completions.runTools({ model: "demo", messages, tools });
  assert.match(await runner.finalContent(), new RegExp(`warm in ${asked[0]}`));
  assert.equal(asked.length, 1);
});

feature("chat", "image", "client.chat.completions.create({ messages: [{ content: [{ type: 'image_url' }] }] })", async (context) => {
  const image = { type: "image_url", image_url: { url: `data:image/png;base64,${PIXEL}` } };
  const content = [{ type: "text", text: "What is it?" }, image];
  const model = context.model("hello");
  await client(context).chat.completions.create({ model, messages: [{ role: "user", content }] });
  const [{ body }] = await context.seen(model);
  assert.deepEqual(body.messages, [{ role: "user", content: "What is it?", images: [PIXEL] }]);
});

feature("chat", "json_schema", "client.chat.completions.parse({ response_format: zodResponseFormat(...) })", async (context) => {
  const asked = { ...question(context, "city"), response_format: CITY };
  const { completions } = client(context).chat;
  assert.deepEqual((await completions.parse(asked)).choices[0].message.parsed, PARIS);
  assert.deepEqual(Object.keys((await context.seen(asked.model))[0].body.format.properties), ["name", "people"]);
  const streamed = await completions.stream(asked).finalChatCompletion();
  assert.deepEqual(streamed.choices[0].message.parsed, PARIS);
});

feature("chat", "length", "client.chat.completions.parse({ max_completion_tokens })", async (context) => {
  const asked = { ...question(context, "length"), response_format: CITY, max_completion_tokens: 3 };
  const { completions } = client(context).chat;
  assert.equal((await completions.create(asked)).choices[0].finish_reason, "length");
  await raised(LengthFinishReasonError, completions.parse(asked));
  await raised(LengthFinishReasonError, completions.stream(asked).finalChatCompletion());
  assert.equal((await context.seen(asked.model))[0].body.options.num_predict, 3);
});

feature("chat", "stop", "client.chat.completions.create({ stop })", async (context) => {
  const { completions } = client(context, context.demo).chat;
  const [choice] = (await completions.create({ ...DEMO, stop: ["built-in", "never"] })).choices;
  assert.deepEqual([choice.message.content, choice.finish_reason], ["This answer is from the ", "stop"]);
});

feature("chat", "logprobs", "client.chat.completions.stream({ logprobs: true }).on('logprobs.content.done', ...)", async (context) => {
  let tokens;
  const stream = client(context, context.demo).chat.completions.stream({ ...DEMO, logprobs: true, top_logprobs: 2 });
  stream.on("logprobs.content.done", ({ content }) => (tokens = content));
  const text = await stream.finalContent();
  assert.equal(tokens.map((each) => each.token).join(""), text);
  assert.deepEqual(tokens.map((each) => each.top_logprobs.length), tokens.map(() => 2));
});

feature("chat", "n", "client.chat.completions.create({ n })", async (context) => {
  const asked = { ...question(context, "hello"), n: 2 };
  const { completions } = client(context).chat;
  for (const answer of [await completions.create(asked), await completions.stream(asked).finalChatCompletion()]) {
    assert.deepEqual(answer.choices.map((choice) => choice.index), [0, 1]);
    assert.deepEqual(answer.choices.map((choice) => choice.message.content), ["Hello there", "Hello there"]);
  }
});

feature("chat", "error_before", "client.chat.completions.create(...) raises by status", async (context) => {
  for (const [status, kind] of Object.entries(ERRORS)) {
    for (const stream of [false, true]) {
      const asked = { ...question(context, `status-${status}`), stream };
      const error = await raised(kind, client(context).chat.completions.create(asked));
      assert.deepEqual([error.status, error.error.message], [Number(status), "what Ollama said"]);
      assert(error.requestID);
    }
  }
});

feature("chat", "error_before__missing_model", "client.chat.completions.create(...) raises NotFoundError", async (context) => {
  const asked = { model: "nobody-has-this", messages: HELLO };
  const error = await raised(OpenAI.NotFoundError, client(context, context.demo).chat.completions.create(asked));
  assert.equal(error.code, "model_not_found");
});

feature("chat", "error_before__bad_field", "client.chat.completions.create(...) raises BadRequestError", async (context) => {
  const asked = { ...question(context, "hello"), temperature: "hot" };
  const error = await raised(OpenAI.BadRequestError, client(context).chat.completions.create(asked));
  assert.equal(error.param, "temperature");
});

feature("chat", "error_in_the_middle", "client.chat.completions.stream(...) raises APIError", async (context) => {
  const pieces = [];
  const stream = client(context).chat.completions.stream(question(context, "boom"));
  stream.on("content", (delta) => pieces.push(delta));
  const error = await raised(OpenAI.APIError, stream.finalContent());
  assert.match(error.message, /boom/);
  assert.deepEqual(pieces, ["Hel"]);
});

feature("chat", "truncated", "client.chat.completions.create({ stream: true }) raises APIError", async (context) => {
  for (const script of ["ends-early", "cut"]) {
    const stream = await client(context).chat.completions.create({ ...question(context, script), stream: true });
    const error = await raised(OpenAI.APIError, all(stream));
    assert.match(error.message, /stopped in the middle/);
  }
});

feature("chat", "retries", "new OpenAI({ maxRetries })", async (context) => {
  const patient = client(context, context.gateway, { maxRetries: 2 }).chat.completions;
  const busy = question(context, "busy-twice");
  assert.equal((await patient.create(busy)).choices[0].message.content, "Hello there");
  assert.equal((await context.seen(busy.model)).length, 3);
  const refused = question(context, "status-400");
  await raised(OpenAI.BadRequestError, patient.create(refused));
  assert.equal((await context.seen(refused.model)).length, 1);
});

feature("chat", "timeout", "new OpenAI({ timeout })", async (context) => {
  const asked = question(context, "silent");
  const hasty = client(context, context.gateway, { timeout: 2000 });
  await raised(OpenAI.APIConnectionTimeoutError, hasty.chat.completions.create(asked));
  await context.left(asked.model);
});

feature("chat", "leaving", "stream.controller.abort()", async (context) => {
  const asked = { ...question(context, "hangs"), stream: true };
  const stream = await client(context).chat.completions.create(asked);
  for await (const chunk of stream) if (chunk.choices[0].delta.content) stream.controller.abort();
  await context.left(asked.model);
});

feature("completions", "single", "client.completions.create(...)", async (context) => {
  const answer = await client(context).completions.create({ model: context.model("hello"), prompt: "Hello!" });
  const [{ text, finish_reason: reason }] = answer.choices;
  assert.deepEqual([answer.object, text, reason], ["text_completion", "Hello there", "stop"]);
  assert.equal(answer.usage.total_tokens, 10);
});

feature("completions", "streaming", "client.completions.create({ stream: true })", async (context) => {
  const asked = { model: context.model("unicode"), prompt: "Hello!", stream: true };
  const chunks = await all(await client(context).completions.create(asked));
  assert.equal(chunks.map((chunk) => chunk.choices[0].text).join(""), UNICODE);
  assert.deepEqual(chunks.flatMap((chunk) => chunk.choices[0].finish_reason ?? []), ["stop"]);
});

feature("completions", "suffix", "client.completions.create({ suffix })", async (context) => {
  const asked = { model: context.model("hello"), prompt: "def f(", suffix: "return 1" };
  await client(context).completions.create(asked);
  const [{ body }] = await context.seen(asked.model);
  assert.deepEqual([body.prompt, body.suffix], ["def f(", "return 1"]);
});

feature("completions", "length", "client.completions.create({ max_tokens })", async (context) => {
  const asked = { model: context.model("length"), prompt: "Hello!", max_tokens: 3 };
  assert.equal((await client(context).completions.create(asked)).choices[0].finish_reason, "length");
  assert.equal((await context.seen(asked.model))[0].body.options.num_predict, 3);
});

feature("completions", "error_before", "client.completions.create(...) raises by status", async (context) => {
  for (const [status, kind] of Object.entries(ERRORS)) {
    const asked = { model: context.model(`status-${status}`), prompt: "Hello!" };
    const error = await raised(kind, client(context).completions.create(asked));
    assert.deepEqual([error.status, error.error.message], [Number(status), "what Ollama said"]);
  }
});

feature("completions", "truncated", "client.completions.create({ stream: true }) raises APIError", async (context) => {
  for (const script of ["ends-early", "cut"]) {
    const asked = { model: context.model(script), prompt: "Hello!", stream: true };
    const error = await raised(OpenAI.APIError, all(await client(context).completions.create(asked)));
    assert.match(error.message, /stopped in the middle/);
  }
});

feature("completions", "error_in_the_middle", "client.completions.create({ stream: true }) raises APIError", async (context) => {
  const asked = { model: context.model("boom"), prompt: "Hello!", stream: true };
  const stream = await client(context).completions.create(asked);
  assert.match((await raised(OpenAI.APIError, all(stream))).message, /boom/);
});

/** What every call of responses has: a scripted model and one question. */
function answered(context, script) {
  return { model: context.model(script), input: "Hello!" };
}

const types = (response) => response.output.map((item) => item.type);

feature("responses", "single", "client.responses.create(...)", async (context) => {
  const response = await client(context).responses.create({ ...answered(context, "hello"), instructions: "Be brief." });
  assert.deepEqual([response.object, response.status, response.output_text], ["response", "completed", "Hello there"]);
  const { input_tokens: read, output_tokens: written, total_tokens: total } = response.usage;
  assert.deepEqual([read, written, total], [7, 3, 10]);
  assert(response._request_id);
  const [{ body }] = await context.seen(context.model("hello"));
  assert.deepEqual(body.messages, [{ role: "system", content: "Be brief." }, ...HELLO]);
});

feature("responses", "streaming", "client.responses.stream(...).finalResponse()", async (context) => {
  const { responses } = client(context, context.demo);
  const single = await responses.create({ model: "demo", input: "Hello!" });
  const stream = responses.stream({ model: "demo", input: "Hello!" });
  const pieces = [];
  stream.on("response.output_text.delta", ({ delta }) => pieces.push(delta));
  const final = await stream.finalResponse();
  assert.deepEqual([final.status, final.output_text, final.usage], ["completed", single.output_text, single.usage]);
  assert.equal(pieces.join(""), single.output_text);
});

feature("responses", "streaming__events", "client.responses.create({ stream: true })", async (context) => {
  const events = await all(await client(context).responses.create({ ...answered(context, "hello"), stream: true }));
  assert.deepEqual(events.map((event) => event.sequence_number), [...events.keys()]);
  assert.deepEqual([...new Set(events.map((event) => event.type))], [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
  ]);
});

feature("responses", "unicode", "client.responses.stream(...) iterated", async (context) => {
  const events = await all(client(context).responses.stream(answered(context, "unicode")));
  const deltas = events.filter((event) => event.type === "response.output_text.delta");
  assert.equal(deltas.map((event) => event.delta).join(""), UNICODE);
});

feature("responses", "thinking", "client.responses.stream({ reasoning, include: ['reasoning.encrypted_content'] })", async (context) => {
  const { responses } = client(context);
  const reasoning = { effort: "low", summary: "auto" };
  const question = { ...answered(context, "thinks"), reasoning, include: ["reasoning.encrypted_content"] };
  const thoughts = [];
  const stream = responses.stream(question);
  stream.on("response.reasoning_summary_text.delta", ({ delta }) => thoughts.push(delta));
  const final = await stream.finalResponse();
  assert.deepEqual(types(final), ["reasoning", "message"]);
  assert.deepEqual([thoughts.join(""), final.output_text], ["Let me think.", "It is four."]);
  const input = [...HELLO, ...final.output, { role: "user", content: "Sure?" }];
  assert.deepEqual(types(await responses.create({ ...question, input })), ["reasoning", "message"]);
  const [first, second] = await context.seen(question.model);
  assert.equal(first.body.think, "low");
  assert.deepEqual(second.body.messages[1], { role: "assistant", content: "It is four.", thinking: "Let me think." });
});

feature("responses", "one_tool", "client.responses.stream({ tools: [zodResponsesFunction(...)] })", async (context) => {
  const tools = [zodResponsesFunction({ name: "get_weather", parameters: Place })];
  const parts = [];
  const stream = client(context).responses.stream({ ...answered(context, "calls"), tools });
  stream.on("response.function_call_arguments.delta", ({ delta }) => parts.push(delta));
  const final = await stream.finalResponse();
  assert.deepEqual([types(final), final.output_text], [["message", "function_call"], "Let me look."]);
  const [, call] = final.output;
  assert.deepEqual([call.name, call.parsed_arguments], ["get_weather", { city: "北京" }]);
  assert.deepEqual(JSON.parse(parts.join("")), { city: "北京" });
});

feature("responses", "parallel_tools", "client.responses.create({ tools }) with two calls", async (context) => {
  const tools = [{ type: "function", strict: false, ...WEATHER.function }];
  const { output } = await client(context).responses.create({ ...answered(context, "calls-two"), tools });
  assert.deepEqual(output.map((call) => JSON.parse(call.arguments).city), ["Paris", "北京"]);
  assert.equal(new Set(output.map((call) => call.call_id)).size, 2);
});

feature("responses", "tool_round_trip", "client.responses.create({ input: [..., { type: 'function_call_output' }] })", async (context) => {
  const tools = [{ type: "function", strict: false, ...WEATHER.function }];
  const question = { ...answered(context, "calls-two"), tools };
  const { output } = await client(context).responses.create(question);
  const type = "function_call_output";
  const results = output.map(({ call_id }, index) => ({ type, call_id, output: `warm ${index}` }));
  const second = await client(context).responses.create({ ...question, input: [...HELLO, ...output, ...results] });
  assert.equal(second.output_text, "It is warm.");
  const [, { body }] = await context.seen(question.model);
  assert.deepEqual(body.messages[1].tool_calls.map((call) => call.function.arguments.city), ["Paris", "北京"]);
  assert.deepEqual(body.messages.slice(2).map((each) => [each.role, each.tool_name, each.content]), [
    ["tool", "get_weather", "warm 0"],
    ["tool", "get_weather", "warm 1"],
  ]);
});

feature("responses", "image", "client.responses.create({ input: [{ content: [{ type: 'input_image' }] }] })", async (context) => {
  const image = { type: "input_image", detail: "auto", image_url: `data:image/png;base64,${PIXEL}` };
  const input = [{ role: "user", content: [{ type: "input_text", text: "What is it?" }, image] }];
  await client(context).responses.create({ ...answered(context, "hello"), input });
  const [{ body }] = await context.seen(context.model("hello"));
  assert.deepEqual(body.messages, [{ role: "user", content: "What is it?", images: [PIXEL] }]);
});

feature("responses", "json_schema", "client.responses.parse({ text: { format: zodTextFormat(...) } })", async (context) => {
  const question = { ...answered(context, "city"), text: { format: zodTextFormat(City, "city") } };
  const { responses } = client(context);
  assert.deepEqual((await responses.parse(question)).output_parsed, PARIS);
  assert.deepEqual((await responses.stream(question).finalResponse()).output_parsed, PARIS);
  const [{ body }] = await context.seen(question.model);
  assert.deepEqual(Object.keys(body.format.properties), ["name", "people"]);
});

feature("responses", "length", "client.responses.create({ max_output_tokens })", async (context) => {
  const question = { ...answered(context, "length"), max_output_tokens: 3 };
  const { responses } = client(context);
  for (const response of [await responses.create(question), await responses.stream(question).finalResponse()]) {
    assert.deepEqual([response.status, response.incomplete_details.reason], ["incomplete", "max_output_tokens"]);
  }
  assert.equal((await context.seen(question.model))[0].body.options.num_predict, 3);
});

feature("responses", "error_before", "client.responses.create(...) raises by status", async (context) => {
  for (const [status, kind] of Object.entries(ERRORS)) {
    for (const stream of [false, true]) {
      const question = { ...answered(context, `status-${status}`), stream };
      const error = await raised(kind, client(context).responses.create(question));
      assert.deepEqual([error.status, error.error.message], [Number(status), "what Ollama said"]);
    }
  }
});

feature("responses", "error_before__state", "client.responses.create({ previous_response_id }) raises BadRequestError", async (context) => {
  const { responses } = client(context);
  const question = { ...answered(context, "hello"), previous_response_id: "resp_1" };
  assert.equal((await raised(OpenAI.BadRequestError, responses.create(question))).param, "previous_response_id");
  await raised(OpenAI.NotFoundError, responses.retrieve("resp_1"));
});

feature("responses", "error_in_the_middle", "client.responses.stream(...).finalResponse() has failed", async (context) => {
  const pieces = [];
  const stream = client(context).responses.stream(answered(context, "boom"));
  stream.on("response.output_text.delta", ({ delta }) => pieces.push(delta));
  const final = await stream.finalResponse();
  assert.deepEqual([final.status, final.error.message, pieces], ["failed", "boom", ["Hel"]]);
});

feature("responses", "truncated", "client.responses.stream(...) has failed where the model server stopped", async (context) => {
  for (const script of ["ends-early", "cut"]) {
    const events = await all(await client(context).responses.create({ ...answered(context, script), stream: true }));
    const { type, response } = events.at(-1);
    assert.equal(type, "response.failed");
    assert.match(response.error.message, /stopped in the middle/);
  }
});

feature("responses", "retries", "client.responses.create(..., { maxRetries })", async (context) => {
  const { responses } = client(context);
  assert.equal((await responses.create(answered(context, "busy-twice"), { maxRetries: 2 })).output_text, "Hello there");
  assert.equal((await context.seen(context.model("busy-twice"))).length, 3);
});

feature("responses", "timeout", "client.responses.create(..., { timeout })", async (context) => {
  const { responses } = client(context);
  await raised(OpenAI.APIConnectionTimeoutError, responses.create(answered(context, "silent"), { timeout: 2000 }));
  await context.left(context.model("silent"));
});

feature("responses", "leaving", "client.responses.stream(...).abort()", async (context) => {
  const stream = client(context).responses.stream(answered(context, "hangs"));
  stream.on("response.output_text.delta", () => stream.abort());
  await raised(OpenAI.APIUserAbortError, stream.finalResponse());
  await context.left(context.model("hangs"));
});

feature("embeddings", "one", "client.embeddings.create({ input: '...' })", async (context) => {
  const answer = await client(context).embeddings.create({ model: context.model("vectors"), input: "a" });
  assert.deepEqual(answer.data.map((each) => each.embedding), [[0.5, -0.5, 0.25]]);
});

feature("embeddings", "many", "client.embeddings.create({ input: [...] })", async (context) => {
  const { embeddings } = client(context, context.demo);
  const packed = await embeddings.create({ model: "demo", input: ["a", "b"] });
  const plain = await embeddings.create({ model: "demo", input: ["a", "b"], encoding_format: "float" });
  assert.deepEqual(packed.data.map((each) => each.index), [0, 1]);
  assert.notDeepEqual(packed.data[0].embedding, packed.data[1].embedding);
  for (const [index, { embedding }] of packed.data.entries()) {
    assert.deepEqual(embedding, [...new Float32Array(plain.data[index].embedding)]);
  }
  assert(packed.usage.prompt_tokens > 0);
});

feature("embeddings", "error_before", "client.embeddings.create(...) raises by status", async (context) => {
  for (const [status, kind] of Object.entries(ERRORS)) {
    const asked = { model: context.model(`status-${status}`), input: "a" };
    const error = await raised(kind, client(context).embeddings.create(asked));
    assert.deepEqual([error.status, error.error.message], [Number(status), "what Ollama said"]);
  }
});

feature("embeddings", "dimensions", "client.embeddings.create({ dimensions })", async (context) => {
  const answer = await client(context, context.demo).embeddings.create({ model: "demo", input: "a", dimensions: 8 });
  assert.equal(answer.data[0].embedding.length, 8);
});

await run();
