// The overview's live part: says whether it is connected, and keeps what the reader does while it is replaced.
"use strict";
(() => {
  const STREAM = "[sse-connect]";
  let before = null;

  // ---- What is kept: the focus, and how far tables are scrolled sideways. page.js keeps the order of tables. ----
  function focusKey(part) {
    const element = document.activeElement;
    if (!part.contains(element) || element === part) return null;
    const table = element.closest("table[data-key]");
    const header = element.closest("th");
    if (table && header) return { table: table.dataset.key, column: header.cellIndex };
    const region = element.closest("[aria-labelledby]");
    return region ? { region: region.getAttribute("aria-labelledby"), role: region.getAttribute("role") } : null;
  }
  function findAgain(part, key) {
    if (key.table) {
      const table = part.querySelector(`table[data-key="${CSS.escape(key.table)}"]`);
      return table?.tHead.rows[0].cells[key.column]?.querySelector("button.sort");
    }
    const role = key.role ? `[role="${CSS.escape(key.role)}"]` : "";
    return part.querySelector(`[aria-labelledby="${CSS.escape(key.region)}"]${role}`);
  }
  function tablesOf(part) {
    return [...part.querySelectorAll(".scroll table[data-key]")].map((table) => [table.dataset.key, table.closest(".scroll")]);
  }
  document.addEventListener("htmx:sseBeforeMessage", (event) => {
    const part = event.target;
    before = { focus: focusKey(part), scrolled: Object.fromEntries(tablesOf(part).map(([key, box]) => [key, box.scrollLeft])), y: window.scrollY };
  });
  document.addEventListener("htmx:sseMessage", (event) => {
    const part = event.target;
    window.page.enable(part);
    if (!before) return;
    for (const [key, box] of tablesOf(part)) if (before.scrolled[key]) box.scrollLeft = before.scrolled[key];
    if (before.focus) findAgain(part, before.focus)?.focus({ preventScroll: true });
    if (window.scrollY !== before.y) window.scrollTo({ top: before.y, behavior: "instant" });
    before = null;
  });

  // ---- The connection ----
  function show(isConnected) {
    const note = document.getElementById("live");
    const text = isConnected ? note.dataset.on : note.dataset.off;
    note.hidden = false;
    note.querySelector(".live-dot").classList.toggle("off", !isConnected);
    // Only changes are read out.
    if (note.lastElementChild.textContent !== text) note.lastElementChild.textContent = text;
  }
  // Whoever has to sign in again gets the form for that: nothing of the last state stays visible.
  async function reloadIfSignedOut(address) {
    try {
      const answer = await fetch(address, { redirect: "manual" });
      await answer.body?.cancel();
      if (answer.type === "opaqueredirect" || answer.status === 403) location.reload();
    } catch { /* it can't be reached: the extension tries again */ }
  }
  document.addEventListener("htmx:sseOpen", () => show(true));
  document.addEventListener("htmx:sseError", (event) => {
    show(false);
    if (event.detail.source.readyState === EventSource.CLOSED) reloadIfSignedOut(document.querySelector(STREAM).getAttribute("sse-connect"));
  });
  document.addEventListener("htmx:sseClose", (event) => {
    if (event.detail.type === "message") location.reload();
  });
})();
