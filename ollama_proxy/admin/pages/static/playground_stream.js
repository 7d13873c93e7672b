// Cuts the bytes of an answer, in whatever pieces they arrive, into frames: JSON lines, or server-sent events.
// A frame is {data, event} or {comment}. Nothing here knows a browser: tests run it with node.
"use strict";
(() => {
  // Lines without their ends. A letter whose bytes arrive apart is one letter.
  class Lines {
    #decoder = new TextDecoder();
    #rest = "";

    push(bytes) {
      return this.#cut(this.#decoder.decode(bytes, { stream: true }));
    }

    end() {
      const lines = this.#cut(this.#decoder.decode());
      const last = this.#rest;
      this.#rest = "";
      return last ? [...lines, last] : lines;
    }

    #cut(text) {
      const lines = (this.#rest + text).split("\n");
      this.#rest = lines.pop();
      return lines.map((line) => line.replace(/\r$/, ""));
    }
  }

  // One JSON document per line.
  class JsonLines {
    #lines = new Lines();

    push(bytes) {
      return JsonLines.#frames(this.#lines.push(bytes));
    }

    end() {
      return JsonLines.#frames(this.#lines.end());
    }

    static #frames(lines) {
      return lines.filter((line) => line.trim()).map((data) => ({ data, event: "" }));
    }
  }

  // Server-sent events. Comments count as frames: the gateway says in them what a request waits for.
  class ServerSentEvents {
    #lines = new Lines();
    #data = [];
    #event = "";

    push(bytes) {
      return this.#lines.push(bytes).flatMap((line) => this.#take(line));
    }

    // What was not ended by an empty line has not arrived completely, and is no event.
    end() {
      return this.#lines.end().flatMap((line) => this.#take(line));
    }

    #take(line) {
      if (!line) return this.#dispatch();
      if (line.startsWith(":")) return [{ comment: line.slice(1).trim() }];
      const [, name, value] = /^([^:]*)(?:: ?(.*))?$/s.exec(line);
      if (name === "data") this.#data.push(value ?? "");
      if (name === "event") this.#event = value ?? "";
      return [];
    }

    #dispatch() {
      const frame = { data: this.#data.join("\n"), event: this.#event };
      const isEvent = this.#data.length > 0;
      this.#data = [];
      this.#event = "";
      return isEvent ? [frame] : [];
    }
  }

  // What the gateway says of a request that waits: {waiting: {place, of, seconds}} or {loading: {model, box}}; else null.
  function readProgress(comment) {
    const waiting = /^waiting, (\d+)\w* of (\d+), about (\d+) s$/.exec(comment);
    if (waiting) return { waiting: { place: Number(waiting[1]), of: Number(waiting[2]), seconds: Number(waiting[3]) } };
    const loading = /^loading (.+) on (\S+)$/.exec(comment);
    if (loading) return { loading: { model: loading[1], box: loading[2] } };
    return comment === "waiting" ? { waiting: {} } : null;
  }

  globalThis.playgroundStream = { JsonLines, ServerSentEvents, readProgress };
})();
