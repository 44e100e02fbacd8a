// The open sessions: shown, searched, ended.

const MOST_ROWS = 300;

let sessions = [];

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
    const more = title ? title(session) : "";
    if (cell.title !== more) cell.title = more;
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
