// A figure's link shows the provenance of its sidecar in a dialog; without a script it leads to
// the same text further down. An address that names a sidecar opens it there.
"use strict";
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
    const link = event.target.closest("a.source");
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
