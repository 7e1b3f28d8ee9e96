"use strict";
(function () {
  const all = (selector, root) => Array.from((root || document).querySelectorAll(selector));

  function key(row, column) {
    const cell = row.children[column];
    const raw = cell.dataset.sort !== undefined ? cell.dataset.sort : cell.textContent.trim();
    const number = raw === "" ? NaN : Number(raw);
    return Number.isNaN(number) ? raw.toLowerCase() : number;
  }

  // Numbers before words, empty cells last, equal rows as they were.
  function compare(a, b, sign) {
    if (a === b) return 0;
    if (a === "" || b === "") return a === "" ? 1 : -1;
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return sign * (a < b ? -1 : 1);
  }

  function sort(table, column, descending) {
    const body = table.tBodies[0];
    const rows = all(":scope > tr[data-row]", body).map((row) => {
      const next = row.nextElementSibling;
      return { row, detail: next && next.classList.contains("detail") ? next : null };
    });
    rows.sort((a, b) => compare(key(a.row, column), key(b.row, column), descending ? -1 : 1));
    for (const { row, detail } of rows) {
      body.append(row);
      if (detail) body.append(detail);
    }
    all("thead th", table).forEach((head, i) => {
      if (i === column) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  }

  function filter(form) {
    const words = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const verdict = form.elements.verdict.value;
    let shown = 0, total = 0;
    for (const place of all('[data-filtered="' + form.dataset.filters + '"]')) {
      let here = 0;
      for (const row of all("[data-row]", place)) {
        const text = row.textContent.toLowerCase();
        const fits = words.every((word) => text.includes(word)) &&
          (!verdict || row.dataset.verdict === verdict);
        row.hidden = !fits;
        const next = row.nextElementSibling;
        if (next && next.classList.contains("detail")) next.hidden = !fits;
        here += fits ? 1 : 0;
        total += 1;
      }
      place.closest(".group").hidden = here === 0;
      shown += here;
    }
    form.querySelector("output").textContent = shown + " of " + total + " shown";
    return shown;
  }

  function open(button, shown) {
    const detail = document.getElementById(button.getAttribute("aria-controls"));
    button.setAttribute("aria-expanded", String(shown));
    detail.classList.toggle("shown", shown);
  }

  for (const table of all("table.sortable")) {
    all("thead .sort", table).forEach((button, column) => {
      button.addEventListener("click", () => {
        const head = button.closest("th");
        sort(table, column, head.getAttribute("aria-sort") === "ascending");
      });
    });
  }
  for (const button of all("button.expander")) {
    button.addEventListener("click", () => {
      open(button, button.getAttribute("aria-expanded") !== "true");
    });
  }
  for (const form of all("form.filters")) {
    form.addEventListener("input", () => filter(form));
    form.addEventListener("submit", (event) => event.preventDefault());
    filter(form);
  }

  // A link to a cell opens it: #cell-mnist-cnn_fc
  function follow() {
    const row = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const button = row && row.querySelector("button.expander");
    if (button) open(button, true);
  }
  window.addEventListener("hashchange", follow);
  follow();

  document.documentElement.dataset.ready = String(all("table.sortable").length);
})();
