// Prints one JSON line per feature: what ollama-js saw through the gateway at $GATEWAY_URL.
import { Ollama } from "ollama";

const client = new Ollama({
  host: process.env.GATEWAY_URL,
  headers: { Authorization: `Bearer ${process.env.GATEWAY_TOKEN}` },
});
const model = "demo";
const messages = [{ role: "user", content: "Hello!" }];
const say = (feature, seen) => console.log(JSON.stringify({ feature, seen }));

say("list", (await client.list()).models.map((each) => each.name));
say("show", typeof (await client.show({ model })).model_info);
say("chat", (await client.chat({ model, messages })).message.content);

let text = "";
for await (const part of await client.chat({ model, messages, stream: true })) text += part.message.content;
say("chat stream", text);

let last;
for await (const part of await client.generate({ model, prompt: "Hello!", stream: true })) last = part;
say("generate stream", { done: last.done, reason: last.done_reason });

const statuses = [];
for await (const part of await client.pull({ model, stream: true })) statuses.push(part.status);
say("pull stream", statuses.at(-1));

say("embed", (await client.embed({ model, input: ["a", "b"] })).embeddings.length);

try {
  await client.chat({ model: "nobody-has-this", messages });
} catch (error) {
  say("error", { name: error.name, status: error.status_code, message: error.message });
}
