// The request of the playground as a program: curl, Python and JavaScript with the official clients.
// Nothing here knows a browser: tests run it with node, and run what it writes.
"use strict";
(() => {
  const { DIALECTS } = globalThis.playgroundDialects;

  const HEADERS = {
    "anthropic-messages": ['-H "x-api-key: $TOKEN"', "-H 'anthropic-version: 2023-06-01'"],
  };
  const BEARER = ['-H "Authorization: Bearer $TOKEN"'];
  // Fields for which the official clients of Python have no argument.
  const EXTENSIONS = { "openai-responses": ["seed"], "anthropic-messages": ["seed", "temperature"] };

  // Pictures are longer than anybody reads: their names stand for them.
  function shorten(call) {
    const turns = call.turns.map((turn) => ({
      ...turn,
      ...(turn.images && { images: turn.images.map((image) => ({ ...image, base64: `<${image.name} in base64>` })) }),
    }));
    return { ...call, turns };
  }

  function writeCurl(dialect, body, address) {
    const headers = [...(HEADERS[dialect] ?? BEARER), "-H 'Content-Type: application/json'"];
    const lines = [`curl -sS --no-buffer ${address}${DIALECTS[dialect].path}`, ...headers, "--data-binary @- <<'JSON'"];
    return `${lines.join(" \\\n  ")}\n${JSON.stringify(body, null, 2)}\nJSON\n`;
  }

  // ---- Python ----

  // JSON is Python but for three words, and for letters that can't be written to a file.
  function pythonValue(value, indent = "    ") {
    if (value === null) return "None";
    if (typeof value === "boolean") return value ? "True" : "False";
    if (typeof value !== "object") return JSON.stringify(value);
    const inner = `${indent}    `;
    const parts = Array.isArray(value)
      ? value.map((each) => pythonValue(each, inner))
      : Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${pythonValue(each, inner)}`);
    const [open, close] = Array.isArray(value) ? "[]" : "{}";
    const line = `${open}${parts.join(", ")}${close}`;
    if (line.length + indent.length <= 90 && !line.includes("\n")) return line;
    return `${open}\n${parts.map((part) => `${inner}${part},\n`).join("")}${indent}${close}`;
  }
  function pythonArguments(dialect, body) {
    const extensions = EXTENSIONS[dialect] ?? [];
    const entries = Object.entries(body).filter(([name]) => !extensions.includes(name));
    const extra = Object.fromEntries(Object.entries(body).filter(([name]) => extensions.includes(name)));
    if (Object.keys(extra).length) entries.push(["extra_body", extra]);
    return entries.map(([name, value]) => `    ${name}=${pythonValue(value)},\n`).join("");
  }

  const pythonOllama = (address) => `Client(host="${address}", headers={"Authorization": f"Bearer {os.environ['TOKEN']}"})`;
  const PYTHON = {
    "ollama-chat": {
      head: "from ollama import Client",
      client: pythonOllama,
      call: "client.chat",
      loop: ['    print(part.message.thinking or "", part.message.content or "", sep="", end="", flush=True)'],
    },
    "ollama-generate": {
      head: "from ollama import Client",
      client: pythonOllama,
      call: "client.generate",
      loop: ['    print(part.thinking or "", part.response or "", sep="", end="", flush=True)'],
    },
    "openai-chat": {
      head: "from openai import OpenAI",
      client: (address) => `OpenAI(base_url="${address}/v1", api_key=os.environ["TOKEN"])`,
      call: "client.chat.completions.create",
      loop: ["    if part.choices:", '        print(part.choices[0].delta.content or "", end="", flush=True)'],
    },
    "openai-responses": {
      head: "from openai import OpenAI",
      client: (address) => `OpenAI(base_url="${address}/v1", api_key=os.environ["TOKEN"])`,
      call: "client.responses.create",
      loop: ['    if part.type == "response.output_text.delta":', '        print(part.delta, end="", flush=True)'],
    },
    "anthropic-messages": {
      head: "from anthropic import Anthropic",
      client: (address) => `Anthropic(base_url="${address}", api_key=os.environ["TOKEN"])`,
      call: "client.messages.create",
      loop: [
        '    if part.type == "content_block_delta" and part.delta.type == "text_delta":',
        '        print(part.delta.text, end="", flush=True)',
      ],
    },
  };
  function writePython(dialect, body, address) {
    const { head, client, call, loop } = PYTHON[dialect];
    return [
      "import os", "", head, "", `client = ${client(address)}`, `stream = ${call}(`, `${pythonArguments(dialect, body)})`,
      "for part in stream:", ...loop, "print()", "",
    ].join("\n");
  }

  // ---- JavaScript ----

  const javascriptOllama = (address) =>
    `new Ollama({ host: "${address}", headers: { Authorization: \`Bearer \${process.env.TOKEN}\` } })`;
  const JAVASCRIPT = {
    "ollama-chat": {
      head: 'import { Ollama } from "ollama";',
      client: javascriptOllama,
      call: "client.chat",
      text: 'part.message.content ?? ""',
    },
    "ollama-generate": {
      head: 'import { Ollama } from "ollama";',
      client: javascriptOllama,
      call: "client.generate",
      text: 'part.response ?? ""',
    },
    "openai-chat": {
      head: 'import OpenAI from "openai";',
      client: (address) => `new OpenAI({ baseURL: "${address}/v1", apiKey: process.env.TOKEN })`,
      call: "client.chat.completions.create",
      text: 'part.choices[0]?.delta?.content ?? ""',
    },
    "openai-responses": {
      head: 'import OpenAI from "openai";',
      client: (address) => `new OpenAI({ baseURL: "${address}/v1", apiKey: process.env.TOKEN })`,
      call: "client.responses.create",
      text: 'part.type === "response.output_text.delta" ? part.delta : ""',
    },
    "anthropic-messages": {
      head: 'import Anthropic from "@anthropic-ai/sdk";',
      client: (address) => `new Anthropic({ baseURL: "${address}", apiKey: process.env.TOKEN })`,
      call: "client.messages.create",
      text: 'part.type === "content_block_delta" ? (part.delta.text ?? "") : ""',
    },
  };
  function writeJavaScript(dialect, body, address) {
    const { head, client, call, text } = JAVASCRIPT[dialect];
    return [
      head, "", `const client = ${client(address)};`, `const stream = await ${call}(${JSON.stringify(body, null, 2)});`,
      "for await (const part of stream) {", `  process.stdout.write(${text});`, "}", 'process.stdout.write("\\n");', "",
    ].join("\n");
  }

  // {curl, python, javascript}: the same call as programs that take the token from the environment.
  function writeSamples(dialect, call, address) {
    const body = DIALECTS[dialect].build(shorten(call));
    return {
      curl: writeCurl(dialect, body, address),
      python: writePython(dialect, body, address),
      javascript: writeJavaScript(dialect, body, address),
    };
  }

  globalThis.playgroundSamples = { writeSamples };
})();
