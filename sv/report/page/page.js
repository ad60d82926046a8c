// Three things that need a script: another view of a figure, sorted tables, and the provenance of a
// figure in a dialog. Without it the first views, the tables and the same text further down remain.
"use strict";

document.querySelectorAll("select[data-figure]").forEach((select) => {
  const views = document.querySelectorAll(`#${select.dataset.figure} .view`);
  const show = () => views.forEach((view) => { view.hidden = view.dataset.view !== select.value; });
  select.addEventListener("change", show);
  show(); // a browser may keep a choice over a reload
});

// A click on a heading sorts, a second one turns it round, a third one brings the order of the
// report back. Figures that are not known stay last, sums below them.
(() => {
  const read = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.sort ?? cell.textContent;
  };
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
    for (const row of rows) {
      const { section } = row.parentNode.dataset;
      if (section) row.cells[0].dataset.section = section; // shown where the headings are not
    }

    const restore = () => {
      bodies.forEach((body, place) => body.append(...original[place]));
      table.classList.remove("sorted");
    };
    const sort = (column, sign) => {
      const rank = (row) => {
        if (row.classList.contains("total")) return 2;
        return read(row, column) === "" ? 1 : 0;
      };
      const sorted = [...rows].sort((a, b) => {
        const order = rank(a) - rank(b);
        if (order !== 0 || rank(a) > 0) return order;
        return sign * compare(read(a, column), read(b, column));
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

// A figure's link shows the provenance of its sidecar in a dialog. An address that names a sidecar
// opens it further down.
(() => {
  const dialog = document.getElementById("dialog");
  const body = document.getElementById("dialog-body");
  const title = document.getElementById("dialog-title");
  const find = (hash) => document.getElementById(decodeURIComponent(hash.slice(1)));

  const show = (sidecar) => {
    const owner = sidecar.querySelector(".owner").textContent;
    title.textContent = `${owner}, ${sidecar.querySelector(".name").textContent}`;
    body.replaceChildren(sidecar.querySelector(".body").cloneNode(true));
    dialog.showModal();
    dialog.scrollTop = 0;
  };
  document.addEventListener("click", (event) => {
    const plain = !event.ctrlKey && !event.metaKey && !event.shiftKey;
    const link = event.target.closest(".sortable a");
    if (link && plain) {
      event.preventDefault();
      show(find(link.hash));
    } else if (event.target === dialog || event.target.closest("[data-close]")) {
      dialog.close();
    }
  });
  dialog.addEventListener("close", () => body.replaceChildren());

  const openNamed = () => {
    const target = location.hash.length > 1 ? find(location.hash) : null;
    if (target instanceof HTMLDetailsElement) {
      target.open = true;
      target.scrollIntoView();
    }
  };
  addEventListener("hashchange", openNamed);
  openNamed();
})();
