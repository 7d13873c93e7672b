// @anthropic-ai/sdk: another base URL and key, and nothing else.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import { betaZodTool } from "@anthropic-ai/sdk/helpers/beta/zod";
import { zodOutputFormat } from "@anthropic-ai/sdk/helpers/zod";
import { all, feature, raised, run } from "./features.mjs";
import { City, HELLO, PARIS, PIXEL, PLACE, Place, UNICODE } from "./samples.mjs";

const DEMO = { model: "demo", max_tokens: 1000, messages: HELLO };
const WEATHER = {
  name: "get_weather",
  description: "The weather in a city",
  input_schema: PLACE,
};

function client(context, baseURL = context.gateway, options = {}) {
  return new Anthropic({ baseURL, apiKey: context.token, maxRetries: 0, ...options });
}

/** What every call has: a scripted model and one question. */
function asked(context, script) {
  return { model: context.model(script), max_tokens: 1000, messages: HELLO };
}

const kinds = (message) => message.content.map((block) => block.type);

feature("models", "list", "client.models.list()", async (context) => {
  const [model, ...others] = await all(client(context, context.demo).models.list());
  assert.deepEqual([model.type, model.id, others], ["model", "demo:latest", []]);
  assert(!Number.isNaN(Date.parse(model.created_at)));
});

feature("models", "retrieve", "client.models.retrieve(...)", async (context) => {
  const { models } = client(context, context.demo);
  assert.equal((await models.retrieve("library/demo")).id, "library/demo");
  await raised(Anthropic.NotFoundError, models.retrieve("nobody-has-this"));
});

feature("models", "wrong_key", "client.models.list() raises AuthenticationError", async (context) => {
  const wrong = client(context, context.gateway, { apiKey: "wrong" });
  const error = await raised(Anthropic.AuthenticationError, wrong.models.list());
  assert.equal(error.type, "authentication_error");
});

feature("messages", "single", "client.messages.create(...)", async (context) => {
  const message = await client(context).messages.create({ ...asked(context, "hello"), system: "Be brief." });
  assert.deepEqual(message.content, [{ type: "text", text: "Hello there" }]);
  assert.deepEqual([message.type, message.role, message.stop_reason], ["message", "assistant", "end_turn"]);
  assert.deepEqual([message.usage.input_tokens, message.usage.output_tokens], [7, 3]);
  assert(message._request_id);
  const [{ body }] = await context.seen(context.model("hello"));
  assert.deepEqual(body.messages, [{ role: "system", content: "Be brief." }, ...HELLO]);
});

feature("messages", "single__prefix", "new Anthropic({ baseURL: '.../anthropic' })", async (context) => {
  const { messages } = client(context, `${context.gateway}/anthropic`);
  assert.equal((await messages.create(asked(context, "hello"))).content[0].text, "Hello there");
});

feature("messages", "single__auth_token", "new Anthropic({ authToken })", async (context) => {
  const bearer = client(context, context.demo, { apiKey: null, authToken: context.token });
  assert((await bearer.messages.create(DEMO)).content[0].text);
});

feature("messages", "streaming", "client.messages.stream(...).finalMessage()", async (context) => {
  const { messages } = client(context, context.demo);
  const single = await messages.create(DEMO);
  const stream = messages.stream(DEMO);
  const pieces = [];
  stream.on("text", (delta) => pieces.push(delta));
  const final = await stream.finalMessage();
  assert.deepEqual([final.content, final.stop_reason], [single.content, "end_turn"]);
  assert.equal(pieces.join(""), single.content[0].text);
  assert.equal(final.usage.output_tokens, single.usage.output_tokens);
});

feature("messages", "streaming__events", "client.messages.create({ stream: true })", async (context) => {
  const events = await all(await client(context).messages.create({ ...asked(context, "hello"), stream: true }));
  assert.deepEqual(events.map((event) => event.type).filter((type) => type !== "ping"), [
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
  ]);
});

feature("messages", "unicode", "client.messages.stream(...).finalText()", async (context) => {
  const stream = client(context).messages.stream(asked(context, "unicode"));
  assert.equal(await stream.finalText(), UNICODE);
});

feature("messages", "usage", "client.messages.stream(...).finalMessage() has usage", async (context) => {
  const { usage } = await client(context).messages.stream(asked(context, "hello")).finalMessage();
  assert.deepEqual([usage.input_tokens, usage.output_tokens], [7, 3]);
});

