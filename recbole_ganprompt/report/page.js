"use strict";

const announcement = document.getElementById("announcement");

/** Put a button into each header cell that sorts the table's body; the footer stays where it is. */
function makeSortable(table) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => sort(table, headers, column));
  });
}

/** The cell of a row that stands in a column: one that says why a model failed stands in several. */
function cellIn(row, column) {
  let next = 0;
  return [...row.cells].find((cell) => column < (next += cell.colSpan));
}

function sort(table, headers, column) {
  const header = headers[column];
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const number = (row) => Number.parseFloat(cellIn(row, column)?.dataset.value);
  const text = (row) => cellIn(row, column)?.textContent.trim() ?? "";
  const numeric = rows.some((row) => !Number.isNaN(number(row)));
  // The first click puts large numbers on top, but words from A to Z.
  const current = header.getAttribute("aria-sort");
  const descending = current === null ? numeric : current === "ascending";
  const sign = descending ? -1 : 1;
  rows.sort((one, other) => {
    if (!numeric) return sign * text(one).localeCompare(text(other), "en", { numeric: true });
    const missing = Number.isNaN(number(one)) - Number.isNaN(number(other));
    return missing || sign * (number(one) - number(other)) || 0;
  });
  body.append(...rows);
  for (const each of headers) each.removeAttribute("aria-sort");
  const order = descending ? "descending" : "ascending";
  header.setAttribute("aria-sort", order);
  announcement.textContent = `Sorted by ${header.textContent.trim()}, ${order}.`;
}

/** Show one user at a time. Without this script all stand below each other. */
function chooseUser(select) {
  for (const option of select.options) {
    document.getElementById(option.value).hidden = !option.selected;
  }
}

document.querySelectorAll("table.sortable").forEach(makeSortable);
const select = document.getElementById("user");
if (select) {
  select.closest(".chooser").hidden = false;
  chooseUser(select);
  select.addEventListener("change", () => {
    chooseUser(select);
    announcement.textContent = `Showing user ${select.selectedOptions[0].textContent.trim()}.`;
  });
}
