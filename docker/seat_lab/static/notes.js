// Show notes in JupyterLab until the learner dismisses them: the teacher's message, a quota that is
// nearly used up, the end of the seat. docker/seat_notes.py says which. A seat that is gone sends none:
// then the hub's page says why, or this file says that the seat doesn't respond.
//
// Times in ISO format are shown in the browser's time zone.
//
// JupyterLab loads this file as a prebuilt extension, so it needs no build. It uses nothing of
// JupyterLab but the address of the server and the element that has everything.
"use strict";
{
  const NAME = "llm-labs-notes";
  const SECONDS_BETWEEN = 4;
  const SECONDS_TO_REPLY = 5;
  const DOWN = {
    id: "down",
    text: "Your seat doesn't respond. Wait a moment, then reload this page. Saved files are there.",
  };
  // A strip above JupyterLab, which moves down: a box would cover a prompt or a button.
  const STYLE = `
    .${NAME} { position: fixed; z-index: 10001; top: 0; left: 0; right: 0; }
    .${NAME} > div { display: flex; gap: 1rem; align-items: start; justify-content: space-between;
      padding: .5rem .8rem; border-bottom: 2px solid var(--jp-brand-color1);
      background: var(--jp-layout-color0); color: var(--jp-ui-font-color0);
      font: 15px/1.4 var(--jp-ui-font-family); overflow-wrap: anywhere; }
    .${NAME} button { font: inherit; color: inherit; background: var(--jp-layout-color2);
      border: 1px solid var(--jp-border-color0); border-radius: 3px; cursor: pointer;
      white-space: nowrap; }`;

  const TIME = /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ/g;
  const localTime = (time) =>
    new Date(time).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

  class Notes {
    constructor(base) {
      this.url = `${base}${NAME}`;
      this.page = `/hub${new URL(base, location.href).pathname}lab`; // JupyterLab's base has a host
      this.key = `${NAME}:${base}`; // one browser may have known several learners
      this.box = document.createElement("div");
      this.box.className = NAME;
      this.box.setAttribute("role", "status");
      this.last = []; // the notes of the last reply
      this.failures = 0; // since then
      const style = document.createElement("style");
      style.textContent = STYLE;
      document.head.append(style);
      document.body.append(this.box);
      new ResizeObserver(() => this.makeRoom()).observe(this.box);
    }

    // Move JupyterLab down by the height of the notes. While it starts, it isn't there yet.
    makeRoom() {
      const main = document.getElementById("main");
      const top = `${this.box.offsetHeight}px`;
      if (!main || (main.style.top || "0px") === top) return;
      main.style.top = top;
      window.dispatchEvent(new Event("resize")); // JupyterLab measures again
    }

    async update() {
      if (document.hidden) return;
      let notes;
      try {
        notes = await this.ask();
      } catch {
        notes = null;
      }
      this.failures = notes ? 0 : this.failures + 1;
      this.last = notes ?? this.last;
      this.show(this.failures > 1 ? [...this.last, DOWN] : this.last);
    }

    // The notes of the seat or of its end; null if neither the seat nor the hub knows any.
    async ask() {
      const token = document.cookie.match(/\b_xsrf=([^;]*)/)?.[1] ?? "";
      const reply = await fetch(this.url, {
        headers: { "X-XSRFToken": token },
        cache: "no-store",
        redirect: "manual",
        signal: AbortSignal.timeout(1000 * SECONDS_TO_REPLY),
      });
      // The hub redirects what it gets for a seat that has ended.
      if (reply.type === "opaqueredirect") return this.end();
      return reply.ok ? reply.json() : null;
    }

    // When and why this seat ended, from the hub's page of it.
    async end() {
      const reply = await fetch(this.page, { headers: { Accept: "text/html" }, cache: "no-store" });
      const page = new DOMParser().parseFromString(await reply.text(), "text/html");
      const end = page.getElementById("end-of-seat");
      if (!end) return null;
      const time = end.querySelector("time");
      time.textContent = time.dateTime;
      const why = end.textContent.replace(/\s+/g, " ").trim();
      return [{ id: `end ${time.dateTime}`, text: `${why} Reload this page to start it again.` }];
    }

    show(notes) {
      const dismissed = this.dismissed().filter((id) => notes.some((note) => note.id === id));
      this.dismiss(dismissed);
      const wanted = notes.filter((note) => !dismissed.includes(note.id));
      for (const old of [...this.box.children]) {
        if (!wanted.some((note) => note.id === old.dataset.id)) old.remove();
      }
      for (const note of wanted) this.add(note);
      this.makeRoom();
    }

    add(note) {
      let bar = [...this.box.children].find((child) => child.dataset.id === note.id);
      if (!bar) {
        bar = document.createElement("div");
        bar.dataset.id = note.id;
        const button = document.createElement("button");
        button.textContent = "Dismiss";
        button.addEventListener("click", () => {
          this.dismiss([...this.dismissed(), note.id]);
          bar.remove();
        });
        bar.append(document.createElement("span"), button);
        this.box.append(bar);
      }
      const span = bar.firstElementChild;
      const text = note.text.replace(TIME, localTime);
      if (span.textContent !== text) span.textContent = text;
    }

    // The notes that the learner has dismissed, also before this page was loaded.
    dismissed() {
      try {
        return JSON.parse(localStorage.getItem(this.key)) ?? [];
      } catch {
        return [];
      }
    }

    dismiss(ids) {
      localStorage.setItem(this.key, JSON.stringify(ids));
    }
  }

  const plugin = {
    id: `${NAME}:plugin`,
    description: "Show notes to the learner.",
    autoStart: true,
    activate: (app) => {
      const notes = new Notes(app.serviceManager.serverSettings.baseUrl);
      const update = () => void notes.update();
      document.addEventListener("visibilitychange", update);
      setInterval(update, 1000 * SECONDS_BETWEEN);
      update();
      app.started.then(() => notes.makeRoom());
    },
  };
  // What the bundler of JupyterLab's extensions would generate.
  window._JUPYTERLAB = window._JUPYTERLAB ?? {};
  window._JUPYTERLAB[NAME] = {
    init: () => {},
    get: async () => () => ({ __esModule: true, default: plugin }),
  };
}