feature("messages", "thinking", "client.messages.stream({ thinking }) and back with its signature", async (context) => {
  const { messages } = client(context);
  const question = { ...asked(context, "thinks"), thinking: { type: "adaptive" } };
  const thoughts = [];
  const stream = messages.stream(question).on("thinking", (delta) => thoughts.push(delta));
  const final = await stream.finalMessage();
  assert.deepEqual([kinds(final), thoughts.join("")], [["thinking", "text"], "Let me think."]);
  const [thinking, text] = final.content;
  assert.deepEqual([thinking.thinking, text.text], ["Let me think.", "It is four."]);
  assert(thinking.signature);
  const history = [...HELLO, { role: "assistant", content: final.content }, { role: "user", content: "Sure?" }];
  assert.deepEqual(kinds(await messages.create({ ...question, messages: history })), ["thinking", "text"]);
  const [first, second] = await context.seen(question.model);
  assert.equal(first.body.think, true);
  assert.deepEqual(second.body.messages[1], { role: "assistant", content: "It is four.", thinking: "Let me think." });
});

feature("messages", "one_tool", "client.messages.stream({ tools }).on('inputJson', ...)", async (context) => {
  const parts = [];
  const stream = client(context).messages.stream({ ...asked(context, "calls"), tools: [WEATHER] });
  stream.on("inputJson", (part) => parts.push(part));
  const final = await stream.finalMessage();
  assert.deepEqual([kinds(final), final.stop_reason], [["text", "tool_use"], "tool_use"]);
  assert.deepEqual([final.content[1].name, final.content[1].input], ["get_weather", { city: "北京" }]);
  assert.deepEqual(JSON.parse(parts.join("")), { city: "北京" });
  const [{ body }] = await context.seen(context.model("calls"));
  assert.deepEqual(body.tools[0].function.parameters, WEATHER.input_schema);
});

feature("messages", "parallel_tools", "client.messages.create({ tools }) with two calls", async (context) => {
  const question = { ...asked(context, "calls-two"), tools: [WEATHER] };
  const message = await client(context).messages.create(question);
  assert.deepEqual(message.content.map((block) => block.input?.city), ["Paris", "北京"]);
  assert.equal(new Set(message.content.map((block) => block.id)).size, 2);
});

feature("messages", "parallel_tools__off", "client.messages.create({ tool_choice: { disable_parallel_tool_use } })", async (context) => {
  const tool_choice = { type: "auto", disable_parallel_tool_use: true };
  const question = { ...asked(context, "calls-two"), tools: [WEATHER], tool_choice };
  const message = await client(context).messages.stream(question).finalMessage();
  assert.deepEqual(message.content.map((block) => block.input), [{ city: "Paris" }]);
});

feature("messages", "tool_round_trip", "client.messages.create({ messages: [..., { content: [{ type: 'tool_result' }] }] })", async (context) => {
  const question = { ...asked(context, "calls-two"), tools: [WEATHER] };
  const { content } = await client(context).messages.create(question);
  const results = content.map((block, index) => {
    return { type: "tool_result", tool_use_id: block.id, content: "warm", is_error: index === 1 };
  });
  const messages = [...HELLO, { role: "assistant", content }, { role: "user", content: results }];
  const answer = await client(context).messages.create({ ...question, messages });
  assert.equal(answer.content[0].text, "It is warm.");
  const [, { body }] = await context.seen(question.model);
  assert.deepEqual(body.messages[1].tool_calls.map((call) => call.function.arguments.city), ["Paris", "北京"]);
  assert.deepEqual(body.messages.slice(2).map((each) => [each.role, each.tool_name, each.content]), [
    ["tool", "get_weather", "warm"],
    ["tool", "get_weather", "Error: warm"],
  ]);
});

feature("messages", "tool_round_trip__runner", "client.beta.messages.toolRunner({ tools: [betaZodTool(...)] })", async (context) => {
  for (const stream of [false, true]) {
    const cities = [];
    const weather = betaZodTool({
      name: "get_weather",
      description: "The weather in a city",
      inputSchema: Place,
      run: ({ city }) => (cities.push(city), `warm in ${city}`),
    });
    const messages = [{ role: "user", content: "Use get_weather for a city" }];
    const question = { model: "demo", max_tokens: 1000, messages, tools: [weather], stream };
    const final = await client(context, context.demo).beta.messages.toolRunner(question).runUntilDone();
    assert.equal(cities.length, 1);
    assert.match(final.content[0].text, new RegExp(`warm in ${cities[0]}`));
  }
});

feature("messages", "image", "client.messages.create({ messages: [{ content: [{ type: 'image' }] }] })", async (context) => {
  const image = { type: "image", source: { type: "base64", media_type: "image/png", data: PIXEL } };
  const messages = [{ role: "user", content: [image, { type: "text", text: "What is it?" }] }];
  await client(context).messages.create({ ...asked(context, "hello"), messages });
  const [{ body }] = await context.seen(context.model("hello"));
  assert.deepEqual(body.messages, [{ role: "user", content: "What is it?", images: [PIXEL] }]);
});

