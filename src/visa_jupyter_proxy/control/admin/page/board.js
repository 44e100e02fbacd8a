"use strict";

const API = "/api/v1";
const HOUR_S = 3600;
const MOST_ROWS = 300;
const RETRY_MS = 3000;
const at = (id) => document.getElementById(id);

// --- what is known ---------------------------------------------------------------------------

let points = [];
let sessions = [];
let serverAhead = 0; // seconds by which the server's clock is ahead of this one
let token = sessionStorage.getItem("token");

const now = () => Date.now() / 1000 + serverAhead;

// --- how it is written -----------------------------------------------------------------------

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const three = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (count >= 1000 && unit < units.length - 1) { count /= 1000; unit += 1; }
  return `${count < 10 && unit ? count.toFixed(1) : Math.round(count)} ${units[unit]}`;
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  return seconds < 1 ? `${three.format(seconds * 1000)} ms` : `${three.format(seconds)} s`;
}

function ago(time) {
  const seconds = Math.max(0, now() - time);
  if (seconds < 5) return "now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds / 60) % 60} min ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
}

const plural = (count, one) => `${number.format(count)} ${one}${count === 1 ? "" : "s"}`;

const today = (time) => new Date(time * 1000).toLocaleTimeString([], { timeStyle: "short" });
const clock = (time) => new Date(time * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "medium" });

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function drawn(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function write(node, text) { if (node.textContent !== text) node.textContent = text; }

let quietAgain = 0;
function tell(text) {
  write(at("told"), text);
  clearTimeout(quietAgain);
  quietAgain = setTimeout(() => write(at("told"), ""), 8000);
}

// --- health ----------------------------------------------------------------------------------

function card(id, value, more, state) {
  const [main, rest] = at(id).querySelectorAll("dd");
  write(main, value);
  write(rest, more);
  main.dataset.state = state;
}

const STATUS = { "ready": "good", "degraded": "warn", "not ready": "bad" };

function status(text, state) {
  write(at("status"), text);
  at("status").dataset.state = state;
}

function showState(state) {
  serverAhead = state.at - Date.now() / 1000;
  const { health, journal, reports, access } = state;
  status(health.draining ? "stopping" : health.status, STATUS[health.status]);
  write(at("node"), state.node);
  write(at("version"), state.version);
  document.title = `${health.status}: ${state.node}`;
  const { serving, wanted } = health.workers;
  card("card-workers", `${serving} of ${wanted}`, `${plural(state.tunnels, "WebSocket")}, ${plural(state.clients, "other client")}`,
    serving === wanted ? "good" : serving ? "warn" : "bad");
  const api = { ok: ["answers", "good"], failing: ["does not answer", "bad"], unknown: ["not asked lately", ""] };
  card("card-api", api[health.visaApi][0], health.visaApi === "failing" ? "what is granted goes on for a while" : "",
    api[health.visaApi][1]);
  card("card-access", access.failing ? "VISA does not say" : access.watched ? `${plural(access.watched, "user")} watched` : "nobody to watch",
    access.doubted ? `${plural(access.doubted, "token")} refused: a grace runs` : "", access.failing ? "warn" : "good");
  card("card-journal", journal.state, journal.waiting ? `${plural(journal.waiting, "record")} to write, ${duration(journal.lag)}` : "nothing waits",
    journal.state === "written" ? "good" : journal.state === "failing" ? "bad" : "warn");
  card("card-reports", reports.pending ? `${reports.pending} pending` : "all delivered",
    reports.pending ? `the oldest for ${duration(reports.age)}` : "", reports.age > 60 ? "warn" : "good");
}

// --- charts ----------------------------------------------------------------------------------

const CHARTS = [
  { title: "Requests", unit: "per second", of: ["requests"], show: (v) => number.format(v) },
  { title: "Latency", unit: "", of: ["median", "slow"], keys: ["median", "95 %"], show: duration },
  { title: "Errors", unit: "per second (5xx)", of: ["errors"], show: (v) => number.format(v) },
  { title: "WebSockets", unit: "open", of: ["tunnels"], show: (v) => number.format(v), whole: true },
];
const NAMES = ["at", "requests", "errors", "median", "slow", "tunnels"];
const asPoint = (values) => Object.fromEntries(NAMES.map((name, place) => [name, values[place]]));

function makeCharts() {
  for (const chart of CHARTS) {
    chart.now = element("span", { class: "now" }, "–");
    const caption = element("figcaption", {}, element("b", {}, chart.title), element("span", { class: "quiet" }, chart.unit));
    (chart.keys || []).forEach((key, place) => caption.append(element("span", { class: place ? "key second" : "key" }, key)));
    caption.append(chart.now);
    chart.svg = drawn("svg", { role: "img" });
    at("charts").append(element("figure", { class: chart.title.toLowerCase() }, caption, chart.svg));
  }
  new ResizeObserver(drawCharts).observe(at("charts"));
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
  for (const chart of CHARTS) drawChart(chart, points.filter((point) => point.at > end - HOUR_S), end);
}

function drawChart(chart, shown, end) {
  const width = Math.max(200, chart.svg.clientWidth), height = 136, left = 4, right = width - 4, top = 18, bottom = 114;
  const values = shown.flatMap((point) => chart.of.map((name) => point[name] ?? 0));
  const most = scale(Math.max(0, ...values), chart.whole);
  const x = (time) => left + (right - left) * (1 - (end - time) / HOUR_S);
  const y = (value) => bottom - (bottom - top) * value / most;
  chart.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const parts = [];
  for (const value of [most, most / 2, 0]) {
    parts.push(drawn("line", { class: "grid", x1: left, x2: right, y1: y(value), y2: y(value) }));
    if (value && !(chart.whole && value % 1)) parts.push(drawn("text", { x: left, y: y(value) - 4 }, chart.show(value)));
  }
  for (const minutes of width < 420 ? [60, 30, 0] : [60, 45, 30, 15, 0]) {
    const anchor = minutes === 60 ? "start" : minutes ? "middle" : "end";
    parts.push(drawn("text", { x: x(end - minutes * 60), y: height - 6, "text-anchor": anchor }, minutes ? `−${minutes} min` : "now"));
  }
  chart.of.forEach((name, place) => {
    for (const stretch of stretches(shown, name)) {
      const line = stretch.map((point) => `${x(point.at).toFixed(1)},${y(point[name]).toFixed(1)}`).join(" L");
      if (chart.of.length === 1) {
        const from = x(stretch[0].at), to = x(stretch[stretch.length - 1].at);
        parts.push(drawn("path", { class: "area", d: `M${from},${bottom} L${line} L${to},${bottom} Z` }));
      }
      parts.push(drawn("path", { class: place ? "second" : "first", d: `M${line}${stretch.length === 1 ? " h0.1" : ""}` }));
    }
  });
  chart.svg.replaceChildren(...parts);
  const last = shown[shown.length - 1];
  const current = last ? chart.of.map((name) => last[name] == null ? "–" : chart.show(last[name])).join(" / ") : "–";
  write(chart.now, current);
  const highest = values.length ? chart.show(Math.max(...values)) : "nothing yet";
  chart.svg.setAttribute("aria-label", `${chart.title} ${chart.unit} over the last hour: now ${current}, at most ${highest}`);
}

// Where there is no value, or no point for a while, the line is broken.
function stretches(shown, name) {
  const found = [];
  let last = null;
  for (const point of shown) {
    if (point[name] == null) { last = null; continue; }
    if (last === null || point.at - last > 30) found.push([]);
    found[found.length - 1].push(point);
    last = point.at;
  }
  return found;
}

// --- sessions --------------------------------------------------------------------------------

const COLUMNS = [
  ["User", "", (s) => s.user],
  ["Instance", "number", (s) => String(s.instance)],
  ["Since", "", (s) => now() - s.since < 43200 ? today(s.since) : clock(s.since), (s) => `${clock(s.since)}, ${ago(s.since)}`],
  ["Last interaction", "", (s) => s.connections ? s.lastInteraction ? ago(s.lastInteraction) : "none" : "disconnected",
    (s) => s.lastInteraction ? clock(s.lastInteraction) : ""],
  ["Messages ↑ ↓", "number", (s) => `${short.format(s.messagesUp)} / ${short.format(s.messagesDown)}`],
  ["Bytes ↑ ↓", "number", (s) => `${bytes(s.bytesUp)} / ${bytes(s.bytesDown)}`],
  ["Node", "", (s) => s.nodes.join(", ")],
];

function makeRow(session) {
  const row = element("tr", { role: "row", "data-id": session.id });
  for (const [name, kind] of COLUMNS) row.append(element("td", { role: "cell", "data-name": name, class: kind }));
  const button = element("button", { type: "button", "aria-label": `End session of ${session.user} on instance ${session.instance}` }, "End");
  button.addEventListener("click", () => confirmEnd(session.id));
  row.append(element("td", { role: "cell" }, button));
  return row;
}

function fillRow(row, session) {
  COLUMNS.forEach(([, , value, title], place) => {
    const cell = row.children[place];
    write(cell, value(session));
    if (title && cell.title !== title(session)) cell.title = title(session);
  });
  row.children[3].classList.toggle("away", !session.connections);
}

function showSessions() {
  if (sessions === null) {
    at("rows").replaceChildren();
    write(at("count"), "");
    write(at("none"), "The journal cannot be read at the moment: what is open is not known here.");
    at("none").hidden = false;
    return;
  }
  const wanted = at("search").value.trim().toLowerCase();
  const found = sessions.filter((s) => [s.user, String(s.instance), ...s.nodes].some((text) => text.toLowerCase().includes(wanted)));
  const shown = found.slice(0, MOST_ROWS);
  const rows = new Map([...at("rows").children].map((row) => [row.dataset.id, row]));
  // Rows stay where they are, and keep the focus: only what has changed is touched.
  let next = at("rows").firstElementChild;
  for (const session of shown) {
    const row = rows.get(session.id) || makeRow(session);
    rows.delete(session.id);
    fillRow(row, session);
    if (row === next) next = next.nextElementSibling;
    else at("rows").insertBefore(row, next);
  }
  for (const row of rows.values()) {
    if (row.contains(document.activeElement)) at("sessions").focus();
    row.remove();
  }
  const users = new Set(found.map((s) => s.user)).size;
  write(at("count"), `${wanted ? `${found.length} of ` : ""}${plural(sessions.length, "session")}, ${plural(users, "user")}` +
    (found.length > shown.length ? `; the first ${shown.length} are shown` : ""));
  write(at("none"), wanted ? `Nothing found for “${at("search").value.trim()}”.` : "Nobody has a notebook open.");
  at("none").hidden = shown.length > 0;
}

let ending = null;
function confirmEnd(id) {
  ending = (sessions || []).find((session) => session.id === id);
  if (!ending) return;
  write(at("confirm-text"), `${ending.user} on instance ${ending.instance}, open since ${clock(ending.since)}.`);
  at("confirm").returnValue = "";
  at("confirm").showModal();
}

async function end(session) {
  const who = `${session.user} on instance ${session.instance}`;
  try {
    const response = await ask(`${API}/sessions/${encodeURIComponent(session.id)}`, { method: "DELETE" });
    const answer = await response.json();
    if (response.ok) tell(`The session of ${who} is being ended.`);
    else tell(`The session of ${who} was not ended: ${answer.message}`);
  } catch {
    tell(`The session of ${who} was not ended: the proxy does not answer.`);
  }
}

// --- the connection --------------------------------------------------------------------------

function ask(path, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  return fetch(path, { ...options, headers, cache: "no-store" });
}

const SHOW = {
  history: (value) => { points = value.points.map(asPoint); drawCharts(); },
  point: (value) => { points = [...points, asPoint(value)].filter((point) => point.at > now() - HOUR_S); drawCharts(); },
  state: showState,
  sessions: (value) => { sessions = value; showSessions(); },
};

// EventSource cannot send a token: the stream is read by hand.
async function listen() {
  const response = await ask(`${API}/events`);
  if (response.status === 401) return signIn();
  if (!response.ok) throw new Error(String(response.status));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const [name, data] = event.split("\n");
      SHOW[name.slice("event: ".length)](JSON.parse(data.slice("data: ".length)));
    }
  }
}

function signIn() {
  const dialog = at("sign-in");
  if (token) write(at("sign-in-text"), "That is not ADMIN_TOKEN. It is kept until this tab is closed.");
  dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", () => {
    token = at("token").value;
    sessionStorage.setItem("token", token);
    at("token").value = "";
    done();
  }, { once: true }));
}

async function live() {
  for (;;) {
    let pause = 0;
    try {
      await listen();
    } catch {
      pause = RETRY_MS;
    }
    status("no connection", "bad");
    await new Promise((done) => setTimeout(done, pause || 200));
  }
}

makeCharts();
at("search").addEventListener("input", showSessions);
at("confirm").addEventListener("close", () => { if (at("confirm").returnValue === "end" && ending) end(ending); });
setInterval(() => { if (sessions) showSessions(); }, 5000);
live();
