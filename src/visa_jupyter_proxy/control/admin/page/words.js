"use strict";
// How figures, times and elements are written.

const at = (id) => document.getElementById(id);

let serverAhead = 0; // seconds by which the server's clock is ahead of this one
const now = () => Date.now() / 1000 + serverAhead;

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
  if (seconds < 1) return `${three.format(seconds * 1000)} ms`;
  if (seconds < 120) return `${three.format(seconds)} s`;
  return seconds < 7200 ? `${Math.floor(seconds / 60)} min` : `${three.format(seconds / 3600)} h`;
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

// Made once: a formatter costs a hundred times what it formats.
const writer = (options) => {
  const format = new Intl.DateTimeFormat([], options);
  return (time) => format.format(time * 1000);
};
const today = writer({ timeStyle: "short" });
const moment = writer({ timeStyle: "medium" });
const clock = writer({ dateStyle: "medium", timeStyle: "medium" });

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
