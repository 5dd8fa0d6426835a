// A batch of rows, padded and packed: choose a token, see its label, its position and its view. Data:
//   grids: { name, lines }: two ways to make a batch of the same rows
//   lines: lists of { token, label, position, sees, padding }; `label` is null without a label,
//     `sees` the first and the last place that it may look at (null: padding, which is masked)
LabViews.kinds.batch = (stage, data) => {
  const { element, visible } = LabViews;
  const box = element("div");
  const live = LabViews.live();
  const choices = element("div");

  const describe = (line, j) => {
    const cell = line[j];
    const label = cell.label === null ? "no label (−100)" : `label “${visible(cell.label)}”`;
    if (cell.padding) return `Padding: ${label}; no token of a row looks at it.`;
    const [first, last] = cell.sees;
    const seen = line.slice(first, last + 1).map(({ token }) => visible(token)).join(" ");
    return `“${visible(cell.token)}”: ${label}, position ${cell.position}; it sees ${last - first + 1}: ${seen}`;
  };

  const show = (grid) => {
    const cells = [];
    const lines = grid.lines.map((line) => {
      const row = element("div", { role: "row" });
      line.forEach((cell, j) => {
        const kind = cell.padding ? "padding" : cell.label === null ? "plain" : "labelled";
        const made = element("span", { role: "gridcell", class: kind, "aria-label": describe(line, j) }, visible(cell.token));
        made.line = line;
        made.place = j;
        cells.push(made);
        row.append(made);
      });
      return row;
    });
    const width = grid.lines[0].length;
    const table = element("div", { class: "view-batch", role: "grid", "aria-label": `${grid.name} batch` }, ...lines);
    table.style.setProperty("--places", width);
    box.replaceChildren(table);
    const go = LabViews.roving(table, cells, width, (i) => {
      const { line, place } = cells[i];
      const sees = line[place].padding ? null : line[place].sees;
      for (const cell of cells) {
        const inside = sees && cell.line === line && cell.place >= sees[0] && cell.place <= sees[1];
        cell.classList.toggle("seen", Boolean(inside));
      }
      live.say(describe(line, place));
    }, ["click", "focusin"]);
    const first = cells.findIndex((cell) => cell.className === "labelled");
    if (first > 0) go(first, false);
    const all = grid.lines.flat();
    const padding = all.filter((cell) => cell.padding).length;
    live.say(`${grid.name}: ${grid.lines.length} lines of ${width} places, ${padding} of ${all.length} are padding.`);
  };

  choices.append(LabViews.choice("The batch", data.grids.map(({ name }) => name), (i) => show(data.grids[i])));
  const key = element("p", { class: "view-note" }, "Strong: has a label. Weak: no label. Striped: padding. Underlined: what the chosen token sees.");
  stage.append(choices, LabViews.scroller("batch", box), live, key);
  show(data.grids[0]);
};
