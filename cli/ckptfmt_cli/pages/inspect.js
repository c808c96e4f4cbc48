"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const SHOWN = 500;

function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  for (const child of children) node.append(child);
  return node;
}

function size(nbytes) {
  if (nbytes < 1024) return `${nbytes} B`;
  const units = ["KiB", "MiB", "GiB", "TiB", "PiB"];
  let power = 1;
  while (power < units.length && nbytes / 1024 ** power >= 1023.95) power += 1;
  const value = nbytes / 1024 ** power;
  return `${value.toFixed(value < 100 ? 1 : 0)} ${units[power - 1]}`;
}

const count = (number) => number.toLocaleString("en-US");
const digits = (number) => (number === null ? "–" : typeof number === "string" ? number : Number(number.toPrecision(4)).toString());
const COLOURS = ["#3b82c4", "#d97b29", "#3f9b5f", "#a45fb5", "#c94f5c", "#8c7a3d", "#4aa3a3", "#8a8f98"];

function histogram(found) {
  if (!found) return "";
  const picture = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  picture.setAttribute("class", "histogram");
  picture.setAttribute("viewBox", `0 0 ${found.counts.length * 4} 24`);
  picture.setAttribute("preserveAspectRatio", "none");
  picture.setAttribute("role", "img");
  picture.setAttribute("aria-label", `from ${digits(found.low)} to ${digits(found.high)}`);
  const most = Math.max(...found.counts, 1);
  found.counts.forEach((number, position) => {
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const height = number === 0 ? 0 : Math.max(1, (number / most) * 24);
    bar.setAttribute("x", position * 4);
    bar.setAttribute("y", 24 - height);
    bar.setAttribute("width", 3);
    bar.setAttribute("height", height);
    picture.append(bar);
  });
  return picture;
}

// What takes the room, by dtype.

function dtypes() {
  const total = Object.values(data.totals.bytes_by_dtype).reduce((sum, nbytes) => sum + nbytes, 0);
  const bar = make("div", { class: "dtypes", role: "img", "aria-label": "share of each dtype" });
  const legend = make("div", { class: "legend" });
  Object.entries(data.totals.bytes_by_dtype).forEach(([dtype, nbytes], position) => {
    const colour = COLOURS[position % COLOURS.length];
    bar.append(make("span", { style: `width:${(100 * nbytes) / Math.max(total, 1)}%;background:${colour}`, title: dtype }));
    legend.append(make("span", {}, make("i", { style: `background:${colour}` }), `${dtype} ${size(nbytes)}`));
  });
  document.getElementById("dtypes").append(bar, legend);
}

// The tree of modules.

function branch(module, top, whole) {
  const name = make("span", { class: "name" }, module.name);
  if (module.times > 1) name.append(make("span", { class: "times" }, ` × ${count(module.times)}`));
  const form = module.dtype === null ? "" : `${module.dtype} [${module.shape.join(", ")}]`;
  const facts = [
    make("span", { class: "count" }, form),
    make("span", { class: "count wide" }, `${count(module.elements)} elements`),
    make("span", { class: "count length" }, size(module.nbytes)),
    make("span", { class: "share" }, make("span", { style: `width:${(100 * module.nbytes) / Math.max(whole, 1)}%` })),
  ];
  if (module.children.length === 0) return make("div", { class: "leaf" }, name, ...facts);
  const node = make("details", top ? { class: "top", open: "" } : {}, make("summary", {}, name, ...facts));
  let filled = false;
  const fill = () => {
    if (!filled) node.append(...module.children.map((child) => branch(child, false, whole)));
    filled = true;
  };
  if (top) fill();
  else node.addEventListener("toggle", fill);
  return node;
}

// The table of tensors.

