// A niceness, not a need: a click on a column head sorts the table; fold-outs open for the printer.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], rows = [...table.tBodies[0].rows];
  const key = (row, i) => row.cells[i].dataset.value ?? row.cells[i].textContent;
  heads.forEach((head, i) => {
    if (head.dataset.fixed !== undefined) return;
    head.tabIndex = 0;
    if (!head.ariaSort) head.ariaSort = "none";
    const sort = () => {
      const sign = head.ariaSort === "ascending" ? -1 : 1;
      heads.forEach(other => { if (other.ariaSort) other.ariaSort = "none"; });
      head.ariaSort = sign > 0 ? "ascending" : "descending";
      rows.sort((a, b) => sign * key(a, i).localeCompare(key(b, i), undefined, {numeric: true}));
      table.tBodies[0].append(...rows);
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", event => { if (event.key === "Enter") sort(); });
  });
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(d => { d.open = true; }));
