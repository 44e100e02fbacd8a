// Health, and the stream of events that everything here is shown from.

const API = "/api/v1";
const RETRY_MS = 3000;
const SILENT_MS = 10000; // something comes every two seconds, as long as there is a connection

let token = sessionStorage.getItem("token");
let heardAt = 0;

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
  rest.hidden = !more;
  main.dataset.state = state;
}

const STATUS = { "ready": "good", "degraded": "warn", "not ready": "bad" };

function status(text, state) {
  write(at("status"), text);
  at("status").dataset.state = state;
  document.title = `${text}: ${at("node").textContent || "visa-jupyter-proxy"}`;
}

function showState(state) {
  serverAhead = state.at - Date.now() / 1000;
  const { health, journal, reports, access } = state;
  write(at("node"), state.node);
  write(at("version"), state.version);
  status(health.draining ? "stopping" : health.status, STATUS[health.status]);
  const { serving, wanted } = health.workers;
  card("card-workers", `${serving} of ${wanted}`, `${plural(state.tunnels, "WebSocket")}, ${plural(state.clients, "other client")}`,
    serving === wanted ? "good" : serving ? "warn" : "bad");
  const api = { ok: ["answers", "good"], failing: ["does not answer", "bad"], unknown: ["not asked lately", ""] };
  card("card-api", api[health.visaApi][0], health.visaApi === "failing" ? "what is granted goes on for a while" : "",
    api[health.visaApi][1]);
  showAccess(access);
  card("card-journal", journal.state, journal.waiting ? `${plural(journal.waiting, "record")} to write, ${duration(journal.lag)}` : "nothing waits",
    journal.state === "written" ? "good" : journal.state === "failing" ? "bad" : "warn");
  card("card-reports", reports.pending ? `${reports.pending} pending` : "all delivered",
    reports.pending ? `the oldest for ${duration(reports.age)}` : "", reports.age > 60 ? "warn" : "good");
}

function showAccess({ every, failing, watched, doubted }) {
  if (!every) return card("card-access", "not watched", "RECHECK_S is 0", "warn");
  const value = failing ? "VISA does not say" : watched ? `${plural(watched, "user")} watched` : "nobody to watch";
  card("card-access", value, doubted ? `${plural(doubted, "token")} refused: a grace runs` : "", failing ? "warn" : "good");
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
  const silent = new AbortController();
  let silence = setTimeout(() => silent.abort(), SILENT_MS);
  try {
    const response = await ask(`${API}/events`, { signal: silent.signal });
    if (response.status === 401) { clearTimeout(silence); await signIn(); return "not signed in"; }
    if (!response.ok) return `answers ${response.status}`;
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(silence);
      silence = setTimeout(() => silent.abort(), SILENT_MS);
      rest = show(rest + value);
    }
  } finally {
    clearTimeout(silence);
  }
}

// Show all events that are complete, and return the rest.
function show(text) {
  const events = text.split("\n\n");
  const rest = events.pop();
  for (const event of events) {
    const [name, data] = event.split("\n");
    SHOW[name.slice("event: ".length)](JSON.parse(data.slice("data: ".length)));
  }
  heardAt = now();
  document.body.classList.remove("stale");
  write(at("stale"), "");
  return rest;
}

function signIn() {
  const dialog = at("sign-in");
  if (token) write(at("sign-in-text"), "That is not ADMIN_TOKEN, and it is forgotten. The right one is kept until this tab is closed.");
  sessionStorage.removeItem("token");
  token = null;
  status("not signed in", "bad");
  dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", () => {
    token = at("token").value;
    sessionStorage.setItem("token", token);
    at("token").value = "";
    done();
  }, { once: true }));
}

// What is shown stays, and says from when it is.
function lost(text) {
  status(text, "bad");
  if (!heardAt) return;
  document.body.classList.add("stale");
  write(at("stale"), `What is shown here is as of ${moment(heardAt)}. It goes on by itself.`);
}

async function live() {
  for (;;) {
    let pause = 200, text = "no connection";
    try {
      text = await listen() || text;
    } catch {
      pause = RETRY_MS;
    }
    lost(text);
    await new Promise((done) => setTimeout(done, text.startsWith("answers") ? RETRY_MS : pause));
  }
}

makeCharts();
at("search").addEventListener("input", showSessions);
at("confirm").addEventListener("close", () => { if (at("confirm").returnValue === "end" && ending) end(ending); });
setInterval(() => { if (sessions) showSessions(); }, 5000);
live();
