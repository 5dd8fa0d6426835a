// A 2 × 2 matrix moves the plane: drag its columns, or move the sliders of its entries. The data:
//   matrices: { name, entries }; the entries are a, b, c, d of the rows (a b) and (c d)

// Area factor, rank, and the singular values: the longest and the shortest image of a unit vector.
LabViews.plane = ([a, b, c, d]) => {
  const det = a * d - b * c;
  const sum = a * a + b * b + c * c + d * d;
  const split = Math.hypot(a * a + b * b - c * c - d * d, 2 * (a * c + b * d));
  const longest = Math.sqrt((sum + split) / 2);
  const shortest = longest > 0 ? Math.abs(det) / longest : 0;
  const rank = (longest > 1e-9) + (shortest > 1e-9);
  return { det, rank, longest, shortest };
};

LabViews.kinds.plane = (stage, data) => {
  const { element } = LabViews;
  const REACH = 3; // units from the centre to an edge
  const LINES = 12; // grid lines of the moved plane, on either side
  const STEP = 0.05; // of an entry
  const MOST = 2; // largest entry
  const F = [[0.25, 0.15], [0.25, 0.85], [0.75, 0.85], [0.25, 0.85], [0.25, 0.5], [0.6, 0.5]];
  const SQUARE = [[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]];
  const CIRCLE = Array.from({ length: 73 }, (_, i) => [Math.cos((i * Math.PI) / 36), Math.sin((i * Math.PI) / 36)]);
  const NAMES = ["a", "b", "c", "d"];
  let entries = [...data.matrices[0].entries];

  // Rounding leaves "-0.00" of a small negative number.
  const show = (value) => (Math.abs(value) < 0.005 ? 0 : value).toFixed(2).replace("-", "−");
  const move = ([x, y]) => [entries[0] * x + entries[1] * y, entries[2] * x + entries[3] * y];
  const path = (points) =>
    points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(3)} ${(-y).toFixed(3)}`).join("");
  const draw = (points, style) => element("path", { d: path(points), style: `fill: none; ${style}` });
  const grid = (to, reach, style) => {
    const lines = [];
    for (let at = -reach; at <= reach; at += 1) {
      lines.push(path([to([at, -reach]), to([at, reach])]), path([to([-reach, at]), to([reach, at])]));
    }
    return element("path", { d: lines.join(""), style: `fill: none; ${style}` });
  };

  const svg = element("svg", {
    viewBox: `${-REACH} ${-REACH} ${2 * REACH} ${2 * REACH}`,
    role: "img",
    style: "display: block; width: 100%; max-width: 30rem; margin: auto; overflow: hidden; cursor: crosshair",
  });
  const scene = element("g");
  svg.append(scene);

  const arrow = (tip, label, colour) => {
    const [x, y] = tip;
    const far = Math.hypot(x, y) || 1;
    const place = { x: x + (0.36 * x) / far, y: -y - (0.36 * y) / far + 0.07, "text-anchor": "middle" };
    const outline = "stroke: var(--v-card); stroke-width: .07; paint-order: stroke";
    return [
      draw([[0, 0], tip], `stroke: ${colour}; stroke-width: .06`),
      element("circle", { cx: x, cy: -y, r: 0.13, style: `fill: ${colour}; cursor: grab; touch-action: none` }),
      element("text", { ...place, style: `fill: var(--v-ink); font-size: .21px; ${outline}` }, label),
    ];
  };

  const numbers = ["area factor |ad − bc|", "rank", "longest stretch", "shortest stretch"].map((name) => {
    const value = element("dd");
    return { value, box: element("div", {}, element("dt", {}, name), value) };
  });
  const live = LabViews.live();

  const render = () => {
    const [a, b, c, d] = entries;
    const { det, rank, longest, shortest } = LabViews.plane(entries);
    const square = draw(SQUARE.map(move), "stroke: none");
    square.style.fill = "color-mix(in srgb, var(--v-warm) 35%, transparent)";
    scene.replaceChildren(
      grid((p) => p, REACH, "stroke: var(--v-line); stroke-width: .015"),
      grid(move, LINES, "stroke: var(--v-accent); stroke-width: .02; stroke-opacity: .55"),
      square,
      draw(F.map(move), "stroke: var(--v-ink); stroke-width: .06; stroke-linejoin: round"),
      draw(CIRCLE.map(move), "stroke: var(--v-soft); stroke-width: .03; stroke-dasharray: .08 .06"),
      ...arrow([a, c], "(a, c)", "var(--v-accent)"),
      ...arrow([b, d], "(b, d)", "var(--v-warm)"),
    );
    const [area, ranks, long, short] = [show(Math.abs(det)), String(rank), show(longest), show(shortest)];
    [area, ranks, long, short].forEach((text, i) => {
      numbers[i].value.textContent = text;
    });
    svg.setAttribute("aria-label", `the plane moved by the rows (${show(a)} ${show(b)}) and (${show(c)} ${show(d)})`);
    const side = rank < 2 ? `flat: the plane lands on a ${rank ? "line" : "point"}` : det < 0 ? "mirrored" : "not mirrored";
    live.say(`Rows (${show(a)} ${show(b)}) and (${show(c)} ${show(d)}): areas times ${area}, ${side}, rank ${ranks}.`);
  };

  const sliders = NAMES.map((name, i) =>
    LabViews.slider(name, { min: -MOST, max: MOST, step: STEP, value: entries[i] }, show, (value) => {
      entries[i] = value;
      render();
    }),
  );
  const set = (next) => {
    entries = [...next];
    sliders.forEach(({ input }, i) => input.set(entries[i]));
    render();
  };

  // Drag the tip of a column.
  const pointAt = (event) => {
    const { left, top, width } = svg.getBoundingClientRect();
    const unit = width / (2 * REACH);
    return [(event.clientX - left) / unit - REACH, REACH - (event.clientY - top) / unit];
  };
  let held = null; // the index of the column
  svg.addEventListener("pointerdown", (event) => {
    const [x, y] = pointAt(event);
    const far = [0, 1].map((i) => Math.hypot(entries[i] - x, entries[i + 2] - y));
    const near = far[0] <= far[1] ? 0 : 1;
    if (far[near] > 0.4) return;
    held = near;
    svg.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  svg.addEventListener("pointermove", (event) => {
    if (held === null) return;
    const next = [...entries];
    pointAt(event).forEach((value, i) => {
      const bounded = Math.max(-MOST, Math.min(MOST, value));
      next[held + 2 * i] = Number((Math.round(bounded / STEP) * STEP).toFixed(2));
    });
    set(next);
  });
  for (const kind of ["pointerup", "pointercancel"]) {
    svg.addEventListener(kind, () => {
      held = null;
    });
  }

  const choose = LabViews.choice("Start from", data.matrices.map((one) => one.name), (i) => set(data.matrices[i].entries));
  const rows = [0, 2].map((i) => element("div", { class: "view-row" }, sliders[i].box, sliders[i + 1].box));
  const note = "Rows (a b) and (c d). Drag a dot, or move the sliders. Grey: the plane before.";
  const controls = element(
    "div",
    { class: "view-controls" },
    element("p", { class: "view-note" }, note),
    ...rows,
    element("dl", { class: "view-numbers" }, ...numbers.map((one) => one.box)),
  );
  stage.append(choose, element("div", { class: "view-columns" }, svg, controls), live);
  render();
};
