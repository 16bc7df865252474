"use strict";
(() => {
  // Sortable tables. A column sorts by `data-sort` where its cells have one, else by text; ties keep their order.
  const live = document.getElementById("live");
  const key = (row, column) => {
    const cell = row.cells[column];
    const number = cell.dataset.sort;
    return number === undefined ? cell.textContent.trim() : Number(number);
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b
      : typeof a === "number" ? -1 : typeof b === "number" ? 1 : a.localeCompare(b, "en", { numeric: true });
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      head.setAttribute("aria-sort", "none");
      head.firstElementChild.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of heads) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const body = table.tBodies[0];
        const rows = [...body.rows].sort((a, b) => (down ? -1 : 1) * compare(key(a, column), key(b, column)));
        body.append(...rows);
        live.textContent = `Sorted by ${head.textContent.trim()}, ${down ? "descending" : "ascending"}`;
      });
    });
  }

  // Values on hover: at once, and with the rows that they come from. Without this script the browser shows <title>.
  const tip = document.getElementById("tip");
  const hide = () => { tip.hidden = true; };
  for (const mark of document.querySelectorAll(".chart .mark")) {
    const title = mark.querySelector("title");
    if (!title) continue;
    mark.dataset.label = title.textContent;
    title.remove();
  }
  const show = (event) => {
    const mark = event.target instanceof Element && event.target.closest(".chart .mark");
    if (!mark) return hide();
    const rows = document.createElement("small");
    rows.textContent = mark.dataset.rows;
    tip.replaceChildren(mark.dataset.label, rows);
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    const left = Math.min(event.clientX + 14, innerWidth - width - 8);
    const below = event.clientY + 18;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${below + height > innerHeight ? event.clientY - height - 10 : below}px`;
  };
  document.addEventListener("pointermove", show, { passive: true });
  document.addEventListener("scroll", hide, { passive: true });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
})();
