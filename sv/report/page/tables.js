// Sorting of tables: a click on a heading, a second one turns it round, a third one brings the
// order of the report back. Figures that are not known stay last, sums below them.
"use strict";
(() => {
  const compare = (a, b) => {
    const numbers = [Number(a), Number(b)];
    if (numbers.every((number) => !Number.isNaN(number))) return numbers[0] - numbers[1];
    return a.localeCompare(b, "en", { numeric: true });
  };

  const setUp = (table) => {
    const head = table.tHead.rows[table.tHead.rows.length - 1];
    const bodies = [...table.tBodies];
    const original = bodies.map((body) => [...body.rows]);
    const rows = original.flat().filter((row) => !row.classList.contains("section"));

    const restore = () => {
      bodies.forEach((body, place) => body.append(...original[place]));
      table.classList.remove("sorted");
    };
    const sort = (column, sign) => {
      const rank = (row) => {
        if (row.classList.contains("total")) return 2;
        return row.cells[column].dataset.sort === undefined ? 1 : 0;
      };
      const sorted = [...rows].sort((a, b) => {
        const order = rank(a) - rank(b);
        if (order !== 0 || rank(a) > 0) return order;
        return sign * compare(a.cells[column].dataset.sort, b.cells[column].dataset.sort);
      });
      bodies[0].append(...sorted);
      table.classList.add("sorted");
    };
    [...head.cells].forEach((cell, column) => {
      const next = { none: "ascending", ascending: "descending", descending: "none" };
      cell.querySelector("button").addEventListener("click", () => {
        const state = next[cell.getAttribute("aria-sort")];
        for (const other of head.cells) other.setAttribute("aria-sort", "none");
        cell.setAttribute("aria-sort", state);
        if (state === "none") restore();
        else sort(column, state === "ascending" ? 1 : -1);
      });
    });
  };

  document.querySelectorAll("table.sortable").forEach(setUp);
})();
