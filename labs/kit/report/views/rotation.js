// RoPE: pairs of a query and a key as arrows; sliders move the key and the offset. The data:
//   q, k: the pairs [a, b], before any rotation
//   frequencies: of each pair, in radians per position
//   keys, offsets: the largest position of the key, the largest offset
LabViews.kinds.rotation = (stage, data) => {
  const { element } = LabViews;
  const { q, k, frequencies, keys, offsets } = data;
  const SIZE = 150; // pixels of a dial
  const RADIUS = 62;
  const longest = Math.max(...[...q, ...k].map(([a, b]) => Math.hypot(a, b)));
  let key = 0;
  let offset = 3;

  const turn = ([a, b], angle) => {
    const cos = Math.cos(angle);
    const sin = Math.sin(angle);
    return [a * cos - b * sin, a * sin + b * cos];
  };
  const signed = (x) => (x < 0 ? "−" : "+") + Math.abs(x).toFixed(3);

  const arrow = (kind) => ({
    line: element("line", { class: kind, x1: 0, y1: 0 }),
    tip: element("circle", { class: kind, r: 4.5 }),
    name: element("text", { class: kind }, kind),
  });
  const place = ({ line, tip, name }, [a, b]) => {
    const x = (RADIUS * a) / longest;
    const y = (-RADIUS * b) / longest; // the page's y axis points down
    const far = 1 + 9 / Math.max(Math.hypot(x, y), 1);
    line.setAttribute("x2", x);
    line.setAttribute("y2", y);
    tip.setAttribute("cx", x);
    tip.setAttribute("cy", y);
    name.setAttribute("x", x * far);
    name.setAttribute("y", y * far + 4);
  };

  const dials = q.map((_, i) => {
    const arrows = [arrow("k"), arrow("q")];
    const half = SIZE / 2;
    const svg = element(
      "svg",
      { class: "view-dial", viewBox: `${-half} ${-half} ${SIZE} ${SIZE}`, "aria-hidden": "true" },
      element("circle", { class: "rim", r: RADIUS }),
      element("line", { class: "rim", x1: -RADIUS, x2: RADIUS }),
      element("line", { class: "rim", y1: -RADIUS, y2: RADIUS }),
      ...arrows.flatMap(({ line, tip, name }) => [line, tip, name]),
    );
    const product = element("strong", {});
    const period = (2 * Math.PI) / frequencies[i];
    const turns = `a turn in ${period < 100 ? period.toFixed(1) : LabViews.thousands(Math.round(period))}`;
    const note = element("span", { class: "view-note" }, `${turns} tokens`);
    const title = element("span", { class: "view-title" }, `pair ${i}`);
    return { arrows, product, box: element("li", {}, title, svg, product, note) };
  });

  const live = LabViews.live();
  const total = element("dd");
  const numbers = element(
    "dl",
    { class: "view-numbers" },
    element("div", {}, element("dt", {}, "score q·k, the sum of the pairs"), total),
  );
  const draw = () => {
    let sum = 0;
    dials.forEach(({ arrows, product }, i) => {
      const [keyArrow, queryArrow] = arrows;
      const turnedKey = turn(k[i], frequencies[i] * key);
      const turnedQuery = turn(q[i], frequencies[i] * (key + offset));
      place(keyArrow, turnedKey);
      place(queryArrow, turnedQuery);
      const part = turnedQuery[0] * turnedKey[0] + turnedQuery[1] * turnedKey[1];
      product.textContent = signed(part);
      sum += part;
    });
    total.textContent = signed(sum);
    live.say(`Key at ${key}, query at ${key + offset}: offset ${offset}, score ${signed(sum)}.`);
  };

  const slider = (name, max, value, change) =>
    LabViews.slider(name, { min: 0, max, step: 1, value }, String, (next) => {
      change(next);
      draw();
    }).box;
  const controls = element(
    "div",
    { class: "view-row" },
    slider("position of the key", keys, key, (next) => (key = next)),
    slider("offset of the query", offsets, offset, (next) => (offset = next)),
  );
  stage.append(controls, element("ul", { class: "view-dials" }, ...dials.map(({ box }) => box)), numbers, live);
  draw();
};
