// What the page does beyond standing there: charts with values on hover, downloads, the scrubber, tabs, print. Without it all text,
// pictures and static charts stay. It asks nothing of the network.
const root = document.documentElement;
root.classList.replace("no-js", "js");
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const json = (id) => JSON.parse(document.getElementById(id)?.textContent ?? "null");

// ---- charts: the static SVG is replaced by the interactive one; a chart that can't be drawn keeps its static picture ----

const views = new Map();

// A spec carries its rows as CSV, which is short. Vega's own CSV reader compiles code, which the page's policy forbids, so they are read here.
function unpacked(spec) {
  const tables = spec.datasets ?? {};
  const visit = (part) => {
    if (Array.isArray(part)) return part.map(visit);
    if (part === null || typeof part !== "object") return part;
    if (part.format?.type === "csv") return { values: records(part.values ?? tables[part.name], part.format.parse ?? {}) };
    return Object.fromEntries(Object.entries(part).map(([key, value]) => [key, visit(value)]));
  };
  const { datasets, ...rest } = spec;
  const plain = Object.entries(tables).filter(([, rows]) => typeof rows !== "string");
  return { ...visit(rest), datasets: Object.fromEntries(plain) };
}

function records(csv, kinds) {
  const [head, ...rows] = lines(csv);
  const typed = (text, kind) => (text === "" ? null : kind === "number" ? Number(text) : text);
  return rows.map((cells) => Object.fromEntries(head.map((name, k) => [name, typed(cells[k], kinds[name])])));
}

const unquoted = (cell) => (cell.startsWith('"') ? cell.slice(1, -1).replaceAll('""', '"') : cell);

function lines(csv) {
  const cells = (line) => [...line.matchAll(/(?:^|,)("(?:[^"]|"")*"|[^,]*)/g)].map((found) => unquoted(found[1]));
  return csv.trimEnd().split("\n").map(cells);
}

async function draw(place, spec) {
  const holder = document.createElement("div");
  holder.className = "vega";
  place.append(holder);
  const options = { renderer: "svg", ast: true, actions: false, mode: "vega-lite" };
  const { view } = await window.vegaEmbed(holder, unpacked(spec), options);
  place.querySelector(":scope > svg")?.remove();
  place.dataset.drawn = "vega";
  views.set(place.dataset.chart, view);
}

async function drawAll() {
  const specs = json("specs");
  for (const place of all(".chart[data-chart]")) {
    try {
      await draw(place, specs[place.dataset.chart]);
    } catch (problem) {
      place.querySelector(".vega")?.remove();
      console.error(`chart ${place.dataset.chart}:`, problem);
    }
    await new Promise((next) => setTimeout(next));
  }
  moveRules();
  root.dataset.ready = "true";
}

// The rule at t stands in the scrubber's own chart from the start, in the other charts once somebody scrubs.
let scrubbed = false;

function moveRules() {
  if (!scrub) return;
  const t = scrub.times[Number(slider.value)];
  for (const [id, view] of views) {
    if (!scrubbed && !id.startsWith("scrub-")) continue;
    try {
      view.signal("scrub_t", t).runAsync();
    } catch {
      // a chart without that rule
    }
  }
}

// ---- downloads and data tables ----

async function save(link) {
  const view = views.get(link.closest("figure").querySelector(".chart").dataset.chart);
  if (!view) return;
  const blank = document.createElement("a");
  blank.download = link.download;
  blank.href = link.dataset.save === "png" ? await view.toImageURL("png", 2) : await view.toImageURL("svg");
  blank.click();
}

function rowsOf(link) {
  const bytes = Uint8Array.from(atob(link.href.split(",")[1]), (c) => c.charCodeAt(0));
  return lines(new TextDecoder().decode(bytes));
}

function fillTable(details) {
  const place = details.querySelector(".scroll");
  if (!details.open || place.firstChild) return;
  const [head, ...body] = rowsOf(details.closest("figure").querySelector('a[download$=".csv"]'));
  const table = document.createElement("table");
  const line = (cells, tag) => {
    const row = document.createElement("tr");
    row.append(...head.map((_, k) => Object.assign(document.createElement(tag), { textContent: cells[k] ?? "" })));
    return row;
  };
  const top = document.createElement("thead");
  top.append(line(head, "th"));
  const rest = document.createElement("tbody");
  rest.append(...body.map((cells) => line(cells, "td")));
  table.append(top, rest);
  place.append(table);
}

all("[data-save]").forEach((link) =>
  link.addEventListener("click", (event) => {
    event.preventDefault();
    save(link);
  }),
);
all("details.data").forEach((details) => details.addEventListener("toggle", () => fillTable(details)));

// ---- numbers that say where they come from: one open at a time, Escape closes ----

document.addEventListener("click", (event) => {
  const kept = event.target.closest("details.number");
  all("details.number[open]").forEach((details) => details !== kept && (details.open = false));
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  const open = document.querySelector("details.number[open]");
  if (open) {
    open.open = false;
    open.querySelector("summary").focus();
  }
});
all("details.number").forEach((details) =>
  details.addEventListener("toggle", () => {
    const source = details.querySelector(".source");
    source.style.left = "0";
    const over = source.getBoundingClientRect().right - (window.innerWidth - 12);
    if (details.open && over > 0) source.style.left = `${-over}px`;
  }),
);

// ---- tabs: one model's panel at a time ----

all("[data-tabs]").forEach((group) => {
  const show = (model) => {
    all("button", group).forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.model === model)));
    all(`[data-panel="${group.dataset.tabs}"]`).forEach((panel) => (panel.hidden = panel.dataset.model !== model));
  };
  all("button", group).forEach((button) => button.addEventListener("click", () => show(button.dataset.model)));
  show(group.querySelector('[aria-pressed="true"]').dataset.model);
});

