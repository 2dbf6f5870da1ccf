// The few things every page does in the browser itself. No library, nothing fetched from elsewhere.
const lab = (() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => { try { return localStorage.getItem("lab-mode"); } catch { return null; } };
  const isDark = () => (chosen() ?? (system.matches ? "dark" : "light")) === "dark";
  // Gradio sets its own `dark` class on the body when it starts; ours is on the root and decides.
  function paint() {
    root.classList.toggle("dark", isDark());
    if (document.body) document.body.classList.toggle("dark", isDark());
  }
  function flip() {
    try { localStorage.setItem("lab-mode", isDark() ? "light" : "dark"); } catch { /* private window */ }
    paint();
  }
  paint();
  system.addEventListener("change", paint);

  // MLflow's client prints links of its own pages, `/#/experiments/1/runs/abc`: they lead to ours. A fragment
  // outlives redirects and never reaches the server, so the page itself has to look.
  function follow() {
    const found = /^#\/experiments\/([^/?]+)(?:\/runs\/([^/?]+))?/.exec(location.hash);
    if (!found) return;
    const query = new URLSearchParams({ experiment: decodeURIComponent(found[1]) });
    if (found[2]) query.set("run", decodeURIComponent(found[2]));
    const traces = /^#\/experiments\/[^/?]+\/traces(?:\?(.*))?$/.exec(location.hash);
    const trace = new URLSearchParams(traces?.[1] ?? "").get("selectedEvaluationId");
    if (trace) query.set("trace", trace);
    const next = (traces ? "traces?" : "runs?") + query;
    const door = location.pathname.endsWith("/sign-in");
    location.replace("/lab/" + (door ? "sign-in?" + new URLSearchParams({ next }) : next));
  }
  follow();
  addEventListener("hashchange", follow);

  // An answer whose server went away ends here: nobody else is left to say so.
  function lost() {
    for (const answer of document.querySelectorAll(".answer[data-state=waiting], .answer[data-state=streaming]")) {
      answer.dataset.state = "failed";
      Object.assign(answer.querySelector(".badge"), { className: "badge bad", textContent: "cut off" });
      const said = Object.assign(document.createElement("div"), { className: "yard problem", role: "alert" });
      const [what, again] = [document.createElement("b"), document.createElement("a")];
      what.textContent = "The server cannot be reached.";
      Object.assign(again, { href: location.href, textContent: "reload this page" });
      said.append(what, " Once it is back, ", again, " and run the prompt again.");
      answer.querySelector(".body").append(said);
    }
  }

  // A page of Gradio's hears nothing until its first event has come back: what is pressed before that would be lost.
  function listens(does) {
    const app = document.querySelector("gradio-app");
    if (app) app.inert = !does;
  }

  // What is done to one view goes one after the other, each to what the one before has made of it. Of an act that
  // never comes back nobody waits for more than `PATIENCE`.
  const PATIENCE = 15000, line = [];
  let since = 0;
  function act(go) {
    line.push(go);
    if (!since || Date.now() - since > PATIENCE) acted();
  }
  function acted() {
    const go = line.shift();
    since = go ? Date.now() : 0;
    go?.();
  }

  async function status() {
    const place = document.querySelector(".top .status");
    if (!place || document.hidden) return;
    let found = { tone: "bad", text: "server unreachable" };
    try {
      const answer = await fetch(place.dataset.from, { cache: "no-store" });
      if (answer.status === 401) { location.reload(); return; }
      if (answer.ok) found = await answer.json();
    } catch { lost(); }
    place.firstElementChild.dataset.tone = found.tone;
    place.lastElementChild.textContent = found.text;
    place.title = found.detail ?? "";
  }

  document.addEventListener("DOMContentLoaded", () => {
    paint();
    new MutationObserver(() => {
      if (document.body.classList.contains("dark") !== isDark()) paint();
    }).observe(document.body, { attributeFilter: ["class"] });
    const title = document.querySelector("title");
    const name = title?.textContent;
    if (title) new MutationObserver(() => { if (title.textContent !== name) title.textContent = name; })
      .observe(title, { childList: true });
    document.querySelector(".top .mode")?.addEventListener("click", flip);
    if (document.querySelector(".top .status")) { status(); setInterval(status, 4000); }
    listens(false);
    setTimeout(listens, PATIENCE, true);  // should the first event never come back
  });
  document.addEventListener("visibilitychange", status);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && isOpen) document.querySelector("#run")?.click();
    const open = document.querySelector("dialog[open], ul.options");
    if (event.key === "Escape" && !open) document.querySelector("#stop:not(:disabled)")?.click();
  });

  // State in the address: [name, value] pairs; empty values are left out. Very long texts stay out
  // of the address rather than making a link no server takes.
  let isOpen = false;
  const opened = () => { isOpen = true; listens(true); };
  function remember(pairs) {
    if (!isOpen) return;
    const query = new URLSearchParams();
    for (const [name, value] of pairs) {
      if (value === null || value === undefined || value === "" || String(value).length > 12000) continue;
      query.append(name, value);
    }
    const text = query.toString();
    history.replaceState(history.state, "", location.pathname + (text ? "?" + text : ""));
  }

  async function copy(text) {
    try { await navigator.clipboard.writeText(text); return true; } catch { /* not a secure context */ }
    const area = Object.assign(document.createElement("textarea"), { value: text });
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }

  // The dialog "Copy as". `calls`: [{route, ...text by kind}]; one call needs no route.
  function sheet(calls) {
    const made = (tag, props, ...children) => { const e = Object.assign(document.createElement(tag), props); e.append(...children); return e; };
    let call = calls[0];
    const names = Object.keys(call).filter((name) => name !== "route");
    let kind = names[0];
    const code = made("pre", { className: "mono", tabIndex: 0 });
    const kinds = made("div", { className: "segments" });
    const done = made("button", { className: "btn primary", textContent: "Copy" });
    const show = () => {
      code.textContent = call[kind];
      done.textContent = "Copy";
      for (const b of kinds.children) b.setAttribute("aria-pressed", b.textContent === kind);
    };
    for (const name of names) kinds.append(made("button", { textContent: name, onclick: () => { kind = name; show(); } }));
    const pick = made("select", { ariaLabel: "Route", onchange: () => { call = calls[pick.selectedIndex]; show(); } },
      ...calls.map((c) => made("option", { textContent: c.route })));
    done.onclick = async () => { done.textContent = (await copy(code.textContent)) ? "Copied" : "Select the text and copy it"; };
    const box = made("dialog", { className: "sheet yard" },
      made("header", {}, made("h2", { textContent: "Copy this call as" }), ...(calls.length > 1 ? [pick] : []), kinds), code,
      made("footer", {}, made("button", { className: "btn", textContent: "Close", onclick: () => box.close() }), done));
    box.addEventListener("close", () => box.remove());
    box.addEventListener("click", (event) => { if (event.target === box) box.close(); });
    document.body.append(box);
    show();
    box.showModal();
  }
  // On the sign-in page: a visitor who has a session after all goes on to where the link led.
  async function cameBack(door, following) {
    const answer = await fetch(door, { headers: { accept: "application/json" } });
    if (answer.ok && (await answer.json()).signed_in) location.replace(following);
  }

  return { act, acted, cameBack, opened, remember, copy, sheet };
})();
