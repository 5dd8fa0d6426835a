"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const entries = [...document.querySelectorAll(".run")];
  const boxOf = (entry) => entry.querySelector("input");
  const chosen = () => entries.filter((entry) => boxOf(entry)?.checked);
  for (const part of document.querySelectorAll(".script")) part.hidden = false;

  const element = (tag, text, attributes = {}) => {
    const made = document.createElement(tag);
    made.textContent = text;
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };

  // The shortest names that tell two runs apart: seed 0 and seed 1, or their times.
  const namesOf = (lab, pair) => {
    for (const fact of ["seed", "size", "device", "precision"]) {
      const at = lab.rows.findIndex(([group, name]) => lab.groups[group] === data.environment && name === fact);
      const values = pair.map((run) => lab.runs[run][at]);
      if (at >= 0 && values[0] !== null && values[1] !== null && values[0] !== values[1]) {
        return values.map((value) => (fact === "seed" ? `seed ${value}` : value));
      }
    }
    return pair.map((run) => lab.started[run]);
  };

  // Values below 1e-9 are rounding errors, which no reader compares.
  const withoutRoundingErrors = (value) => value?.replace(
    /-?\d+(\.\d+)?(e[+-]?\d+)?/g, (number) => (Math.abs(number) < 1e-9 ? "0" : number));

  const conclusionOf = (verdicts) => {
    const different = verdicts.filter((row) => row.differs);
    if (!verdicts.length) return "";
    if (!different.length) return "No verdict differs.";
    const names = different.map((row) => row.name.replace(/\.$/, "")).join("; ");
    return `${different.length} ${different.length === 1 ? "verdict differs" : "verdicts differ"}: ${names}.`;
  };

  const overlapOf = (shared, all) => {
    if (shared === all) return "";
    if (!shared) return "No experiment is in both runs.";
    return shared === 1 ? " Only one experiment is in both runs."
      : ` Only ${shared} of ${all} experiments are in both runs.`;
  };

  const tableOf = (title, rows, names, marked) => {
    const table = document.createElement("table");
    if (marked) table.append(element("caption", title));
    const head = table.createTHead().insertRow();
    for (const name of ["", ...names]) {
      head.append(name ? element("th", name, { scope: "col" }) : element("td", ""));
    }
    const body = table.createTBody();
    for (const { name, values, differs, isVerdict } of rows) {
      const row = body.insertRow();
      row.classList.toggle("differs", differs && (marked || isVerdict));
      row.classList.toggle("decision", isVerdict);
      row.append(element("th", name, { scope: "row" }));
      values.forEach((value, i) => row.append(element("td", value ?? "–", { "data-run": names[i] })));
    }
    return table;
  };

  const show = () => {
    const pair = chosen();
    for (const entry of entries) entry.classList.toggle("chosen", pair.includes(entry));
    const [first, second] = pair;
    const ready = pair.length === 2 && first.dataset.lab === second.dataset.lab;
    byId("comparison").hidden = !ready;
    byId("message").textContent =
      pair.length === 1 ? `Choose a second run of ${first.dataset.lab} to compare.` : "";
    if (!ready) return false;
    const lab = data.labs[first.dataset.lab];
    const runs = pair.map((entry) => entry.dataset.run).reverse(); // the earlier one first
    const names = namesOf(lab, runs);
    const rows = lab.rows.map(([group, name, isVerdict], i) => {
      const values = runs.map((run) => lab.runs[run][i]);
      const both = values[0] !== null && values[1] !== null;
      const exact = lab.groups[group] === data.environment;
      const [one, other] = exact ? values : values.map(withoutRoundingErrors);
      return { group, name, isVerdict, values, both, differs: both && one !== other };
    }).filter(({ values }) => values[0] !== null || values[1] !== null);
    const timed = (row) => lab.groups[row.group] === data.timings;
    const compared = rows.filter((row) => !timed(row));
    const facts = compared.filter((row) => !row.isVerdict);
    const differing = facts.filter((row) => row.differs).length;
    const equal = facts.filter((row) => row.both).length - differing;
    const single = facts.length - differing - equal;
    const verdicts = rows.filter((row) => row.isVerdict);
    const inBoth = verdicts.filter((row) => row.both);
    byId("comparison-title").textContent = `${first.dataset.lab}: ${names.join(" and ")}`;
    byId("conclusion").textContent = conclusionOf(inBoth) + overlapOf(inBoth.length, verdicts.length);
    const partly = inBoth.length < verdicts.length;
    byId("summary").textContent = `≠ ${differing} settings and values differ, ${equal} are equal`
      + (single && !partly ? `, ${single} are in one of the runs only.` : ".");
    const everything = byId("everything").checked;
    const parts = [];
    lab.groups.forEach((title, group) => {
      const here = rows.filter((row) => row.group === group && (everything || timed(row) || row.differs));
      if (!here.length) return;
      if (title !== data.timings) return parts.push(tableOf(title, here, names, true));
      const folded = document.createElement("details");
      folded.append(element("summary", "Timings, which differ between any two runs"));
      folded.append(tableOf(title, here, names, false));
      parts.push(folded);
    });
    byId("groups").replaceChildren(...parts);
    return true;
  };

  document.addEventListener("change", ({ target }) => {
    if (target.id === "lab") {
      for (const entry of entries) entry.hidden = target.value && entry.dataset.lab !== target.value;
      const unfinished = byId("unfinished");
      if (unfinished) unfinished.hidden = !unfinished.querySelector(".run:not([hidden])");
      return;
    }
    const entry = target.closest(".run");
    if (!entry) return show();
    // A third run, or one of another lab, replaces what was chosen before.
    const others = chosen().filter((other) => other !== entry);
    const same = others.filter((other) => other.dataset.lab === entry.dataset.lab);
    if (target.checked) {
      for (const other of others) boxOf(other).checked = same.length === 1 && other === same[0];
    }
    if (show() && target.checked) byId("comparison-title").focus();
  });
  byId("close").addEventListener("click", () => {
    const last = chosen().at(-1);
    for (const entry of chosen()) boxOf(entry).checked = false;
    show();
    boxOf(last).focus();
  });
  show(); // a browser may restore what was chosen before a reload
})();
