// The scripts of the playground that need no browser, and a call that has everything.
import { readFileSync } from "node:fs";
import vm from "node:vm";

const STATIC = new URL("../../../ollama_proxy/admin/pages/static/", import.meta.url);
for (const name of ["stream", "dialects", "samples"]) {
  vm.runInThisContext(readFileSync(new URL(`playground_${name}.js`, STATIC), "utf8"), { filename: `playground_${name}.js` });
}
export const { playgroundStream: stream, playgroundDialects: dialects, playgroundSamples: samples } = globalThis;

export const TOOLS = [{ name: "look_up", description: "It's a \"look\".", parameters: { type: "object", properties: { name: { type: "string" } } } }];
export const CALL = {
  model: "demo",
  system: "Be brief; don't \"shout\".\n第二行",
  temperature: 0,
  maxTokens: 64,
  seed: 7,
  think: "low",
  tools: TOOLS,
  turns: [
    { role: "user", text: "你好 'there' $HOME `id` \\n", images: [{ name: "a.png", type: "image/png", base64: "iVBORw0KGgo=" }] },
    { role: "assistant", text: "", calls: [{ id: "call_1", name: "look_up", arguments: "{\"name\":\"box1\"}" }] },
    { role: "tool", results: [{ id: "call_1", name: "look_up", text: "up" }] },
    { role: "assistant", text: "It is up.", calls: [] },
    { role: "user", text: "Thanks", images: [] },
  ],
};
