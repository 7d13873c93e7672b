// Rows of a page of requests: a click anywhere opens one, and while "Follow" is on, new ones are added. Those that are
// there stay the same elements, so that what is open, selected or read keeps its place.
"use strict";
(() => {
  const PAUSE_MS = 3000;
  const MOST_ROWS = 400;
  const table = () => document.querySelector("table.requests");

  function openByClick(event) {
    const row = event.target.closest("tr.request");
    if (!row || event.target.closest("summary, a") || String(getSelection())) return;
    const details = row.querySelector("details");
    details.open = !details.open;
  }

  // Rows of the answer are in order; each that is new goes before the one that follows it.
  function addRows(fresh) {
    const known = new Map([...table().tBodies].map((body) => [body.dataset.key, body]));
    let next = table().tBodies[0] ?? null;
    for (const body of fresh.tBodies) {
      const same = known.get(body.dataset.key);
      if (same) { next = same.nextElementSibling; continue; }
      const added = document.importNode(body, true);
      added.classList.add("fresh");
      table().insertBefore(added, next);
      page.enable(added);
    }
    for (const body of [...table().tBodies].slice(MOST_ROWS)) if (!body.querySelector("details[open]")) body.remove();
    if (table().tBodies.length) {
      document.getElementById("requests").hidden = false;
      document.getElementById("no-requests")?.remove();
    }
  }

  async function fetchRows(address) {
    const answer = await fetch(address, { redirect: "manual" });
    const text = answer.ok ? await answer.text() : "";
    const found = new DOMParser().parseFromString(text, "text/html").querySelector("table.requests");
    return { found, hasEnded: [401, 403].includes(answer.status) || answer.type === "opaqueredirect" };
  }

  function enableFollowing(label) {
    const box = label.querySelector("input");
    const dot = label.querySelector(".live-dot");
    const said = document.getElementById("follow-state");
    let timer = 0;
    const say = (text) => {
      if (said.textContent !== text) said.textContent = text;
      dot.classList.toggle("off", !box.checked || text !== "");
    };
    const again = () => { clearTimeout(timer); if (box.checked) timer = setTimeout(look, PAUSE_MS); };
    async function look() {
      if (document.hidden) return again();
      try {
        const { found, hasEnded } = await fetchRows(label.dataset.href);
        if (hasEnded) { box.checked = false; say(label.dataset.ended); return; }
        if (found && box.checked) addRows(found);
        say(found ? found.dataset.problem ?? "" : label.dataset.lost);
      } catch {
        say(label.dataset.lost);
      }
      again();
    }
    box.addEventListener("change", () => {
      try { sessionStorage.setItem("follow", box.checked ? "yes" : ""); } catch { /* not remembered */ }
      say("");
      clearTimeout(timer);
      if (box.checked) look();
    });
    label.hidden = false;
    try { box.checked = sessionStorage.getItem("follow") === "yes"; } catch { /* it is off */ }
    say("");
    again();
  }

  document.addEventListener("DOMContentLoaded", () => {
    document.getElementById("requests")?.addEventListener("click", openByClick);
    const label = document.getElementById("follow");
    if (label) enableFollowing(label);
  });
})();
