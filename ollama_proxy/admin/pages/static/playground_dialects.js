// What the playground knows of each API: how a conversation becomes a request, and how frames become an answer.
// Nothing here knows a browser: tests run it with node.
//
// A call is {model, system, turns, temperature, maxTokens, seed, think, tools}; what is null or "" is left out.
// Turns: {role: "user", text, images: [{name, type, base64}]}, {role: "assistant", text, calls: [{id, name, arguments}]},
// {role: "tool", results: [{id, name, text}]}. Arguments of calls are JSON text.
"use strict";
(() => {
  const { JsonLines, ServerSentEvents } = globalThis.playgroundStream;

  // Anthropic's API requires a limit.
  const MAX_TOKENS = 4096;

  function newAnswer() {
    return {
      text: "", thinking: "", calls: [], error: null, reason: "", isEnded: false,
      promptTokens: null, completionTokens: null, modelSeconds: null,
    };
  }

  // ---- Parts of requests ----

  function isGiven(value) {
    return value !== undefined && value !== null && value !== "" && !(Array.isArray(value) && !value.length);
  }
  function given(fields) {
    return Object.fromEntries(Object.entries(fields).filter(([, value]) => isGiven(value)));
  }
  function readArguments(text) {
    try { return JSON.parse(text || "{}"); } catch { return {}; }
  }
  function dataUrl(image) {
    return `data:${image.type};base64,${image.base64}`;
  }
  // A text alone, or parts if there are images: first the images, then the text.
  function withImages(turn, makeImage, makeText) {
    if (!turn.images?.length) return turn.text;
    return [...turn.images.map(makeImage), ...(turn.text ? [makeText(turn.text)] : [])];
  }

  // Tools in the form of any of the APIs: {name, description, parameters}. Throws an Error with the reason.
  function readTools(text) {
    if (!text.trim()) return [];
    const value = JSON.parse(text);
    return (Array.isArray(value) ? value : [value]).map((tool) => {
      const found = tool?.function ?? tool;
      if (typeof found?.name !== "string" || !found.name) throw new Error("name");
      return given({
        name: found.name,
        description: found.description,
        parameters: found.parameters ?? found.input_schema ?? { type: "object", properties: {} },
      });
    });
  }
  function asFunctions(tools) {
    return tools.map((tool) => ({ type: "function", function: tool }));
  }

  // ---- Ollama ----

  function nativeThink(think) {
    return { on: true, off: false }[think] ?? think;
  }
  function nativeOptions(call) {
    const options = given({ temperature: call.temperature, num_predict: call.maxTokens, seed: call.seed });
    return Object.keys(options).length ? options : null;
  }
  function nativeMessages(turn) {
    if (turn.role === "tool") return turn.results.map(({ name, text }) => ({ role: "tool", tool_name: name, content: text }));
    if (turn.role === "user") {
      return [{ role: "user", content: turn.text, ...given({ images: turn.images?.map((image) => image.base64) }) }];
    }
    const calls = turn.calls.map(({ name, arguments: text }) => ({ function: { name, arguments: readArguments(text) } }));
    return [{ role: "assistant", content: turn.text, ...given({ tool_calls: calls }) }];
  }
  function buildOllamaChat(call) {
    const system = call.system ? [{ role: "system", content: call.system }] : [];
    return given({
      model: call.model,
      messages: [...system, ...call.turns.flatMap(nativeMessages)],
      tools: asFunctions(call.tools),
      think: nativeThink(call.think),
      options: nativeOptions(call),
      stream: true,
    });
  }
  // It has no conversation: the model gets the last message only.
  function buildOllamaGenerate(call) {
    const last = call.turns.findLast((turn) => turn.role === "user");
    return given({
      model: call.model,
      system: call.system,
      prompt: last?.text ?? "",
      images: last?.images?.map((image) => image.base64),
      think: nativeThink(call.think),
      options: nativeOptions(call),
      stream: true,
    });
  }

  function readOllama(answer, document) {
    const message = document.message ?? { content: document.response, thinking: document.thinking };
    answer.thinking += message.thinking ?? "";
    answer.text += message.content ?? "";
    for (const { id, function: called } of message.tool_calls ?? []) {
      const number = answer.calls.length + 1;
      answer.calls.push({ id: id ?? `call_${number}`, name: called.name, arguments: JSON.stringify(called.arguments ?? {}) });
    }
    if (document.done) endOllama(answer, document);
  }
  function endOllama(answer, document) {
    answer.isEnded = true;
    answer.reason = document.done_reason ?? "";
    answer.promptTokens = document.prompt_eval_count ?? null;
    answer.completionTokens = document.eval_count ?? null;
    answer.modelSeconds = document.eval_duration ? document.eval_duration / 1e9 : null;
  }

  // ---- OpenAI's chat completions ----

  function effort(think) {
    return { on: "medium", off: "none" }[think] ?? think;
  }
  function chatMessages(turn) {
    if (turn.role === "tool") return turn.results.map(({ id, text }) => ({ role: "tool", tool_call_id: id, content: text }));
    if (turn.role === "user") {
      const makeImage = (image) => ({ type: "image_url", image_url: { url: dataUrl(image) } });
      return [{ role: "user", content: withImages(turn, makeImage, (text) => ({ type: "text", text })) }];
    }
    const calls = turn.calls.map(({ id, name, arguments: text }) => ({ id, type: "function", function: { name, arguments: text } }));
    return [{ role: "assistant", content: turn.text, ...given({ tool_calls: calls }) }];
  }
  function buildChat(call) {
    const system = call.system ? [{ role: "system", content: call.system }] : [];
    return given({
      model: call.model,
      messages: [...system, ...call.turns.flatMap(chatMessages)],
      temperature: call.temperature,
      max_completion_tokens: call.maxTokens,
      seed: call.seed,
      reasoning_effort: effort(call.think),
      tools: asFunctions(call.tools),
      stream: true,
      stream_options: { include_usage: true },
    });
  }
  function readChat(answer, document) {
    const choice = document.choices?.[0];
    const delta = choice?.delta ?? {};
    answer.thinking += delta.reasoning ?? delta.reasoning_content ?? "";
    answer.text += delta.content ?? delta.refusal ?? "";
    for (const part of delta.tool_calls ?? []) addCallPart(answer, part);
    if (choice?.finish_reason) answer.reason = choice.finish_reason;
    if (document.usage) {
      answer.promptTokens = document.usage.prompt_tokens ?? null;
      answer.completionTokens = document.usage.completion_tokens ?? null;
    }
  }
  function addCallPart(answer, part) {
    const call = (answer.calls[part.index ?? answer.calls.length] ??= { id: "", name: "", arguments: "" });
    call.id ||= part.id ?? "";
    call.name += part.function?.name ?? "";
    call.arguments += part.function?.arguments ?? "";
  }

  // ---- OpenAI's Responses ----

  function responsesItems(turn) {
    if (turn.role === "tool") {
      return turn.results.map(({ id, text }) => ({ type: "function_call_output", call_id: id, output: text }));
    }
    if (turn.role === "user") {
      const makeImage = (image) => ({ type: "input_image", detail: "auto", image_url: dataUrl(image) });
      return [{ role: "user", content: withImages(turn, makeImage, (text) => ({ type: "input_text", text })) }];
    }
    const calls = turn.calls.map(({ id, name, arguments: text }) => ({ type: "function_call", call_id: id, name, arguments: text }));
    return [...(turn.text ? [{ role: "assistant", content: turn.text }] : []), ...calls];
  }
  function buildResponses(call) {
    return given({
      model: call.model,
      instructions: call.system,
      input: call.turns.flatMap(responsesItems),
      temperature: call.temperature,
      max_output_tokens: call.maxTokens,
      seed: call.seed,
      reasoning: call.think ? { effort: effort(call.think) } : null,
      tools: call.tools.map((tool) => ({ type: "function", strict: false, ...tool })),
      stream: true,
    });
  }
  function readResponses(answer, document) {
    const item = document.item;
    switch (document.type) {
      case "response.output_text.delta":
      case "response.refusal.delta":
        answer.text += document.delta;
        break;
      case "response.reasoning_text.delta":
        answer.thinking += document.delta;
        break;
      case "response.output_item.added":
        if (item.type === "function_call") answer.calls.push({ id: item.call_id, name: item.name, arguments: "", item: item.id });
        break;
      case "response.function_call_arguments.delta":
        findCall(answer, "item", document.item_id).arguments += document.delta;
        break;
      case "response.completed":
      case "response.incomplete":
      case "response.failed":
        endResponses(answer, document.response);
    }
  }
  function findCall(answer, key, value) {
    return answer.calls.find((call) => call[key] === value) ?? answer.calls.at(-1) ?? {};
  }
  function endResponses(answer, response) {
    answer.isEnded = true;
    answer.reason = response.incomplete_details?.reason ?? response.status;
    answer.promptTokens = response.usage?.input_tokens ?? null;
    answer.completionTokens = response.usage?.output_tokens ?? null;
    if (response.error) answer.error = describeError(response);
  }

  // ---- Anthropic's Messages ----

  function anthropicMessages(turn) {
    if (turn.role === "tool") {
      const content = turn.results.map(({ id, text }) => ({ type: "tool_result", tool_use_id: id, content: text }));
      return [{ role: "user", content }];
    }
    if (turn.role === "user") {
      const makeImage = ({ type, base64 }) => ({ type: "image", source: { type: "base64", media_type: type, data: base64 } });
      return [{ role: "user", content: withImages(turn, makeImage, (text) => ({ type: "text", text })) }];
    }
    const calls = turn.calls.map(({ id, name, arguments: text }) => ({ type: "tool_use", id, name, input: readArguments(text) }));
    const content = [...(turn.text ? [{ type: "text", text: turn.text }] : []), ...calls];
    return content.length ? [{ role: "assistant", content }] : [];
  }
  function anthropicThinking(think) {
    if (think === "off") return { thinking: { type: "disabled" } };
    if (!think) return {};
    return { thinking: { type: "adaptive" }, ...(think === "on" ? {} : { output_config: { effort: think } }) };
  }
  function buildMessages(call) {
    return given({
      model: call.model,
      max_tokens: call.maxTokens ?? MAX_TOKENS,
      system: call.system,
      messages: call.turns.flatMap(anthropicMessages),
      temperature: call.temperature,
      seed: call.seed,
      ...anthropicThinking(call.think),
      tools: call.tools.map(({ name, description, parameters }) => given({ name, description, input_schema: parameters })),
      stream: true,
    });
  }
  function readMessages(answer, document) {
    switch (document.type) {
      case "message_start":
        answer.promptTokens = document.message.usage?.input_tokens || null;
        break;
      case "content_block_start":
        startBlock(answer, document);
        break;
      case "content_block_delta":
        answer.text += document.delta.text ?? "";
        answer.thinking += document.delta.thinking ?? "";
        if (document.delta.partial_json) findCall(answer, "block", document.index).arguments += document.delta.partial_json;
        break;
      case "message_delta":
        answer.reason = document.delta.stop_reason ?? answer.reason;
        answer.promptTokens = document.usage?.input_tokens ?? answer.promptTokens;
        answer.completionTokens = document.usage?.output_tokens ?? answer.completionTokens;
        break;
      case "message_stop":
        answer.isEnded = true;
    }
  }
  function startBlock(answer, { index, content_block: block }) {
    if (block.type === "tool_use") answer.calls.push({ id: block.id, name: block.name, arguments: "", block: index });
    answer.text += block.text ?? "";
    answer.thinking += block.thinking ?? "";
  }

  // ---- All of them ----

  const DIALECTS = {
    "ollama-chat": { path: "/api/chat", Reader: JsonLines, build: buildOllamaChat, read: readOllama, hasTools: true, hasTurns: true },
    "ollama-generate": { path: "/api/generate", Reader: JsonLines, build: buildOllamaGenerate, read: readOllama, hasTools: false, hasTurns: false },
    "openai-chat": { path: "/v1/chat/completions", Reader: ServerSentEvents, build: buildChat, read: readChat, hasTools: true, hasTurns: true },
    "openai-responses": { path: "/v1/responses", Reader: ServerSentEvents, build: buildResponses, read: readResponses, hasTools: true, hasTurns: true },
    "anthropic-messages": { path: "/v1/messages", Reader: ServerSentEvents, build: buildMessages, read: readMessages, hasTools: true, hasTurns: true },
  };

  // Puts a frame into the answer. An error in it ends the answer.
  function readFrame(dialect, answer, frame) {
    if (frame.comment !== undefined || answer.error) return;
    if (frame.data === "[DONE]") {
      answer.isEnded = true;
      return;
    }
    let document;
    try {
      document = JSON.parse(frame.data);
    } catch {
      answer.error = { message: frame.data.slice(0, 500), code: "" };
      return;
    }
    if (document.error || document.type === "error") answer.error = describeError(document);
    else DIALECTS[dialect].read(answer, document);
  }

  // {message, code} of an error document of any API.
  function describeError(document) {
    const error = document.error ?? document;
    if (typeof error === "string") return { message: error, code: "" };
    return { message: String(error.message ?? JSON.stringify(error)), code: String(error.code ?? error.type ?? "") };
  }
  // The same of the body of a refusal, which may come from another server in between and be no JSON.
  function readRefusal(body) {
    try {
      return describeError(JSON.parse(body));
    } catch {
      return { message: body.replace(/<[^>]*>/g, " ").replace(/\s+/g, " ").trim().slice(0, 500), code: "" };
    }
  }

  globalThis.playgroundDialects = { DIALECTS, newAnswer, readFrame, readRefusal, readTools };
})();