// ---- the scrubber: one path through t; the address keeps model, path and t ----

const scrub = json("scrub-data");
const slider = document.getElementById("scrub-t");

function startScrubber() {
  const model = document.getElementById("scrub-model");
  const path = document.getElementById("scrub-path");
  const paths = () => scrub.paths.filter((p) => p.model === model.value);

  function offer(wanted) {
    path.replaceChildren(
      ...paths().map((p) => Object.assign(document.createElement("option"), { value: p.path, textContent: p.label ? `${p.path} (class ${p.label})` : `${p.path}` })),
    );
    if (paths().some((p) => String(p.path) === String(wanted))) path.value = wanted;
  }

  function tile(name, uri, column, columns, row, rows) {
    const place = document.querySelector(`[data-tile="${name}"]`);
    place.style.backgroundImage = column < 0 ? "none" : `url("${uri}")`;
    place.style.backgroundSize = `${columns * 100}% ${rows * 100}%`;
    place.style.backgroundPosition = `${columns > 1 ? (100 * column) / (columns - 1) : 0}% ${rows > 1 ? (100 * row) / (rows - 1) : 0}%`;
    place.dataset.at = `${column},${row}`;
  }

  const words = (value, digits = 3) => (value === null || value === undefined ? "not measured" : Number(value.toPrecision(digits)).toLocaleString("en"));

  function show(write = true) {
    scrubbed ||= write;
    const k = Number(slider.value);
    const one = paths().find((p) => String(p.path) === path.value);
    const t = scrub.times[k];
    for (const row of [0, 1, 2]) tile(String(row), one.sprite, k, scrub.times.length, row, 3);
    const places = one.place ?? [];
    const count = Math.max(1, ...scrub.paths.flatMap((p) => p.place ?? []).map((n) => n + 1));
    tile("nearest", scrub.nearest, places[k] ?? -1, count, 0, 1);
    document.getElementById("scrub-now").value = t.toFixed(2);
    slider.setAttribute("aria-valuetext", `t = ${t.toFixed(2)}`);
    const read = (name, text) => (document.querySelector(`[data-read="${name}"]`).textContent = text);
    read("r_star", words(one.r_star?.[k], 4));
    read("top_weight", words(one.top_weight?.[k]));
    read("ess", words(one.ess?.[k]));
    read("row", one.row ? `${one.row[k]}${one.row_label[k] ? `, class ${one.row_label[k]}` : ""}` : "not measured");
    all("[data-small]").forEach((place) => (place.hidden = place.dataset.small !== model.value));
    moveRules();
    if (write) history.replaceState(null, "", `#${new URLSearchParams({ model: model.value, path: path.value, t })}`);
  }

  function fromAddress() {
    const asked = new URLSearchParams(location.hash.slice(1));
    if (!asked.has("path")) return;
    if (scrub.models.includes(asked.get("model"))) model.value = asked.get("model");
    offer(asked.get("path"));
    const t = Number(asked.get("t"));
    if (Number.isFinite(t)) slider.value = scrub.times.reduce((best, v, k) => (Math.abs(v - t) < Math.abs(scrub.times[best] - t) ? k : best), 0);
    scrubbed = true;
    show(false);
  }

  model.addEventListener("change", () => (offer(path.value), show()));
  path.addEventListener("change", () => show());
  slider.addEventListener("input", () => show());
  window.addEventListener("hashchange", fromAddress);
  offer(null);
  show(false);
  fromAddress();
  if (location.hash.includes("path=")) document.getElementById("scrubber").scrollIntoView();
}

if (scrub) startScrubber();

// ---- print: everything unfolds, then folds back ----

let folded = [];
window.addEventListener("beforeprint", () => {
  folded = all("details.more:not([open])");
  folded.forEach((details) => (details.open = true));
});
window.addEventListener("afterprint", () => folded.forEach((details) => (details.open = false)));

drawAll();