feature("messages", "json_schema", "client.messages.parse({ output_config: { format: zodOutputFormat(...) } })", async (context) => {
  const question = { ...asked(context, "city"), output_config: { format: zodOutputFormat(City) } };
  const { messages } = client(context);
  assert.deepEqual((await messages.parse(question)).parsed_output, PARIS);
  const streamed = await messages.stream(question).finalMessage();
  assert.deepEqual(streamed.parsed_output, PARIS);
  const [{ body }] = await context.seen(question.model);
  assert.deepEqual(Object.keys(body.format.properties), ["name", "people"]);
});

feature("messages", "length", "client.messages.create({ max_tokens })", async (context) => {
  const question = { ...asked(context, "length"), max_tokens: 3 };
  assert.equal((await client(context).messages.create(question)).stop_reason, "max_tokens");
  assert.equal((await client(context).messages.stream(question).finalMessage()).stop_reason, "max_tokens");
  assert.equal((await context.seen(question.model))[0].body.options.num_predict, 3);
});

feature("messages", "stop", "client.messages.create({ stop_sequences })", async (context) => {
  const question = { ...DEMO, stop_sequences: ["built-in", "never"] };
  const message = await client(context, context.demo).messages.create(question);
  assert.deepEqual([message.content[0].text, message.stop_reason], ["This answer is from the ", "end_turn"]);
});

feature("messages", "count_tokens", "client.messages.countTokens(...)", async (context) => {
  const { messages } = client(context, context.demo);
  const few = await messages.countTokens({ model: "demo", messages: HELLO });
  const system = "Be brief. ".repeat(50);
  const more = await messages.countTokens({ model: "demo", messages: HELLO, system });
  const most = await messages.countTokens({ model: "demo", messages: HELLO, system, tools: [WEATHER] });
  assert(few.input_tokens >= 1 && more.input_tokens > few.input_tokens + 100 && most.input_tokens > more.input_tokens);
});

feature("messages", "error_before", "client.messages.create(...) raises by status", async (context) => {
  const classes = {
    400: [Anthropic.BadRequestError, "invalid_request_error"],
    403: [Anthropic.PermissionDeniedError, "permission_error"],
    404: [Anthropic.NotFoundError, "not_found_error"],
    429: [Anthropic.RateLimitError, "rate_limit_error"],
    500: [Anthropic.InternalServerError, "api_error"],
    503: [Anthropic.ServiceUnavailableError, "overloaded_error"],
  };
  for (const [status, [kind, type]] of Object.entries(classes)) {
    for (const stream of [false, true]) {
      const question = { ...asked(context, `status-${status}`), stream };
      const error = await raised(kind, client(context).messages.create(question));
      assert.deepEqual([error.status, error.type, error.apiMessage], [Number(status), type, "what Ollama said"]);
      assert(error.requestID);
      assert.equal(error.error.request_id, error.requestID);
    }
  }
});

feature("messages", "error_before__missing_model", "client.messages.create(...) raises NotFoundError", async (context) => {
  const question = { ...DEMO, model: "nobody-has-this" };
  const error = await raised(Anthropic.NotFoundError, client(context, context.demo).messages.create(question));
  assert.equal(error.type, "not_found_error");
});

feature("messages", "error_in_the_middle", "client.messages.stream(...) raises APIError", async (context) => {
  const pieces = [];
  const stream = client(context).messages.stream(asked(context, "boom")).on("text", (delta) => pieces.push(delta));
  const error = await raised(Anthropic.APIError, stream.finalMessage());
  assert.deepEqual([error.type, error.apiMessage, pieces], ["api_error", "boom", ["Hel"]]);
});

feature("messages", "truncated", "client.messages.stream(...) raises APIError where the model server stopped", async (context) => {
  for (const script of ["ends-early", "cut"]) {
    const stream = client(context).messages.stream(asked(context, script));
    assert.match((await raised(Anthropic.APIError, stream.finalMessage())).message, /stopped in the middle/);
  }
});

feature("messages", "retries", "new Anthropic({ maxRetries })", async (context) => {
  const { messages } = client(context, context.gateway, { maxRetries: 2 });
  assert.equal((await messages.create(asked(context, "busy-twice"))).content[0].text, "Hello there");
  assert.equal((await context.seen(context.model("busy-twice"))).length, 3);
  await raised(Anthropic.BadRequestError, messages.create(asked(context, "status-400")));
  assert.equal((await context.seen(context.model("status-400"))).length, 1);
});

feature("messages", "timeout", "new Anthropic({ timeout })", async (context) => {
  const hasty = client(context, context.gateway, { timeout: 2000 });
  await raised(Anthropic.APIConnectionTimeoutError, hasty.messages.create(asked(context, "silent")));
  await context.left(context.model("silent"));
});

feature("messages", "leaving", "client.messages.stream(...).abort()", async (context) => {
  const stream = client(context).messages.stream(asked(context, "hangs"));
  stream.on("text", () => stream.abort());
  await raised(Anthropic.APIUserAbortError, stream.finalMessage());
  await context.left(context.model("hangs"));
});

await run();
