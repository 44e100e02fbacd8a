// The last hour as four charts, and one pointer in all of them: the mouse, or the slider by the keyboard.

const HOUR_S = 3600;
const GAP_S = 30; // without a point for so long, a line is broken
const HEIGHT = 136, LEFT = 52, TOP = 12, BOTTOM = 114, RIGHT_MARGIN = 4;

const CHARTS = [
  { title: "Requests", unit: "per second", of: ["requests"], show: (v) => number.format(v) },
  { title: "Latency", unit: "", of: ["median", "slow"], keys: ["median", "95 %"], show: duration },
  { title: "Errors", unit: "per second (5xx)", of: ["errors"], show: (v) => number.format(v) },
  { title: "WebSockets", unit: "open", of: ["tunnels"], show: (v) => number.format(v), whole: true },
];
const NAMES = ["at", "requests", "errors", "median", "slow", "tunnels"];
const asPoint = (values) => Object.fromEntries(NAMES.map((name, place) => [name, values[place]]));

let points = [];
let pointed = 0; // seconds before now; 0 is live

function makeCharts() {
  for (const chart of CHARTS) {
    const caption = element("figcaption", {}, element("b", {}, chart.title), element("span", { class: "quiet" }, chart.unit));
    chart.values = chart.of.map(() => element("span", { class: "value" }, "–"));
    caption.append(element("span", { class: "now" }, ...chart.values.flatMap((value, place) => [key(chart, place), value])));
    chart.svg = drawn("svg", { role: "img" });
    chart.svg.addEventListener("pointermove", (event) => point(secondsBefore(chart.svg, event)));
    chart.svg.addEventListener("pointerleave", () => point(0));
    at("charts").append(element("figure", { class: chart.title.toLowerCase() }, caption, chart.svg));
  }
  at("moment").addEventListener("input", () => point(HOUR_S - Number(at("moment").value)));
  new ResizeObserver(drawCharts).observe(at("charts"));
}

function key(chart, place) {
  return chart.keys ? element("span", { class: place ? "key second" : "key" }, chart.keys[place]) : "";
}

const plotWidth = (svg) => Math.max(200, svg.clientWidth) - LEFT - RIGHT_MARGIN;

function secondsBefore(svg, event) {
  const part = (event.clientX - svg.getBoundingClientRect().left - LEFT) / plotWidth(svg);
  return HOUR_S * (1 - Math.min(1, Math.max(0, part)));
}

function point(seconds) {
  pointed = seconds;
  drawCharts();
}

// The next of 1, 2, 5, 10 ...: a scale that people read.
function scale(most, whole) {
  if (most <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  const found = [1, 2, 5, 10].find((step) => step * power >= most) * power;
  return whole ? Math.max(1, Math.ceil(found)) : found;
}

function drawCharts() {
  const end = now();
  const shown = points.filter((one) => one.at > end - HOUR_S);
  const wanted = pointed ? shown.findLast((one) => one.at <= end - pointed) : shown[shown.length - 1];
  const found = wanted && end - pointed - wanted.at < GAP_S ? wanted : undefined;
  const when = pointed ? moment(end - pointed) : "now";
  write(at("moment-is"), when);
  at("moment").value = HOUR_S - pointed;
  at("moment").setAttribute("aria-valuetext", pointed ? `${when}: ${CHARTS.map((chart) => told(chart, found)).join(", ")}` : when);
  for (const chart of CHARTS) drawChart(chart, shown, end, found);
}

const valuesOf = (chart, found) => chart.of.map((name) => found?.[name] == null ? "–" : chart.show(found[name]));
const told = (chart, found) => `${chart.title} ${valuesOf(chart, found).join(" / ")}`;

function drawChart(chart, shown, end, found) {
  const width = plotWidth(chart.svg), right = LEFT + width;
  const values = shown.flatMap((one) => chart.of.map((name) => one[name] ?? 0));
  const most = scale(Math.max(0, ...values), chart.whole);
  const x = (time) => right - width * (end - time) / HOUR_S;
  const y = (value) => BOTTOM - (BOTTOM - TOP) * value / most;
  chart.svg.setAttribute("viewBox", `0 0 ${right + RIGHT_MARGIN} ${HEIGHT}`);
  const parts = [...axes(chart, most, width, y)];
  chart.of.forEach((name, place) => parts.push(...lines(chart, name, place, shown, x, y)));
  if (pointed) parts.push(drawn("line", { class: "pointer", x1: x(end - pointed), x2: x(end - pointed), y1: TOP, y2: BOTTOM }));
  chart.svg.replaceChildren(...parts);
  valuesOf(chart, found).forEach((text, place) => write(chart.values[place], text));
  const highest = values.length ? chart.show(Math.max(...values)) : "nothing yet";
  const current = valuesOf(chart, shown[shown.length - 1]).join(" / ");
  chart.svg.setAttribute("aria-label", `${chart.title} ${chart.unit} over the last hour: now ${current}, at most ${highest}`);
}

function* axes(chart, most, width, y) {
  for (const value of [most, most / 2, 0]) {
    yield drawn("line", { class: "grid", x1: LEFT, x2: LEFT + width, y1: y(value), y2: y(value) });
    if (chart.whole && value % 1) continue;
    yield drawn("text", { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, value ? chart.show(value) : "0");
  }
  for (const minutes of width < 370 ? [60, 30, 0] : [60, 45, 30, 15, 0]) {
    const anchor = minutes === 60 ? "start" : minutes ? "middle" : "end";
    const place = { x: LEFT + width * (1 - minutes / 60), y: HEIGHT - 6, "text-anchor": anchor };
    yield drawn("text", place, minutes ? `−${minutes} min` : "now");
  }
}

function* lines(chart, name, place, shown, x, y) {
  for (const stretch of stretches(shown, name)) {
    const line = stretch.map((one) => `${x(one.at).toFixed(1)},${y(one[name]).toFixed(1)}`).join(" L");
    if (chart.of.length === 1) {
      const from = x(stretch[0].at), to = x(stretch[stretch.length - 1].at);
      yield drawn("path", { class: "area", d: `M${from},${BOTTOM} L${line} L${to},${BOTTOM} Z` });
    }
    yield drawn("path", { class: place ? "second" : "first", d: `M${line}${stretch.length === 1 ? " h0.1" : ""}` });
  }
}

// Where there is no value, or no point for a while, the line is broken.
function stretches(shown, name) {
  const found = [];
  let last = null;
  for (const one of shown) {
    if (one[name] == null) { last = null; continue; }
    if (last === null || one.at - last > GAP_S) found.push([]);
    found[found.length - 1].push(one);
    last = one.at;
  }
  return found;
}
