// The playground in the browser: form, conversation, images, and the call itself, with the rights of the session.
"use strict";
(() => {
  const { DIALECTS, newAnswer, readFrame, readRefusal, readTools } = globalThis.playgroundDialects;
  const { readProgress } = globalThis.playgroundStream;
  const { writeSamples } = globalThis.playgroundSamples;

  // Between two paintings of an answer, in milliseconds; longer if painting it takes long.
  const PAINT_EVERY_MS = 100;
  const EXAMPLE_TOOL = [{
    name: "get_weather",
    description: "The weather in a city now.",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  }];
  // What remains of the HTML that markdown becomes.
  const SAFE = {
    ALLOWED_TAGS: ["p", "br", "hr", "strong", "em", "del", "code", "pre", "ul", "ol", "li", "blockquote", "h1", "h2", "h3",
      "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td", "a"],
    ALLOWED_ATTR: ["href", "title", "start", "align"],
    ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    RETURN_DOM_FRAGMENT: true,
  };

  const find = (id) => document.getElementById(id);
  const root = find("playground");
  const texts = JSON.parse(root.dataset.texts);
  const numbers = new Intl.NumberFormat(document.documentElement.lang, { maximumFractionDigits: 1 });
  const state = { turns: [], images: [], running: null, sample: "curl", markdown: "" };

  function say(name, values = {}) {
    return texts[name].replace(/\{(\w+)\}/g, (_, key) => String(values[key] ?? ""));
  }
  function seconds(since, until = performance.now()) {
    return numbers.format(Math.max(0, until - since) / 1000);
  }
  // An element with text and children. Foreign text only ever becomes text.
  function make(tag, className = "", ...children) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.append(...children);
    return element;
  }
  function makeButton(className, text, act) {
    const button = make("button", className, text);
    button.type = "button";
    button.addEventListener("click", act);
    return button;
  }

  // ---- Markdown ----

  function escape(text) {
    return text.replace(/[&<>"']/g, (letter) => `&#${letter.charCodeAt(0)};`);
  }
  // HTML of a model is shown as text, and its images, which another server would learn of, as links.
  const RENDERER = {
    html: ({ text }) => escape(text),
    image: ({ href, text }) => `<a href="${escape(href)}">${escape(text || href)}</a>`,
  };
  function protectLink(node) {
    if (node.tagName !== "A") return;
    node.setAttribute("rel", "noopener noreferrer");
    node.setAttribute("target", "_blank");
  }
  function loadScript(address) {
    return new Promise((resolve, reject) => {
      const script = make("script");
      script.src = address;
      script.addEventListener("load", resolve);
      script.addEventListener("error", reject);
      document.head.append(script);
    });
  }
  // With the first call, not with the page: they are heavier than all the rest. Until then answers are plain text.
  async function loadMarkdown() {
    if (state.markdown) return;
    state.markdown = "loading";
    try {
      await Promise.all([loadScript(root.dataset.marked), loadScript(root.dataset.purify)]);
      marked.use({ gfm: true, renderer: RENDERER });
      DOMPurify.addHook("afterSanitizeAttributes", protectLink);
      state.markdown = "loaded";
    } catch {
      state.markdown = ""; // with the next call again
    }
  }
  function renderMarkdown(text) {
    if (state.markdown !== "loaded") return make("div", "plain", text);
    const fragment = DOMPurify.sanitize(marked.parse(text), SAFE);
    for (const table of fragment.querySelectorAll("table")) {
      const scroll = make("div", "scroll");
      table.replaceWith(scroll);
      scroll.append(table);
    }
    return fragment;
  }

  // ---- The form ----

  function readNumber(id) {
    const field = find(id);
    const text = field.value.trim();
    if (!text) return null;
    const value = Number(text);
    if (!Number.isFinite(value)) throw new Error(say("badNumber", { name: field.labels[0].textContent.trim() }));
    return value;
  }
  function chosenModel() {
    return (find("model").value === "other" ? find("other-model").value : find("model").selectedOptions[0]?.dataset.name ?? "").trim();
  }
  function parseTools() {
    try {
      return readTools(find("tools").value);
    } catch {
      throw new Error(say("badTools"));
    }
  }
  // What the form says; throws an Error whose text can be shown.
  function readCall(turns) {
    return {
      model: chosenModel(),
      system: find("system").value,
      temperature: readNumber("temperature"),
      maxTokens: readNumber("max-tokens"),
      seed: readNumber("seed"),
      think: find("think").value,
      tools: parseTools(),
      turns,
    };
  }
  function draft() {
    const text = find("prompt").value;
    return text.trim() || state.images.length ? [{ role: "user", text, images: state.images }] : [];
  }
  function showStatus(text, isBad = false) {
    find("status").textContent = text;
    find("status").classList.toggle("bad", isBad);
  }
  function refreshSample() {
    let call;
    try {
      call = readCall([...state.turns, ...draft()]);
    } catch {
      return; // told when it is sent
    }
    if (!call.turns.length) call.turns = [{ role: "user", text: "Hello" }];
    call.model ||= "MODEL";
    find("sample").textContent = writeSamples(find("dialect").value, call, location.origin)[state.sample];
  }
  function refreshForm() {
    const { hasTools, hasTurns } = DIALECTS[find("dialect").value];
    find("tools-part").hidden = !hasTools;
    find("one-turn").hidden = hasTurns;
    find("chosen").textContent = `${chosenModel()} · ${find("dialect").selectedOptions[0].textContent}`;
    find("other-model-field").hidden = find("model").value !== "other";
    refreshSample();
  }
  function chooseSample(name) {
    state.sample = name;
    for (const button of root.querySelectorAll("[data-sample]")) button.setAttribute("aria-pressed", String(button.dataset.sample === name));
    refreshSample();
  }

  // ---- Models ----

  function callGateway(path, options = {}) {
    const headers = { "X-CSRF-Token": page.csrfToken(), ...options.headers };
    return fetch(`${root.dataset.callPath}${path}`, { ...options, headers, credentials: "same-origin", cache: "no-store" });
  }
  async function listModels() {
    const response = await callGateway("/v1/models");
    if (!response.ok) throw new Error(readRefusal(await response.text()).message);
    return (await response.json()).data.map((model) => model.id);
  }
  function showModels(names) {
    const wanted = new URLSearchParams(location.search).get("model");
    const options = names.map((name) => {
      const option = new Option(name, `model ${name}`, false, name === wanted);
      option.dataset.name = name;
      return option;
    });
    find("model").replaceChildren(...options, new Option(say("otherModel"), "other"));
    if (wanted && !names.includes(wanted)) {
      find("model").value = "other";
      find("other-model").value = wanted;
    }
    refreshForm();
  }
  async function loadModels() {
    try {
      const names = await listModels();
      showModels(names);
      if (!names.length) showStatus(say("noModels"), true);
    } catch (error) {
      showModels([]);
      showStatus(say("modelsFailed", { message: error.message }), true);
    }
  }

  // ---- Images ----

  function readFile(file) {
    return new Promise((resolve, reject) => {
      const reader = new FileReader();
      reader.addEventListener("load", () => resolve({ name: file.name || "image", type: file.type, base64: reader.result.split(",")[1] }));
      reader.addEventListener("error", () => reject(reader.error));
      reader.readAsDataURL(file);
    });
  }
  async function addFiles(files) {
    for (const file of files) {
      if (file.type.startsWith("image/")) state.images.push(await readFile(file));
      else showStatus(say("notAnImage", { name: file.name }), true);
    }
    showImages();
  }
  function makePicture(image) {
    const picture = make("img");
    picture.src = `data:${image.type};base64,${image.base64}`;
    picture.alt = say("image", { name: image.name });
    return picture;
  }
  function showImages() {
    find("images").replaceChildren(...state.images.map((image) => {
      const button = makeButton("quiet", "×", () => {
        state.images = state.images.filter((each) => each !== image);
        showImages();
      });
      button.setAttribute("aria-label", say("remove", { name: image.name }));
      return make("li", "", makePicture(image), button);
    }));
    refreshSample();
  }
  function acceptDrops(target) {
    const mark = (isOver) => find("composer").classList.toggle("dropping", isOver);
    target.addEventListener("dragover", (event) => {
      event.preventDefault();
      mark(true);
    });
    target.addEventListener("dragleave", () => mark(false));
    target.addEventListener("drop", (event) => {
      event.preventDefault();
      mark(false);
      addFiles(event.dataTransfer.files);
    });
  }

  // ---- The conversation ----

  function isAtEnd() {
    return find("turns").getBoundingClientRect().bottom <= find("composer").getBoundingClientRect().top + 80;
  }
  function follow(element, wasAtEnd) {
    if (wasAtEnd) element.scrollIntoView({ block: "end" });
  }
  function addElement(element) {
    find("start").hidden = true;
    find("turns").append(element);
    element.scrollIntoView({ block: "end" });
    return element;
  }
  function addUserTurn(turn) {
    const parts = [make("p", "role", say("you"))];
    if (turn.images.length) parts.push(make("div", "pictures", ...turn.images.map(makePicture)));
    turn.element = addElement(make("div", "turn user", ...parts, make("div", "text", turn.text)));
    state.turns.push(turn);
  }
  function addToolTurn(turn) {
    const results = turn.results.map(({ name, text }) => make("div", "tool", make("p", "name", name), make("pre", "", text)));
    turn.element = addElement(make("div", "turn results", make("p", "role", say("results")), ...results));
    state.turns.push(turn);
  }
  // Where an answer is painted.
  function addAnswerTurn(model, title) {
    const view = { thinking: make("div"), text: make("div", "text"), calls: make("div"), notes: make("p", "figures"), below: make("div") };
    view.thought = make("details", "thinking", make("summary", "", say("thinking")), view.thinking);
    view.thought.hidden = true;
    view.element = addElement(make("div", "turn assistant streaming", make("p", "role", `${model} · ${title}`),
      view.thought, view.text, view.calls, view.notes, view.below));
    return view;
  }
  function paint(view, answer) {
    const wasAtEnd = isAtEnd();
    if (answer.thinking && view.thought.hidden) {
      view.thought.hidden = false;
      view.thought.open = true;
    }
    view.thinking.textContent = answer.thinking;
    view.text.replaceChildren(...(answer.text ? [renderMarkdown(answer.text)] : []));
    view.calls.replaceChildren(...answer.calls.map((call) => make("div", "tool", make("p", "name", call.name), make("pre", "", showArguments(call.arguments)))));
    follow(view.element, wasAtEnd);
  }
  function showArguments(text) {
    try {
      return JSON.stringify(JSON.parse(text), null, 2);
    } catch {
      return text; // not complete yet
    }
  }
  // Paints now or soon, but not so often that it hinders reading.
  function makePainter(view, answer) {
    let timer = 0;
    let pauseMs = PAINT_EVERY_MS;
    const now = () => {
      clearTimeout(timer);
      timer = 0;
      const began = performance.now();
      paint(view, answer);
      pauseMs = Math.max(PAINT_EVERY_MS, 10 * (performance.now() - began));
    };
    return { now, soon: () => { timer ||= setTimeout(now, pauseMs); } };
  }

  // ---- The call ----

  function showProgress(run) {
    const passed = seconds(run.sentAt);
    const { waiting, loading } = run.progress ?? {};
    if (run.firstAt) showStatus(say("answering", { seconds: passed }));
    else if (loading) showStatus(say("loading", { ...loading, seconds: passed }));
    else if (waiting?.place) showStatus(say("waitingAt", { place: waiting.place, of: waiting.of, wait: waiting.seconds }));
    else showStatus(say(waiting ? "waiting" : "sent", { seconds: passed }));
  }
  function setRunning(run) {
    state.running = run;
    find("send").hidden = Boolean(run);
    find("stop").hidden = !run;
    find("clear").hidden = Boolean(run) || !state.turns.length;
    find("turns").setAttribute("aria-busy", String(Boolean(run)));
    for (const button of find("turns").querySelectorAll("button")) button.disabled = Boolean(run);
  }

  // Reads the stream to its end; throws what fetch throws.
  async function readStream(run, response) {
    const reader = new DIALECTS[run.dialect].Reader();
    const source = response.body.getReader();
    const take = (frames) => {
      for (const frame of frames) {
        if (frame.comment !== undefined) run.progress = readProgress(frame.comment) ?? run.progress;
        readFrame(run.dialect, run.answer, frame);
      }
      const { text, thinking, calls } = run.answer;
      if (!run.firstAt && (text || thinking || calls.length)) run.firstAt = performance.now();
      run.painter.soon();
    };
    for (let part = await source.read(); !part.done; part = await source.read()) take(reader.push(part.value));
    take(reader.end());
  }
  // Makes the call; the answer's `error` is set if that fails.
  async function ask(run, body) {
    const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal: run.abort.signal };
    const response = await callGateway(DIALECTS[run.dialect].path, options);
    run.headers = response.headers;
    if (response.ok) {
      await readStream(run, response);
      if (!run.answer.isEnded && !run.answer.error) run.answer.error = { title: say("failed"), message: say("cut"), code: "" };
    } else {
      run.answer.error = { title: say("refused", { status: response.status }), ...readRefusal(await response.text()) };
    }
  }
  async function run() {
    const dialect = find("dialect").value;
    let call;
    try {
      call = readCall(state.turns);
      if (!call.model) throw new Error(say("noModel"));
    } catch (error) {
      showStatus(error.message, true);
      return;
    }
    const markdown = loadMarkdown();
    const answer = newAnswer();
    const view = addAnswerTurn(call.model, find("dialect").selectedOptions[0].textContent);
    const now = { dialect, answer, view, painter: makePainter(view, answer), abort: new AbortController(), sentAt: performance.now() };
    setRunning(now);
    showProgress(now);
    const clock = setInterval(() => showProgress(now), 500);
    try {
      await ask(now, DIALECTS[dialect].build(call));
    } catch (error) {
      if (now.abort.signal.aborted) now.isStopped = true;
      else answer.error = { title: say("failed"), message: say("unreachable"), code: error.name };
    }
    clearInterval(clock);
    await markdown;
    endRun(now);
  }
  function endRun(run) {
    run.endedAt = performance.now();
    run.painter.now();
    run.view.element.classList.remove("streaming");
    if (run.answer.text) run.view.thought.open = false;
    const { text, calls } = run.answer;
    if (text || calls.length) state.turns.push({ role: "assistant", text, calls: calls.filter((call) => call.name), element: run.view.element });
    setRunning(null);
    showFigures(run);
    if (run.answer.error) showError(run);
    offerNext(run);
    showStatus(run.isStopped ? say("stopped") : "");
    refreshSample();
    find("prompt").focus({ preventScroll: true });
  }
  function showFigures({ answer, headers, sentAt, firstAt, endedAt, view }) {
    const { promptTokens, completionTokens, reason } = answer;
    const spent = answer.modelSeconds ?? (endedAt - firstAt) / 1000;
    const named = (header) => headers?.get(`X-Ollama-Proxy-${header}`);
    const figures = [
      promptTokens !== null && say("promptTokens", { count: numbers.format(promptTokens) }),
      completionTokens !== null && say("completionTokens", { count: numbers.format(completionTokens) }),
      firstAt && say("firstByte", { seconds: seconds(sentAt, firstAt) }),
      say("total", { seconds: seconds(sentAt, endedAt) }),
      completionTokens && firstAt && spent > 0.01 && say("rate", { rate: numbers.format(completionTokens / spent) }),
      reason && say("reason", { reason }),
      named("Queue") && say("waited", { text: named("Queue").replace("waited=", "") }),
      named("Ignored") && say("ignored", { fields: named("Ignored") }),
      named("Approximated") && say("approximated", { fields: named("Approximated") }),
      named("Truncated") && say("truncated", { text: named("Truncated") }),
    ];
    view.notes.textContent = figures.filter(Boolean).join(" · ");
  }
  function showError({ answer, headers, view }) {
    const { title, message, code } = answer.error;
    const retryAfter = headers?.get("Retry-After");
    const requestId = headers?.get("X-Request-Id");
    const rest = [retryAfter && say("retryAfter", { seconds: retryAfter }), requestId && say("requestId", { id: requestId })];
    const error = make("div", "turn error", make("p", "", make("strong", "", [title ?? say("failed"), code].filter(Boolean).join(" · "))), make("p", "", message));
    if (rest.some(Boolean)) error.append(make("p", "hint", rest.filter(Boolean).join(" ")));
    error.setAttribute("role", "alert");
    view.below.before(error);
  }

  // ---- What comes after an answer ----

  function offerNext(run) {
    const again = makeButton("quiet", say("again"), () => retry(run));
    const calls = run.answer.error || run.isStopped ? [] : run.answer.calls.filter((call) => call.name);
    const fields = calls.map((call) => makeResultField(call));
    const send = calls.length ? [makeButton("primary", say("sendResults"), () => sendResults(run, calls, fields))] : [];
    run.view.below.replaceChildren(...fields.map(({ element }) => element), make("div", "actions", ...send, again));
  }
  function makeResultField(call) {
    const area = make("textarea", "code");
    area.rows = 2;
    area.setAttribute("aria-label", say("result", { name: call.name }));
    area.placeholder = say("result", { name: call.name });
    return { area, element: make("div", "result", area) };
  }
  function sendResults(run, calls, fields) {
    run.view.below.replaceChildren();
    addToolTurn({ role: "tool", results: calls.map(({ id, name }, index) => ({ id, name, text: fields[index].area.value })) });
    start();
  }
  function retry(previous) {
    const index = state.turns.findIndex((turn) => turn.element === previous.view.element);
    for (const turn of index < 0 ? [] : state.turns.splice(index)) turn.element.remove();
    previous.view.element.remove();
    start();
  }
  function start() {
    for (const element of find("turns").querySelectorAll(".turn > div > .actions")) element.remove();
    run();
  }
  function send() {
    if (state.running) return;
    const [turn] = draft();
    if (!turn) return;
    if (!chosenModel()) {
      showStatus(say("noModel"), true);
      return;
    }
    try {
      readCall([]);
    } catch (error) {
      showStatus(error.message, true);
      return;
    }
    addUserTurn(turn);
    find("prompt").value = "";
    state.images = [];
    showImages();
    start();
  }
  function clear() {
    state.turns = [];
    find("turns").replaceChildren();
    find("start").hidden = false;
    find("clear").hidden = true;
    showStatus("");
    refreshSample();
    find("prompt").focus();
  }

  // ---- Everything together ----

  function listen() {
    find("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      send();
    });
    find("settings").addEventListener("submit", (event) => event.preventDefault());
    find("settings").addEventListener("input", refreshForm);
    find("prompt").addEventListener("input", refreshSample);
    find("prompt").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      send();
    });
    find("prompt").addEventListener("paste", (event) => addFiles([...event.clipboardData.files]));
    find("files").addEventListener("change", () => {
      addFiles([...find("files").files]);
      find("files").value = "";
    });
    find("stop").addEventListener("click", () => state.running?.abort.abort());
    find("clear").addEventListener("click", clear);
    find("example-tool").addEventListener("click", () => {
      find("tools").value = JSON.stringify(EXAMPLE_TOOL, null, 2);
      refreshForm();
    });
    for (const button of root.querySelectorAll("[data-sample]")) button.addEventListener("click", () => chooseSample(button.dataset.sample));
    acceptDrops(root.querySelector(".conversation"));
  }

  find("without-scripts").hidden = true;
  root.hidden = false;
  if (matchMedia("(max-width: 68rem)").matches) root.querySelector(".settings > details").open = false;
  listen();
  refreshForm();
  loadModels();
  find("prompt").focus({ preventScroll: true });
})();
