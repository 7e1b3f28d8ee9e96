// Appended to a copy of the report by test_page.py: tries the page's own controls, as a user would,
// and writes what is wrong, or "ok", into <html data-selfcheck>.
"use strict";
(function () {
  const all = (selector, root) => Array.from((root || document).querySelectorAll(selector));
  const problems = [];
  const expect = (truth, what) => { if (!truth) problems.push(what); };
  const visible = (element) => element.getClientRects().length > 0;
  const text = (cell) => (cell.dataset.sort !== undefined ? cell.dataset.sort : cell.textContent).trim();

  for (const table of all("table.sortable")) {
    const rows = () => all("tbody > tr[data-row]", table);
    const count = rows().length;
    all("thead .sort", table).forEach((button, column) => {
      for (const direction of ["ascending", "descending"]) {
        button.click();
        expect(button.closest("th").getAttribute("aria-sort") === direction, "aria-sort");
        const values = rows().map((row) => text(row.children[column]));
        const filled = values.filter((value) => value !== "");
        expect(values.slice(filled.length).every((value) => value === ""), "empty cells are not last");
        const numbers = filled.filter((value) => !Number.isNaN(Number(value))).map(Number);
        const sign = direction === "ascending" ? 1 : -1;
        expect(numbers.every((n, i) => i === 0 || sign * (n - numbers[i - 1]) >= 0),
          "numbers not " + direction + " in column " + button.textContent);
      }
    });
    expect(rows().length === count, "rows were lost");
    for (const row of rows()) {
      const button = row.querySelector("button.expander");
      if (button) {
        expect(row.nextElementSibling.id === button.getAttribute("aria-controls"), "detail astray");
      }
    }
  }

  for (const form of all("form.filters")) {
    const rows = () => all('[data-filtered="' + form.dataset.filters + '"] [data-row]');
    const shown = () => rows().filter(visible).length;
    const input = () => form.dispatchEvent(new Event("input"));
    const before = shown();
    expect(before === rows().length && before > 0, "something is hidden at first");
    form.elements.text.value = "no such words anywhere";
    input();
    expect(shown() === 0, "the search shows what does not fit");
    form.elements.text.value = "";
    let sum = 0;
    for (const option of Array.from(form.elements.verdict.options).slice(1)) {
      form.elements.verdict.value = option.value;
      input();
      sum += shown();
    }
    expect(sum === before, "verdicts do not add up: " + sum + " of " + before);
    form.elements.verdict.value = "";
    input();
    expect(shown() === before, "clearing the filter does not show everything");
  }

  const button = document.querySelector("button.expander");
  const detail = document.getElementById(button.getAttribute("aria-controls"));
  expect(!visible(detail), "a detail is open at first");
  button.click();
  expect(visible(detail) && button.getAttribute("aria-expanded") === "true", "no detail opens");
  button.click();
  expect(!visible(detail), "no detail closes");
  const root = document.documentElement;
  expect(root.scrollWidth <= root.clientWidth, "the page scrolls sideways: " + root.scrollWidth);
  root.dataset.selfcheck = problems.length ? problems.slice(0, 5).join("; ") : "ok";
})();
