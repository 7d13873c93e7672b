// What every page does with scripts: theme, times of the reader's own zone, sorting, copying, the CSRF token of htmx.
// Nothing of it is needed to use a page. The head loads it without `defer`: a page is never painted in the wrong theme.
"use strict";
(() => {
  const root = document.documentElement;
  const THEMES = ["auto", "light", "dark"];

  // Storage can be switched off in the browser; then nothing is remembered.
  function recall(storage, key) {
    try { return window[storage].getItem(key); } catch { return null; }
  }
  function remember(storage, key, value) {
    try { window[storage].setItem(key, value); } catch { /* not remembered */ }
  }

  // ---- Theme ----
  function applyTheme(theme) {
    if (theme === "auto") root.removeAttribute("data-theme");
    else root.setAttribute("data-theme", theme);
  }
  function chosenTheme() {
    const theme = recall("localStorage", "theme");
    return THEMES.includes(theme) ? theme : "auto";
  }
  function enableThemeSwitch(button) {
    const show = (theme) => {
      button.setAttribute("data-theme-switch", theme);
      button.setAttribute("aria-label", button.dataset[theme]);
      button.title = button.dataset[theme];
    };
    show(chosenTheme());
    button.hidden = false;
    button.addEventListener("click", () => {
      const theme = THEMES[(THEMES.indexOf(button.dataset.themeSwitch) + 1) % THEMES.length];
      remember("localStorage", "theme", theme);
      applyTheme(theme);
      show(theme);
      document.dispatchEvent(new CustomEvent("themechange"));
    });
  }
  applyTheme(chosenTheme());

  // ---- Times ----
  const language = root.lang || undefined;
  // Written as the server does, 2026-11-23 07:13:00, in every language: Swedish has that as its form.
  const clock = new Intl.DateTimeFormat("sv-SE", { dateStyle: "short", timeStyle: "medium" });
  const relative = new Intl.RelativeTimeFormat(language, { numeric: "auto", style: "short" });

  function ago(seconds) {
    const steps = [["second", 60], ["minute", 60], ["hour", 24], ["day", Infinity]];
    let value = seconds;
    for (const [unit, next] of steps) {
      if (Math.abs(value) < next) return relative.format(-Math.trunc(value), unit);
      value /= next;
    }
  }
  function localizeTimes(part) {
    for (const element of part.querySelectorAll("time[datetime]")) {
      const at = new Date(element.getAttribute("datetime"));
      if (Number.isNaN(at.getTime())) continue;
      const local = clock.format(at);
      const isRelative = element.hasAttribute("data-ago");
      const text = isRelative ? ago((Date.now() - at) / 1000) : local;
      if (element.textContent !== text) element.textContent = text;
      element.title = isRelative ? local : element.getAttribute("datetime");
    }
  }

  // ---- Tables that can be sorted ----
  const READ = {
    number: (text) => { const value = parseFloat(text.replace(/[\s,\u00a0\u202f]/g, "")); return Number.isNaN(value) ? null : value; },
    time: (text) => { const value = Date.parse(text); return Number.isNaN(value) ? READ.number(text) : value; },
    text: (text) => text.toLocaleLowerCase(language) || null,
  };
  function valueOf(row, column, kind) {
    const cell = row.cells[column];
    if (!cell) return null;
    const time = kind === "time" && cell.querySelector("time[datetime]");
    return READ[kind]((cell.dataset.value ?? (time ? time.getAttribute("datetime") : cell.textContent)).trim());
  }
  function compare(a, b) {
    return typeof a === "string" ? a.localeCompare(b, language, { numeric: true }) : a - b;
  }
  // Rows without a value come last in both directions.
  function sortRows(table, column, direction) {
    const kind = table.tHead.rows[0].cells[column].dataset.sort || "text";
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [valueOf(row, column, kind), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return direction === "descending" ? compare(b, a) : compare(a, b);
    });
    body.append(...rows.map(([, row]) => row));
    for (const [index, header] of [...table.tHead.rows[0].cells].entries()) {
      if (index === column) header.setAttribute("aria-sort", direction);
      else header.removeAttribute("aria-sort");
    }
  }
  function sortByHeader(table, header) {
    const first = header.dataset.sort === "text" ? "ascending" : "descending";
    const now = header.getAttribute("aria-sort");
    const direction = !now ? first : now === "ascending" ? "descending" : "ascending";
    sortRows(table, header.cellIndex, direction);
    if (table.dataset.key) remember("sessionStorage", `sort:${table.dataset.key}`, `${header.cellIndex} ${direction}`);
  }
  function enableSorting(table) {
    if (!table.tHead || !table.tBodies.length) return;
    for (const header of table.tHead.querySelectorAll("th[data-sort]")) {
      if (header.querySelector("button.sort")) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...header.childNodes);
      header.append(button);
      button.addEventListener("click", () => sortByHeader(table, header));
    }
    const [column, direction] = (recall("sessionStorage", `sort:${table.dataset.key}`) || "").split(" ");
    if (direction && table.tHead.rows[0].cells[column]?.dataset.sort) sortRows(table, Number(column), direction);
  }

  // What is wider than the page is scrolled with the keyboard, too.
  function makeReachable(part) {
    if (part.scrollWidth > part.clientWidth) part.tabIndex = 0;
  }

  // ---- Copying ----
  async function copyText(element) {
    try {
      await navigator.clipboard.writeText(element.textContent);
    } catch {
      // Browsers keep the clipboard from pages without TLS; selecting works everywhere.
      window.getSelection().selectAllChildren(element);
      if (!document.execCommand("copy")) return false;
    }
    return true;
  }
  function enableCopy(button) {
    if (!button.hidden) return;
    button.hidden = false;
    const label = button.textContent;
    button.addEventListener("click", async () => {
      if (!(await copyText(button.parentElement.querySelector("code")))) return;
      button.textContent = button.dataset.copied;
      button.classList.add("copied");
      setTimeout(() => { button.textContent = label; button.classList.remove("copied"); }, 2000);
    });
  }

  // ---- What has to be confirmed ----
  function enableConfirmation(details) {
    const close = details.querySelector("[data-close]");
    if (!close?.hidden) return;
    close.hidden = false;
    close.addEventListener("click", () => closeConfirmation(details));
    details.addEventListener("toggle", () => { if (details.open) details.querySelector('[name="confirm"]').focus(); });
  }
  function closeConfirmation(details) {
    details.open = false;
    details.querySelector("summary").focus();
  }
  function closeByKey(event) {
    const details = document.querySelector(".confirm[open]");
    if (event.key === "Escape" && details) closeConfirmation(details);
  }

  // ---- All of it, for a page and for each part that is swapped into it ----
  function enable(part) {
    localizeTimes(part);
    part.querySelectorAll("table.sortable").forEach(enableSorting);
    part.querySelectorAll("[data-copy]").forEach(enableCopy);
    part.querySelectorAll(".confirm").forEach(enableConfirmation);
    part.querySelectorAll(".scroll:not([tabindex])").forEach(makeReachable);
  }
  function csrfToken() {
    return document.querySelector('meta[name="csrf-token"]').content;
  }
  // The colour of a custom property as it is in the present theme: for canvases, which can't resolve it themselves.
  function color(name) {
    const probe = document.createElement("span");
    probe.style.color = `var(${name})`;
    document.body.append(probe);
    const value = getComputedStyle(probe).color;
    probe.remove();
    return value;
  }

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("[data-theme-switch]").forEach(enableThemeSwitch);
    document.querySelector(".top nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
    enable(document);
    setInterval(() => localizeTimes(document), 20_000);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.dispatchEvent(new CustomEvent("themechange")));
  });
  document.addEventListener("keydown", closeByKey);
  document.addEventListener("htmx:configRequest", (event) => { event.detail.headers["X-CSRF-Token"] = csrfToken(); });
  // An element that was replaced is gone; its successor is somewhere in the document.
  document.addEventListener("htmx:afterSwap", () => enable(document));
  document.addEventListener("htmx:oobAfterSwap", () => enable(document));

  window.page = { color, csrfToken, enable };
})();
