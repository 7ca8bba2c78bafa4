// Draws the charts; sorts and filters the tables. Works on what is in the page, asks nobody anything.
(() => {
  "use strict";

  const charts = JSON.parse(document.getElementById("charts").textContent);
  const options = { displayModeBar: false, responsive: true };

  function draw(place) {
    const { data, layout } = charts[place.dataset.chart];
    Plotly.newPlot(place, data, layout, options).then(() => { place.dataset.drawn = "yes"; });
  }
  document.querySelectorAll(".chart").forEach(draw);

  const cellOf = (row, column) => row.cells[column];

  function keyOf(cell) {
    if (!("key" in cell.dataset)) return null;
    const number = Number(cell.dataset.key);
    return cell.dataset.key !== "" && !Number.isNaN(number) ? number : cell.dataset.key;
  }

  // Numbers before texts, what is missing always last.
  function order(one, other, sign) {
    if (one === null || other === null) return (one === null) - (other === null);
    if (typeof one !== typeof other) return typeof one === "number" ? -1 : 1;
    return sign * (typeof one === "number" ? one - other : one.localeCompare(other));
  }

  function sort(table, heading) {
    const column = heading.cellIndex;
    const numeric = heading.classList.contains("n");
    const before = heading.getAttribute("aria-sort");
    // The first click on a number shows the largest first.
    const ascending = before ? before === "descending" : !numeric;
    table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [keyOf(cellOf(row, column)), row]);
    rows.sort(([one], [other]) => order(one, other, ascending ? 1 : -1));
    body.append(...rows.map(([, row]) => row));
  }

  function filter(block) {
    const words = block.querySelector("input").value.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = [...block.querySelectorAll(".chips")].map((chips) => [
      Number(chips.dataset.column),
      [...chips.querySelectorAll("[aria-pressed=true]")].map((chip) => chip.dataset.value),
    ]).filter(([, values]) => values.length);
    const rows = [...block.querySelector("tbody").rows];
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const kept = words.every((word) => text.includes(word))
        && chosen.every(([column, values]) => values.includes(cellOf(row, column).textContent));
      row.hidden = !kept;
      shown += kept;
    }
    block.querySelector(".count").textContent = shown === rows.length ? `${shown} rows` : `${shown} of ${rows.length} rows`;
  }

  document.querySelectorAll(".table").forEach((block) => {
    const table = block.querySelector("table");
    table.querySelectorAll("th button").forEach((button) => {
      button.addEventListener("click", () => sort(table, button.closest("th")));
    });
    const search = block.querySelector("input");
    if (!search) return;
    search.addEventListener("input", () => filter(block));
    block.querySelectorAll(".chip").forEach((chip) => chip.addEventListener("click", () => {
      chip.setAttribute("aria-pressed", chip.getAttribute("aria-pressed") === "true" ? "false" : "true");
      filter(block);
    }));
    filter(block);
  });

  // A group of the leaderboard narrows the trials to its own.
  document.querySelectorAll("button.link").forEach((button) => button.addEventListener("click", () => {
    const block = document.getElementById(button.dataset.table);
    const chips = [...block.querySelectorAll(".chip")];
    const chip = chips.find((one) => one.dataset.value === button.dataset.value);
    chips.forEach((one) => one.setAttribute("aria-pressed", one === chip ? "true" : "false"));
    block.querySelector("input").value = chip ? "" : button.dataset.value;
    filter(block);
    block.closest("section").scrollIntoView();
  }));

  // A number of the verdict opens the list it is explained in.
  document.querySelectorAll("a.number").forEach((link) => link.addEventListener("click", () => {
    document.getElementById("numbers").open = true;
  }));
})();
