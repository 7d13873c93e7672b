// Prints the programs of a call as JSON, by API and language: `node write_samples.mjs ADDRESS`. Tests run them.
import { CALL, dialects, samples } from "./scripts.mjs";

// It ends with the result of a tool: the model then answers in words.
const call = { ...CALL, turns: CALL.turns.slice(0, 3).map((turn) => ({ ...turn, ...(turn.images && { images: [] }) })) };
const names = Object.keys(dialects.DIALECTS);
console.log(JSON.stringify(Object.fromEntries(names.map((name) => [name, samples.writeSamples(name, call, process.argv[2])]))));
