// Loss along a text that is longer than in training, by encoding: point at a place, or move the
// slider; buttons show and hide encodings. The data:
//   edges: of the places, in characters: place i reaches from edges[i] to edges[i + 1]
//   trained: the length in training
//   encodings: { name, losses }, the losses at each place
//   baseline: { name, losses }
LabViews.kinds.lengths = (stage, data) => {
  const { element, thousands } = LabViews;
  const { edges, trained, encodings, baseline } = data;
  const HEIGHT = 300;
  const TOP = 18;
  const LEFT = 40;
  const RIGHT = 78; // for the names
  const LABEL = 15; // pixels between two names
  const shown = encodings.map(() => true);
  let relative = true;
  let at = baseline.losses.length - 1;
  let width = 600;

  const value = (losses, i) => losses[i] - (relative ? baseline.losses[i] : 0);
  const signed = (x) => `${x < 0 ? "−" : relative ? "+" : ""}${Math.abs(x).toFixed(2)}`;
  const words = (i) => `${thousands(edges[i])} to ${thousands(edges[i + 1] - 1)}`;
  const visible = () => encodings.filter((_, i) => shown[i]);
  const middle = (i) => Math.sqrt(edges[i] * edges[i + 1]);

  const x = (place) => {
    const share = Math.log(place / edges[0]) / Math.log(edges.at(-1) / edges[0]);
    return LEFT + share * (width - LEFT - RIGHT);
  };
  const scale = () => {
    const lines = [...encodings, baseline].flatMap(({ losses }) => losses.map((_, i) => value(losses, i)));
    const low = Math.min(...lines) - 0.05;
    const high = Math.max(...lines) + 0.05;
    return { low, high, y: (loss) => TOP + ((high - loss) / (high - low)) * (HEIGHT - TOP) };
  };

  const svg = element("svg", { class: "view-lengths", role: "img" });
  svg.setAttribute("aria-label", "loss by place in the text, a line for each encoding");
  const cursor = element("line", { class: "cursor", y1: TOP, y2: HEIGHT });

  const grid = ({ low, high, y }) => {
    const parts = [];
    for (let loss = Math.ceil(low * 5) / 5; loss <= high; loss += 0.2) {
      parts.push(element("line", { x1: LEFT, x2: width - RIGHT, y1: y(loss), y2: y(loss) }));
      const text = (Math.round(loss * 10) / 10 + 0).toFixed(1).replace("-", "−");
      parts.push(element("text", { x: LEFT - 6, y: y(loss) + 4, "text-anchor": "end" }, text));
    }
    for (let place = edges[0]; place <= edges.at(-1); place *= 4) {
      parts.push(element("text", { x: x(place), y: HEIGHT + 16, "text-anchor": "middle" }, thousands(place)));
    }
    const end = { x: x(trained) - 5, y: TOP - 6, "text-anchor": "end" };
    parts.push(element("text", end, "trained to here"));
    parts.push(element("line", { class: "trained", x1: x(trained), x2: x(trained), y1: TOP - 14, y2: HEIGHT }));
    return element("g", { class: "grid" }, ...parts);
  };

  const draw = () => {
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT + 22}`);
    const scaled = scale();
    const ends = [];
    const lines = [baseline, ...visible()].map((line) => {
      const points = line.losses.map((_, i) => [x(middle(i)), scaled.y(value(line.losses, i))]);
      const path = points.map(([a, b], i) => `${i ? "L" : "M"}${a.toFixed(1)} ${b.toFixed(1)}`).join("");
      const kind = line === baseline ? "baseline" : `hue${encodings.indexOf(line)}`;
      ends.push({ name: line.name, y: points.at(-1)[1] });
      return element("path", { class: kind, d: path });
    });
    let free = -Infinity;
    const names = ends
      .sort((a, b) => a.y - b.y)
      .map(({ name, y }) => {
        free = Math.max(y + 4, free + LABEL);
        return element("text", { x: width - RIGHT + 8, y: free }, name);
      });
    svg.replaceChildren(grid(scaled), ...lines, ...names, cursor);
    show(at);
  };

  const numbers = encodings.map(({ name }) => {
    const number = element("dd");
    return { number, box: element("div", {}, element("dt", {}, name), number) };
  });
  const live = LabViews.live();
  const show = (next) => {
    at = next;
    cursor.setAttribute("x1", x(middle(at)));
    cursor.setAttribute("x2", x(middle(at)));
    numbers.forEach(({ number, box }, i) => {
      number.textContent = signed(value(encodings[i].losses, at));
      box.hidden = !shown[i];
    });
    const best = visible().sort((a, b) => a.losses[at] - b.losses[at])[0];
    const place = edges[at] < trained ? "as in training" : `beyond the ${thousands(trained)} of training`;
    const lowest = best ? `; ${best.name} has the lowest loss` : "";
    live.say(`Characters ${words(at)}, ${place}${lowest}.`);
  };

  const { box: slider, input } = LabViews.slider(
    "place in the text",
    { min: 0, max: at, step: 1, value: at },
    (i) => `characters ${words(i)}`,
    show,
  );
  const toggles = encodings.map(({ name }, i) => {
    const button = element("button", { type: "button", "aria-pressed": "true", class: `hue${i}` }, name);
    button.addEventListener("click", () => {
      shown[i] = !shown[i];
      button.setAttribute("aria-pressed", String(shown[i]));
      draw();
    });
    return button;
  });
  const measure = LabViews.choice("Loss", [`minus that of the ${baseline.name}`, "itself"], (i) => {
    relative = i === 0;
    draw();
  });
  const point = (event) => {
    if (event.type === "pointermove" && event.pointerType === "touch" && !event.buttons) return;
    const place = event.clientX - svg.getBoundingClientRect().left;
    const far = baseline.losses.map((_, i) => Math.abs(x(middle(i)) - place));
    input.set(far.indexOf(Math.min(...far)));
    show(Number(input.value));
  };
  svg.addEventListener("pointermove", point);
  svg.addEventListener("pointerdown", point);

  const choices = element("div", { class: "view-row view-toggles" }, ...toggles);
  const readout = element("dl", { class: "view-numbers" }, ...numbers.map(({ box }) => box));
  const heading = element("p", { class: "view-title" }, "Loss (nats per character), by place in the text");
  stage.append(choices, heading, svg, element("div", { class: "view-row" }, slider, measure), readout, live);
  new ResizeObserver(() => {
    width = svg.clientWidth || width;
    draw();
  }).observe(svg);
  draw();
};
