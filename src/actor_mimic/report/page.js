"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const first = column === 0 ? "ascending" : "descending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = head.ariaSort === first ? other : first;
    heads.forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const key = (row) => {
      const { value } = row.cells[column].dataset;
      return value ? Number(value.replace("inf", "Infinity")) : row.cells[column].textContent;
    };
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [key(row), row]);
    const numbers = rows.some(([value]) => typeof value === "number");
    const known = (value) => typeof value === "number" || !numbers;
    rows.sort(([a], [b]) => {
      // What was not measured stays at the end.
      if (!known(a) || !known(b)) return known(b) - known(a);
      return sign * (typeof a === "number" && typeof b === "number" ? a - b : `${a}`.localeCompare(b));
    });
    body.append(...rows.map(([, row]) => row));
  }));
}
if (!matchMedia("(prefers-reduced-motion: reduce)").matches) {
  const seen = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      target.dataset.seen = isIntersecting ? "yes" : "";
      if (!isIntersecting) target.pause();
      else if (!target.dataset.stopped) target.play().catch(() => {});
    }
  }, { threshold: 0.5 });
  for (const film of document.querySelectorAll("video")) {
    // Whoever stops a film does not want it to begin again.
    film.addEventListener("pause", () => { if (film.dataset.seen) film.dataset.stopped = "yes"; });
    film.addEventListener("play", () => { delete film.dataset.stopped; });
    seen.observe(film);
  }
}
