// What the clients ask: a question, a picture, a form for answers, a tool's parameters; and what scripted models say.
import { z } from "zod";

export const HELLO = [{ role: "user", content: "Hello!" }];
export const City = z.object({ name: z.string(), people: z.number().int() });
export const Place = z.object({ city: z.string() });
/** `Place` as a JSON Schema that nobody has made stricter. */
export const PLACE = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
export const PIXEL =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGP4z8DwHwAFAAH/iZk9HQAAAABJRU5ErkJggg==";
/** What the model "unicode" says, and the model "city" in a form. */
export const UNICODE = "Grüße 世界👩‍👩‍👧\u2028\r\n«end»";
export const PARIS = { name: "Paris", people: 2 };
