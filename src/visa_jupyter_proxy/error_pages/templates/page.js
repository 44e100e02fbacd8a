"use strict";
// Asks its own address how it stands, and goes on when it can: a page of ours that waits. The question has no side
// effect (X-Visa-Poll), so that a page that somebody has forgotten keeps no instance alive.
(() => {
  const SOONEST_MS = 5000;
  const LATEST_MS = 15000;
  const GIVES_UP_MS = 30 * 60 * 1000;
  const ANSWER_MS = 60000;

  // A page that has gone on by itself, and has come back here, still counts from its beginning; one that a person
  // has reloaded begins anew.
  const kept = history.state?.visaWaitsSince;
  const began = Number.isFinite(kept) ? kept : Date.now();
  if (kept !== undefined) history.replaceState(null, "");

  let asked = Date.now();
  let asking = false;
  let timer;

  const main = () => document.querySelector("main");
  const waits = () => main().hasAttribute("data-waits");

  function goOn() {
    history.replaceState({ visaWaitsSince: began }, "");
    location.reload();
  }

  function giveUp() {
    main().querySelector("[data-while-looking]").hidden = true;
    const given = main().querySelector("[data-given-up]");
    given.hidden = false;
    given.querySelector("button").addEventListener("click", () => location.reload());
  }

  function askLater() {
    clearTimeout(timer);
    if (asking || !waits()) return;
    const now = Date.now();
    if (now - began >= GIVES_UP_MS) return giveUp();
    const between = Math.min(LATEST_MS, Math.max(SOONEST_MS, (now - began) / 20));
    timer = setTimeout(ask, Math.max(0, asked + between + Math.random() * 500 - now));
  }

  async function ask() {
    asking = true;
    asked = Date.now();
    try {
      const answer = await fetch(location.href, {
        headers: { "X-Visa-Poll": "1" },
        cache: "no-store",
        redirect: "error",
        signal: AbortSignal.timeout(ANSWER_MS),
      });
      if (answer.status === 204) return goOn();
      if (answer.status === 200) show(await answer.text());
    } catch {
      // No connection: the next answer says how it stands.
    }
    asking = false;
    askLater();
  }

  function show(page) {
    const fresh = new DOMParser().parseFromString(page, "text/html");
    const next = fresh.querySelector("main");
    if (next === null) return goOn();
    if (fresh.title === document.title) return;
    document.title = fresh.title;
    main().replaceWith(next);
  }

  // Browsers slow the timers of a page that nobody looks at.
  document.addEventListener("visibilitychange", () => document.hidden || askLater());
  askLater();
})();
