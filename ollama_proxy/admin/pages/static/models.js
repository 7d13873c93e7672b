// What waits for servers is fetched after the page is there. Jobs are refreshed each second while one runs, and the table
// of models when one has ended.
"use strict";
(() => {
  const EVERY_MS = 1000;

  function keyOf(element) {
    return element.id || element.getAttribute("aria-label") || element.getAttribute("href");
  }

  // The part as the gateway renders it now, in place of the old one; the focus stays where it was.
  async function refresh(part) {
    const answer = await fetch(part.dataset.refresh, { credentials: "same-origin" });
    if (answer.redirected || answer.status === 401) return window.location.reload();
    if (!answer.ok) return part;
    const parsed = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById(part.id);
    if (!parsed) return part;
    const focused = part.contains(document.activeElement) ? keyOf(document.activeElement) : null;
    const fresh = document.importNode(parsed, true);
    part.replaceWith(fresh);
    window.page.enable(fresh);
    if (focused) [...fresh.querySelectorAll("a, button")].find((each) => keyOf(each) === focused)?.focus({ preventScroll: true });
    return fresh;
  }

  async function follow() {
    const before = document.getElementById("jobs");
    const running = Number(before.dataset.running);
    if (!running) return;
    try {
      const after = await refresh(before);
      if (!after) return;
      if (Number(after.dataset.running) < running) await refresh(document.getElementById("matrix"));
    } catch { /* the gateway is restarting; the next look may find it */ }
    setTimeout(follow, EVERY_MS);
  }

  document.addEventListener("DOMContentLoaded", () => {
    for (const part of document.querySelectorAll("[data-load]")) refresh(part).catch(() => {});
    if (document.getElementById("jobs")) setTimeout(follow, EVERY_MS);
  });
})();
