// The AI SDK of Vercel with its provider for OpenAI-compatible servers: a base URL and a key, and nothing else.
import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import {
  APICallError,
  embed,
  embedMany,
  generateObject,
  generateText,
  NoObjectGeneratedError,
  Output,
  RetryError,
  stepCountIs,
  streamObject,
  streamText,
  tool,
  ToolLoopAgent,
} from "ai";
import { all, feature, raised, run } from "./features.mjs";
import { City, HELLO, PARIS, PIXEL, Place, UNICODE } from "./samples.mjs";


function provider(context, url = context.gateway, options = {}) {
  const settings = { name: "proxy", apiKey: context.token, includeUsage: true, supportsStructuredOutputs: true };
  return createOpenAICompatible({ baseURL: `${url}/v1`, ...settings, ...options });
}

/** What every call has: a scripted model and one question, which is asked once. */
function asked(context, script) {
  return { model: provider(context)(context.model(script)), messages: HELLO, maxRetries: 0 };
}

/** A tool that says how warm a city is; `cities` gets what it was asked for. */
function weather(cities) {
  return tool({
    description: "The weather in a city",
    inputSchema: Place,
    execute: async ({ city }) => {
      cities.push(city);
      return { city, degrees: 18 };
    },
  });
}

/** A stream whose errors are not printed, and its parts by type. */
async function parts(options) {
  const seen = await all(streamText({ ...options, onError: () => {} }).fullStream);
  return { of: (type) => seen.filter((part) => part.type === type) };
}

feature("chat", "single", "generateText(...)", async (context) => {
  const answer = await generateText(asked(context, "hello"));
  assert.deepEqual([answer.text, answer.finishReason, answer.warnings], ["Hello there", "stop", []]);
  assert.deepEqual([answer.usage.inputTokens, answer.usage.outputTokens, answer.usage.totalTokens], [7, 3, 10]);
});

feature("chat", "streaming", "streamText(...).textStream", async (context) => {
  const model = provider(context, context.demo)("demo");
  const { text } = await generateText({ model, messages: HELLO });
  const pieces = await all(streamText({ model, messages: HELLO }).textStream);
  assert(pieces.length > 5);
  assert.equal(pieces.join(""), text);
});

feature("chat", "unicode", "streamText(...).text", async (context) => {
  assert.equal(await streamText(asked(context, "unicode")).text, UNICODE);
});

feature("chat", "usage", "streamText(...).usage", async (context) => {
  const usage = await streamText(asked(context, "hello")).usage;
  assert.deepEqual([usage.inputTokens, usage.outputTokens, usage.totalTokens], [7, 3, 10]);
});

feature("chat", "thinking", "generateText({ providerOptions: { proxy: { reasoningEffort } } })", async (context) => {
  const question = { ...asked(context, "thinks"), providerOptions: { proxy: { reasoningEffort: "low" } } };
  const answer = await generateText(question);
  assert.deepEqual([answer.reasoningText, answer.text], ["Let me think.", "It is four."]);
  const stream = await parts(question);
  assert.equal(stream.of("reasoning-delta").map((part) => part.text).join(""), "Let me think.");
  assert.deepEqual([stream.of("reasoning-start").length, stream.of("reasoning-end").length], [1, 1]);
  assert.deepEqual((await context.seen(context.model("thinks"))).map((call) => call.body.think), ["low", "low"]);
});

feature("chat", "one_tool", "generateText({ tools })", async (context) => {
  const get_weather = tool({ inputSchema: Place });
  const answer = await generateText({ ...asked(context, "calls"), tools: { get_weather } });
  assert.deepEqual([answer.text, answer.finishReason], ["Let me look.", "tool-calls"]);
  assert.deepEqual(answer.toolCalls.map((call) => [call.toolName, call.input]), [["get_weather", { city: "北京" }]]);
  const [{ body }] = await context.seen(context.model("calls"));
  assert.deepEqual(Object.keys(body.tools[0].function.parameters.properties), ["city"]);
});

feature("chat", "parallel_tools", "streamText({ tools })", async (context) => {
  const get_weather = tool({ inputSchema: Place });
  const stream = await parts({ ...asked(context, "calls-two"), tools: { get_weather } });
  assert.deepEqual(stream.of("tool-call").map((part) => part.input.city), ["Paris", "北京"]);
  assert.equal(new Set(stream.of("tool-input-start").map((part) => part.id)).size, 2);
});

