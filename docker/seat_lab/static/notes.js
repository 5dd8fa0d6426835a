// Show notes in JupyterLab until the learner dismisses them: the teacher's message, a quota that is
// nearly used up, the end of the seat. docker/seat_notes.py says which.
//
// Times in ISO format are shown in the browser's time zone.
//
// JupyterLab loads this file as a prebuilt extension, so it needs no build. It uses nothing of
// JupyterLab but the address of the server.
"use strict";
{
  const NAME = "llm-labs-notes";
  const SECONDS_BETWEEN = 4;
  const STYLE = `
    .${NAME} { position: fixed; z-index: 10001; bottom: 2.5rem; left: 50%; width: max-content;
      max-width: min(44rem, 94vw); transform: translateX(-50%); }
    .${NAME} > div { display: flex; gap: 1rem; align-items: start; margin-top: .5rem;
      padding: .6rem .8rem; border: 2px solid var(--jp-brand-color1); border-radius: 4px;
      background: var(--jp-layout-color0); color: var(--jp-ui-font-color0);
      font: 15px/1.4 var(--jp-ui-font-family); box-shadow: var(--jp-elevation-z6);
      overflow-wrap: anywhere; }
    .${NAME} button { font: inherit; color: inherit; background: var(--jp-layout-color2);
      border: 1px solid var(--jp-border-color0); border-radius: 3px; cursor: pointer;
      white-space: nowrap; }`;

  const TIME = /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ/g;
  const localTime = (time) =>
    new Date(time).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

  class Notes {
    constructor(base) {
      this.url = `${base}${NAME}`;
      this.page = `/hub${base}lab`;
      this.key = `${NAME}:${base}`; // one browser may have known several learners
      this.box = document.createElement("div");
      this.box.className = NAME;
      this.box.setAttribute("role", "status");
      const style = document.createElement("style");
      style.textContent = STYLE;
      document.head.append(style);
      document.body.append(this.box);
    }

    async update() {
      if (document.hidden) return;
      let notes;
      try {
        const token = document.cookie.match(/\b_xsrf=([^;]*)/)?.[1] ?? "";
        const headers = { "X-XSRFToken": token };
        const reply = await fetch(this.url, { headers, cache: "no-store", redirect: "manual" });
        // The hub redirects what it gets for a seat that is stopped.
        if (reply.type === "opaqueredirect") notes = await this.end();
        else if (reply.ok) notes = await reply.json();
      } catch {
        return; // JupyterLab itself reports a server that is gone
      }
      if (notes) this.show(notes);
    }

    // Why the hub stopped this seat, from the hub's page of it.
    async end() {
      const reply = await fetch(this.page, { headers: { Accept: "text/html" }, cache: "no-store" });
      const page = new DOMParser().parseFromString(await reply.text(), "text/html");
      const end = page.getElementById("end-of-seat");
      if (!end) return null;
      const time = end.querySelector("time");
      time.textContent = time.dateTime;
      return [{ id: `end ${time.dateTime}`, text: end.textContent.replace(/\s+/g, " ").trim() }];
    }

    show(notes) {
      const dismissed = this.dismissed().filter((id) => notes.some((note) => note.id === id));
      this.dismiss(dismissed);
      const wanted = notes.filter((note) => !dismissed.includes(note.id));
      for (const old of [...this.box.children]) {
        if (!wanted.some((note) => note.id === old.dataset.id)) old.remove();
      }
      for (const note of wanted) this.add(note);
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
    },
  };
  // What the bundler of JupyterLab's extensions would generate.
  window._JUPYTERLAB = window._JUPYTERLAB ?? {};
  window._JUPYTERLAB[NAME] = {
    init: () => {},
    get: async () => () => ({ __esModule: true, default: plugin }),
  };
}
