// Prints one JSON line per feature: what openai-node saw through the gateway at $GATEWAY_URL.
import OpenAI from "openai";

const client = new OpenAI({
  baseURL: `${process.env.GATEWAY_URL}/v1`,
  apiKey: process.env.GATEWAY_TOKEN,
  dangerouslyAllowBrowser: true,
});
const model = "demo";
const messages = [{ role: "user", content: "Hello!" }];
const tool = {
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather in a city",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
};
const say = (feature, seen) => console.log(JSON.stringify({ feature, seen }));

const listed = [];
for await (const each of await client.models.list()) listed.push(each.id);
say("models.list", listed);
say("models.retrieve", (await client.models.retrieve("library/demo")).id);

const single = await client.chat.completions.create({ model, messages });
say("chat.create", { text: single.choices[0].message.content, reason: single.choices[0].finish_reason, usage: single.usage });

let text = "";
for await (const chunk of await client.chat.completions.create({ model, messages, stream: true })) {
  text += chunk.choices[0]?.delta?.content ?? "";
}
say("chat.create stream", text);

say("chat.stream helper", await client.chat.completions.stream({ model, messages }).finalContent());

const runner = client.chat.completions.runTools({
  model,
  stream: true,
  messages: [{ role: "user", content: "Use get_weather for a city" }],
  tools: [{ ...tool, function: { ...tool.function, parse: JSON.parse, function: ({ city }) => `sunny in ${city}` } }],
});
say("runTools", { text: await runner.finalContent(), calls: runner.messages.filter((m) => m.role === "tool").map((m) => m.content) });

const vectors = await client.embeddings.create({ model, input: ["a", "b"] });
say("embeddings.create", vectors.data.map((each) => each.embedding.length));

try {
  await client.chat.completions.create({ model: "nobody-has-this", messages });
} catch (error) {
  say("error class", { name: error.constructor.name, status: error.status, code: error.code });
}