feature("chat", "tool_round_trip", "streamText({ tools: { execute }, stopWhen: stepCountIs(...) })", async (context) => {
  const cities = [];
  const tools = { get_weather: weather(cities) };
  const result = streamText({ ...asked(context, "calls-two"), tools, stopWhen: stepCountIs(3) });
  assert.equal(await result.text, "It is warm.");
  assert.deepEqual([cities, (await result.steps).length], [["Paris", "北京"], 2]);
  const [, { body }] = await context.seen(context.model("calls-two"));
  const [, assistant, ...results] = body.messages;
  assert.deepEqual(assistant.tool_calls.map((call) => call.function.arguments.city), ["Paris", "北京"]);
  assert.deepEqual(results.map((each) => [each.role, each.tool_name, JSON.parse(each.content)]), [
    ["tool", "get_weather", { city: "Paris", degrees: 18 }],
    ["tool", "get_weather", { city: "北京", degrees: 18 }],
  ]);
});

feature("chat", "tool_round_trip__agent", "new ToolLoopAgent({ tools }).generate(...)", async (context) => {
  const cities = [];
  const tools = { get_weather: weather(cities) };
  const agent = new ToolLoopAgent({ model: provider(context, context.demo)("demo"), tools });
  const { text, steps } = await agent.generate({ prompt: "Use get_weather for a city" });
  assert.deepEqual([cities.length, steps.length], [1, 2]);
  assert.match(text, /"degrees":18/);
});

feature("chat", "tool_choice", "generateText({ toolChoice: 'none' })", async (context) => {
  const tools = { get_weather: weather([]) };
  await generateText({ ...asked(context, "hello"), tools, toolChoice: "none" });
  assert.deepEqual((await context.seen(context.model("hello")))[0].body.tools ?? [], []);
});

feature("chat", "image", "generateText({ messages: [{ content: [{ type: 'image' }] }] })", async (context) => {
  const content = [{ type: "text", text: "What is it?" }, { type: "image", image: Buffer.from(PIXEL, "base64") }];
  await generateText({ ...asked(context, "hello"), messages: [{ role: "user", content }] });
  const [{ body }] = await context.seen(context.model("hello"));
  assert.deepEqual(body.messages, [{ role: "user", content: "What is it?", images: [PIXEL] }]);
});

feature("chat", "json_schema", "generateText({ output: Output.object({ schema }) })", async (context) => {
  const question = { ...asked(context, "city"), output: Output.object({ schema: City }) };
  assert.deepEqual((await generateText(question)).output, PARIS);
  const partial = await all(streamText(question).partialOutputStream);
  assert.deepEqual(partial.at(-1), PARIS);
  const [{ body }] = await context.seen(context.model("city"));
  assert.deepEqual(Object.keys(body.format.properties), ["name", "people"]);
});

feature("chat", "json_schema__object", "generateObject({ schema }), streamObject({ schema })", async (context) => {
  const question = { ...asked(context, "city"), schema: City };
  assert.deepEqual((await generateObject(question)).object, PARIS);
  const stream = streamObject(question);
  assert.deepEqual((await all(stream.partialObjectStream)).at(-1), PARIS);
  assert.deepEqual(await stream.object, PARIS);
  const { object } = await generateObject({ ...question, model: provider(context, context.demo)("demo") });
  City.parse(object);
});

feature("chat", "json_object", "generateObject({ schema }) without structured outputs", async (context) => {
  const model = provider(context, context.gateway, { supportsStructuredOutputs: false })(context.model("city"));
  const { object } = await generateObject({ model, messages: HELLO, schema: City });
  assert.deepEqual(object, PARIS);
  assert.equal((await context.seen(context.model("city")))[0].body.format, "json");
});

feature("chat", "length", "generateObject({ maxOutputTokens }) raises NoObjectGeneratedError", async (context) => {
  const question = { ...asked(context, "length"), maxOutputTokens: 3 };
  assert.equal((await generateText(question)).finishReason, "length");
  assert.equal(await streamText(question).finishReason, "length");
  const error = await raised(NoObjectGeneratedError, generateObject({ ...question, schema: City }));
  assert.equal(error.finishReason, "length");
  assert.equal((await context.seen(context.model("length")))[0].body.options.num_predict, 3);
});

feature("chat", "stop", "generateText({ stopSequences })", async (context) => {
  const model = provider(context, context.demo)("demo");
  const answer = await generateText({ model, messages: HELLO, stopSequences: ["built-in"] });
  assert.deepEqual([answer.text, answer.finishReason], ["This answer is from the ", "stop"]);
});

