"use strict";
// Every text of the data is put into the page as text, never as markup.
const ROW_HEIGHT = 132, AROUND = 6, KEPT_CHUNKS = 24, BINS = 24;
const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const shortNames = ["canal", "foramen L", "foramen R", "recess L", "recess R"];
const chunks = new Map();
const drawn = new Map();
let shown = [];

function make(name, className, text) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function thumbnail(index) {
  const number = Math.floor(index / data.chunk);
  if (!chunks.has(number)) {
    if (chunks.size >= KEPT_CHUNKS) chunks.delete(chunks.keys().next().value);
    chunks.set(number, JSON.parse(byId(`thumbnails-${number}`).textContent));
  }
  return chunks.get(number)[index % data.chunk];
}

const filters = {
  type: (series) => [series.series_type || "not cached"],
  flag: (series) => series.flags,
  reason: (series) => series.reasons,
  severity: (series) => series.severities,
};

function countValues(values) {
  const counts = new Map();
  for (const series of data.series)
    for (const value of new Set(values(series))) counts.set(value, (counts.get(value) || 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
}

function fillSelects() {
  for (const [name, values] of Object.entries(filters)) {
    const select = byId("filters").elements[name];
    select.append(new Option("any", ""));
    for (const [value, count] of countValues(values))
      select.append(new Option(`${value} (${count})`, value));
  }
}

function readHash() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  for (const element of byId("filters").elements)
    if (element.name) element.value = wanted.get(element.name) || "";
}

function writeHash() {
  const wanted = new URLSearchParams();
  for (const element of byId("filters").elements)
    if (element.name && element.value) wanted.set(element.name, element.value);
  history.replaceState(null, "", `#${wanted}`);
}

function applyFilters() {
  const form = byId("filters").elements;
  const search = form.search.value.trim().toLowerCase();
  shown = [];
  data.series.forEach((series, index) => {
    for (const [name, values] of Object.entries(filters))
      if (form[name].value && !values(series).includes(form[name].value)) return;
    if (search && !`${series.study_id}/${series.series_id}`.toLowerCase().includes(search)) return;
    shown.push(index);
  });
  byId("count").textContent = `${shown.length} of ${data.series.length} series`;
  for (const row of drawn.values()) row.remove();
  drawn.clear();
  byId("rows").style.height = `${shown.length * ROW_HEIGHT}px`;
  drawCharts();
  drawVisible();
}

function drawVisible() {
  const top = window.scrollY - byId("list").offsetTop;
  const first = Math.max(0, Math.floor(top / ROW_HEIGHT) - AROUND);
  const last = Math.min(shown.length, Math.ceil((top + window.innerHeight) / ROW_HEIGHT) + AROUND);
  for (const [place, row] of drawn)
    if (place < first || place >= last) { row.remove(); drawn.delete(place); }
  for (let place = first; place < last; place++) {
    if (drawn.has(place)) continue;
    const row = drawRow(shown[place]);
    row.style.top = `${place * ROW_HEIGHT}px`;
    drawn.set(place, row);
    byId("rows").append(row);
  }
}

function drawRow(index) {
  const series = data.series[index];
  const row = make("article", "row");
  row.append(drawAbout(series), drawGrades(series), drawStrip(series, index));
  return row;
}

function drawAbout(series) {
  const about = make("div", "about");
  about.append(make("b", "", `${series.study_id}/${series.series_id}`), make("br"));
  if (series.depth) {
    const mm = [series.spacing_d_mm, series.spacing_h_mm, series.spacing_w_mm];
    about.append(
      `${series.series_type}, ${series.depth} x ${series.height} x ${series.width}, ` +
        `${mm.map((each) => each.toFixed(2)).join(" x ")} mm`, make("br"),
      `window ${series.window_low} to ${series.window_high}, mean ${series.mean.toFixed(3)}`, make("br"),
      [series.manufacturer, `${series.n_files} files`].filter(Boolean).join(", "), make("br"));
  } else about.append("not cached", make("br"));
  for (const flag of series.flags) about.append(make("span", "tag", flag));
  for (const reason of series.reasons) about.append(make("span", "tag reason", reason));
  for (const detail of series.details) about.append(make("div", "", detail));
  return about;
}

function colour(severity) {
  return data.colours[severity] || data.colours.unknown;
}

function drawGrades(series) {
  const grid = make("div", "grades");
  const grades = data.grades[series.study_id];
  if (!grades) return grid;
  shortNames.forEach((name, condition) => {
    grid.append(make("span", "", name));
    data.levels.forEach((level, number) => {
      const code = grades[condition * data.levels.length + number];
      const severity = code === "-" ? "unknown" : data.severities[Number(code)].replace("_", "/");
      const cell = make("span", "grade");
      cell.style.background = colour(severity);
      cell.style.opacity = code === "-" ? 0.25 : 1;
      cell.title = `${name} ${level}: ${severity}`;
      grid.append(cell);
    });
  });
  return grid;
}

function drawStrip(series, index) {
  const encoded = series.slices && thumbnail(index);
  if (!encoded) return make("div", "none", series.depth ? "the volume cannot be read" : "no picture");
  const strip = make("div", "strip");
  const [width, height] = series.tile;
  const image = new Image(width * series.slices.length, height);
  image.src = `data:image/jpeg;base64,${encoded}`;
  image.alt = `slices ${series.slices.join(", ")}`;
  strip.append(image);
  series.slices.forEach((d, number) => {
    const label = make("span", "slice", d);
    label.style.left = `${number * width + 3}px`;
    strip.append(label);
  });
  for (const point of series.points) {
    const mark = make("span", "point");
    mark.style.left = `${(point.slice + point.x) * width}px`;
    mark.style.top = `${point.y * height}px`;
    mark.style.borderColor = colour(point.severity);
    mark.title = `${point.name}: ${point.severity}`;
    strip.append(mark);
  }
  return strip;
}

const CHARTS = [
  ["mm between slices", (series) => series.spacing_d_mm],
  ["mm per pixel", (series) => series.spacing_w_mm],
  ["slices", (series) => series.depth],
  ["upper end of the window", (series) => series.window_high],
  ["mean intensity, 0 to 1", (series) => series.mean],
  ["standard deviation of intensity", (series) => series.std],
];

function drawCharts() {
  const charts = CHARTS.map(([title, value]) =>
    drawChart(title, shown.map((index) => value(data.series[index])).filter((each) => each !== null)));
  byId("charts").replaceChildren(...charts);
}

function makeSvg(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function drawChart(title, values) {
  values.sort((a, b) => a - b);
  const figure = make("figure");
  figure.append(make("figcaption", "", title));
  const svg = makeSvg("svg", { width: 220, height: 80 });
  figure.append(svg);
  if (!values.length) return figure;
  const low = values[0], high = values[values.length - 1], step = (high - low) / BINS || 1;
  const counts = new Array(BINS).fill(0);
  for (const value of values) counts[Math.min(BINS - 1, Math.floor((value - low) / step))]++;
  const most = Math.max(...counts);
  counts.forEach((count, bin) => {
    const height = (60 * count) / most;
    const bar = makeSvg("rect", { x: (220 / BINS) * bin, y: 62 - height, width: 220 / BINS - 1, height });
    const label = makeSvg("title", {});
    label.textContent = `${(low + bin * step).toPrecision(4)} to ${(low + (bin + 1) * step).toPrecision(4)}: ${count}`;
    bar.append(label);
    svg.append(bar);
  });
  const middle = values[Math.floor(values.length / 2)];
  const ends = [[0, "start", low], [110, "middle", middle], [220, "end", high]];
  for (const [x, anchor, value] of ends) {
    const text = makeSvg("text", { x, y: 76, "text-anchor": anchor });
    text.textContent = String(Number(value.toPrecision(4)));
    svg.append(text);
  }
  return figure;
}

function start() {
  const studies = new Set(data.series.filter((one) => one.depth).map((one) => one.study_id)).size;
  const cached = data.series.filter((one) => one.depth).length;
  byId("summary").textContent =
    `${cached} cached series of ${studies} studies, ${data.series.length - cached} not cached; ` +
    `lumbar ${data.written_by}, grid ${data.config.grid ?? "unknown"}`;
  fillSelects();
  readHash();
  byId("filters").addEventListener("input", () => { writeHash(); applyFilters(); });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("reset", () => setTimeout(() => { writeHash(); applyFilters(); }));
  window.addEventListener("hashchange", () => { readHash(); applyFilters(); });
  window.addEventListener("scroll", drawVisible, { passive: true });
  window.addEventListener("resize", drawVisible);
  applyFilters();
}

start();
