// The tables of "Paper and companion", by verdict and by part. Without scripts they stand as they are.
document.addEventListener("DOMContentLoaded", () => {
  const tables = [...document.querySelectorAll(".companion:not(.settings) table")];
  const place = document.querySelector(".companion-filter");
  if (!place || !tables.length) return;
  const rows = tables.flatMap((table) => {
    const part = table.closest("section").querySelector("h2").firstChild.textContent.trim();
    const judged = table.querySelectorAll("thead th").length === 5;
    return [...table.querySelectorAll("tbody tr")].map((row) => ({
      row,
      part,
      verdict: judged ? row.lastElementChild.textContent.trim() : "proved or drawn",
    }));
  });
  const chosen = { verdict: "", part: "" };
  const said = document.createElement("span");
  said.setAttribute("role", "status");
  const show = () => {
    let count = 0;
    for (const { row, ...own } of rows) {
      row.hidden = Object.keys(chosen).some((key) => chosen[key] && chosen[key] !== own[key]);
      count += !row.hidden;
    }
    for (const table of tables) {
      table.closest("section").hidden = ![...table.querySelectorAll("tbody tr")].some((row) => !row.hidden);
    }
    said.textContent = `${count} of ${rows.length} items`;
  };
  for (const [key, text] of [["verdict", "Verdict"], ["part", "Part"]]) {
    const label = document.createElement("label");
    const select = document.createElement("select");
    const values = [...new Set(rows.map((entry) => entry[key]))];
    select.append(new Option("all", ""), ...values.map((value) => new Option(value, value)));
    select.addEventListener("change", () => {
      chosen[key] = select.value;
      show();
    });
    select.setAttribute("aria-label", text);
    label.append(`${text} `, select);
    place.append(label);
  }
  place.append(said);
  show();
  // a row that a link leads to is never hidden
  window.addEventListener("hashchange", () => {
    for (const select of place.querySelectorAll("select")) select.value = "";
    chosen.verdict = chosen.part = "";
    show();
    document.getElementById(location.hash.slice(1))?.scrollIntoView();
  });
});