feature("chat", "error_before", "generateText(...) raises APICallError with its status", async (context) => {
  for (const status of [400, 403, 404, 429, 500, 503]) {
    const error = await raised(APICallError, generateText(asked(context, `status-${status}`)));
    assert.deepEqual([error.statusCode, error.message], [status, "what Ollama said"]);
    assert.equal(error.isRetryable, status === 429 || status >= 500);
    const [{ error: streamed }] = (await parts(asked(context, `status-${status}`))).of("error");
    assert.deepEqual([APICallError.isInstance(streamed), streamed.statusCode], [true, status]);
  }
});

feature("chat", "error_before__missing_model", "generateText(...) raises APICallError 404", async (context) => {
  const model = provider(context, context.demo)("nobody-has-this");
  const error = await raised(APICallError, generateText({ model, messages: HELLO }));
  assert.deepEqual([error.statusCode, error.data.error.code, error.isRetryable], [404, "model_not_found", false]);
});

feature("chat", "error_before__wrong_key", "createOpenAICompatible({ apiKey })", async (context) => {
  const model = provider(context, context.gateway, { apiKey: "wrong" })("m");
  assert.equal((await raised(APICallError, generateText({ model, messages: HELLO }))).statusCode, 401);
});

feature("chat", "error_in_the_middle", "streamText(...).fullStream has an error", async (context) => {
  const stream = await parts(asked(context, "boom"));
  assert.deepEqual(stream.of("text-delta").map((part) => part.text), ["Hel"]);
  assert.match(String(stream.of("error")[0].error.message ?? stream.of("error")[0].error), /boom/);
});

feature("chat", "truncated", "streamText(...).fullStream has an error where the model server stopped", async (context) => {
  for (const script of ["ends-early", "cut"]) {
    const [{ error }] = (await parts(asked(context, script))).of("error");
    assert.match(String(error.message ?? error), /stopped in the middle/);
  }
});

feature("chat", "retries", "generateText({ maxRetries })", async (context) => {
  const { text } = await generateText({ ...asked(context, "busy-twice"), maxRetries: 2 });
  assert.equal(text, "Hello there");
  assert.equal((await context.seen(context.model("busy-twice"))).length, 3);
  await raised(APICallError, generateText({ ...asked(context, "status-400"), maxRetries: 2 }));
  assert.equal((await context.seen(context.model("status-400"))).length, 1);
});

feature("chat", "retries__given_up", "generateText({ maxRetries }) raises RetryError", async (context) => {
  const error = await raised(RetryError, generateText({ ...asked(context, "status-500"), maxRetries: 1 }));
  assert.deepEqual([error.reason, error.lastError.statusCode], ["maxRetriesExceeded", 500]);
  assert.equal((await context.seen(context.model("status-500"))).length, 2);
});

feature("chat", "timeout", "generateText({ timeout })", async (context) => {
  const error = await raised(DOMException, generateText({ ...asked(context, "silent"), timeout: 2000 }));
  assert.equal(error.name, "TimeoutError");
  await context.left(context.model("silent"));
});

feature("chat", "leaving", "streamText({ abortSignal })", async (context) => {
  const control = new AbortController();
  const stream = streamText({ ...asked(context, "hangs"), abortSignal: control.signal });
  for await (const part of stream.fullStream) if (part.type === "text-delta") control.abort();
  await context.left(context.model("hangs"));
});

feature("completions", "single", "generateText({ model: provider.completionModel(...) })", async (context) => {
  const model = provider(context).completionModel(context.model("hello"));
  const answer = await generateText({ model, prompt: "Hello!" });
  assert.deepEqual([answer.text, answer.finishReason, answer.usage.totalTokens], ["Hello there", "stop", 10]);
  assert.equal((await context.seen(context.model("hello")))[0].path, "/api/generate");
});

feature("completions", "streaming", "streamText({ model: provider.completionModel(...) })", async (context) => {
  const model = provider(context).completionModel(context.model("unicode"));
  const stream = streamText({ model, prompt: "Hello!" });
  assert.equal((await all(stream.textStream)).join(""), UNICODE);
  assert.equal((await stream.usage).totalTokens, 10);
});

feature("embeddings", "one", "embed(...)", async (context) => {
  const model = provider(context).embeddingModel(context.model("vectors"));
  const { embedding, usage } = await embed({ model, value: "a" });
  assert.deepEqual([embedding, usage.tokens], [[0.5, -0.5, 0.25], 1]);
});

feature("embeddings", "many", "embedMany(...)", async (context) => {
  const model = provider(context, context.demo).embeddingModel("demo");
  const { embeddings } = await embedMany({ model, values: ["a", "b"], providerOptions: { proxy: { dimensions: 8 } } });
  assert.deepEqual(embeddings.map((vector) => vector.length), [8, 8]);
  assert.notDeepEqual(embeddings[0], embeddings[1]);
});

await run();