const COLUMNS = [
  { title: "component", value: (row) => row.component },
  { title: "tensor", value: (row) => row.name, cell: (row) => make("span", { class: "name" }, row.name) },
  { title: "dtype", value: (row) => row.dtype },
  { title: "shape", value: (row) => row.elements, cell: (row) => `[${row.shape.join(", ")}]` },
  { title: "size", number: true, value: (row) => row.nbytes, cell: (row) => size(row.nbytes) },
];
const NUMBERS = [
  ...["min", "max", "mean", "std"].map((name) => ({
    title: name, number: true, value: (row) => (row.stats ? row.stats[name] : null), cell: (row) => (row.stats ? digits(row.stats[name]) : "–"),
  })),
  { title: "zeros", number: true, value: (row) => (row.stats ? row.stats.zeros : null), cell: (row) => (row.stats ? count(row.stats.zeros) : "–") },
  {
    title: "NaN, Inf", number: true, value: (row) => (row.stats ? row.stats.nan + row.stats.inf : null),
    cell: (row) => {
      const bad = row.stats ? row.stats.nan + row.stats.inf : 0;
      return bad ? make("span", { class: "bad" }, count(bad)) : "0";
    },
  },
  { title: "histogram", value: null, cell: (row) => (row.stats ? histogram(row.stats.histogram) : "") },
];

function tensors() {
  const stats = new Map((data.stats || []).map((item) => [`${item.component}\n${item.name}`, item]));
  const rows = data.tensors.map((tensor, order) => ({
    ...tensor, order, elements: tensor.shape.reduce((product, length) => product * length, 1),
    stats: stats.get(`${tensor.component}\n${tensor.name}`),
    text: `${tensor.component} ${tensor.name} ${tensor.dtype}`.toLowerCase(),
  }));
  const columns = data.stats ? [...COLUMNS, ...NUMBERS] : COLUMNS;
  const head = document.querySelector("#tensors thead tr");
  const body = document.querySelector("#tensors tbody");
  const search = document.getElementById("search");
  const only = document.getElementById("component");
  const found = document.getElementById("found");
  const more = document.getElementById("more");
  let sorted = null;
  let descending = false;
  let shown = SHOWN;

  for (const component of data.components) only.append(make("option", { value: component.name }, component.name));
  const heads = columns.map((column) => {
    const cell = make("th", column.number ? { class: "number" } : {});
    if (column.value === null) cell.append(column.title);
    else {
      const button = make("button", { type: "button" }, column.title);
      button.addEventListener("click", () => {
        descending = sorted === column ? !descending : Boolean(column.number);
        sorted = column;
        show();
      });
      cell.append(button);
    }
    head.append(cell);
    return cell;
  });

  function compare(one, other) {
    const [a, b] = [sorted.value(one), sorted.value(other)];
    const missing = (value) => value === null || value === undefined || typeof value === "string" && sorted.number;
    if (missing(a) || missing(b)) return missing(a) - missing(b) || one.order - other.order;
    const order = typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
    return (descending ? -order : order) || one.order - other.order;
  }

  function show() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const matching = rows.filter(
      (row) => (!only.value || row.component === only.value) && words.every((word) => row.text.includes(word)),
    );
    if (sorted) matching.sort(compare);
    heads.forEach((cell, position) => {
      if (columns[position] === sorted) cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    });
    body.replaceChildren(
      ...matching.slice(0, shown).map((row) =>
        make("tr", {}, ...columns.map((column) =>
          make("td", column.number ? { class: "number" } : {}, column.cell ? column.cell(row) : String(column.value(row))))),
      ),
    );
    const nbytes = matching.reduce((sum, row) => sum + row.nbytes, 0);
    found.textContent = `${count(matching.length)} of ${count(rows.length)} tensors, ${size(nbytes)}`;
    more.hidden = matching.length <= shown;
    more.textContent = `show ${count(Math.min(SHOWN, matching.length - shown))} more`;
  }

  search.addEventListener("input", () => { shown = SHOWN; show(); });
  only.addEventListener("input", () => { shown = SHOWN; show(); });
  more.addEventListener("click", () => { shown += SHOWN; show(); });
  show();
}

dtypes();
const whole = data.tree.reduce((sum, module) => sum + module.nbytes, 0);
document.getElementById("tree").append(...data.tree.map((module) => branch(module, true, whole)));
tensors();
