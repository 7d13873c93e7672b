// Prints the programs of a call as JSON, by API and language: `node write_samples.mjs ADDRESS`. Tests run them.
import { CALL, dialects, samples } from "./scripts.mjs";

const call = { ...CALL, turns: CALL.turns.map((turn) => ({ ...turn, ...(turn.images && { images: [] }) })) };
const names = Object.keys(dialects.DIALECTS);
console.log(JSON.stringify(Object.fromEntries(names.map((name) => [name, samples.writeSamples(name, call, process.argv[2])]))));
